"""Checks the loss of a running training against the curve that a ladder of smaller runs predicts for its size.

The scaling law predicts the final loss. Before that, runs of one schedule have the same shape: log (loss / final loss)
over the share of steps done is nearly one curve for all sizes (Qiu et al. 2025, arXiv 2507.02119). At each share the
ladder's runs give the value of that curve and its trend with size, as a straight line in log N; the scatter around it
gives the width of the band. A run has left the band when its smoothed loss stays outside for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.core.errors import UserError
from pipelines.experiments.scaling import live_run
from pipelines.experiments.scaling.fitted_law import Fit
from pipelines.experiments.scaling.live_run import Curve
from pipelines.experiments.scaling.scaling_law import Floats

SPAN = 0.04  # share of all steps that is averaged to smooth the loss
BEGIN = 0.15  # share of steps before which warm-up and noise are too large to judge
SIGMAS = 4.0  # half-width of the band
LASTING = 0.03  # share of all steps that the loss must stay outside the band
FLOOR = 0.01  # minimum scatter of log loss: a few runs are too small a sample to estimate less


@dataclass(frozen=True)
class Expected:
    """The predicted loss over the steps of a run, with its band."""

    step: Floats
    loss: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Departure:
    """Where a run left the band: the first step outside, its loss, and the prediction there."""

    step: int
    loss: float
    predicted: float
    low: float
    high: float

    @property
    def message(self) -> str:
        side = "above" if self.loss > self.high else "below"
        return (
            f"from step {self.step:,} on the loss is {side} the predicted band: {self.loss:.3f}, expected "
            f"{self.predicted:.3f} ({self.low:.3f} to {self.high:.3f})\n"
            f"  see which data was read there: gristmill data inspect-step DIR --step {self.step}"
        )


def ladder_curves(folder: str) -> list[Curve]:
    """The finished runs in a ladder's folder. Raises UserError for fewer than three."""
    places = sorted(f.parent for f in Path(folder).glob("*/metrics.jsonl"))
    curves = [live_run.loss_curve(p) for p in places if live_run.final_point(p) is not None]
    if len(curves) < 3:
        raise UserError(f"{folder} has {len(curves)} finished runs; at least three are needed to predict a curve")
    return curves


def predict_band(fit: Fit, ladder: Sequence[Curve], run: Curve) -> Expected:
    """The curve that the ladder predicts for a run of this size and length."""
    shares = np.linspace(SPAN, 1.0, 97)
    shapes = []
    for other in ladder:
        at, smooth = smoothed(other)
        shapes.append(np.interp(shares, at / other.steps, np.log(smooth / smooth[-1])))
    sizes = np.log([c.point.n for c in ladder])
    shape, scatter = _at_size(np.array(shapes), sizes, np.log(run.point.n))
    end = fit.predict(run.point.n, run.point.d)
    # training and validation loss differ by an offset: the ladder's smoothed last loss relative to the law
    offset = float(np.median([np.log(smoothed(c)[1][-1] / float(fit.law.loss(c.point.n, c.point.d))) for c in ladder]))
    width = SIGMAS * np.hypot(scatter, max(FLOOR, np.log(end["high"] / end["low"]) / 3.92))
    middle = np.log(end["loss"]) + offset + shape
    steps = shares * run.steps
    return Expected(steps, np.exp(middle), np.exp(middle - width), np.exp(middle + width))


def find_departure(run: Curve, band: Expected) -> Departure | None:
    """The first step from which the run stayed outside its band long enough to be more than noise; None if it did not.
    The first step from which the run stayed outside its band long enough to be more than noise; None if it did not."""
    at, smooth = smoothed(run)
    use = at >= BEGIN * run.steps
    at, smooth = at[use], smooth[use]
    low, high = (np.interp(at, band.step, b) for b in (band.low, band.high))
    outside = ~((smooth >= low) & (smooth <= high))  # NaN is outside
    need = max(1, round(LASTING * run.steps))
    length = 0
    for i, out in enumerate(outside):
        length = length + 1 if out else 0
        if length >= need:
            first = i - need + 1
            predicted = float(np.interp(at[first], band.step, band.loss))
            return Departure(int(at[first]), float(smooth[i]), predicted, float(low[i]), float(high[i]))
    return None


def smoothed(run: Curve) -> tuple[Floats, Floats]:
    """(steps, mean loss over the SPAN up to each step), from the first step with a full span."""
    span = max(1, round(SPAN * run.steps))
    if len(run.loss) < span:
        return run.step[:0], run.loss[:0]
    total = np.cumsum(np.insert(run.loss, 0, 0.0))
    return run.step[span - 1 :], (total[span:] - total[:-span]) / span


def _at_size(shapes: Floats, sizes: Floats, size: float) -> tuple[Floats, Floats]:
    """A straight line in log N through the ladder's values at each share, and the scatter around it."""
    middle = sizes.mean()
    spread = ((sizes - middle) ** 2).sum()
    slope = ((sizes - middle)[:, None] * (shapes - shapes.mean(axis=0))).sum(axis=0) / spread if spread else 0.0
    fitted = shapes.mean(axis=0) + slope * (sizes - middle)[:, None]
    free = max(1, len(sizes) - 2)
    scatter = np.sqrt(((shapes - fitted) ** 2).sum(axis=0) / free)
    return np.asarray(shapes.mean(axis=0) + slope * (size - middle)), np.asarray(scatter)
