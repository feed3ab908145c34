"""Runs the phases of a plan in order: map phases, stages of global steps, rounds of quantiles.

Holds what the next phase needs of the ones before: the manifests of the latest map phase, the results of global steps
and the quantiles found so far.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from curation import storage
from curation.config.resources import ORDINARY, Resources
from curation.config.rules import Quantile
from curation.engine.execution.driver import Driver, Phase
from curation.engine.execution.failure_limit import FailureLimit
from curation.engine.execution.poison_list import PoisonList
from curation.engine.execution.quantile_rounds import compute_quantiles
from curation.engine.execution.run_stages import FinishedStages, run_stages
from curation.engine.planning import fingerprints
from curation.engine.planning.map_spec import FailedRecord, MapPhase, MapSpec, Op
from curation.engine.planning.plan import Plan, Segment, resolve_ops, store_suffix
from curation.engine.planning.prior_run import PriorRunRecord, Task, find_reusable
from curation.engine.tasks import map_task, stage_task
from curation.step import InputSplit, StagePlan


class PoisonFound(Exception):
    """A record failed in a phase after a global step. It is on the poison list now; the run has to start over."""


class Phases:
    """Runs phases of one plan in order, and keeps what the next one needs of the one before."""

    def __init__(self, driver: Driver, plan: Plan, specs: list[MapSpec], sample: float | None) -> None:
        self.driver, self.plan, self.sample = driver, plan, sample
        self.storage = driver.storage
        self.specs = specs
        self.sizes = _sizes(specs)
        self.fingerprints = [_step_fingerprints(s) for s in plan.segments]
        counts = [(step, f) for mine in self.fingerprints for step, f in mine.items()]
        versions = {
            (source.name, f.path): f"{f.size} {f.version}"
            for source, files in zip(plan.pipeline.sources, plan.files, strict=True)
            for f in files
        }
        by_step = {s: [f for step, f in counts if step == s] for s, _ in counts}
        self.poison = PoisonList(self.storage, by_step, versions)
        self.manifests: list[dict[str, Any]] = []  # of the latest map phase
        self._columns = ""  # fingerprint of what all phases so far computed
        self._running: list[MapSpec] = []  # tasks of the map phase that runs
        self.history: list[tuple[Segment, list[dict[str, Any]]]] = []
        self.values: dict[Quantile, Any] = {}
        self.joins: dict[str, FinishedStages] = {}  # by global step
        # of the finished map tasks, by key: the files in each store, and what could not be read
        self._by_key: dict[str, dict[str, list[str]]] | None = None
        self._unread: dict[str, list[dict[str, Any]]] = {}

    # -- map phases -------------------------------------------------------------------------------------------------

    def map(self, segment: Segment) -> list[dict[str, Any]]:
        """Runs a map phase over all tasks; checks that no document was lost between it and the phase before."""
        plan, first = self.plan, segment.index == 0
        joined = {name: self._join_store(name) for name in self.joins}
        ops = resolve_ops(segment, self.values, joined)
        text_store = None
        if segment.text_fingerprint:
            text_store = f"cache/docs/{segment.text_fingerprint[:16]}{store_suffix(segment.text_after, joined)}"
        base_store = f"cache/signals/read-{plan.base_fingerprint[:16]}"
        stores = [op.store for op in ops if op.kind != "rules"]
        if first:
            stores.append(base_store)
        if text_store:
            stores.append(text_store)
        shared = MapPhase(
            run=self.storage.root, sources=plan.sources, ops=ops, first=first, base_store=base_store,
            text_store=text_store, types=plan.types, scrubber=plan.scrubber, scrub_before=plan.scrub_before,
            excluded=plan.excluded,
            batch_rows=plan.pipeline.engine.batch_rows, keep_dropped_text=plan.pipeline.retention == "all",
            sample=self.sample, seed=plan.pipeline.seed,
        )  # fmt: skip
        common = self._decision(segment, ops, text_store, base_store)
        without_rules = [dataclasses.replace(op, rules={}) for op in ops]
        self._columns = storage.fingerprint(
            [self._columns, self._decision(segment, without_rules, text_store, base_store)]
        )
        if first:
            specs = [self._with_poison(s, common) for s in self.specs]
        else:
            specs = [
                MapSpec(
                    m["index"], m["key"], storage.fingerprint([common, m["content"]]), state=m["state"],
                    joins={op.step.name: self._join_files(op, m["index"]) for op in ops if op.kind == "join"},
                    numbers={n: m["index"] + joined.first_task for n, joined in self.joins.items()},
                )
                for m in self.manifests
            ]  # fmt: skip
        known = [self._known(s.key, stores) for s in specs]
        specs = self._running = [
            dataclasses.replace(s, known=k, unread=self._unread.get(s.key, ()) if base_store in k else ())
            for s, k in zip(specs, known, strict=True)
        ]
        ids = [_task_id(s) for s in specs]
        phase = Phase(
            f"{segment.index}: {segment.name}",
            storage.fingerprint([common, [s.key for s in specs]]),
            map_task.run_map,
            shared,
            specs,
            ids,
            self.sizes,
            lambda failed: self._without(segment, failed, common),
            self._limit(first),
            lambda: self.poison.entries,
            None if first else partial(_same_files, text_store is not None),
            segment.resources,
        )
        manifests = self.driver.run(phase)
        for spec, manifest in zip(phase.specs, manifests, strict=True):
            # What later phases depend on: which columns there are, and which documents rules dropped. Not the rules
            # themselves, so a change of one that drops the same documents ends here.
            manifest["content"] = storage.fingerprint([self._columns, manifest["state"]["decisions"]])
            self.driver.finished[_task_id(spec)] = manifest
        self._check_conserved(segment, manifests)
        self.manifests = manifests
        self.history.append((segment, manifests))
        return manifests

    def _decision(self, segment: Segment, ops: Sequence[Op], text_store: str | None, base_store: str) -> str:
        """What, beside a task's input, decides what becomes of its documents in this phase."""
        plan = self.plan
        return storage.fingerprint(
            {
                "ops": [(op.kind, op.step.name, op.position, op.store, list(op.rules.items())) for op in ops],
                "text": text_store,
                "base": base_store,
                "engine": fingerprints.module_fingerprint(map_task.__file__),
                "exclude": plan.excluded.fingerprint() if segment.index == 0 else None,
                "sample": [self.sample, plan.pipeline.seed] if self.sample is not None else None,
                "retention": plan.pipeline.retention == "all",
            }
        )

    def _known(self, key: str, stores: Sequence[str]) -> dict[str, list[str]]:
        """The committed files of this task in these stores, whichever plan wrote them."""
        if self._by_key is None:
            self._by_key = {}
            for manifest in self.driver.finished.values():
                mine = self._by_key.setdefault(manifest["key"], {})
                for directory, files in manifest["stores"].items():
                    into = mine.setdefault(directory, [])
                    into.extend(f for f in files if f not in into)
                if manifest["unread"]:  # depends on the input alone, which the key names
                    self._unread[manifest["key"]] = manifest["unread"]
        mine = self._by_key.get(key, {})
        return {d: sorted(mine[d]) for d in stores if d in mine}

    def _with_poison(self, spec: MapSpec, common: str) -> MapSpec:
        mine = self.poison.of_task(self._source(spec), {p.path for p in spec.splits})
        return dataclasses.replace(spec, poison=mine, decision=storage.fingerprint([common, mine]))

    def _source(self, spec: MapSpec) -> str:
        return self.plan.pipeline.sources[self.specs[spec.index].source].name

    def _limit(self, first: bool) -> FailureLimit:
        records: Counter[str] = Counter()
        if not first:
            for spec, manifest in zip(self.specs, self.history[0][1], strict=True):
                records[self._source(spec)] += manifest["in"]
        names = [s.name for s in self.plan.pipeline.sources]
        return FailureLimit(names, [s.source for s in self.specs], self.sizes, records)

    def _without(
        self, segment: Segment, failed: Mapping[int, Sequence[FailedRecord]], common: str
    ) -> Mapping[int, tuple[MapSpec, str]]:
        for i, records in sorted(failed.items()):
            self.poison.add(records, self._source(self.specs[i]), self.fingerprints[segment.index])
        if segment.index:
            # The list is applied when reading: a record that fails after a global step must be dropped before it, so
            # the run starts over from there, with everything cached that did not depend on the records left out.
            raise PoisonFound(f"{sum(map(len, failed.values()))} records")
        return {i: (spec, _task_id(spec)) for i in failed for spec in [self._with_poison(self._running[i], common)]}

    def _check_conserved(self, segment: Segment, manifests: Sequence[Mapping[str, Any]]) -> None:
        """records in = kept + dropped, and what one phase kept is what the next one got: by count and by ids."""
        before = self.manifests if segment.index else [None] * len(manifests)
        for m, b in zip(manifests, before, strict=True):
            dropped = sum(n for *_, n in m["drops"])
            if m["in"] != m["out"] + dropped:
                raise AssertionError(
                    f"phase {segment.index}, task {m['key']}: {m['in']} in, {m['out']} + {dropped} out"
                )
            if b is not None and (b["out"], b["sum_out"]) != (m["in"], m["sum_in"]):
                raise AssertionError(
                    f"phase {segment.index}, task {m['key']}: the phase before kept {b['out']} documents "
                    f"(ids sum to {b['sum_out']}), this one got {m['in']} ({m['sum_in']})"
                )

    # -- global steps and sinks -------------------------------------------------------------------------------------

    def _join_store(self, name: str) -> str:
        return f"cache/signals/{name}-{self.joins[name].fingerprint[:16]}"

    def _join_files(self, op: Op, task: int) -> Sequence[str]:
        """The files in which a task of this run finds what a global step found out about its documents."""
        made = self.joins[op.step.name]
        assert made.joins is not None
        return made.joins.of(task + made.first_task)

    def documents_fingerprint(self) -> str:
        """A fingerprint of which documents are left, with which signals, after the latest map phase."""
        return storage.fingerprint([(m["key"], m["content"]) for m in self.manifests])

    def stages(
        self, label: str, fingerprint: str, plan: StagePlan, expressions: Mapping[str, str] | None = None,
        reads: Sequence[str] = (), prior: PriorRunRecord | None = None, resources: Resources = ORDINARY,
    ) -> FinishedStages:  # fmt: skip
        """Runs a stage plan over the documents that are left.

        fingerprint   of the plan's code and options; `reads`: the columns that it reads; `prior`: its prior run;
                      `resources`: of a task
        """
        # tasks of a stage run the engine's code too
        fingerprint = storage.fingerprint([fingerprint, fingerprints.module_fingerprint(stage_task.__file__)])
        mine = [Task(m["key"], m["state"]) for m in self.manifests]
        tasks = [*prior.tasks, *mine] if prior is not None else mine
        execution = storage.fingerprint([fingerprint, self.documents_fingerprint(), prior and prior.fingerprint])
        reusable = find_reusable(self.storage, fingerprint, tasks, reads, execution, prior)
        return run_stages(
            self.driver, label, plan, tasks, len(tasks) - len(mine), reusable, self.plan.types, expressions or {},
            resources,
        )  # fmt: skip

    def quantiles(self, wanted: Sequence[Quantile]) -> None:
        """Finds the values that the rules of the next phase need, over the documents that are left."""
        pinned = self.plan.pinned
        self.values.update({q: pinned[q] for q in wanted if q in pinned})
        todo = [q for q in wanted if q not in pinned]
        if todo:
            self.values.update(
                compute_quantiles(self.driver, todo, self.manifests, self.documents_fingerprint(), self.plan.types)
            )


def _same_files(stores_text: bool, spec: MapSpec, manifest: Mapping[str, Any]) -> bool:
    """Whether a finished task read the files that the phase before has now: after damage those may be others."""
    before, after = spec.state or {}, manifest["state"]
    return (
        after["base"] == before["base"]
        and (stores_text or after["text"] == before["text"])
        and all(after["signals"].get(step) == files for step, files in before["signals"].items())
        and after["decisions"][:-1] == before["decisions"]
    )


def _task_id(spec: MapSpec) -> str:
    return f"{spec.key}.{spec.decision[:16]}"


def _step_fingerprints(segment: Segment) -> dict[str, str]:
    """Of the steps that a phase runs, and under "" of all of them: which one kills a worker is not known."""
    mine = {op.step.name: op.fingerprint for op in segment.ops if op.kind == "map"}
    return mine | {"": storage.fingerprint(sorted(mine.items()))}


def _sizes(specs: Sequence[MapSpec]) -> list[int]:
    """Stored bytes that each task reads. Parts of a file may be of bytes or of row groups: a part is a share of it."""
    ends: dict[tuple[int, str], int] = {}
    for spec in specs:
        for p in spec.splits:
            ends[spec.source, p.path] = max(ends.get((spec.source, p.path), 0), p.stop or 0)

    def size(source: int, p: InputSplit) -> int:
        end = ends[source, p.path]
        return p.size * ((p.stop or end) - (p.start or 0)) // end if end else p.size

    return [sum(size(s.source, p) for p in s.splits) for s in specs]
