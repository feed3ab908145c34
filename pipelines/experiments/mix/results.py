"""Holds the outcome of a mix search or fit: the recommended mix with intervals, confirming runs, verdicts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipelines.experiments.mix import mixing_laws, optimize_mix
from pipelines.experiments.mix.mixing_laws import Floats
from pipelines.experiments.mix.model_selection import Choice
from pipelines.experiments.mix.optimize_mix import Objective


@dataclass(frozen=True)
class Arm:
    """The confirming runs of one mix: objective by seed."""

    name: str
    mix: dict[str, float]
    values: tuple[float, ...]
    losses: dict[str, float]  # of each validation set, mean over seeds


@dataclass(frozen=True)
class Verdict:
    """The recommended mix compared with another, paired by seed. effect: difference of the objective; below 0 is better
    (above 0 if the objective is maximised)."""

    against: str
    effect: float
    low: float
    high: float
    p: float
    maximise: bool = False

    @property
    def words(self) -> str:
        if math.isnan(self.effect):
            return "inconclusive: a confirming run diverged"
        if math.isnan(self.p):
            return "one seed: no confidence interval"
        if self.low <= 0 <= self.high:
            return "no significant difference"
        return "better" if (self.effect < 0) != self.maximise else "worse"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a search. Mixes are {domain: share}."""

    domains: tuple[str, ...]
    metrics: tuple[str, ...]
    mixes: Floats = field(repr=False)  # [runs, domains]
    values: Floats = field(repr=False)  # [runs, metrics]
    roles: tuple[str, ...] = field(repr=False)
    choice: Choice = field(repr=False)
    objective: Objective
    recommended: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    predicted: dict[str, float]  # metrics of the recommended mix
    natural: dict[str, float]
    extrapolated: bool
    stop: int | None  # the step at which runs are compared; None: not known (a table from elsewhere)
    arms: tuple[Arm, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    trained: int = 0  # proxies trained by this call
    notes: tuple[str, ...] = ()

    @property
    def goal(self) -> str:
        """The objective in words."""
        weights = np.array(self.objective.weights) / sum(self.objective.weights)
        weighed = [(name, float(w)) for name, w in zip(self.metrics, weights, strict=True) if w > 0]
        names = ", ".join(name for name, _ in weighed)
        if len(weighed) == 1:
            return f"{names}, {'larger' if self.objective.maximise else 'smaller'} is better"
        if self.objective.worst:
            return f"the worst of {names}, each relative to the run nearest to the natural mix"
        if len({w for _, w in weighed}) == 1:
            return f"the mean of {names}"
        return "the mean of " + ", ".join(f"{name} (weight {w:.2g})" for name, w in weighed)

    @property
    def blind(self) -> bool:
        """Whether the law ranks unseen runs by the objective no better than chance (5 % level): a rank correlation
        below 1.64 / sqrt(runs - 1). The recommended mix is then arbitrary."""
        predicted, observed = self.objective.value(self.choice.predictions), self.objective.value(self.values)
        return mixing_laws.spearman(predicted, observed) < 1.64 / math.sqrt(len(observed) - 1)

    def mix_block(self) -> str:
        """YAML to paste into a pipeline file."""
        lines = [f"    {name}: {share:.4f}" for name, share in self.recommended.items()]
        return "\n".join(["mix:", "  weights:", *lines]) + "\n"


def recommend(
    choice: Choice,
    mixes: Floats,
    values: Floats,
    objective: Objective,
    largest: Floats,
    resamples: int,
    seed: int,
) -> tuple[Floats, Floats, Floats, Floats]:
    """(mix, lowest shares, highest shares, predicted metrics): the law's optimum and its 95 % interval."""
    found = optimize_mix.best(choice.fitted, objective, largest)
    times = min(resamples, 20) if choice.fitted.name == "lightgbm" else resamples  # trees take a second per resample
    draws = optimize_mix.resampled(
        choice.fitted.name, mixes, values, objective, largest, times=times, signs=objective.signs, seed=seed
    )
    low, high = optimize_mix.interval(draws)
    return found, low, high, choice.fitted.predict(found)[0]


def verdict(recommended: Arm, other: Arm, maximise: bool = False) -> Verdict:
    """Paired t-test over seeds: effect with 95 % interval and two-sided p."""
    from scipy.stats import t as student

    difference = np.array(recommended.values) - np.array(other.values)
    n, effect = len(difference), float(difference.mean())
    if n < 2:
        return Verdict(other.name, effect, math.nan, math.nan, math.nan, maximise)
    error = float(difference.std(ddof=1)) / math.sqrt(n)
    if not error:
        return Verdict(other.name, effect, effect, effect, 0.0 if effect else 1.0, maximise)
    half = float(student.ppf(0.975, n - 1)) * error
    p = float(2 * student.sf(abs(effect) / error, n - 1))
    return Verdict(other.name, effect, effect - half, effect + half, p, maximise)


def outcome_as_dict(outcome: Outcome) -> dict[str, Any]:
    """The outcome as plain values, for JSON."""
    return {
        "domains": outcome.domains, "metrics": outcome.metrics, "runs": len(outcome.mixes),
        "law": outcome.choice.fitted.name,
        "scores": outcome.choice.scores, "rho": outcome.choice.rho, "recommended": outcome.recommended,
        "low": outcome.low, "high": outcome.high, "predicted": outcome.predicted, "natural": outcome.natural,
        "extrapolated": outcome.extrapolated, "blind": outcome.blind, "stop": outcome.stop, "trained": outcome.trained,
        "notes": outcome.notes,
        "arms": [asdict(a) for a in outcome.arms],
        "verdicts": [asdict(v) | {"words": v.words} for v in outcome.verdicts],
    }  # fmt: skip
