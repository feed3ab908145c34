"""Is a live run where it should be? Its loss against the curve that a ladder of smaller runs predicts for its shape.

The law gives the loss at the end. On the way there, runs of one schedule look alike: log (loss / final loss) over the
share of steps done is nearly one curve for all sizes (Qiu et al. 2025, arXiv 2507.02119). At each
share the ladder's runs give that curve's value and its trend with size, as a straight line in log N, and the scatter
around it gives the width. A run is off when its smoothed loss stays outside for a while.
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

SPAN = 0.04  # share of all steps that a smoothed loss is the mean of
BEGIN = 0.15  # before, warm-up and first steps scatter too much to say anything
SIGMAS = 4.0  # half-width of the band
LASTING = 0.03  # share of all steps that a run has to stay outside
FLOOR = 0.01  # least scatter of log loss: a ladder of a few runs is too small a sample to promise less


@dataclass(frozen=True)
class Expected:
    """The predicted loss over a run's steps, with its band."""

    step: Floats
    loss: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Departure:
    """Where a run left the band: from this step on, loss against what was predicted there."""

    step: int
    loss: float
    predicted: float
    low: float
    high: float

    @property
    def message(self) -> str:
        side = "above" if self.loss > self.high else "below"
        return (
            f"from step {self.step:,} on the loss is {side} its predicted curve: {self.loss:.3f}, expected "
            f"{self.predicted:.3f} ({self.low:.3f} to {self.high:.3f}). Look at the data read there: gristmill order"
        )


def ladder_curves(folder: str) -> list[Curve]:
    """The finished runs below a ladder's folder. Raises UserError for fewer than three."""
    places = sorted(f.parent for f in Path(folder).glob("*/metrics.jsonl"))
    curves = [live_run.curve(p) for p in places if live_run.final(p) is not None]
    if len(curves) < 3:
        raise UserError(f"{folder} has {len(curves)} finished runs: a curve's shape takes three or more")
    return curves


def expected(fit: Fit, ladder: Sequence[Curve], run: Curve) -> Expected:
    """The curve that the ladder predicts for a run of this size and length."""
    shares = np.linspace(SPAN, 1.0, 97)
    shapes = []
    for other in ladder:
        at, smooth = smoothed(other)
        shapes.append(np.interp(shares, at / other.steps, np.log(smooth / smooth[-1])))
    sizes = np.log([c.point.n for c in ladder])
    shape, scatter = _at_size(np.array(shapes), sizes, np.log(run.point.n))
    end = fit.predict(run.point.n, run.point.d)
    # validation and training loss differ by what runs of the ladder show: their smoothed last loss against the law
    offset = float(np.median([np.log(smoothed(c)[1][-1] / float(fit.law.loss(c.point.n, c.point.d))) for c in ladder]))
    width = SIGMAS * np.hypot(scatter, max(FLOOR, np.log(end["high"] / end["low"]) / 3.92))
    middle = np.log(end["loss"]) + offset + shape
    steps = shares * run.steps
    return Expected(steps, np.exp(middle), np.exp(middle - width), np.exp(middle + width))


def departure(run: Curve, band: Expected) -> Departure | None:
    """The first step from which the run stayed outside its band long enough to be more than noise."""
    at, smooth = smoothed(run)
    use = at >= BEGIN * run.steps
    at, smooth = at[use], smooth[use]
    low, high = (np.interp(at, band.step, b) for b in (band.low, band.high))
    outside = ~((smooth >= low) & (smooth <= high))  # a loss that is no number is outside
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
    """(steps, mean loss of the SPAN before each): from the first step that has a whole span behind it."""
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
