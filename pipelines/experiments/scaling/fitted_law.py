"""Fits a scaling law with bootstrap intervals, finds outliers, and backtests it on the largest runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from curation.core.errors import UserError
from pipelines.experiments.scaling import scaling_law as laws
from pipelines.experiments.scaling.runs_table import Table
from pipelines.experiments.scaling.scaling_law import Floats, Law

RESAMPLES = 1000
OUTLIER = 5.0  # robust standard deviations of the log residual


@dataclass(frozen=True)
class Fit:
    """A fitted law, its bootstrap resamples, and the residuals of the runs."""

    law: Law
    resamples: tuple[Law, ...]
    table: Table
    residuals: Floats = field(repr=False)

    def spread(self) -> dict[str, dict[str, float]]:
        """Standard error and 95 % interval of each coefficient, from the resamples."""
        out = {}
        for key, value in asdict(self.law).items():
            if value is None:
                continue
            draws = np.array([getattr(r, key) for r in self.resamples])
            low, high = np.quantile(draws, (0.025, 0.975)) if len(draws) else (np.nan, np.nan)
            error = float(draws.std(ddof=1)) if len(draws) > 1 else float("nan")
            out[key] = {"value": value, "error": error, "low": float(low), "high": float(high)}
        return out

    def outliers(self) -> list[dict[str, Any]]:
        """Runs whose log loss is off by more than five robust standard deviations (1.4826 times the median deviation).
        Runs whose log loss is off by more than five robust standard deviations (1.4826 times the median deviation)."""
        deviation = np.abs(self.residuals - np.median(self.residuals))
        scale = 1.4826 * float(np.median(deviation))
        rows: list[int] = np.flatnonzero(deviation > OUTLIER * scale).tolist() if scale > 0 else []
        t = self.table
        return [
            {
                "run": t.names[i], "params": float(t.n[i]), "tokens": float(t.d[i]), "loss": float(t.loss[i]),
                "off_by": float(np.expm1(self.residuals[i])),
            }
            for i in sorted(rows, key=lambda i: -deviation[i])
        ]  # fmt: skip

    def predict(self, n: float, d: float, unique: float | None = None) -> dict[str, float]:
        """Loss of a run of N parameters on D tokens, with a 95 % interval: the uncertainty of the law and the scatter
        of single runs around it (residuals drawn with the resamples)."""
        value = float(self.law.loss(n, d, unique))
        rng = np.random.default_rng(17)
        draws = np.array([float(r.loss(n, d, unique)) for r in self.resamples])
        low, high = np.nan, np.nan
        if len(draws):
            scatter = np.exp(rng.choice(self.residuals, size=(16, len(draws))))
            low, high = np.quantile(draws * scatter, (0.025, 0.975))
        return {"loss": value, "low": float(low), "high": float(high)}

    def optimum(self, flop: float) -> dict[str, float]:
        """Compute-optimal parameters and tokens for a budget in FLOP (C = 6 N D), with 95 % intervals."""
        n, d = self.law.optimum(flop)
        sizes = np.array([r.optimum(flop) for r in self.resamples]).reshape(-1, 2)
        low, high = np.quantile(sizes, (0.025, 0.975), axis=0) if len(sizes) else (np.full(2, np.nan),) * 2
        return {
            "flop": flop, "params": n, "params_low": float(low[0]), "params_high": float(high[0]),
            "tokens": d, "tokens_low": float(low[1]), "tokens_high": float(high[1]),
            "tokens_per_param": d / n, "loss": float(self.law.loss(n, d)),
        }  # fmt: skip


def fit(table: Table, *, repetition: bool = False, resamples: int = RESAMPLES, seed: int = 17) -> Fit:
    """Fits the law and resamples the runs. repetition: also fit the value of repeated tokens.

    With repetition, the five coefficients start from the runs that read every token once.
    Raises UserError as `scaling_law.fit` does, and for repetition without a column of unique tokens.
    """
    once = table
    if repetition:
        if table.unique is None:
            raise UserError("--repetition needs a column `unique`: the number of distinct tokens in the training data")
        once = table.take(np.flatnonzero(table.d <= table.unique * 1.0001))
    law = _fit(once, table if repetition else None, None)
    rng = np.random.default_rng(seed)
    if repetition:
        draws = _resample_repeated(
            table, law, min(resamples, 100), rng
        )  # a fit of seven coefficients takes ten times as long
    else:
        draws = []
        for _ in range(resamples):
            mine = once.take(rng.integers(0, len(once), len(once)))
            if len(np.unique(mine.n)) > 1 and len(np.unique(mine.d)) > 1:
                draws.append(_fit(mine, None, law))
    return Fit(law, tuple(draws), table, laws.residuals(law, table.n, table.d, table.loss, table.unique))


def _fit(once: Table, repeated: Table | None, start: Law | None) -> Law:
    found = laws.fit(once.n, once.d, once.loss, start)
    if repeated is None:
        return found
    assert repeated.unique is not None
    return laws.fit_repetition(found, repeated.n, repeated.d, repeated.unique, repeated.loss)


def _resample_repeated(table: Table, law: Law, times: int, rng: np.random.Generator) -> list[Law]:
    draws = []
    for _ in range(times):
        mine = table.take(rng.integers(0, len(table), len(table)))
        assert mine.unique is not None
        if (mine.d > mine.unique * 1.0001).sum() >= 3 and len(np.unique(mine.n)) > 1:
            draws.append(laws.fit_repetition(law, mine.n, mine.d, mine.unique, mine.loss))
    return draws


@dataclass(frozen=True)
class Backtest:
    """The law of the smaller runs and its predictions for the largest ones."""

    fit: Fit
    rows: tuple[Mapping[str, Any], ...]  # run, flop, observed, predicted, low, high, error (relative)

    @property
    def error(self) -> float:
        """Mean absolute relative error of the loss over the held-out runs."""
        return float(np.mean([abs(r["error"]) for r in self.rows]))

    @property
    def inside(self) -> int:
        return sum(r["low"] <= r["observed"] <= r["high"] for r in self.rows)


def backtest(table: Table, *, share: float | None = None, repetition: bool = False, resamples: int = 200) -> Backtest:
    """Fits the law without the largest runs and predicts them.

    share: share of the runs that is held out, the largest by FLOP; None: the runs of the largest model.
    """
    if share is None:
        out = np.flatnonzero(table.n >= table.n.max() * 0.999)
    else:
        count = max(1, round(share * len(table)))
        out = np.argsort(-table.flop, kind="stable")[:count]
    rest = np.setdiff1d(np.arange(len(table)), out)
    if not len(rest):
        raise UserError("every run has the largest model size: a backtest needs smaller runs to fit")
    made = fit(table.take(rest), repetition=repetition, resamples=resamples)
    rows = []
    for i in sorted(out, key=lambda i: table.flop[i]):
        unique = float(table.unique[i]) if table.unique is not None else None
        predicted = made.predict(float(table.n[i]), float(table.d[i]), unique)
        observed = float(table.loss[i])
        rows.append(
            {
                "run": table.names[i], "flop": float(table.flop[i]), "observed": observed,
                "predicted": predicted["loss"],
                "low": predicted["low"], "high": predicted["high"], "error": predicted["loss"] / observed - 1,
            }
        )  # fmt: skip
    return Backtest(made, tuple(rows))
