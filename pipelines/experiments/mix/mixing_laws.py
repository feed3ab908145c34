"""Predicts the loss of a mix: four families of laws, fitted to mixes and the losses of small runs trained on them.

    linear        L = c + t·r, the baseline that any law has to beat
    mixing_law    L = c + exp(k + t·r)   (Ye et al. 2024, arXiv 2403.16952, equation 7), c not negative
    power_law     L = c + A (u·r)^-a, u positive: Chinchilla's term in the tokens, where a token of domain j counts u_j
                  (data transferred, Hernandez et al. 2021, arXiv 2102.01293); steep where a share is close to 0
    lightgbm      boosted trees, one model per metric (RegMix: Liu et al. 2024, arXiv 2407.01492, section 3)

r are the domains' shares, L a loss or any metric. A law is fitted to each metric separately; `Fitted.predict` maps
mixes [n, domains] to metrics [n, metrics]. `refit` fits many samples of the runs at once, for folds and resamples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curation.core.packages import require
from pipelines.experiments.mix import curve_fit

Floats = NDArray[np.float64]

MAX_ABOVE = 3.0  # a curve may exceed the largest observed value by this many times the range of the metric
SEEDS = (17, 18, 19)  # of LightGBM: its prediction is the mean of these


@dataclass(frozen=True)
class Fitted:
    """A fitted law: a function from mixes [n, domains] to metrics [n, metrics]."""

    name: str
    function: Callable[[Floats], Floats]
    signs: Floats | float = 1.0  # of each metric: -1 for one that was fitted with its sign inverted

    def predict(self, mixes: Floats) -> Floats:
        return self.function(np.atleast_2d(mixes)) * self.signs


Family = Callable[[Floats, Floats, Floats], list[Fitted]]


def fit(name: str, mixes: Floats, metrics: Floats) -> Fitted:
    """Fits a law of a family. mixes [runs, domains], metrics [runs, metrics]."""
    return refit(name, mixes, metrics, np.ones((1, len(mixes))))[0]


def refit(name: str, mixes: Floats, metrics: Floats, counts: Floats, signs: Floats | float = 1.0) -> list[Fitted]:
    """Fits one law per sample. counts [samples, runs]: how often each run is in the sample. signs: -1 for a metric that
    is better when larger, such as an accuracy: the curves are of losses, so its sign is inverted."""
    return [replace(law, signs=signs) for law in FAMILIES[name](mixes, metrics * signs, counts)]


def _linear(mixes: Floats, metrics: Floats, counts: Floats) -> list[Fitted]:
    return [Fitted("linear", _ridge(mixes[rows], metrics[rows])) for rows in _rows(counts)]


def _ridge(mixes: Floats, metrics: Floats) -> Callable[[Floats], Floats]:
    """Ridge regression, its strength for each metric by leave-one-out error (exact, from one decomposition)."""
    center, mean = mixes.mean(axis=0), metrics.mean(axis=0)
    u, s, vt = np.linalg.svd(mixes - center, full_matrices=False)
    target = u.T @ (metrics - mean)
    best, weights = np.full(metrics.shape[1], np.inf), np.zeros((mixes.shape[1], metrics.shape[1]))
    for strength in np.logspace(-6, 1, 15) * float((s**2).max() or 1.0):
        shrink = s**2 / (s**2 + strength)
        left = 1 - ((u**2 * shrink).sum(axis=1) + 1 / len(mixes))
        error = ((metrics - mean - u @ (shrink[:, None] * target)) / np.maximum(left, 1e-6)[:, None]) ** 2
        better = error.mean(axis=0) < best
        best = np.where(better, error.mean(axis=0), best)
        weights[:, better] = (vt.T @ ((s / (s**2 + strength))[:, None] * target))[:, better]
    return lambda r: np.asarray(mean + (r - center) @ weights)


def _mixing_law(mixes: Floats, metrics: Floats, counts: Floats) -> list[Fitted]:
    def law(x: Floats, most: Floats) -> Callable[[Floats], Floats]:
        return lambda r: np.minimum(
            x[:, 0] + np.exp(np.minimum(x[:, 1] + r @ x[:, 2:].T, curve_fit.MAX_EXPONENT)), most
        )

    found = curve_fit.mixing_law(mixes, metrics, counts)
    return [Fitted("mixing_law", law(x, _upper_bound(metrics[n > 0]))) for x, n in zip(found, counts, strict=True)]


def _power_law(mixes: Floats, metrics: Floats, counts: Floats) -> list[Fitted]:
    def law(x: Floats, most: Floats) -> Callable[[Floats], Floats]:
        a, u = np.exp(x[:, 2]), np.exp(x[:, 3:])
        return lambda r: np.minimum(x[:, 0] + np.exp(x[:, 1] - a * np.log(r @ u.T + curve_fit.TINY)), most)

    found = curve_fit.power_law(mixes, metrics, counts)
    return [Fitted("power_law", law(x, _upper_bound(metrics[n > 0]))) for x, n in zip(found, counts, strict=True)]


def _upper_bound(metrics: Floats) -> Floats:
    """The upper bound of a curve: with few runs on one side, an exponential may reach e^44 on the other."""
    high, low = metrics.max(axis=0), metrics.min(axis=0)
    return np.asarray(high + MAX_ABOVE * (high - low))


def _lightgbm(mixes: Floats, metrics: Floats, counts: Floats) -> list[Fitted]:
    """Each model is fitted in one thread, so the result does not depend on the number of threads."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = [
            [pool.submit(_trees, mixes[rows], y[rows], seed) for y in metrics.T for seed in SEEDS]
            for rows in _rows(counts)
        ]
        models = [[f.result() for f in sample] for sample in made]

    def law(sample: list[Callable[[Floats], Floats]]) -> Callable[[Floats], Floats]:
        each = len(SEEDS)
        return lambda r: np.stack(
            [np.mean([m(r) for m in sample[i : i + each]], axis=0) for i in range(0, len(sample), each)], axis=1
        )

    return [Fitted("lightgbm", law(sample)) for sample in models]


def _trees(mixes: Floats, y: Floats, seed: int) -> Callable[[Floats], Floats]:
    import lightgbm as lgb

    n = len(y)
    options = {
        "objective": "regression", "learning_rate": 0.05, "num_leaves": 15 if n < 128 else 31,
        "min_data_in_leaf": max(3, min(10, n // 20)), "min_data_in_bin": 1, "feature_pre_filter": False,
        "bagging_fraction": 0.8, "bagging_freq": 1, "feature_fraction": 0.8,
        "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1,
    }  # fmt: skip
    table = lgb.Dataset(mixes, y, params=options)
    model = lgb.train(options | {"seed": seed}, table, num_boost_round=400)
    return lambda r: np.asarray(model.predict(r, num_threads=1))


FAMILIES: dict[str, Family] = {
    "linear": _linear,
    "mixing_law": _mixing_law,
    "power_law": _power_law,
    "lightgbm": _lightgbm,
}


def _rows(counts: Floats) -> list[NDArray[np.int64]]:
    return [np.repeat(np.arange(len(c)), c.astype(int)) for c in counts]


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation; 0 where either is constant."""
    from scipy.stats import rankdata

    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum() / size) if size else 0.0


def require_packages(families: Sequence[str] | None) -> None:
    """Raises UserError if a family needs a package that is missing. Call it before the runs, which take hours."""
    if "lightgbm" in names(families):
        require("families: lightgbm", ["lightgbm"])


def names(families: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(families) if families else tuple(FAMILIES)
