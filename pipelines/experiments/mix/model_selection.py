"""Selects the mixing law by cross-validation, and estimates its error by nested cross-validation.

The family is chosen by how well it ranks unseen mixes (Spearman's rho, mean over metrics), over five folds. The
reported figures are of runs that the selection has not seen either: for each fold the selection is repeated among the
other four. A fit without folds i and j serves both "without i, predict j" and "without j, predict i", so ten fits do
the work of twenty."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from curation.core.errors import UserError
from pipelines.experiments.mix import mixing_laws
from pipelines.experiments.mix.mixing_laws import Fitted, Floats

FOLDS = 5
LINEAR_MARGIN = 0.05  # rank correlation by which the linear law must lead to be chosen


@dataclass(frozen=True)
class Choice:
    """The selected law, fitted to all runs, and its cross-validation scores."""

    fitted: Fitted
    scores: dict[str, float]  # cross-validation: mean rho by family; nan if there was only one family
    rho: tuple[float, ...]  # of each metric, on runs unseen by the selection; nan unless nested
    error: tuple[float, ...]  # root mean square error of each metric, on the same runs
    predictions: Floats  # [runs, metrics], each by a law that had not seen the run; empty unless nested


def choose(
    mixes: Floats,
    metrics: Floats,
    families: Sequence[str] | None = None,
    *,
    signs: Floats | float = 1.0,
    seed: int = 17,
    nested: bool = True,
) -> Choice:
    """Fits the best family. mixes [runs, domains], metrics [runs, metrics]; signs as in `mixing_laws.refit`.

    nested: also the outer folds, three times the work. Raises UserError for fewer runs than a law has coefficients.
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
        """The predictions of a family for each fold, fitted without it (and without one more fold, if given)."""
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
            predicted = unseen(name, without)
            observed = np.concatenate([metrics[folds[i]] for i in predicted])
            out[name] = float(np.mean(_rhos(np.concatenate(list(predicted.values())), observed)))
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
    """The coefficients of a law (one per domain and two more), and one run more to test it."""
    return domains + 3


def too_few(runs: int, domains: int) -> UserError:
    return UserError(
        f"{runs} runs are too few for a law over {domains} domains: at least {least_runs(domains)} are needed, "
        f"{4 * domains} are recommended"
    )


def best_of(scores: dict[str, float]) -> str:
    """The family that ranks best. The optimum of the linear law is always a corner, so it is chosen only if it leads
    all others by a margin."""
    best = max(scores, key=lambda name: scores[name])
    others = {name: score for name, score in scores.items() if name != "linear"}
    if best == "linear" and others and max(others.values()) > scores[best] - LINEAR_MARGIN:
        return max(others, key=lambda name: others[name])
    return best


def _rhos(predicted: Floats, observed: Floats) -> Floats:
    return np.array([mixing_laws.spearman(predicted[:, i], observed[:, i]) for i in range(observed.shape[1])])
