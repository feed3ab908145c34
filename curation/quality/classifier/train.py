"""Trains a fastText classifier and writes a card with held-out metrics, by which a threshold can be chosen.

DCLM's method (Li et al. 2024, section 4.4): positives are texts that a good document should resemble (there 200,000
instruction and explain-it-to-me texts), negatives are as many documents drawn at random from the crawl; features are
words and word bigrams; the threshold is the score that keeps the best tenth of the crawl, a quantile, not a
probability.

A sample is held out by a hash of its text, so a text that occurs twice is on one side only and the split does not
depend on the order of the files; samples are sorted by that hash before training. fastText is made deterministic by one
thread (its threads race on the weights), a fixed seed, and a process of its own whose memory is zeroed. The last is
needed because on one thread version 0.9.3 initializes only a tenth of the input matrix and leaves the rest as malloc
returned it, so that in a process that has freed memory before, models differ from run to run and some training runs end
in "Encountered NaN".
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from curation import models
from curation.core import atomic_files
from curation.core.errors import UserError
from curation.fasttext_classifier import LABEL_PREFIX
from curation.quality import held_out_metrics, training_texts
from curation.quality.classifier.classifier import label_probabilities, to_one_line

_PROGRAM = """
import json, sys, fasttext
order = json.loads(sys.argv[1])
model = fasttext.train_supervised(order["input"], thread=1, seed=17, verbose=0, **order["options"])
if order["quantise"]:
    model.quantize(input=order["input"], retrain=True, cutoff=order["cutoff"], thread=1, verbose=0)
model.save_model(order["out"])
"""
_ZEROED = {"MALLOC_PERTURB_": "255"}  # glibc fills new allocations with the complement of this byte
_CUTOFF = 100_000  # a quantised model keeps this many words and word n-grams, those with the largest vectors


@dataclass(frozen=True)
class LabelReport:
    """Held-out metrics of one label against all others."""

    label: str
    trained: int
    metrics: held_out_metrics.HeldOutMetrics


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained classifier and its metrics on held-out samples."""

    path: str
    size: int
    labels: tuple[LabelReport, ...]  # sorted by label
    accuracy: float
    card: str  # path of the card beside it


def train_classifier(
    sources: Mapping[str, Sequence[str]],
    out: str,
    *,
    field: str = "text",
    share: float = 0.1,
    epochs: int = 5,
    dimensions: int = 100,
    word_ngrams: int = 2,
    min_count: int = 1,
    learning_rate: float = 0.1,
    buckets: int = 2_000_000,
    quantise: bool = False,
) -> TrainedClassifier:
    """Trains a classifier for `gristmill models train classifier` and writes it to `out`, its card to `out`.md.

    sources   label -> files (text, JSONL, Parquet; folders or globs)
    share     share of the samples that is held out
    quantise  makes the file about ten times smaller, for about one point of accuracy
    The others are fastText's arguments with its defaults, except word bigrams, as in DCLM.

    Raises UserError for fewer than two labels, or a label without samples.
    """
    pairs = ((label, text) for label, paths in sources.items() for text in training_texts.read_texts(paths, field))
    options = {
        "epoch": epochs,
        "dim": dimensions,
        "wordNgrams": word_ngrams,
        "minCount": min_count,
        "lr": learning_rate,
        "bucket": buckets if word_ngrams > 1 else 0,
    }
    return fit(pairs, out, share=share, options=options, quantise=quantise)


def fit(
    pairs: Iterable[tuple[str, str]],
    out: str,
    *,
    share: float = 0.1,
    options: Mapping[str, Any] | None = None,
    quantise: bool = False,
) -> TrainedClassifier:
    """Trains on (label, text) pairs; `options` go to fastText's train_supervised. Raises as `train_classifier`."""
    if not 0 < share < 1:
        raise UserError(f"held-out share {share}: expected a number between 0 and 1")
    train: list[tuple[int, str, str]] = []
    test: list[tuple[int, str, str]] = []
    for label, text in pairs:
        if not label or any(c.isspace() for c in label):
            raise UserError(f"label {label!r}: fastText labels must not be empty or contain white space")
        line = " ".join(to_one_line(text).split())
        if not line:
            continue
        key = xxhash.xxh3_64_intdigest(line.encode("utf-8", "replace"))
        (test if key < share * 2.0**64 else train).append((key, label, line))
    labels = sorted({label for _, label, _ in train})
    wanted = sorted({label for _, label, _ in test} | set(labels))
    if len(labels) < 2 or wanted != labels:
        raise UserError(f"a classifier needs training samples of two labels or more; found {labels or 'none'}")
    train.sort()
    test.sort()
    with tempfile.TemporaryDirectory(prefix="gristmill-classifier-") as folder:
        path = os.path.join(folder, "train.txt")
        with open(path, "w", encoding="utf-8", errors="replace", newline="\n") as f:
            f.writelines(f"{LABEL_PREFIX}{label} {line}\n" for _, label, line in train)
        made = os.path.join(folder, "model")
        order = {"input": path, "out": made, "quantise": quantise, "cutoff": _CUTOFF, "options": dict(options or {})}
        command = [sys.executable, "-c", _PROGRAM, json.dumps(order)]
        done = subprocess.run(command, env=os.environ | _ZEROED, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise UserError(
                f"fastText could not train on {len(train)} samples: {lines[-1] if lines else done.returncode}"
            )
        with atomic_files.replacing(out) as temporary:
            shutil.copyfile(made, temporary)
    model = models.load_fasttext(os.path.abspath(out))
    found = [row or {} for row in label_probabilities(model, [line for _, _, line in test])]
    truth = np.array([label for _, label, _ in test], dtype=object)
    reports = []
    for label in labels:
        values = np.array([row.get(label, 0.0) for row in found], np.float64)
        count = sum(1 for _, name, _ in train if name == label)
        reports.append(LabelReport(label, count, held_out_metrics.measure_scores(values, truth == label)))
    best = np.array([max(row, key=row.__getitem__, default="") for row in found], dtype=object)
    accuracy = float((best == truth).mean()) if len(test) else float("nan")
    trained = TrainedClassifier(out, os.path.getsize(out), tuple(reports), accuracy, f"{out}.md")
    facts = {"samples": len(train), "held_out": len(test), "quantised": quantise, "options": dict(options or {})}
    held_out_metrics.write_card(out, _card(trained, facts))
    return trained


def _card(made: TrainedClassifier, facts: Mapping[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in sorted(facts["options"].items())) or "fastText's defaults"
    labels = ", ".join(f"`{row.label}`" for row in made.labels)
    parts = [
        f"# {os.path.basename(made.path)}",
        f"A fastText classifier of the labels {labels} for the step `classifier`: {made.size:,} bytes"
        f"{', quantised' if facts['quantised'] else ''}, SHA-256 `{models.sha256(os.path.abspath(made.path))}`.",
        "## Training",
        f"{facts['samples']:,} samples, each on one line as it is ({options}); one thread and a fixed seed, so the "
        "same samples in the same environment give the same bytes. A text that occurs twice counts twice.",
        "## Held-out metrics",
        f"{facts['held_out']:,} samples, chosen by a hash of their text before training: accuracy {made.accuracy:.3f}.",
        held_out_metrics.summary_table([(row.label, row.trained, row.metrics) for row in made.labels]),
        "AUC: how often a sample of the label scores higher than one of another label. ECE: how far the probability is "
        "from the true share, on average. Both hold for samples like these, in the same proportions; a crawl differs. "
        "fastText is often overconfident: choose a threshold by the tables and on your own documents.",
    ]
    for row in made.labels:
        parts += [f"### `{row.label}` at a threshold", held_out_metrics.threshold_table(row.metrics)]
    return "\n\n".join(parts)
