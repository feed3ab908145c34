"""Measures language ID: speed against fastText alone, accuracy on labelled sentences, agreement with datatrove.

    python -m benchmarks.language [--languages]

Speed: the pages of the test crawl, one process; ours and the bare model's `predict` on a list take turns, and the best
round of each counts. "Bare" is given prepared lines; ours takes Arrow batches and gives Arrow columns.
Accuracy: 75 languages with 150 sentences each (lid/sentences.tsv); Norwegian counts as one (lid.176 has `no` and `nn`).
Agreement: FineWeb's rule (English, at least 0.65) against datatrove's LanguageFilter with the same model file. fastText
0.9.3 cannot be given a single string under numpy 2, so datatrove's model object is given the string in a list.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from importlib.metadata import version
from itertools import pairwise
from typing import Any

from benchmarks import crawl_texts
from curation import models
from curation.quality.language import Language

SAME = {"nb": "no", "nn": "no"}
LENGTHS = (0, 20, 40, 80, 160, 10_000)


class Listed:
    """A fastText model that takes one string, as datatrove calls it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, text: str, k: int = 1) -> tuple[Any, Any]:
        labels, scores = self._model.predict([text], k=k)
        return labels[0], scores[0]


def speed(batches: list[Any], rounds: int = 3) -> None:
    bare = models.load_fasttext("lid.176")
    size = crawl_texts.megabytes(batches)
    lines = [[text.replace("\n", " ") for text in batch.column("text").to_pylist()] for batch in batches]
    steps = {
        "step": Language(),
        "step, second label": Language(second=True),
        "step, paragraphs": Language(paragraphs=True),
    }
    for step in steps.values():
        step.open()
    contenders = {"fastText bare": lambda i: bare.predict(lines[i], k=1)}
    contenders |= {name: lambda i, step=step: step(batches[i]) for name, step in steps.items()}
    best = {name: [1e9] * len(batches) for name in contenders}
    for _ in range(rounds):
        for i in range(len(batches)):
            for name, run in contenders.items():
                begin = time.process_time()
                run(i)
                best[name][i] = min(best[name][i], time.process_time() - begin)
    print(f"{size:.1f} MB of text; CPU seconds of one process, the best of {rounds} of each batch")
    for name, times in best.items():
        print(f"  {name:<20} {size / sum(times):6.2f} MB/s  {sum(best['fastText bare']) / sum(times):5.2f} x bare")


def accuracy(each: bool) -> None:
    path = crawl_texts.DATA / "lid" / "sentences.tsv"
    rows = [line.split("\t", 1) for line in path.read_text(encoding="utf-8").split("\n") if line]
    truth = [SAME.get(code, code) for code, _ in rows]
    bare = models.load_fasttext("lid.176")
    known = {SAME.get(label, label) for label in (name.removeprefix("__label__") for name in bare.get_labels())}
    plain = [
        SAME.get(c, c) for c in (label[0].removeprefix("__label__") for label in bare.predict([t for _, t in rows])[0])
    ]
    step = Language()
    step.open()
    import pyarrow as pa

    out = step(pa.record_batch({"text": pa.array([t for _, t in rows], pa.large_string())})).column("language")
    ours = [SAME.get(row["code"], row["code"]) for row in out.to_pylist()]
    score = [row["score"] for row in out.to_pylist()]

    def right(codes: list[str], chosen: list[int]) -> str:
        return f"{sum(codes[i] == truth[i] for i in chosen) / len(chosen):.4f}" if chosen else "-"

    everything = list(range(len(rows)))
    possible = [i for i in everything if truth[i] in known]
    print(f"\naccuracy on {len(rows):,} sentences of {len(set(truth))} languages: ours, bare")
    print(f"  all                          {right(ours, everything)}  {right(plain, everything)}")
    absent = sorted(set(truth) - known)
    print(
        f"  languages the model has      {right(ours, possible)}  {right(plain, possible)}   (not {', '.join(absent)})"
    )
    for low, high in pairwise(LENGTHS):
        some = [i for i in possible if low <= len(rows[i][1]) < high]
        sure = [i for i in some if score[i] >= 0.65]
        part = (
            f"{len(sure) / len(some):.2f} of them at 0.65 or more, {right(ours, sure)} of these right" if some else ""
        )
        print(
            f"  {low:>4} to {high:>6} characters     {right(ours, some)}  {right(plain, some)}   ({len(some)}; {part})"
        )
    if each:
        total, hits, hits_bare = Counter(truth), Counter[str](), Counter[str]()
        for i in everything:
            hits[truth[i]] += ours[i] == truth[i]
            hits_bare[truth[i]] += plain[i] == truth[i]
        cells = [f"{c} {hits[c] / total[c]:.3f} {hits_bare[c] / total[c]:.3f}" for c in sorted(total)]
        for at in range(0, len(cells), 5):
            print("  " + "   ".join(f"{cell:<16}" for cell in cells[at : at + 5]))


def agreement(batches: list[Any]) -> tuple[int, int]:
    """Documents, and those on which FineWeb's rule and datatrove's filter agree."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import LanguageFilter

    LanguageFilter._requires_dependencies = []  # it insists on another distribution of fastText
    theirs = LanguageFilter(languages=["en"], language_threshold=0.65)
    theirs.model._model = Listed(models.load_fasttext("lid.176"))
    step = Language()
    step.open()
    documents = equal = 0
    for batch in batches:
        for text, row in zip(batch.column("text").to_pylist(), step(batch).column("language").to_pylist(), strict=True):
            kept = row["code"] == "en" and row["score"] >= 0.65
            documents += 1
            equal += kept == bool(theirs.filter(Document(text=text, id="")))
    return documents, equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--languages", action="store_true", help="accuracy of each language as well: ours, bare")
    parser.add_argument("--quick", action="store_true", help="leave out the speed")
    options = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("fasttext", "datatrove", "numpy", "pyarrow"))
    print(f"lid.176 (the quantised model); Python {sys.version.split()[0]}, {versions}")
    batches = crawl_texts.batches()
    if not options.quick:
        speed(batches)
    accuracy(options.languages)
    documents, equal = agreement(batches)
    share = f"{equal:,} of {documents:,} pages ({equal / documents:.4%})"
    print(f"\nFineWeb's rule and datatrove's LanguageFilter agree on {share}")


if __name__ == "__main__":
    main()
