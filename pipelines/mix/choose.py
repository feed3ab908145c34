"""Which law to believe: chosen by cross-validation, and its honest error by a second one around the choice.

The inner folds choose the family by how well it ranks mixes it has not seen (Spearman's rho, the mean over metrics).
The outer folds repeat the whole choice without a fifth of the runs and score what was chosen on that fifth: the figure
that is reported, which no choice has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.step import UserError
from pipelines.mix import laws
from pipelines.mix.laws import Fitted, Floats

FOLDS = 5
FLOOR = 0.05  # rank correlation


@dataclass(frozen=True)
class Choice:
    """The chosen law, fitted to all runs, and what spoke for it."""

    fitted: Fitted
    scores: dict[str, float]  # inner cross-validation: mean rho by family
    rho: tuple[float, ...]  # of each metric, outer cross-validation; nan where it was not asked for
    error: tuple[float, ...]  # root mean square error of each metric, likewise
    predictions: Floats  # [runs, metrics] of runs that the law had not seen; empty likewise


def choose(
    mixes: Floats, metrics: Floats, families: Sequence[str] | None = None, *, seed: int = 17, nested: bool = True
) -> Choice:
    """Fits the best family. mixes [runs, domains], metrics [runs, metrics].

    nested: also the outer folds, five times the work. Raises UserError for fewer runs than a law has numbers.
    """
    runs, domains = mixes.shape
    if runs < domains + 3:
        raise UserError(
            f"{runs} runs are too few for a law over {domains} domains: {domains + 3} at least, {4 * domains} are "
            "advised"
        )
    named = laws.names(families)
    scores = _scores(mixes, metrics, named, seed)
    best = _best(scores)
    rho, error = np.full(metrics.shape[1], np.nan), np.full(metrics.shape[1], np.nan)
    unseen = np.empty((0, metrics.shape[1]))
    if nested:
        unseen = np.empty_like(metrics)
        for fold in _folds(runs, seed + 1):
            rest = np.setdiff1d(np.arange(runs), fold)
            inner = _best(_scores(mixes[rest], metrics[rest], named, seed)) if len(named) > 1 else named[0]
            unseen[fold] = laws.FAMILIES[inner](mixes[rest], metrics[rest]).predict(mixes[fold])
        rho = np.array([laws.spearman(unseen[:, i], metrics[:, i]) for i in range(metrics.shape[1])])
        error = np.sqrt(((unseen - metrics) ** 2).mean(axis=0))
    fitted = laws.FAMILIES[best](mixes, metrics)
    return Choice(fitted, scores, tuple(map(float, rho)), tuple(map(float, error)), unseen)


def _scores(mixes: Floats, metrics: Floats, named: Sequence[str], seed: int) -> dict[str, float]:
    found = {}
    for name in named if len(named) > 1 else ():
        unseen = np.empty_like(metrics)
        for fold in _folds(len(mixes), seed + 100):
            rest = np.setdiff1d(np.arange(len(mixes)), fold)
            unseen[fold] = laws.FAMILIES[name](mixes[rest], metrics[rest]).predict(mixes[fold])
        found[name] = float(np.mean([laws.spearman(unseen[:, i], metrics[:, i]) for i in range(metrics.shape[1])]))
    return found or {name: float("nan") for name in named}


def _best(scores: dict[str, float]) -> str:
    """The family that ranks best. The linear one is a floor: its optimum is always a corner, so it is taken only where
    every other ranks worse by a margin."""
    best = max(scores, key=lambda name: scores[name])
    others = {name: score for name, score in scores.items() if name != "linear"}
    if best == "linear" and others and max(others.values()) > scores[best] - FLOOR:
        return max(others, key=lambda name: others[name])
    return best


def _folds(runs: int, seed: int) -> list[np.ndarray]:
    return [np.sort(f) for f in np.array_split(np.random.default_rng(seed).permutation(runs), FOLDS)]
