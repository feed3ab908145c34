"""Runs the phases of a plan in order: map phases, stages of global steps, rounds of quantiles.

Holds what the next phase needs of the ones before: the manifests of the latest map phase, the totals of all of them,
the results of global steps and the quantiles found so far. A task is specified when it is submitted.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Callable, Mapping, MutableMapping, Sequence
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
from curation.engine.manifests.lazy_sequence import LazySequence
from curation.engine.manifests.phase_totals import PhaseTotals
from curation.engine.planning import fingerprints
from curation.engine.planning.map_spec import FailedRecord, MapPhase, MapSpec, Op
from curation.engine.planning.plan import Plan, Segment, resolve_ops, store_suffix
from curation.engine.planning.prior_run import PriorRunRecord, Reusable, Task, find_reusable
from curation.engine.tasks import map_task, stage_task
from curation.engine.tasks.task_documents import State
from curation.step import GlobalStep, InputSplit, Stage, StagePlan


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
        self.manifests: Sequence[dict[str, Any]] = []  # of the latest map phase
        # Of the latest map phase, by task: what later phases depend on, how many documents are left, and a checksum of
        # their ids
        self._contents: list[str] = []
        self._left, self._sums = array("q"), array("Q")
        self._columns = ""  # fingerprint of what all phases so far computed
        self.history: list[tuple[Segment, PhaseTotals]] = []
        self.values: dict[Quantile, Any] = {}
        self.joins: dict[str, FinishedStages] = {}  # by global step
        self._by_key: dict[str, list[str]] | None = None  # ids of the map tasks finished before this run, by their keys

    # -- map phases -------------------------------------------------------------------------------------------------

    @property
    def latest(self) -> PhaseTotals:
        """The totals of the latest map phase."""
        return self.history[-1][1]

    def map(self, segment: Segment) -> PhaseTotals:
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
            sample=self.sample, seed=plan.pipeline.seed, last_stages=self._last_stages(ops),
        )  # fmt: skip
        common = self._decision(segment, ops, text_store, base_store)
        without_rules = [dataclasses.replace(op, rules={}) for op in ops]
        self._columns = storage.fingerprint(
            [self._columns, self._decision(segment, without_rules, text_store, base_store)]
        )
        before, contents = self.manifests, self._contents
        poison: dict[int, Sequence[tuple[str, str]]] = {}  # of the tasks that have some
        if first:
            poison = {i: found for i, s in enumerate(self.specs) if (found := self._poison_of(s))}

        def spec(i: int) -> MapSpec:
            """A task; made anew each time, since a million of them would take gigabytes."""
            if first:
                mine = poison.get(i, ())
                made = dataclasses.replace(self.specs[i], poison=mine, decision=storage.fingerprint([common, mine]))
                return self._with_known(made, stores, base_store)
            made = MapSpec(
                i, self.specs[i].key, storage.fingerprint([common, contents[i]]), state=before[i]["state"],
                joins={op.step.name: self._join_files(op, i) for op in ops if op.kind == "join"},
                numbers={n: i + joined.first_task for n, joined in self.joins.items()},
            )  # fmt: skip
            return self._with_known(made, stores, base_store)

        keys = [s.key for s in self.specs]
        if first:
            ids = [_id(k, storage.fingerprint([common, poison.get(i, ())])) for i, k in enumerate(keys)]
        else:
            ids = [_id(k, storage.fingerprint([common, c])) for k, c in zip(keys, contents, strict=True)]
        if self._by_key is None:
            self._by_key = {}
            for task in self.driver.finished:
                self._by_key.setdefault(task.partition(".")[0], []).append(task)
        phase = Phase(
            f"{segment.index}: {segment.name}",
            storage.fingerprint([common, keys]),
            map_task.run_map,
            shared,
            LazySequence(len(keys), spec),
            ids,
            self.sizes,
            lambda failed: self._without(segment, failed, poison, spec),
            self._limit(first),
            lambda: self.poison.entries,
            None if first else partial(_same_files, text_store is not None),
            segment.resources,
        )
        manifests = self.driver.run(phase)
        totals = PhaseTotals()
        left, sums = self._left, self._sums
        self._contents, self._left, self._sums = [], array("q"), array("Q")
        for i, manifest in enumerate(manifests):
            self._check_conserved(segment, manifest, None if first else (left[i], sums[i]))
            totals.add(manifest, self.specs[i].source)
            # What later phases depend on: which columns there are, and which documents rules dropped. Not the rules
            # themselves, so a change of one that drops the same documents ends here.
            self._contents.append(storage.fingerprint([self._columns, manifest["state"]["decisions"]]))
            self._left.append(manifest["out"])
            self._sums.append(int(manifest["sum_out"], 16))
        self.manifests = manifests
        self.history.append((segment, totals))
        return totals

    def _last_stages(self, ops: Sequence[Op]) -> dict[str, tuple[Stage, Mapping[str, str]]]:
        """The last stages of global steps that the tasks of a phase run themselves."""
        steps = [op.step for op in ops if op.kind == "join" and isinstance(op.step, GlobalStep)]
        stages = {step.name: (self.joins[step.name].last_stage, step.expressions()) for step in steps}
        return {name: (stage, expressions) for name, (stage, expressions) in stages.items() if stage is not None}

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

    def _with_known(self, spec: MapSpec, stores: Sequence[str], base_store: str) -> MapSpec:
        """The task with the committed files of its own in these stores, whichever plan wrote them, and with what the
        plan that wrote the base store could not read."""
        files: dict[str, set[str]] = {}
        unread: Sequence[Mapping[str, Any]] = ()
        for task in (self._by_key or {}).get(spec.key, ()):
            manifest = self.driver.finished[task][task]
            for file in State.of(manifest["state"]).columns():
                files.setdefault(file.rpartition("/")[0], set()).add(file)
            unread = manifest["unread"] or unread  # depends on the input alone, which the key names
        known = {d: sorted(files[d]) for d in stores if d in files}
        return dataclasses.replace(spec, known=known, unread=unread if base_store in known else ())

    def _poison_of(self, spec: MapSpec) -> Sequence[tuple[str, str]]:
        return self.poison.of_task(self._source(spec), {p.path for p in spec.splits})

    def _source(self, spec: MapSpec) -> str:
        return self.plan.pipeline.sources[self.specs[spec.index].source].name

    def _limit(self, first: bool) -> FailureLimit:
        names = [s.name for s in self.plan.pipeline.sources]
        records = {} if first else {names[i]: n for i, n in self.history[0][1].records.items()}
        return FailureLimit(names, [s.source for s in self.specs], self.sizes, records)

    def _without(
        self, segment: Segment, failed: Mapping[int, Sequence[FailedRecord]],
        poison: MutableMapping[int, Sequence[tuple[str, str]]], spec: Callable[[int], MapSpec],
    ) -> Mapping[int, tuple[MapSpec, str]]:  # fmt: skip
        for i, records in sorted(failed.items()):
            self.poison.add(records, self._source(self.specs[i]), self.fingerprints[segment.index])
        if segment.index:
            # The list is applied when reading: a record that fails after a global step must be dropped before it, so
            # the run starts over from there, with everything cached that did not depend on the records left out.
            raise PoisonFound(f"{sum(map(len, failed.values()))} records")
        poison.update({i: self._poison_of(self.specs[i]) for i in failed})
        return {i: (made, _id(made.key, made.decision)) for i in failed for made in [spec(i)]}

    def _check_conserved(self, segment: Segment, m: Mapping[str, Any], before: tuple[int, int] | None) -> None:
        """records in = kept + dropped, and what one phase kept is what the next one got: by count and by ids."""
        dropped = sum(n for *_, n in m["drops"])
        if m["in"] != m["out"] + dropped:
            raise AssertionError(f"phase {segment.index}, task {m['key']}: {m['in']} in, {m['out']} + {dropped} out")
        if before is not None and before != (m["in"], int(m["sum_in"], 16)):
            raise AssertionError(
                f"phase {segment.index}, task {m['key']}: the phase before kept {before[0]} documents (ids sum to "
                f"{before[1]:016x}), this one got {m['in']} ({m['sum_in']})"
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
        return storage.fingerprint([(s.key, c) for s, c in zip(self.specs, self._contents, strict=True)])

    def stages(
        self, label: str, fingerprint: str, plan: StagePlan, expressions: Mapping[str, str] | None = None,
        reads: Sequence[str] | None = None, prior: PriorRunRecord | None = None, resources: Resources = ORDINARY,
    ) -> FinishedStages:  # fmt: skip
        """Runs a stage plan over the documents that are left.

        fingerprint   of the plan's code and options; `resources`: of a task; `prior`: the prior run of the step
        reads         the columns that it reads; None for a plan without reusable stages
        """
        # tasks of a stage run the engine's code too
        fingerprint = storage.fingerprint([fingerprint, fingerprints.module_fingerprint(stage_task.__file__)])
        manifests, specs, earlier = self.manifests, self.specs, prior.tasks if prior is not None else ()
        old = len(earlier)

        def task(i: int) -> Task:
            return earlier[i] if i < old else Task(specs[i - old].key, manifests[i - old]["state"])

        tasks = LazySequence(old + len(specs), task)
        execution = storage.fingerprint([fingerprint, self.documents_fingerprint(), prior and prior.fingerprint])
        reusable = Reusable("", execution, {})
        if reads is not None:
            reusable = find_reusable(self.storage, fingerprint, tasks, reads, execution, prior)
        return run_stages(
            self.driver, label, plan, tasks, old, reusable, self.plan.types, expressions or {},
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
        and all(before["signals"].get(step, files) == files for step, files in after["signals"].items())
        and after["decisions"][:-1] == before["decisions"]
    )


def _id(key: str, decision: str) -> str:
    return f"{key}.{decision[:16]}"


def _step_fingerprints(segment: Segment) -> dict[str, str]:
    """Of the steps that a phase runs, and under "" of all of them: which one kills a worker is not known."""
    mine = {op.step.name: op.fingerprint for op in segment.ops if op.kind in ("map", "features")}
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
