"""How good a score is, on samples that it never saw: ranking, calibration, and what each threshold would do.

AUC says how well a score ranks, and nothing about its size; the expected calibration error says how far a probability
is from the share that is really so (Guo et al. 2017, section 2: samples in bins of equal width, the difference of mean
score and true share in each, averaged by their numbers).
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

THRESHOLDS = (*(i / 20 for i in range(1, 20)), 0.99)
BINS = 15  # as in the paper

Values = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Cut:
    """What a rule `score >= threshold` would do to the held-out samples."""

    threshold: float
    precision: float  # nan where nothing is selected
    recall: float
    selected: float  # share of all held-out samples


@dataclass(frozen=True)
class Figures:
    """Held-out figures of one score against the truth."""

    held_out: int  # positive samples
    samples: int  # all of them
    auc: float  # area under the ROC curve: how often a positive sample outranks another; nan without either
    ece: float  # expected calibration error; nan without samples
    cuts: tuple[Cut, ...]


def figures(values: Values, positive: Truth) -> Figures:
    """Everything of the above; values: (n,) in [0, 1]."""
    cuts = []
    for threshold in THRESHOLDS:
        chosen = values >= threshold
        hits, count = int((chosen & positive).sum()), int(chosen.sum())
        cuts.append(
            Cut(
                threshold,
                hits / count if count else float("nan"),
                hits / int(positive.sum()) if positive.any() else float("nan"),
                count / len(values) if len(values) else float("nan"),
            )
        )
    return Figures(int(positive.sum()), len(values), auc(values, positive), ece(values, positive), tuple(cuts))


def auc(values: Values, positive: Truth) -> float:
    """Area under the ROC curve by ranks (Mann & Whitney), ties counting half; nan where a side is empty."""
    yes, no = int(positive.sum()), int((~positive).sum())
    if not yes or not no:
        return float("nan")
    ordered = np.sort(values)
    rank = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right") + 1) / 2
    return float((rank[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def ece(values: Values, positive: Truth) -> float:
    """sum over bins of |sum of values - positives| / n; nan without samples."""
    if not len(values):
        return float("nan")
    bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(bins, values, BINS) - np.bincount(bins, positive.astype(np.float64), BINS)
    return float(np.abs(gap).sum() / len(values))


def table(measured: Figures) -> str:
    """The thresholds as a Markdown table."""
    rows = ["| threshold | selected | precision | recall |", "|---|---|---|---|"]
    for cut in measured.cuts:
        cells = (_shown(cut.selected), _shown(cut.precision), _shown(cut.recall))
        rows.append(f"| {cut.threshold:.2f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _shown(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def summary(rows: Sequence[tuple[str, int, Figures]]) -> str:
    """(label, samples trained on, figures) as a Markdown table."""
    lines = ["| label | trained on | held out | AUC | ECE |", "|---|---|---|---|---|"]
    for label, trained, measured in rows:
        lines.append(
            f"| {label} | {trained:,} | {measured.held_out:,} of {measured.samples:,} "
            f"| {_shown(measured.auc)} | {_shown(measured.ece)} |"
        )
    return "\n".join(lines)


def write_card(model: str, text: str) -> str:
    """Writes the card of a model file beside it, whole or not at all; its path: `quality.bin` has `quality.bin.md`."""
    path = f"{model}.md"
    temporary = f"{path}.{uuid.uuid4().hex[:12]}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text.rstrip("\n") + "\n")
    os.replace(temporary, path)
    return path
