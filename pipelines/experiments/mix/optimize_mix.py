"""Finds the mix with the best predicted objective within the caps, its uncertainty, and whether it is extrapolated.

An objective is a weighted mean of the predicted metrics, or the worst of them relative to a reference mix. For the
mixing law and the linear one both are convex in the mix, so descents from a few starts find the optimum. Trees are
piecewise constant, so many candidates are tried and the best hundred averaged (RegMix, section 3.3).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.experiments.mix import mixing_laws, mixture_design
from pipelines.experiments.mix.mixing_laws import Fitted, Floats

CANDIDATES = 20_000
BEST = 100  # candidates averaged, as in RegMix
NEIGHBOURS = 3


@dataclass(frozen=True)
class Objective:
    """What is minimized. weights: of each metric. worst: the largest ratio to the reference instead of the mean.

    maximise: larger metrics are better (such as an accuracy).
    """

    weights: tuple[float, ...]
    worst: bool = False
    maximise: bool = False
    reference: tuple[float, ...] = ()  # metrics of the reference mix, for `worst`

    @property
    def signs(self) -> Floats:
        """The sign with which each metric is fitted: -1 for a metric with a weight that is better when larger."""
        return np.where(np.array(self.weights) > 0, -1.0 if self.maximise else 1.0, 1.0)

    def value(self, metrics: Floats) -> Floats:
        """[n, metrics] -> [n]; smaller is better."""
        w = np.array(self.weights)
        if self.worst:
            return np.asarray((metrics[:, w > 0] / np.array(self.reference)[w > 0]).max(axis=1))
        value = metrics @ (w / w.sum())
        return np.asarray(-value if self.maximise else value)


def best(fitted: Fitted, objective: Objective, largest: Floats, *, seed: int = 17) -> Floats:
    """The mix with the best predicted objective."""
    candidates = _candidates(tuple(map(float, largest)), seed)
    values = objective.value(fitted.predict(candidates))
    order = np.argsort(values, kind="stable")
    if fitted.name == "lightgbm":
        return np.asarray(candidates[order[:BEST]].mean(axis=0))
    return _descend(fitted, objective, candidates[order[:3]], largest)


@functools.lru_cache(maxsize=4)
def _candidates(largest: tuple[float, ...], seed: int) -> Floats:
    caps, rng = np.array(largest), np.random.default_rng(seed)
    draws = rng.dirichlet(np.full(len(caps), 0.7), CANDIDATES)
    good = draws[(draws <= caps).all(axis=1)]
    if len(good) < CANDIDATES // 20:  # the caps leave little room: move the excess to other domains
        good = np.array([mixture_design.within(d, caps) for d in draws[: CANDIDATES // 10]])
    return np.asarray(good)


def _descend(fitted: Fitted, objective: Objective, starts: Floats, largest: Floats) -> Floats:
    from scipy.optimize import minimize

    k = len(largest)
    sums_to_one = {"type": "eq", "fun": lambda r: r.sum() - 1, "jac": lambda r: np.ones(k)}
    found, least = starts[0], float(objective.value(fitted.predict(starts[:1]))[0])
    scale = max(abs(least), 1e-9)
    for start in starts:
        if objective.worst:  # smooth: minimize t with every ratio below t
            w = np.array(objective.weights) > 0
            reference = np.array(objective.reference)[w]

            def below(x: Floats, w: np.ndarray = w, reference: Floats = reference) -> Floats:
                return np.asarray(x[-1] - fitted.predict(x[:-1])[0][w] / reference)

            limits = [{"type": "eq", "fun": lambda x: x[:-1].sum() - 1}, {"type": "ineq", "fun": below}]
            made = minimize(
                lambda x: x[-1], np.append(start, objective.value(fitted.predict(start))[0] * 1.001), method="SLSQP",
                bounds=[(0.0, float(c)) for c in largest] + [(None, None)], constraints=limits,
                options={"maxiter": 300, "ftol": 1e-10},
            )  # fmt: skip
            x = made.x[:-1]
        else:
            made = minimize(
                lambda r: float(objective.value(fitted.predict(r))[0]) / scale, start, method="SLSQP",
                bounds=[(0.0, float(c)) for c in largest], constraints=[sums_to_one],
                options={"maxiter": 300, "ftol": 1e-12},
            )  # fmt: skip
            x = made.x
        x = mixture_design.within(np.maximum(x, 0.0), largest)
        value = float(objective.value(fitted.predict(x))[0])
        if value < least:
            found, least = x, value
    return np.asarray(found)


def resampled(
    name: str,
    mixes: Floats,
    metrics: Floats,
    objective: Objective,
    largest: Floats,
    *,
    times: int,
    signs: Floats | float = 1.0,
    seed: int = 17,
) -> Floats:
    """Best mixes [times, domains] of laws fitted to resampled runs: their spread is the optimum's uncertainty."""
    rng, runs = np.random.default_rng(seed), len(mixes)
    counts = np.array([np.bincount(rng.integers(0, runs, runs), minlength=runs) for _ in range(times)], dtype=float)
    counts = counts.reshape(-1, runs)
    counts = counts[(counts > 0).sum(axis=1) > mixes.shape[1] + 1]
    made = mixing_laws.refit(name, mixes, metrics, counts, signs) if len(counts) else []
    return np.array([best(law, objective, largest) for law in made]).reshape(-1, mixes.shape[1])


def extrapolated(mix: Floats, mixes: Floats) -> bool:
    """Whether a mix is outside the region covered by the runs: its third-nearest run is further away than the 95th
    percentile of the same distance among the runs."""
    k = min(NEIGHBOURS, len(mixes) - 1)
    between = np.linalg.norm(mixes[:, None] - mixes[None], axis=2)
    own = np.sort(between, axis=1)[:, k]
    mine = np.sort(np.linalg.norm(mixes - mix, axis=1))[k - 1]
    return bool(mine > np.quantile(own, 0.95))


def interval(draws: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    edge = (1 - level) / 2
    if not len(draws):
        return np.full(draws.shape[1], np.nan), np.full(draws.shape[1], np.nan)
    low, high = np.quantile(draws, (edge, 1 - edge), axis=0)
    return low, high


def weights_for(names: Sequence[str], wanted: dict[str, float] | None) -> tuple[float, ...]:
    """Weights of metrics by name; all equal where none are given."""
    if wanted is None:
        return tuple(1.0 for _ in names)
    return tuple(float(wanted.get(n, 0.0)) for n in names)
