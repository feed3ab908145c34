"""Reads and writes tables of mixes and losses in RegMix's format: ratios.csv and metrics.csv, joined by index.

Prefixes of the published tables (`train_the_pile_`, `metric/the_pile_`) are kept.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curation.core.errors import UserError
from pipelines.experiments.mix import optimize_mix
from pipelines.experiments.mix.mixing_laws import Floats, require_packages
from pipelines.experiments.mix.model_selection import choose
from pipelines.experiments.mix.optimize_mix import Objective
from pipelines.experiments.mix.results import Outcome, recommend

SUM = 0.02  # allowed distance of a sum of shares from 1: published tables are rounded to three digits


@dataclass(frozen=True)
class Swarm:
    """Mixes [runs, domains] and metrics [runs, metrics]; notes: what was left out or corrected."""

    domains: tuple[str, ...]
    metrics: tuple[str, ...]
    mixes: Floats
    values: Floats
    notes: tuple[str, ...] = ()


def read(ratios: str, metrics: str) -> Swarm:
    """Reads both tables. A run with a metric that is not finite (it diverged) and a constant metric are left out and
    noted.

    Raises UserError for tables that name different runs, shares that do not sum to 1, and no run with finite metrics.
    """
    domains, mixes = _table(ratios)
    names, values = _table(metrics)
    missing, extra = sorted(mixes.keys() - values.keys()), sorted(values.keys() - mixes.keys())
    if missing or extra:
        only = f"{ratios} has {', '.join(missing[:5])}" if missing else f"{metrics} has {', '.join(extra[:5])}"
        raise UserError(f"{ratios} and {metrics} do not name the same runs: only {only}")
    order = sorted(mixes, key=lambda k: (len(k), k))
    r, y = np.array([mixes[k] for k in order]), np.array([values[k] for k in order])
    bad = np.flatnonzero(~np.isfinite(r).all(axis=1) | (r < 0).any(axis=1) | (np.abs(r.sum(axis=1) - 1) > SUM))
    if len(bad):
        raise UserError(
            f"{ratios}, run {order[bad[0]]}: the shares sum to {r[bad[0]].sum():g} (or one is negative); expected 1"
        )
    good, moving, notes = select_fittable(metrics, order, names, y)
    r, y = r[good] / r[good].sum(axis=1, keepdims=True), y[np.ix_(good, moving)]
    used = r.max(axis=0) > 0
    if not used.all():
        notes.append(f"in no mix: {', '.join(n for n, u in zip(domains, used, strict=True) if not u)}")
        domains, r = tuple(n for n, u in zip(domains, used, strict=True) if u), r[:, used]
    still = [n for n, low, high in zip(domains, r.min(axis=0), r.max(axis=0), strict=True) if high - low < 1e-9]
    if still and len(r) > 1:
        notes.append(f"the same share in every run, so the effect is unknown: {', '.join(still)}")
    return Swarm(domains, tuple(names[i] for i in moving), r, y, tuple(notes))


def select_fittable(
    where: str, runs: Sequence[str], names: Sequence[str], values: Floats
) -> tuple[NDArray[np.int64], NDArray[np.int64], list[str]]:
    """(runs with finite metrics, metrics that vary among them, notes on the others).

    values [runs, metrics]. Raises UserError if nothing is left to fit.
    """
    notes = []
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        gone = [runs[i] for i in np.flatnonzero(~finite).tolist()]
        notes.append(f"{len(gone)} runs with a metric that is not finite are left out: {', '.join(gone[:5])}")
    if not finite.any():
        raise UserError(f"{where}: no run has finite values for all metrics")
    moving = values[finite].max(axis=0) > values[finite].min(axis=0)
    if not moving.all():
        still = [n for n, m in zip(names, moving, strict=True) if not m]
        notes.append(f"the same value in every run, so nothing to fit: {', '.join(still)}")
    if not moving.any():
        raise UserError(f"{where}: every metric has one value in all runs; there is nothing to fit")
    return np.flatnonzero(finite), np.flatnonzero(moving), notes


def fit_table(
    ratios: str,
    metrics: str,
    weights: dict[str, float] | None = None,
    *,
    worst: bool = False,
    maximise: bool = False,
    resamples: int = 100,
    seed: int = 17,
) -> Outcome:
    """Fits a law to tables of trained runs and recommends a mix with intervals; trains nothing."""
    require_packages(None)
    table = read(ratios, metrics)
    unknown = sorted(set(weights or {}) - set(table.metrics))
    if unknown:
        raise UserError(f"objective: no metric {', '.join(unknown)}; there are {', '.join(table.metrics)}")
    mean = table.mixes.mean(axis=0)
    nearest = int(np.argmin(np.linalg.norm(table.mixes - mean, axis=1)))
    objective = Objective(
        optimize_mix.weights_for(table.metrics, weights), worst, maximise, tuple(map(float, table.values[nearest]))
    )
    choice = choose(table.mixes, table.values, signs=objective.signs, seed=seed)
    largest = np.ones(len(table.domains))
    found, low, high, predicted = recommend(choice, table.mixes, table.values, objective, largest, resamples, seed)

    def named(mix: Floats) -> dict[str, float]:
        return dict(zip(table.domains, map(float, mix), strict=True))

    return Outcome(
        table.domains, table.metrics, table.mixes, table.values, ("swarm",) * len(table.mixes), choice, objective,
        named(found), named(low), named(high),
        predicted=dict(zip(table.metrics, map(float, predicted), strict=True)), natural={},
        extrapolated=optimize_mix.extrapolated(found, table.mixes), stop=None, notes=table.notes,
    )  # fmt: skip


def write_tables(folder: Path, domains: Sequence[str], metrics: Sequence[str], mixes: Floats, values: Floats) -> None:
    """Writes ratios.csv and metrics.csv."""
    for name, columns, rows in (("ratios.csv", domains, mixes), ("metrics.csv", metrics, values)):
        with open(folder / name, "w", encoding="utf-8", newline="") as f:
            out = csv.writer(f)
            out.writerow(["index", *columns])
            out.writerows([i, *(repr(float(v)) for v in row)] for i, row in enumerate(rows, 1))


def _table(path: str) -> tuple[tuple[str, ...], dict[str, list[float]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as f:
            rows = [row for row in csv.reader(f) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this table: {error}") from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise UserError(f"{path}: expected a header (index and names) and a line for each run")
    found: dict[str, list[float]] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            raise UserError(f"{path}, line {number}: {len(row)} cells, the header has {len(rows[0])}")
        if row[0] in found:
            raise UserError(f"{path}, line {number}: run {row[0]} appears twice")
        try:
            found[row[0]] = [float(v) if v.strip() else float("nan") for v in row[1:]]
        except ValueError as error:
            raise UserError(f"{path}, line {number}: expected numbers: {error}") from None
    return tuple(rows[0][1:]), found
