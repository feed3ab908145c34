"""Compares an ensemble with each of its signals: held-out AUC and calibration on labelled tweets.

    python -m benchmarks.ensemble

The task is that of the toxicity data: harmless (4,163) against hate or offensive (20,620). Half of the tweets (by a
hash of their text) train a fastText classifier; on the other half the classifier, the perplexity under a model of
WikiText-2 and Gopher's statistics are the signals: an ensemble is fitted on 70 % of it and measured on the rest.
"""

from __future__ import annotations

import csv
import tempfile
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from benchmarks import crawl_texts
from curation.document import clean_text
from curation.quality.classifier.classifier import Classifier
from curation.quality.classifier.train import fit
from curation.quality.ensemble.train import train_ensemble
from curation.quality.heuristics.heuristics import Heuristics
from curation.quality.ngram import estimate
from curation.quality.perplexity.perplexity import Perplexity

SIGNALS = [
    "classifier.harmless",
    "perplexity.value",
    "heuristics.words",
    "heuristics.mean_word_length",
    "heuristics.alpha_words",
    "heuristics.stop_words",
]


def main() -> None:
    warnings.simplefilter("ignore")
    with open(crawl_texts.DATA / "toxicity" / "labeled_data.csv", newline="", encoding="utf-8") as file:
        rows = [("harmless" if r["class"] == "2" else "toxic", clean_text(r["tweet"])) for r in csv.DictReader(file)]
    second = [xxhash.xxh3_64_intdigest(text.encode(), seed=1) % 2 == 1 for _, text in rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        estimate.train_ngram([str(crawl_texts.DATA / "lm" / "wikitext2_valid.txt")], 3, str(folder / "w.arpa"))
        first = [row for row, later in zip(rows, second, strict=True) if not later]
        options = {"dim": 16, "wordNgrams": 1, "bucket": 0, "epoch": 5}
        made = fit(first, str(folder / "c.bin"), options=options)
        harmless = next(row for row in made.labels if row.label == "harmless").metrics
        print(f"classifier by itself, a tenth of its half held out: AUC {harmless.auc:.4f}, ECE {harmless.ece:.4f}")
        steps = (
            Classifier(model=str(folder / "c.bin"), labels=["harmless"]),
            Perplexity(model=str(folder / "w.arpa")),
            Heuristics(sets=["gopher"]),
        )
        for step in steps:
            step.open()
        for label in ("harmless", "toxic"):
            texts = [text for (of, text), later in zip(rows, second, strict=True) if later and of == label]
            batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
            for step in steps:
                batch = step(batch)
            pq.write_table(pa.Table.from_batches([batch]), folder / f"{label}.parquet")
        sources = {label: [str(folder / f"{label}.parquet")] for label in ("harmless", "toxic")}
        fitted = train_ensemble(sources, SIGNALS, str(folder / "e.json"), label="harmless", share=0.3)
        print(f"fitted on {fitted.trained:,} tweets of the other half, held out {fitted.metrics.samples:,}:")
        for signal, area in fitted.alone:
            print(f"  {signal:<28} AUC {area:.4f}")
        print(f"  {'ensemble':<28} AUC {fitted.metrics.auc:.4f}, ECE {fitted.metrics.ece:.4f}")


if __name__ == "__main__":
    main()
