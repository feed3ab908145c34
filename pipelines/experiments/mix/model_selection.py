"""Which law to believe: chosen by cross-validation, and its honest error by a second one around the choice.

A family is chosen by how well it ranks mixes it has not seen (Spearman's rho, the mean over metrics), over five folds.
The figure that is reported is of runs that the choice has not seen either: for each fold the whole choice is made again
among the other four. A fit without folds i and j serves both as "without i, asked for j" and as "without j, asked for
i", so that ten fits do what twenty would.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.core.errors import UserError
from pipelines.experiments.mix import mixing_laws
from pipelines.experiments.mix.mixing_laws import Fitted, Floats

FOLDS = 5
FLOOR = 0.05  # rank correlation


@dataclass(frozen=True)
class Choice:
    """The chosen law, fitted to all runs, and what spoke for it."""

    fitted: Fitted
    scores: dict[str, float]  # cross-validation: mean rho by family; nan where there was no choice
    rho: tuple[float, ...]  # of each metric, on runs that the choice had not seen; nan where it was not asked for
    error: tuple[float, ...]  # root mean square error of each metric, likewise
    predictions: Floats  # [runs, metrics] of runs that the law had not seen; empty likewise


def choose(
    mixes: Floats,
    metrics: Floats,
    families: Sequence[str] | None = None,
    *,
    signs: Floats | float = 1.0,
    seed: int = 17,
    nested: bool = True,
) -> Choice:
    """Fits the best family. mixes [runs, domains], metrics [runs, metrics]; signs as of `laws.refit`.

    nested: also the outer folds, three times the work. Raises UserError for fewer runs than a law has numbers.
    """
    runs, domains = mixes.shape
    if runs < least_runs(domains):
        raise too_few(runs, domains)
    named = mixing_laws.names(families)
    folds = np.array_split(np.random.default_rng(seed).permutation(runs), FOLDS)
    left_out: list[tuple[int, ...]] = [()]
    if nested or len(named) > 1:
        left_out += [(i,) for i in range(FOLDS)]
    if nested and len(named) > 1:
        left_out += itertools.combinations(range(FOLDS), 2)
    counts = np.ones((len(left_out), runs))
    for row, out in zip(counts, left_out, strict=True):
        for i in out:
            row[folds[i]] = 0
    fits = {
        name: dict(zip(left_out, mixing_laws.refit(name, mixes, metrics, counts, signs), strict=True)) for name in named
    }

    def unseen(name: str, without: int | None = None) -> dict[int, Floats]:
        """What a family says of each fold that it was fitted without; all of it without one more fold, if given."""
        found = {}
        for i in range(FOLDS):
            if i != without:
                key = (i,) if without is None else (min(i, without), max(i, without))
                found[i] = fits[name][key].predict(mixes[folds[i]])
        return found

    def scores(without: int | None = None) -> dict[str, float]:
        if len(named) == 1:
            return {named[0]: float("nan")}
        out = {}
        for name in named:
            said = unseen(name, without)
            seen = np.concatenate([metrics[folds[i]] for i in said])
            out[name] = float(np.mean(_rhos(np.concatenate(list(said.values())), seen)))
        return out

    found = scores()
    rho = error = np.full(metrics.shape[1], np.nan)
    predictions = np.empty((0, metrics.shape[1]))
    if nested:
        predictions = np.empty_like(metrics)
        for i, fold in enumerate(folds):
            predictions[fold] = fits[best_of(scores(without=i))][(i,)].predict(mixes[fold])
        rho = _rhos(predictions, metrics)
        error = np.sqrt(((predictions - metrics) ** 2).mean(axis=0))
    return Choice(fits[best_of(found)][()], found, tuple(map(float, rho)), tuple(map(float, error)), predictions)


def least_runs(domains: int) -> int:
    """A number for each domain, two more of the law's, and one run to be wrong about."""
    return domains + 3


def too_few(runs: int, domains: int) -> UserError:
    return UserError(
        f"{runs} runs are too few for a law over {domains} domains: {least_runs(domains)} at least, {4 * domains} are "
        "advised"
    )


def best_of(scores: dict[str, float]) -> str:
    """The family that ranks best. The linear one is a floor: its optimum is always a corner, so it is taken only where
    every other ranks worse by a margin."""
    best = max(scores, key=lambda name: scores[name])
    others = {name: score for name, score in scores.items() if name != "linear"}
    if best == "linear" and others and max(others.values()) > scores[best] - FLOOR:
        return max(others, key=lambda name: others[name])
    return best


def _rhos(predicted: Floats, observed: Floats) -> Floats:
    return np.array([mixing_laws.spearman(predicted[:, i], observed[:, i]) for i in range(observed.shape[1])])
