"""Trains the bundled toxicity model: `python -m curation.safety.toxicity.train labeled_data.csv`.

The data are the tweets of Davidson et al. 2017 ("Automated Hate Speech Detection and the Problem of Offensive
Language", ICWSM; MIT licence): class 0 hate speech, 1 offensive language, 2 neither. They stay out of the repository;
it holds the quantised model, the facts beside it, and the card with the metrics that this script prints.

Splits are by the SHA-256 of the tweet: a fifth is held out and used only for the table at the end, a twentieth of the
rest sets the threshold, the model is trained on the remainder. The same file gives the same model, byte for byte.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.safety.toxicity.fasttext_model import BUNDLED, cut_words, prepare_words

LABELS = ("hate", "offensive", "neither")
TOXIC = LABELS[:2]
RECALL = 0.93  # on the tweets that set the threshold, so that it is above 0.9 on held-out ones


def part(tweet: str) -> str:
    """The split of a tweet: held_out, threshold or train."""
    number = int.from_bytes(hashlib.sha256(tweet.encode()).digest()[:8], "big")
    if number % 5 == 0:
        return "held_out"
    return "threshold" if number // 5 % 20 == 0 else "train"


def read_tweets(path: str | Path, wanted: str) -> list[tuple[str, str]]:
    """(label, tweet) of one split, in the file's order."""
    with open(path, encoding="utf-8", newline="") as f:
        rows = [(LABELS[int(row["class"])], row["tweet"]) for row in csv.DictReader(f)]
    return [(label, tweet) for label, tweet in rows if part(tweet) == wanted]


def neutral_sentences() -> list[tuple[str, str]]:
    """spaCy's example sentences in about seventy languages (MIT licence), as texts that are neither hate nor offensive.

    Most tweets are offensive, so without them text in other languages tends to be flagged. With them and with `<unk>`
    for unknown words one page of the crawl is flagged; without either 1.1 % were, nearly all short and not English.
    """
    import spacy.lang

    sentences = []
    for language in sorted(m.name for m in pkgutil.iter_modules(spacy.lang.__path__) if m.ispkg):
        try:
            examples = importlib.import_module(f"spacy.lang.{language}.examples")
        except ModuleNotFoundError:
            continue
        sentences += [(LABELS[2], " ".join(s.split())) for s in examples.sentences]
    return sentences


def auc(scores: Sequence[float], toxic: Sequence[bool]) -> float:
    """Area under the ROC curve: the chance that a toxic text scores above another, ties counting half."""
    order = sorted(range(len(scores)), key=scores.__getitem__)
    ranks, i = [0.0] * len(scores), 0
    while i < len(order):
        j = i
        while j < len(order) and scores[order[j]] == scores[order[i]]:
            j += 1
        for k in order[i:j]:
            ranks[k] = (i + j + 1) / 2
        i = j
    positives = sum(toxic)
    total = sum(r for r, t in zip(ranks, toxic, strict=True) if t)
    return (total - positives * (positives + 1) / 2) / (positives * (len(toxic) - positives))


def toxic_scores(model: Any, tweets: Sequence[tuple[str, str]]) -> list[float]:
    """Probability of hate plus offensive for each tweet."""
    known = set(model.get_words())
    labels, probabilities = model.predict([prepare_words(t, known) for _, t in tweets], k=-1)
    return [
        float(sum(p for name, p in zip(ls, ps, strict=True) if name.removeprefix("__label__") in TOXIC))
        for ls, ps in zip(labels, probabilities, strict=True)
    ]


def train(data: str, out: Path) -> None:
    """Writes toxicity-en.ftz and toxicity-en.json into `out` and prints the held-out table."""
    import fasttext

    with tempfile.TemporaryDirectory() as scratch:
        lines = os.path.join(scratch, "train.txt")
        texts = [*read_tweets(data, "train"), *neutral_sentences()]
        counts = Counter(word for _, text in texts for word in cut_words(text))
        known = {word for word, n in counts.items() if n > 1}
        with open(lines, "w", encoding="utf-8") as f:
            f.writelines(f"__label__{label} {prepare_words(text, known)}\n" for label, text in texts)
        # Single words: pairs share hash buckets, where any foreign text hits trained ones (false alarms on the crawl
        # at 0.91 recall: 0.20 % of pages, against 0.15 %), and gain nothing (AUC 0.979 against 0.981).
        options = {"dim": 32, "wordNgrams": 1, "bucket": 0, "minCount": 1, "epoch": 5, "lr": 0.1}
        model = fasttext.train_supervised(lines, **options, thread=1, seed=1, verbose=0)
        model.quantize(lines, qnorm=True, retrain=False, cutoff=30_000, thread=1)
    path = out / f"{BUNDLED}.ftz"
    model.save_model(str(path))

    tuning = read_tweets(data, "threshold")
    toxic = sorted((s for s, (c, _) in zip(toxic_scores(model, tuning), tuning, strict=True) if c in TOXIC))
    threshold = round(toxic[int(len(toxic) * (1 - RECALL))], 3)
    stored = path.read_bytes()
    facts = {
        "bytes": len(stored),
        "labels": list(TOXIC),
        "sha256": hashlib.sha256(stored).hexdigest(),
        "threshold": threshold,
    }
    (out / f"{BUNDLED}.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")

    held_out = read_tweets(data, "held_out")
    scores = toxic_scores(model, held_out)
    flags = [c in TOXIC for c, _ in held_out]
    flagged = [s >= threshold for s in scores]
    hits = sum(f and t for f, t in zip(flagged, flags, strict=True))
    print(f"held out: {len(held_out)} tweets, AUC {auc(scores, flags):.4f}, threshold {threshold}")
    print(f"toxic: precision {hits / sum(flagged):.4f}, recall {hits / sum(flags):.4f}")
    for label in LABELS:
        those = [f for f, (c, _) in zip(flagged, held_out, strict=True) if c == label]
        some = [(s, c == label) for s, (c, _) in zip(scores, held_out, strict=True) if c in (label, LABELS[2])]
        against = f", AUC against neither {auc(*zip(*some, strict=True)):.4f}" if label in TOXIC else ""
        print(f"{label}: {len(those)} tweets, flagged {sum(those) / len(those):.4f}{against}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", help="labeled_data.csv of Davidson et al. 2017")
    parser.add_argument("--out", default=str(Path(__file__).parent), help="folder for the model (default: the package)")
    given = parser.parse_args()
    # With one thread (the only deterministic way) fastText 0.9.3 initialises a tenth of its matrix and reads the rest
    # as malloc left it: garbage, often NaN. A low mmap threshold makes every matrix fresh pages, which are zero.
    clean = "MALLOC_MMAP_THRESHOLD_"
    if clean not in os.environ:
        again = [sys.executable, "-m", "curation.safety.toxicity.train", given.data, "--out", given.out]
        sys.exit(subprocess.run(again, env={**os.environ, clean: "65536"}, check=False).returncode)
    train(given.data, Path(given.out))


if __name__ == "__main__":
    main()
