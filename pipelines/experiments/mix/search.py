"""Searches for the best mix: trains a swarm of small runs, fits a law, refines near its optimum, recommends, confirms.

Trained runs are found by their fingerprint, so an interrupted search resumes, and one with a new objective only fits
again. All decisions of a search follow from its settings, the shards and the losses.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from curation import storage
from curation.core import yaml_lines
from curation.core.errors import DamagedFile, UserError
from curation.shards import Manifest, read_manifest
from curation.storage import Storage
from pipelines.experiments.mix import mixture_design, model_selection, optimize_mix, proxy_run, regmix_tables
from pipelines.experiments.mix.mixing_laws import Floats, spearman
from pipelines.experiments.mix.optimize_mix import Objective
from pipelines.experiments.mix.proxy_run import Proxy, Scores
from pipelines.experiments.mix.results import Arm, Outcome, Verdict, recommend, verdict
from pipelines.experiments.mix.search_config import Settings

SAME_RANKS = 0.98  # rank correlation with the final losses at which an earlier evaluation is good enough
PILOTS = 8  # runs trained to the end to decide whether the others may stop earlier
REFINE_ROUNDS = 2  # rounds of further runs around the predicted optimum
# Wide runs per domain before refining: with 7 for four domains, the first law of a crawl put everything into one.
WIDE = 3
SPREAD = 0.2  # standard deviation of a share in refining runs: wide enough to locate the optimum (docs/decisions.md)
CONFIRM_SEED_OFFSET = 1_000_000  # added to the seeds of confirming runs, so that they differ from the swarm's
SAME_MIX = 0.02  # largest difference of a share between two mixes that count as the same recommendation


class Progress(Protocol):
    def __call__(self, message: str) -> None: ...


Train = Callable[[Sequence[Proxy]], None]


def search(
    settings: Settings, folder: str, *, train: Train, confirm: bool = True, progress: Progress = lambda message: None
) -> Outcome:
    """Runs or resumes a search in `folder`. train: trains the given proxies, in any order (see proxy_workers.py).

    confirm: train confirming runs if there are none for the recommended mix.
    Raises UserError for unknown domains, caps that no mix fits, and too few runs.
    """
    return _Search(settings, Path(folder), train, progress).run(confirm)


class _Search:
    def __init__(self, settings: Settings, folder: Path, train: Train, progress: Progress) -> None:
        self.settings, self.folder, self._train, self.progress = settings, folder, train, progress
        self.manifest = read_manifest(settings.data)
        split = self.manifest.splits.get("train", {})
        self.domains = tuple(sorted(n for n, s in split.items() if s.tokens > 0))
        if len(self.domains) < 2:
            raise UserError(f"{settings.data} has {len(self.domains)} domain to train on; a mix needs at least two")
        self.available = np.array([float(split[n].tokens) for n in self.domains])
        self.natural = self.available / self.available.sum()
        self.largest = mixture_design.caps(self.available, settings.budget, settings.max_epochs)
        mixture_design.check_caps(self.domains, self.largest, settings.budget, settings.max_epochs)
        self.prior = self._prior()
        self.given = {n: self._shares(mix, f"confirm.mixes.{n}") for n, mix in settings.confirm.mixes.items()}
        self.base, self.references = _proxy_settings(settings)
        self.digest = _digest(self.manifest, self.base)
        self.steps = int(self.base["steps"])
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
        return self._shares(wanted, "prior")

    def _shares(self, wanted: Mapping[str, float], key: str) -> Floats:
        unknown = sorted(set(wanted) - set(self.domains))
        if unknown:
            raise UserError(
                f"{key}: no domain {', '.join(unknown)} in {self.settings.data}; there are {', '.join(self.domains)}"
            )
        shares = np.array([wanted.get(n, 0.0) for n in self.domains])
        if not shares.sum():
            raise UserError(f"{key}: every share is 0")
        return np.asarray(shares / shares.sum())

    # -- proxies ----------------------------------------------------------------------------------------------------

    def _proxy(self, mix: Floats, seed: int, stop: int | None) -> Proxy:
        made = copy.deepcopy(self.base)
        made["seed"] = seed
        made.setdefault("data", {})["weights"] = {
            n: round(float(r), 6) for n, r in zip(self.domains, mix, strict=True) if r >= 5e-7
        }
        name = proxy_run.name(made, self.digest)
        return Proxy(made, self.settings.data, str(self.folder / "proxies" / name), stop, self.references)

    def _seeds(self, runs: int) -> list[int]:
        """One seed per proxy of the swarm. With one seed, all would share one initialization, which favours some
        domains: more proxies do not average that out, more seeds do (docs/decisions.md)."""
        return [self.settings.seed + i for i in range(runs)]

    def _scores(self, mixes: Floats, seeds: Sequence[int], stop: int) -> list[Scores]:
        """The scores of the proxies at `stop`; trains those that are missing."""
        proxies = [self._proxy(m, s, stop) for m, s in zip(mixes, seeds, strict=True)]
        todo = {p.folder: p for p in proxies if not proxy_run.finished(p.folder, stop)}
        if todo:
            self.progress(f"training {len(todo)} of {len(proxies)} proxies to step {stop:,}")
            self._train(list(todo.values()))
            self.trained += len(todo)
        found = []
        for p in proxies:
            scored = proxy_run.scores(p.folder)
            if stop not in scored:
                raise UserError(f"the proxy in {p.folder} has no evaluation at step {stop}: see its metrics.jsonl")
            found.append(scored[stop])
        return found

    # -- the search -------------------------------------------------------------------------------------------------

    def run(self, confirm: bool) -> Outcome:
        record = self._record()
        if record is not None:
            mixes, roles, stop = np.array(record["mixes"]), list(record["roles"]), int(record["stop"])
            scored = self._scores(mixes, self._seeds(len(mixes)), stop)
        else:
            mixes, roles, scored, stop = self._explore()
            self._write_record(mixes, roles, stop)
        mixes, values, names, rows, notes = self._usable(mixes, scored)
        self.notes += notes
        roles = [roles[i] for i in rows]
        objective = self._objective(scored[rows[0]], names, mixes, values)
        choice = self._choose(mixes, values, objective)
        found, low, high, predicted = recommend(
            choice, mixes, values, objective, self.largest, self.settings.resamples, self.settings.seed
        )
        far = optimize_mix.extrapolated(found, mixes)
        arms, verdicts = self._confirm(found, names, objective, confirm)
        return Outcome(
            self.domains, names, mixes, values, tuple(roles), choice, objective, self._named(found), self._named(low),
            self._named(high), dict(zip(names, map(float, predicted), strict=True)), self._named(self.natural), far,
            stop, arms, verdicts, self.trained, tuple(self.notes),
        )  # fmt: skip

    def _explore(self) -> tuple[Floats, list[str], list[Scores], int]:
        s, least = self.settings, model_selection.least_runs(len(self.domains))
        if s.design == "grid":
            mixes = mixture_design.grid(len(self.domains), s.runs, self.largest)
        elif s.design == "one_factor":
            mixes = mixture_design.one_factor(self.prior, s.runs, self.largest)
        else:
            wide = min(s.runs, max(least, WIDE * len(self.domains), round(s.runs * (1 - s.refine))))
            mixes = mixture_design.swarm(self.prior, wide, self.largest, temperatures=s.temperatures, seed=s.seed)
        if len(mixes) < least:
            raise model_selection.too_few(len(mixes), len(self.domains))
        stop = self._stop(mixes)
        scored = self._scores(mixes, self._seeds(len(mixes)), stop)
        roles = ["swarm"] * len(mixes)
        left = s.runs - len(mixes) if s.design == "dirichlet" else 0
        for number, share in enumerate(np.array_split(np.arange(left), REFINE_ROUNDS), 1):
            if not len(share):
                continue
            good, values, names, rows, _ = self._usable(mixes, scored)
            objective = self._objective(scored[rows[0]], names, good, values)
            choice = self._choose(good, values, objective, nested=False)
            center = optimize_mix.best(choice.fitted, objective, self.largest)
            self.progress(f"refining near {_format_mix(self.domains, center)} ({choice.fitted.name})")
            more = mixture_design.around(center, len(share), self.largest, spread=SPREAD, seed=s.seed + number)
            mixes, roles = np.concatenate([mixes, more]), roles + ["refine"] * len(more)
            scored = self._scores(mixes, self._seeds(len(mixes)), stop)
        return mixes, roles, scored, stop

    def _stop(self, mixes: Floats) -> int:
        """The step at which proxies are compared: the first evaluation that ranks the pilots like the last one."""
        if not self.settings.early_stop or len(mixes) <= PILOTS:
            return self.steps
        seeds = self._seeds(PILOTS)
        self._scores(mixes[:PILOTS], seeds, self.steps)
        runs = [
            proxy_run.scores(self._proxy(m, seed, None).folder) for m, seed in zip(mixes[:PILOTS], seeds, strict=True)
        ]
        shared = sorted(set.intersection(*(set(r) for r in runs)))
        last = [r[self.steps].losses for r in runs]
        settled = self.steps
        for at in reversed(shared):
            then = [r[at].losses for r in runs]
            rho = min(spearman(np.array([r[n] for r in then]), np.array([r[n] for r in last])) for n in last[0])
            if at < self.steps // 4 or rho < SAME_RANKS:
                break
            settled = at
        if settled < self.steps:
            self.progress(
                f"the pilots' ranks agree with the final ones from step {settled:,} of {self.steps:,}: all stop there"
            )
        return settled

    def _usable(
        self, mixes: Floats, scored: Sequence[Scores]
    ) -> tuple[Floats, Floats, tuple[str, ...], list[int], list[str]]:
        """(mixes, values, names of the metrics, rows, notes) of the runs with finite metrics and the metrics that vary.
        (mixes, values, names of the metrics, rows, notes) of the runs with finite metrics and the metrics that vary."""
        names = (*sorted(scored[0].losses), *sorted(scored[0].tasks))
        values = np.array([[(s.losses | s.tasks)[n] for n in names] for s in scored])
        where = str(self.folder / "proxies")
        rows, moving, notes = regmix_tables.select_fittable(
            where, [str(i + 1) for i in range(len(mixes))], names, values
        )
        if len(rows) < model_selection.least_runs(len(self.domains)) <= len(mixes):
            raise UserError(
                f"{where}: {len(mixes) - len(rows)} of {len(mixes)} proxies diverged (a metric is not finite), and "
                f"{model_selection.too_few(len(rows), len(self.domains))}. Lower the proxy's optimizer.lr"
            )
        return mixes[rows], values[np.ix_(rows, moving)], tuple(names[i] for i in moving), rows.tolist(), notes

    def _choose(
        self, mixes: Floats, values: Floats, objective: Objective, *, nested: bool = True
    ) -> model_selection.Choice:
        s = self.settings
        return model_selection.choose(mixes, values, s.families, signs=objective.signs, seed=s.seed, nested=nested)

    def _objective(self, one: Scores, names: Sequence[str], mixes: Floats, values: Floats) -> Objective:
        """The objective over the metrics of the table. one: the scores of a run, which tell losses from task scores."""
        wanted = self.settings.objective
        if wanted.kind == "metric":
            assert wanted.metric is not None
            _known_metrics({wanted.metric}, {*one.losses, *one.tasks}, names, "metric")
            return Objective(optimize_mix.weights_for(names, {wanted.metric: 1.0}), maximise=wanted.maximise)
        if wanted.weights is not None:
            _known_metrics({n for n, w in wanted.weights.items() if w}, set(one.losses), names, "validation set")
        losses = dict.fromkeys(set(one.losses) & set(names), 1.0)
        weights = optimize_mix.weights_for(names, losses if wanted.weights is None else wanted.weights)
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
        wanted = {n: others[n] for n in s.confirm.against} | self.given
        mixes = {"recommended": found} | {n: mixture_design.within(mix, self.largest) for n, mix in wanted.items()}
        if "prior" in mixes and "natural" in mixes and np.allclose(mixes["prior"], mixes["natural"]):
            del mixes["prior"]
        earlier = self._read("confirm.json")
        if earlier is not None and np.abs(np.array(earlier["recommended"]) - found).max() <= SAME_MIX:
            mixes["recommended"] = np.array(earlier["recommended"])
        seeds = [s.seed + CONFIRM_SEED_OFFSET + i for i in range(s.confirm.seeds)]
        table, all_seeds = np.repeat(np.array(list(mixes.values())), len(seeds), axis=0), seeds * len(mixes)
        if not train and not self._trained(table, all_seeds):
            self.notes.append("the recommended mix is not confirmed by runs; confirm it with --confirm")
            return (), ()
        self.store.write_json("confirm.json", {"recommended": [float(x) for x in mixes["recommended"]]})
        scored = self._scores(table, all_seeds, self.steps)
        arms = []
        for i, (name, mix) in enumerate(mixes.items()):
            rows = scored[i * len(seeds) : (i + 1) * len(seeds)]
            values = np.array([[(r.losses | r.tasks)[n] for n in names] for r in rows])
            means = dict(zip(names, map(float, values.mean(axis=0)), strict=True))
            reached = objective.value(values) * (-1 if objective.maximise else 1)
            arms.append(Arm(name, self._named(mix), tuple(map(float, reached)), means))
        return tuple(arms), tuple(verdict(arms[0], arm, objective.maximise) for arm in arms[1:])

    def _trained(self, mixes: Floats, seeds: Sequence[int]) -> bool:
        proxies = (self._proxy(m, s, None) for m, s in zip(mixes, seeds, strict=True))
        return all(proxy_run.finished(p.folder, self.steps) for p in proxies)

    # -- stored state ----------------------------------------------------------------------------------------------

    def _identity(self) -> str:
        """The fingerprint of everything that decides which proxies a search trains (not the objective)."""
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
        try:
            return self.store.read_json(name) if self.store.exists(name) else None
        except DamagedFile:
            return None

    def _named(self, mix: Floats) -> dict[str, float]:
        return dict(zip(self.domains, map(float, mix), strict=True))


def _proxy_settings(settings: Settings) -> tuple[dict[str, Any], Mapping[yaml_lines.Path, str]]:
    """The resolved training file of the proxy, with every default, so that its fingerprint covers all settings; and its
    strings that have `${VAR}`."""
    from training import config

    if isinstance(settings.proxy, str):
        loaded = config.load(settings.proxy)
    else:
        loaded = config.parse(yaml_lines.dump(settings.proxy), "proxy", references=settings._references)
    made: dict[str, Any] = loaded.model_dump(mode="json")
    if "guard" not in loaded.model_fields_set:  # rollbacks and masked documents would change the training data
        made["guard"]["action"] = "watch"
    if made.get("threads") is None:
        made["threads"] = max(1, int(settings.cpus))
    return made, loaded.references


def _digest(manifest: Manifest, base: dict[str, Any]) -> str:
    """The digest of everything that the proxies read: shards, further validation runs, task files."""
    parts = [manifest.dumps()]
    parts += [read_manifest(place).dumps() for place in base["data"]["validation"].values()]
    for path in base["evaluate"]["tasks"]:
        try:
            parts.append(Path(path).read_bytes())
        except OSError as error:
            raise UserError(f"proxy: evaluate.tasks: cannot read {path}: {error}") from error
    return hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()


def _known_metrics(wanted: set[str], existing: set[str], names: Sequence[str], kind: str) -> None:
    unknown = sorted(wanted - existing)
    if unknown:
        raise UserError(f"objective: no {kind} {', '.join(unknown)}; there are {', '.join(sorted(existing))}")
    still = sorted(wanted - set(names))
    if still:
        raise UserError(f"objective: {', '.join(still)} has the same value in every run, so it cannot be optimized")


def _format_mix(names: Sequence[str], mix: Floats) -> str:
    return ", ".join(f"{n} {r:.2f}" for n, r in zip(names, mix, strict=True))
