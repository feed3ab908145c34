"""Fits many small curves at once: Levenberg-Marquardt steps over a batch of problems, with Huber loss by reweighting.

A law of ten or twenty coefficients is fitted hundreds of times: to folds, resamples, metrics and starts. One by one,
each fit is mostly overhead; as a batch it is a few products of small matrices. Each problem minimizes

    sum_i n_i huber(r_i(x)) + sum_j (pull_j x_j)^2 / 2      within low <= x <= high

n_i is the number of times that run i is in the problem's sample, r are residuals in standard deviations of the metric.
A step solves (J'WJ + P + λ diag) d = -(J'Wr + P x), W = n min(1, HUBER / |r|) (Marquardt 1963); coefficients that push
against their bound are fixed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# (x [b, numbers], which problems [b]) -> residuals [b, runs], their derivatives [b, runs, numbers]
Model = Callable[[Floats, NDArray[np.int64]], tuple[Floats, Floats]]

HUBER = 1.5  # standard deviations; smaller ones rank RegMix's own training mixes worse (docs/decisions.md)
STEPS = 300
CONVERGED = 1e-8  # relative gain of a step below which a descent ends
MAX_DAMPING = 1e10  # damping above which no step helps
BATCH = 1_000_000  # derivatives computed at once: 8 MB, about the size of the caches


def descend(
    model: Model, start: Floats, counts: Floats, low: Floats, high: Floats, pull: Floats
) -> tuple[Floats, Floats]:
    """(x [problems, numbers], least loss [problems]) from start. counts [problems, runs]; low and high as start;
    pull [numbers]."""
    problems, numbers = start.shape
    found, least = np.empty_like(start), np.empty(problems)
    size = max(1, BATCH // (counts.shape[1] * numbers))
    for first in range(0, problems, size):
        part = np.arange(first, min(first + size, problems))
        found[part], least[part] = _descend_batch(model, part, start[part], counts[part], low[part], high[part], pull)
    return found, least


def _descend_batch(
    model: Model, which: NDArray[np.int64], x: Floats, counts: Floats, low: Floats, high: Floats, pull: Floats
) -> tuple[Floats, Floats]:
    x = np.clip(x, low, high)
    r, j = model(x, which)
    loss = _loss(r, x, counts, pull)
    damping = np.full(len(x), 1e-2)
    found, least = x.copy(), loss.copy()
    on = np.arange(len(x))  # the problems that have not converged
    for _ in range(STEPS):
        step = _step(x, r, j, counts[on], low[on], high[on], pull, damping)
        trial = np.clip(x + step, low[on], high[on])
        r2, j2 = model(trial, which[on])
        loss2 = _loss(r2, trial, counts[on], pull)
        better = loss2 < loss  # false for NaN
        converged = (better & (loss - loss2 <= CONVERGED * loss)) | (~better & (damping > MAX_DAMPING))
        x, r, j = (np.where(better.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in ((x, trial), (r, r2), (j, j2)))
        loss = np.where(better, loss2, loss)
        damping = np.where(better, np.maximum(damping / 5, 1e-12), damping * 4)
        found[on], least[on] = x, loss
        if converged.any():
            stay = ~converged
            on, x, r, j, loss, damping = on[stay], x[stay], r[stay], j[stay], loss[stay], damping[stay]
            if not len(on):
                break
    return found, least


def _step(
    x: Floats, r: Floats, j: Floats, counts: Floats, low: Floats, high: Floats, pull: Floats, damping: Floats
) -> Floats:
    weighted = j * (counts * HUBER / np.maximum(np.abs(r), HUBER))[:, :, None]
    slope = (weighted * r[:, :, None]).sum(axis=1) + pull**2 * x
    bend = np.matmul(weighted.transpose(0, 2, 1), j) + np.diag(pull**2)
    fixed = ((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0))
    slope[fixed] = 0
    bend[fixed[:, :, None] | fixed[:, None, :]] = 0
    diagonal = np.einsum("bii->bi", bend)
    stiff = damping[:, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-30
    diagonal += np.where(fixed, 1.0, stiff)
    return -np.linalg.solve(bend, slope[:, :, None])[:, :, 0]


def _loss(r: Floats, x: Floats, counts: Floats, pull: Floats) -> Floats:
    size = np.abs(r)
    huber = np.where(size <= HUBER, size**2 / 2, HUBER * (size - HUBER / 2))
    return np.asarray((counts * huber).sum(axis=1) + ((pull * x) ** 2).sum(axis=1) / 2)
