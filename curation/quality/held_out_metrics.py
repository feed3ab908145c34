"""Measures a score on held-out samples: AUC, expected calibration error, and precision and recall at thresholds.

AUC measures how well a score ranks samples, whatever its size. The expected calibration error measures how far a
probability is from the true share (Guo et al. 2017, section 2: samples in bins of equal width, the absolute difference
between mean score and true share in each, weighted by their numbers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curation.core import atomic_files

THRESHOLDS = (*(i / 20 for i in range(1, 20)), 0.99)
BINS = 15  # as in the paper

Values = npt.NDArray[np.float64]
Truth = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ThresholdMetrics:
    """Precision and recall of a rule `score >= threshold` on the held-out samples."""

    threshold: float
    precision: float  # nan where nothing is selected
    recall: float
    selected: float  # share of all held-out samples


@dataclass(frozen=True)
class HeldOutMetrics:
    """Metrics of one score on held-out samples."""

    positives: int  # samples of the label
    samples: int  # all held-out samples
    auc: float  # area under the ROC curve: how often a positive scores higher than a negative; nan without either
    ece: float  # expected calibration error; nan without samples
    thresholds: tuple[ThresholdMetrics, ...]


def measure_scores(values: Values, positive: Truth) -> HeldOutMetrics:
    """All metrics; values: (n,) in [0, 1]; positive: (n,)."""
    thresholds = []
    for threshold in THRESHOLDS:
        chosen = values >= threshold
        hits, count = int((chosen & positive).sum()), int(chosen.sum())
        thresholds.append(
            ThresholdMetrics(
                threshold,
                hits / count if count else float("nan"),
                hits / int(positive.sum()) if positive.any() else float("nan"),
                count / len(values) if len(values) else float("nan"),
            )
        )
    return HeldOutMetrics(
        int(positive.sum()),
        len(values),
        auc(values, positive),
        expected_calibration_error(values, positive),
        tuple(thresholds),
    )


def auc(values: Values, positive: Truth) -> float:
    """Area under the ROC curve by ranks (Mann & Whitney), ties counting half; nan without positives or negatives."""
    yes, no = int(positive.sum()), int((~positive).sum())
    if not yes or not no:
        return float("nan")
    ordered = np.sort(values)
    rank = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right") + 1) / 2
    return float((rank[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


def expected_calibration_error(values: Values, positive: Truth) -> float:
    """sum over bins of |sum of values - positives| / n; nan without samples."""
    if not len(values):
        return float("nan")
    bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(bins, values, BINS) - np.bincount(bins, positive.astype(np.float64), BINS)
    return float(np.abs(gap).sum() / len(values))


def threshold_table(measured: HeldOutMetrics) -> str:
    """The thresholds as a Markdown table."""
    rows = ["| threshold | selected | precision | recall |", "|---|---|---|---|"]
    for cut in measured.thresholds:
        cells = (_three_decimals(cut.selected), _three_decimals(cut.precision), _three_decimals(cut.recall))
        rows.append(f"| {cut.threshold:.2f} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _three_decimals(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def summary_table(rows: Sequence[tuple[str, int, HeldOutMetrics]]) -> str:
    """(label, training samples, metrics) as a Markdown table."""
    lines = ["| label | trained on | held out | AUC | ECE |", "|---|---|---|---|---|"]
    for label, trained, measured in rows:
        lines.append(
            f"| {label} | {trained:,} | {measured.positives:,} of {measured.samples:,} "
            f"| {_three_decimals(measured.auc)} | {_three_decimals(measured.ece)} |"
        )
    return "\n".join(lines)


def write_card(model: str, text: str) -> str:
    """Writes the card of a model file atomically: `quality.bin` has `quality.bin.md`. Returns its path."""
    path = f"{model}.md"
    with atomic_files.replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text.rstrip("\n") + "\n")
    return path
