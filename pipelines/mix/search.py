"""The search: train a swarm of small runs, fit a law, look near its optimum, fit again, recommend, and check it.

What has been trained is found again by its fingerprint, so a search that was killed goes on, and one whose objective
changed fits anew and trains nothing. All that a search decides follows from its settings, the shards and the losses.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from curation import storage
from curation.shards import read_manifest
from curation.step import UserError
from curation.storage import Storage
from pipelines.mix import choose, design, optimum, proxy
from pipelines.mix.laws import Floats, spearman
from pipelines.mix.optimum import Objective
from pipelines.mix.proxy import Proxy
from pipelines.mix.settings import Settings

SETTLED = 0.98  # rank correlation with the final losses at which an earlier evaluation is as good
PILOTS = 8  # runs trained to the end before it is asked whether the others may stop earlier
REFINE_SPREAD = 0.12  # standard deviation of a share in the first round near the optimum; halved in the second
SAME = 0.02  # largest difference of a share at which two mixes count as one recommendation


class Progress(Protocol):
    def __call__(self, message: str) -> None: ...


@dataclass(frozen=True)
class Arm:
    """One mix of the confirming runs: objective by seed."""

    name: str
    mix: dict[str, float]
    values: tuple[float, ...]
    losses: dict[str, float]  # of each validation set, mean over seeds


@dataclass(frozen=True)
class Verdict:
    """The recommended mix against another, paired by seed. effect: difference of the objective, below 0 is better."""

    against: str
    effect: float
    low: float
    high: float
    p: float

    @property
    def words(self) -> str:
        if math.isnan(self.p):
            return "one seed: no telling how sure"
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "no difference that these seeds could show"


@dataclass(frozen=True)
class Outcome:
    """What a search found. Mixes are {domain: share}."""

    domains: tuple[str, ...]
    metrics: tuple[str, ...]
    mixes: Floats = field(repr=False)  # [runs, domains]
    values: Floats = field(repr=False)  # [runs, metrics]
    roles: tuple[str, ...] = field(repr=False)
    choice: choose.Choice = field(repr=False)
    recommended: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    predicted: dict[str, float]  # metrics of the recommended mix
    natural: dict[str, float]
    extrapolated: bool
    stop: int | None  # the iteration at which runs are compared; None: not known (a table from elsewhere)
    arms: tuple[Arm, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    trained: int = 0  # proxies trained by this call
    notes: tuple[str, ...] = ()

    def mix_block(self) -> str:
        """YAML to paste into a pipeline file."""
        lines = [f"    {name}: {share:.4f}" for name, share in self.recommended.items()]
        return "\n".join(["mix:", "  weights:", *lines]) + "\n"


Train = Callable[[Sequence[Proxy]], None]


def search(
    settings: Settings, folder: str, *, train: Train, confirm: bool = True, progress: Progress = lambda message: None
) -> Outcome:
    """Runs or resumes a search in `folder`. train: trains the given proxies, in any order (see `workers`).

    confirm: train the confirming runs where there are none for the recommended mix.
    Raises UserError for unknown domains, caps that no mix keeps, and too few runs.
    """
    return _Search(settings, Path(folder), train, progress).run(confirm)


class _Search:
    def __init__(self, settings: Settings, folder: Path, train: Train, progress: Progress) -> None:
        self.settings, self.folder, self._train, self.progress = settings, folder, train, progress
        self.manifest = read_manifest(settings.data)
        split = self.manifest.splits.get("train", {})
        self.domains = tuple(sorted(n for n, s in split.items() if s.tokens > 0))
        if len(self.domains) < 2:
            raise UserError(f"{settings.data} has {len(self.domains)} domain to train on: a mix needs two or more")
        self.available = np.array([float(split[n].tokens) for n in self.domains])
        self.natural = self.available / self.available.sum()
        self.largest = design.caps(self.available, settings.budget, settings.max_epochs)
        design.check_caps(self.domains, self.largest, settings.budget, settings.max_epochs)
        self.prior = self._prior()
        self.digest = hashlib.sha256(self.manifest.dumps()).hexdigest()
        self.base = _proxy_settings(settings)
        self.iterations = int(self.base["iterations"])
        self.trained = 0
        self.notes: list[str] = []
        self.store = Storage(str(folder))

    def _prior(self) -> Floats:
        wanted = self.settings.prior
        if wanted == "natural":
            return np.asarray(self.natural)
        if wanted == "uniform":
            return np.full(len(self.domains), 1 / len(self.domains))
        assert isinstance(wanted, dict)
        self._known(wanted, "prior")
        shares = np.array([wanted.get(n, 0.0) for n in self.domains])
        if not shares.sum():
            raise UserError("prior: every share is nought")
        return np.asarray(shares / shares.sum())

    def _known(self, names: Iterable[str], key: str) -> None:
        unknown = sorted(set(names) - set(self.domains))
        if unknown:
            raise UserError(
                f"{key}: no domain {', '.join(unknown)} in {self.settings.data}; there are {', '.join(self.domains)}"
            )

    # -- proxies ----------------------------------------------------------------------------------------------------

    def _proxy(self, mix: Floats, seed: int, stop: int | None) -> Proxy:
        made = copy.deepcopy(self.base)
        made["seed"] = seed
        made.setdefault("data", {})["weights"] = {
            n: round(float(r), 6) for n, r in zip(self.domains, mix, strict=True) if r >= 5e-7
        }
        name = proxy.name(made, self.digest)
        return Proxy(made, self.settings.data, str(self.folder / "proxies" / name), stop)

    def _losses(self, mixes: Floats, seeds: Sequence[int], stop: int) -> list[dict[str, float]]:
        """Validation losses of the proxies at `stop`, training those that are not there yet."""
        proxies = [self._proxy(m, s, stop) for m, s in zip(mixes, seeds, strict=True)]
        todo = {p.folder: p for p in proxies if not proxy.finished(p.folder, stop)}
        if todo:
            self.progress(f"training {len(todo)} of {len(proxies)} proxies to iteration {stop:,}")
            self._train(list(todo.values()))
            self.trained += len(todo)
        found = []
        for p in proxies:
            scored = proxy.scores(p.folder)
            if stop not in scored:
                raise UserError(f"the proxy in {p.folder} has no evaluation at iteration {stop}: see its metrics.jsonl")
            found.append(scored[stop])
        return found

    # -- the search -------------------------------------------------------------------------------------------------

    def run(self, confirm: bool) -> Outcome:
        record = self._record()
        if record is not None:
            mixes, roles, stop = np.array(record["mixes"]), list(record["roles"]), int(record["stop"])
            losses = self._losses(mixes, [self.settings.seed] * len(mixes), stop)
        else:
            mixes, roles, losses, stop = self._explore()
            self._write_record(mixes, roles, stop)
        names = tuple(sorted(losses[0]))
        values = np.array([[row[n] for n in names] for row in losses])
        usable = np.isfinite(values).all(axis=1)
        if not usable.all():
            self.notes.append(f"{int((~usable).sum())} proxies diverged (a loss that is no number) and are left out")
        mixes, values = mixes[usable], values[usable]
        roles = [r for r, good in zip(roles, usable, strict=True) if good]
        objective = self._objective(names, mixes, values)
        choice = choose.choose(mixes, values, self.settings.families, seed=self.settings.seed)
        found, low, high, predicted = recommend(
            choice, mixes, values, objective, self.largest, self.settings.resamples, self.settings.seed
        )
        far = optimum.extrapolated(found, mixes)
        arms, verdicts = self._confirm(found, names, objective, confirm)
        return Outcome(
            self.domains, names, mixes, values, tuple(roles), choice, self._named(found), self._named(low),
            self._named(high), dict(zip(names, map(float, predicted), strict=True)), self._named(self.natural), far,
            stop, arms, verdicts, self.trained, tuple(self.notes),
        )  # fmt: skip

    def _explore(self) -> tuple[Floats, list[str], list[dict[str, float]], int]:
        s = self.settings
        wide = s.runs if s.design != "dirichlet" else max(4, round(s.runs * (1 - s.refine)))
        if s.design == "grid":
            mixes = design.grid(len(self.domains), s.runs, self.largest)
        elif s.design == "one_factor":
            mixes = design.one_factor(self.prior, s.runs, self.largest)
        else:
            mixes = design.swarm(self.prior, wide, self.largest, temperatures=s.temperatures, seed=s.seed)
        stop = self._stop(mixes)
        losses = self._losses(mixes, [s.seed] * len(mixes), stop)
        roles = ["swarm"] * len(mixes)
        left = s.runs - len(mixes) if s.design == "dirichlet" else 0
        for number, count in enumerate((left - left // 2, left // 2)):
            if count == 0:
                continue
            names = tuple(sorted(losses[0]))
            values = np.array([[row[n] for n in names] for row in losses])
            usable = np.isfinite(values).all(axis=1)
            objective = self._objective(names, mixes[usable], values[usable])
            choice = choose.choose(mixes[usable], values[usable], s.families, seed=s.seed, nested=False)
            center = optimum.best(choice.fitted, objective, self.largest)
            self.progress(f"looking near {_say(self.domains, center)} ({choice.fitted.name})")
            more = design.around(
                center, count, self.largest, spread=REFINE_SPREAD / 2**number, seed=s.seed + 1 + number
            )
            losses += self._losses(more, [s.seed] * count, stop)
            mixes, roles = np.concatenate([mixes, more]), roles + ["refine"] * count
        return mixes, roles, losses, stop

    def _stop(self, mixes: Floats) -> int:
        """The iteration at which proxies are compared: the first evaluation that ranks the pilots as their end does."""
        if not self.settings.early_stop or len(mixes) <= PILOTS:
            return self.iterations
        self._losses(mixes[:PILOTS], [self.settings.seed] * PILOTS, self.iterations)
        runs = [proxy.scores(self._proxy(m, self.settings.seed, None).folder) for m in mixes[:PILOTS]]
        shared = sorted(set.intersection(*(set(r) for r in runs)))
        last = runs[0][self.iterations]
        settled = self.iterations
        for at in reversed(shared):
            rho = min(
                spearman(np.array([r[at][n] for r in runs]), np.array([r[self.iterations][n] for r in runs]))
                for n in last
            )
            if at < self.iterations // 4 or rho < SETTLED:
                break
            settled = at
        if settled < self.iterations:
            self.progress(
                f"the pilots' ranks are settled at iteration {settled:,} of {self.iterations:,}: there it stops"
            )
        return settled

    def _objective(self, names: Sequence[str], mixes: Floats, values: Floats) -> Objective:
        wanted = self.settings.objective
        if wanted.kind == "metric":
            assert wanted.metric is not None
            if wanted.metric not in names:
                raise UserError(f"objective: no metric {wanted.metric}; there are {', '.join(names)}")
            return Objective(optimum.weights_for(names, {wanted.metric: 1.0}), maximise=wanted.maximise)
        unknown = sorted(set(wanted.weights or {}) - set(names))
        if unknown:
            raise UserError(f"objective: no validation set {', '.join(unknown)}; there are {', '.join(names)}")
        weights = optimum.weights_for(names, wanted.weights)
        nearest = int(np.argmin(np.linalg.norm(mixes - self.natural, axis=1)))
        return Objective(weights, worst=wanted.kind == "worst", reference=tuple(map(float, values[nearest])))

    def _confirm(
        self, found: Floats, names: Sequence[str], objective: Objective, train: bool
    ) -> tuple[tuple[Arm, ...], tuple[Verdict, ...]]:
        s = self.settings
        if not s.confirm.seeds:
            return (), ()
        others = {
            "natural": self.natural,
            "prior": self.prior,
            "uniform": np.full(len(self.domains), 1 / len(self.domains)),
        }
        mixes = {"recommended": found} | {n: design.within(others[n], self.largest) for n in s.confirm.against}
        if "prior" in mixes and "natural" in mixes and np.allclose(mixes["prior"], mixes["natural"]):
            del mixes["prior"]
        earlier = self._read("confirm.json")
        if earlier is not None and np.abs(np.array(earlier["recommended"]) - found).max() <= SAME:
            mixes["recommended"] = np.array(earlier["recommended"])
        elif earlier is not None and not train:
            self.notes.append("the recommended mix is another than the one confirmed before: confirm it with --confirm")
            return (), ()
        self.store.write_json("confirm.json", {"recommended": [float(x) for x in mixes["recommended"]]})
        seeds = [s.seed + 1000 + i for i in range(s.confirm.seeds)]
        table = np.repeat(np.array(list(mixes.values())), len(seeds), axis=0)
        losses = self._losses(table, seeds * len(mixes), self.iterations)
        arms = []
        for i, (name, mix) in enumerate(mixes.items()):
            rows = losses[i * len(seeds) : (i + 1) * len(seeds)]
            values = np.array([[r[n] for n in names] for r in rows])
            means = dict(zip(names, map(float, values.mean(axis=0)), strict=True))
            arms.append(Arm(name, self._named(mix), tuple(map(float, objective.value(values))), means))
        return tuple(arms), tuple(verdict(arms[0], arm) for arm in arms[1:])

    # -- what is kept -----------------------------------------------------------------------------------------------

    def _identity(self) -> str:
        """Of everything that decides which proxies a search trains, the objective apart."""
        s = self.settings
        apart = {"objective", "families", "resamples", "confirm", "data", "proxy", "cpus", "gpus"}
        kept = s.model_dump(mode="json", exclude=apart)
        return storage.fingerprint([kept, self.base, self.digest])

    def _record(self) -> dict[str, Any] | None:
        record = self._read("swarm.json")
        return record if record is not None and record["identity"] == self._identity() else None

    def _write_record(self, mixes: Floats, roles: Sequence[str], stop: int) -> None:
        value = {
            "identity": self._identity(),
            "domains": self.domains,
            "mixes": mixes.tolist(),
            "roles": list(roles),
            "stop": stop,
        }
        self.store.write_json("swarm.json", value)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        try:
            return dict(json.loads(path.read_text())) if path.exists() else None
        except ValueError:
            return None

    def _named(self, mix: Floats) -> dict[str, float]:
        return dict(zip(self.domains, map(float, mix), strict=True))


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
    """The same from somebody's tables: law, recommendation, intervals; nothing is trained."""
    from pipelines.mix import published

    table = published.read(ratios, metrics)
    unknown = sorted(set(weights or {}) - set(table.metrics))
    if unknown:
        raise UserError(f"objective: no metric {', '.join(unknown)}; there are {', '.join(table.metrics)}")
    mean = table.mixes.mean(axis=0)
    nearest = int(np.argmin(np.linalg.norm(table.mixes - mean, axis=1)))
    objective = Objective(
        optimum.weights_for(table.metrics, weights), worst, maximise, tuple(map(float, table.values[nearest]))
    )
    choice = choose.choose(table.mixes, table.values, seed=seed)
    largest = np.ones(len(table.domains))
    found, low, high, predicted = recommend(choice, table.mixes, table.values, objective, largest, resamples, seed)

    def named(mix: Floats) -> dict[str, float]:
        return dict(zip(table.domains, map(float, mix), strict=True))

    return Outcome(
        table.domains, table.metrics, table.mixes, table.values, ("swarm",) * len(table.mixes), choice, named(found),
        named(low), named(high),
        predicted=dict(zip(table.metrics, map(float, predicted), strict=True)), natural={},
        extrapolated=optimum.extrapolated(found, table.mixes), stop=None, notes=table.notes,
    )  # fmt: skip


def recommend(
    choice: choose.Choice,
    mixes: Floats,
    values: Floats,
    objective: Objective,
    largest: Floats,
    resamples: int,
    seed: int,
) -> tuple[Floats, Floats, Floats, Floats]:
    """(mix, lowest shares, highest shares, predicted metrics): the law's optimum and its 95 % interval."""
    found = optimum.best(choice.fitted, objective, largest)
    times = min(resamples, 20) if choice.fitted.name == "lightgbm" else resamples  # trees take a second a resample
    draws = optimum.resampled(choice.fitted.name, mixes, values, objective, largest, times=times, seed=seed)
    low, high = optimum.interval(draws)
    return found, low, high, choice.fitted.predict(found)[0]


def verdict(recommended: Arm, other: Arm) -> Verdict:
    """Paired t-test over seeds: effect with 95 % interval and two-sided p."""
    from scipy.stats import t as student

    difference = np.array(recommended.values) - np.array(other.values)
    n, effect = len(difference), float(difference.mean())
    if n < 2:
        return Verdict(other.name, effect, math.nan, math.nan, math.nan)
    error = float(difference.std(ddof=1)) / math.sqrt(n)
    if not error:
        return Verdict(other.name, effect, effect, effect, 0.0 if effect else 1.0)
    half = float(student.ppf(0.975, n - 1)) * error
    return Verdict(other.name, effect, effect - half, effect + half, float(2 * student.sf(abs(effect) / error, n - 1)))


def _proxy_settings(settings: Settings) -> dict[str, Any]:
    """The proxy's training file, resolved: every default written out, so that its fingerprint is of what it does."""
    import yaml

    from training import config

    if isinstance(settings.proxy, str):
        loaded = config.load(settings.proxy)
    else:
        loaded = config.parse(yaml.safe_dump(settings.proxy), "proxy")
    made: dict[str, Any] = loaded.model_dump(mode="json")
    if made.get("threads") is None:
        made["threads"] = max(1, int(settings.cpus))
    return made


def _say(names: Sequence[str], mix: Floats) -> str:
    return ", ".join(f"{n} {r:.2f}" for n, r in zip(names, mix, strict=True))


def as_json(outcome: Outcome) -> dict[str, Any]:
    """What scripts read."""
    return {
        "domains": outcome.domains, "metrics": outcome.metrics, "runs": len(outcome.mixes),
        "law": outcome.choice.fitted.name,
        "scores": outcome.choice.scores, "rho": outcome.choice.rho, "recommended": outcome.recommended,
        "low": outcome.low, "high": outcome.high, "predicted": outcome.predicted, "natural": outcome.natural,
        "extrapolated": outcome.extrapolated, "stop": outcome.stop, "trained": outcome.trained, "notes": outcome.notes,
        "arms": [asdict(a) for a in outcome.arms],
        "verdicts": [asdict(v) | {"words": v.words} for v in outcome.verdicts],
    }  # fmt: skip
