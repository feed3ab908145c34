"""Fits the two nonlinear mixing laws to many samples of the runs at once (folds, resamples, or all runs).

    mixing_law    L = c + exp(k + t·r)
    power_law     L = c + A (u·r)^-a

For a given c each is nearly a straight line in log (L - c); its solution is the start of a descent, for a few values of
c. c may be above the smallest observed loss: of RegMix's 512 mixes some have a loss below the c that ranks the others
best (rho 97.6 against 95.8 on the 256 test mixes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.experiments.mix.batched_least_squares import Floats, Model, descend

PULL = 1e-3  # regularization of t and log u towards 0, in standard deviations of the metric
GAPS = (0.1, 1.0, 5.0)  # starts of c: standard deviations below the smallest loss
EXPONENTS = (0.1, 0.5)  # starts of the power law's a
TINY = 1e-9  # keeps the loss of a mix without any useful domain finite
MAX_EXPONENT = 50.0  # prevents overflow


def mixing_law(mixes: Floats, metrics: Floats, counts: Floats) -> Floats:
    """Coefficients c, k, t [samples, metrics, 2 + domains]. mixes [runs, domains], metrics [runs, metrics], counts
    [samples, runs]: how often a run is in a sample."""
    domains = mixes.shape[1]
    design = mixes - mixes.mean(axis=0)
    least, spread, cs = _levels(metrics, counts, GAPS)
    starts = []
    for c in cs:
        level, t = _line(design, metrics, counts, c)
        starts.append(np.concatenate([c[..., None], level[..., None], t], axis=2))
    x0 = np.stack(starts, axis=2)  # [samples, metrics, starts, numbers]
    shape = x0.shape[:3]

    def model(x: Floats, which: NDArray[np.int64]) -> tuple[Floats, Floats]:
        sample, metric, _ = np.unravel_index(which, shape)
        scale = 1 / spread[sample, metric][:, None]
        e = np.exp(np.clip(x[:, 1:2] + x[:, 2:] @ design.T, -MAX_EXPONENT, MAX_EXPONENT)) * scale
        residual = x[:, :1] * scale + e - metrics.T[metric] * scale
        slopes = np.empty((*e.shape, domains + 2))
        slopes[:, :, 0], slopes[:, :, 1] = scale, e
        np.multiply(e[:, :, None], design, out=slopes[:, :, 2:])
        return residual, slopes

    low = np.full(x0.shape, -np.inf)
    low[..., 0] = least[:, :, None]
    best = _best(model, x0, counts, low, np.full(x0.shape, np.inf), np.array([0.0, 0.0, *[PULL] * domains]))
    best[..., 1] -= best[..., 2:] @ mixes.mean(axis=0)
    return best


def power_law(mixes: Floats, metrics: Floats, counts: Floats) -> Floats:
    """Coefficients c, log A, log a, log u [samples, metrics, 3 + domains]; arguments as above.

    A and u have one common factor too many; the regularization decides it.
    """
    domains = mixes.shape[1]
    least, spread, cs = _levels(metrics, counts, GAPS[:2])
    starts = []
    for exponent in EXPONENTS:
        for c in cs:
            level, t = _line(mixes, metrics, counts, c)
            v = np.clip(-t / exponent, -4, 4)
            level = level + t.mean(axis=2)  # shares sum to one: the common part belongs to the level
            fixed = [c, level, np.full_like(c, np.log(exponent))]
            starts.append(np.concatenate([np.stack(fixed, axis=2), v - v.mean(axis=2, keepdims=True)], axis=2))
    x0 = np.stack(starts, axis=2)
    shape = x0.shape[:3]

    def model(x: Floats, which: NDArray[np.int64]) -> tuple[Floats, Floats]:
        sample, metric, _ = np.unravel_index(which, shape)
        scale = 1 / spread[sample, metric][:, None]
        a, u = np.exp(x[:, 2:3]), np.exp(x[:, 3:])
        exposure = u @ mixes.T + TINY
        log = np.log(exposure)
        g = np.exp(np.clip(x[:, 1:2] - a * log, -MAX_EXPONENT, MAX_EXPONENT)) * scale
        residual = x[:, :1] * scale + g - metrics.T[metric] * scale
        slopes = np.empty((*g.shape, domains + 3))
        slopes[:, :, 0], slopes[:, :, 1], slopes[:, :, 2] = scale, g, -a * log * g
        np.multiply((-a * g / exposure)[:, :, None] * u[:, None, :], mixes, out=slopes[:, :, 3:])
        return residual, slopes

    low, high = np.full(x0.shape, -25.0), np.full(x0.shape, 25.0)
    low[..., 0], high[..., 0] = least[:, :, None], np.inf
    low[..., 1], high[..., 1] = -np.inf, np.inf
    low[..., 2], high[..., 2] = -4.0, 2.0
    return _best(model, x0, counts, low, high, np.array([0.0, 0.0, 0.0, *[PULL] * domains]))


def _levels(metrics: Floats, counts: Floats, gaps: tuple[float, ...]) -> tuple[Floats, Floats, list[Floats]]:
    """(lower bound of c, standard deviation, c of each start), each [samples, metrics]."""
    inside = counts[:, :, None] > 0
    lowest = np.where(inside, metrics, np.inf).min(axis=1)
    total = counts.sum(axis=1, keepdims=True)
    mean = counts @ metrics / total
    spread = np.sqrt(np.einsum("sn,snm->sm", counts, (metrics - mean[:, None]) ** 2) / total)
    spread = np.where(spread > 0, spread, 1e-12)
    least = np.where(lowest > 0, 0.0, -np.inf)  # the irreducible part of a loss is not negative
    cs = [lowest - gap * spread for gap in gaps]
    return least, spread, [np.where(c <= least, lowest * 1e-2, c) for c in cs]


def _line(design: Floats, metrics: Floats, counts: Floats, c: Floats) -> tuple[Floats, Floats]:
    """(level [samples, metrics], t [samples, metrics, domains]) of the ridge line log (y - c) = level + t·design."""
    domains, total = design.shape[1], counts.sum(axis=1)
    z = np.log(np.maximum(metrics[None] - c[:, None], 1e-12))  # [samples, runs, metrics]
    weights = counts / total[:, None]
    center, mean = weights @ design, np.einsum("sn,snm->sm", weights, z)
    apart = design - center[:, None]
    weighted = apart * counts[:, :, None]
    gram = np.matmul(weighted.transpose(0, 2, 1), apart) + 1e-3 * total[:, None, None] / domains * np.eye(domains)
    t = np.linalg.solve(gram, np.matmul(weighted.transpose(0, 2, 1), z - mean[:, None])).transpose(0, 2, 1)
    return mean - np.einsum("smd,sd->sm", t, center), t


def _best(model: Model, x0: Floats, counts: Floats, low: Floats, high: Floats, pull: Floats) -> Floats:
    """The best of each problem's starts, [samples, metrics, numbers]."""
    samples, metrics, starts, numbers = x0.shape

    def flat(a: Floats) -> Floats:
        return a.reshape(-1, numbers)

    x, loss = descend(model, flat(x0), np.repeat(counts, metrics * starts, axis=0), flat(low), flat(high), pull)
    chosen = loss.reshape(samples, metrics, starts).argmin(axis=2)
    return np.asarray(np.take_along_axis(x.reshape(x0.shape), chosen[:, :, None, None], axis=2)[:, :, 0])
