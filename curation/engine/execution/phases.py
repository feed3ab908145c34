"""The phases of a plan as the driver runs them: map phases, stages of global steps, rounds of quantiles."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation import storage
from curation.config.rules import Quantile
from curation.core.errors import UserError
from curation.engine.execution.driver import Driver, Phase, RunFailed
from curation.engine.planning import fingerprint as identity
from curation.engine.planning.map_spec import MapPhase, MapSpec, Op
from curation.engine.planning.plan import Plan, PlannedOp, Segment, behind, bind
from curation.engine.planning.prior_run import Before, Task
from curation.engine.tasks import map_task, quantiles
from curation.engine.tasks.stage_task import MergePhase, MergeSpec, StagePhase, StageSpec, run_merge, run_stage
from curation.step import StagePlan, StageResult

# Above so many pairs of producers and consumers, the producers' files are merged first: each consumer opens each file.
MAX_PAIRS = 1_000_000


@dataclass
class Stages:
    """What running a stage plan left behind."""

    files: list[str] = field(default_factory=list)  # partition files of the last stage
    tasks: list[Task] = field(default_factory=list)  # of earlier runs and of this one
    remembered: dict[str, Any] = field(default_factory=dict)  # files of the stages that may be used again
    fingerprint: str = ""
    outputs: list[Mapping[str, Any]] = field(default_factory=list)  # of sinks, in order of tasks
    staged: list[dict[str, Any]] = field(default_factory=list)  # result files of sinks: path, bytes, sha256
    first: int = 0  # number of this run's first task: those before it are of earlier runs
    stage_fingerprints: list[dict[str, Any]] = field(
        default_factory=list
    )  # stage, fingerprint, partitions, counters of each


class Phases:
    """Runs phases of one plan in order, and keeps what the next one needs of the one before."""

    def __init__(self, driver: Driver, plan: Plan, specs: list[MapSpec], sample: float | None) -> None:
        self.driver, self.plan, self.sample = driver, plan, sample
        self.storage = driver.storage
        self.specs = specs
        self.sizes = [sum(_length(p) for p in s.splits) for s in specs]
        self.poison = _read_poison(self.storage)
        self.manifests: list[dict[str, Any]] = []  # of the latest map phase
        self.history: list[tuple[Segment, list[dict[str, Any]]]] = []
        self.values: dict[Quantile, Any] = {}
        self.joins: dict[str, Stages] = {}

    # -- map phases -------------------------------------------------------------------------------------------------

    def map(self, segment: Segment) -> list[dict[str, Any]]:
        """Runs a map phase over all tasks; checks that no document was lost between it and the phase before."""
        plan, first = self.plan, segment.index == 0
        joined = {name: self._join_store(name) for name in self.joins}
        ops = bind(segment, self.values, joined)
        text_store = None
        if segment.text_fingerprint:
            text_store = f"cache/docs/{segment.text_fingerprint[:16]}{behind(segment.text_after, joined)}"
        base_store = f"cache/signals/read-{plan.base_fingerprint[:16]}"
        stores = [op.store for op in ops if op.kind != "rules"]
        if first:
            stores.append(base_store)
        if text_store:
            stores.append(text_store)
        shared = MapPhase(
            run=self.storage.root, sources=plan.sources, ops=ops, first=first, base_store=base_store,
            text_store=text_store, types=plan.types, scrubber=plan.scrubber, scrub_before=plan.scrub_before,
            excluded_ids=plan.excluded_ids, excluded_urls=plan.excluded_urls,
            batch_rows=plan.pipeline.engine.batch_rows, keep_dropped_text=plan.pipeline.retention == "all",
            sample=self.sample, seed=plan.pipeline.seed,
        )  # fmt: skip
        common = self._decision(segment, ops, text_store, base_store)
        if first:
            specs = [self._with_poison(s, common) for s in self.specs]
        else:
            specs = [
                MapSpec(
                    m["index"], m["key"], storage.fingerprint([common, m["decision"]]), state=m["state"],
                    joins={op.step.name: self.joins[op.step.name].files for op in ops if op.kind == "join"},
                    numbers={n: m["index"] + joined.first for n, joined in self.joins.items()},
                )
                for m in self.manifests
            ]  # fmt: skip
        specs = [dataclasses.replace(s, known=self._known(s.key, stores)) for s in specs]
        ids = [_task_id(s) for s in specs]
        phase = Phase(
            f"{segment.index}: {segment.name}",
            storage.fingerprint([common, [s.key for s in specs]]),
            map_task.run_map,
            shared,
            specs,
            ids,
            self.sizes,
            lambda spec, found: self._without(spec, found, common) if first else self._cannot_leave_out(found),
        )
        manifests = self.driver.run(phase)
        for spec, manifest in zip(phase.specs, manifests, strict=True):
            manifest["decision"] = spec.decision
            self.driver.known[_task_id(spec)] = manifest
        self._conserved(segment, manifests)
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
                "engine": identity.module_fingerprint(map_task.__file__),
                "exclude": plan.exclude_fingerprint if segment.index == 0 else None,
                "sample": [self.sample, plan.pipeline.seed] if self.sample is not None else None,
                "retention": plan.pipeline.retention == "all",
            }
        )

    def _known(self, key: str, stores: Sequence[str]) -> dict[str, list[str]]:
        """The committed files of this task in these stores, whichever plan wrote them."""
        if self._by_key is None:
            self._by_key = {}
            for manifest in self.driver.known.values():
                mine = self._by_key.setdefault(manifest["key"], {})
                for directory, files in manifest["stores"].items():
                    into = mine.setdefault(directory, [])
                    into.extend(f for f in files if f not in into)
        mine = self._by_key.get(key, {})
        return {d: sorted(mine[d]) for d in stores if d in mine}

    _by_key: dict[str, dict[str, list[str]]] | None = None

    def _with_poison(self, spec: MapSpec, common: str) -> MapSpec:
        files = {p.path for p in spec.splits}
        mine = sorted((e["doc_id"], e["reason"]) for e in self.poison if e["file"] in files)
        return dataclasses.replace(spec, poison=mine, decision=storage.fingerprint([common, mine]))

    def _without(self, spec: MapSpec, found: Sequence[tuple[str, str, str, str]], common: str) -> tuple[MapSpec, str]:
        have = {e["doc_id"] for e in self.poison}
        for doc, file, step, reason in found:
            if doc in have:
                raise RunFailed(f"document {doc} of {file} still fails though it is left out: {reason}")
            self.poison.append(
                {"doc_id": doc, "file": file, "step": step, "reason": f"{step}: {reason}" if step else reason}
            )
        self.poison.sort(key=lambda e: e["doc_id"])
        lines = [json.dumps(e, sort_keys=True, ensure_ascii=False) + "\n" for e in self.poison]
        self.storage.write_bytes("poison.jsonl", "".join(lines).encode())
        spec = self._with_poison(spec, common)
        return spec, _task_id(spec)

    def _cannot_leave_out(self, found: Sequence[tuple[str, str, str, str]]) -> tuple[MapSpec, str]:
        # The list is applied when reading: what fails behind a global step must leave before it, so the run starts
        # over from there, with everything cached that did not depend on the documents left out.
        common = ""
        self._without(MapSpec(0, "", ""), found, common)
        raise PoisonFound(found)

    def _conserved(self, segment: Segment, manifests: Sequence[Mapping[str, Any]]) -> None:
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

    def decided(self) -> str:
        """A fingerprint of which documents stand, with which signals, after the latest map phase."""
        return storage.fingerprint([(m["key"], m["decision"]) for m in self.manifests])

    def stages(
        self, label: str, fingerprint: str, plan: StagePlan, expressions: Mapping[str, str] | None = None,
        reads: Sequence[str] = (), before: Before | None = None,
    ) -> Stages:  # fmt: skip
        """Runs a stage plan over the documents that stand now. `fingerprint` names the code and options behind it,
        `reads` the columns it looks at, `before` is what earlier runs left."""
        done = Stages()
        mine = [Task(m["key"], m["state"]) for m in self.manifests]
        tasks = [*before.tasks, *mine] if before is not None else mine
        done.first = len(tasks) - len(mine)
        base = storage.fingerprint([fingerprint, self.decided(), before and before.fingerprint])
        files: list[str] = []
        partitions, n, trail = 0, 0, base
        path = self._memory(fingerprint, tasks, reads)
        memory, remembered = self._recall(path, base, before), {}
        used = storage.fingerprint(memory)
        try:
            stage = next(plan)
            while True:
                groups = stage.groups if stage.groups is not None else [[p] for p in range(partitions)]
                trail = storage.fingerprint(
                    [trail, n, stage.name, stage.at, stage.partitions, stage.groups and [list(g) for g in stage.groups]]
                )
                if stage.at == "documents":
                    groups = [[i] for i in range(len(tasks))]
                if len(files) * len(groups) > MAX_PAIRS:
                    files = self._merge(label, trail, files, len(groups))
                states = [t.state for t in tasks] if stage.at == "documents" else [None] * len(groups)
                specs = [StageSpec(i, files, list(g), s) for i, (g, s) in enumerate(zip(groups, states, strict=True))]
                earlier = memory.get(stage.name) if stage.reuse else None
                if earlier is not None and stage.reuse == "prior_run":
                    trail = storage.fingerprint([trail, used])
                if earlier is not None:
                    wrote = [*earlier["outputs"], *[None] * (len(specs) - len(earlier["outputs"]))]
                    specs = [
                        dataclasses.replace(s, prior_inputs=earlier["inputs"], prior_output=wrote[s.index])
                        for s in specs
                    ]
                shared = StagePhase(self.storage.root, trail, stage, self.plan.types, expressions or {})
                ids = [f"{i:06d}" for i in range(len(specs))]
                manifests = self.driver.run(Phase(f"{label}: {stage.name}", trail, run_stage, shared, specs, ids))
                if stage.reuse:
                    remembered[stage.name] = {"inputs": files, "outputs": [m["files"][0]["path"] for m in manifests]}
                counters: Counter[str] = Counter()
                for m in manifests:
                    counters.update(m.get("counters", {}))
                    if stage.sink:
                        done.staged += [f | {"directory": f"cache/out/{trail}"} for f in m["files"]]
                done.outputs = [m["outputs"] for m in manifests] if stage.sink else []
                files = [] if stage.sink else [m["files"][0]["path"] for m in manifests]
                done.stage_fingerprints.append(
                    {
                        "stage": stage.name,
                        "fingerprint": trail,
                        "partitions": stage.partitions,
                        "counters": dict(sorted(counters.items())),
                        "shown": sum(m.get("shown", 0) for m in manifests),
                    }
                )
                done.files, done.fingerprint, partitions, n = files, trail, stage.partitions, n + 1
                stage = plan.send(StageResult(dict(sorted(counters.items())), done.outputs))
        except StopIteration:
            if remembered:  # all of the step's stages at once: what one was given is what another answered for
                self.storage.write_json(path, {"base": base, "used": memory, "stages": remembered})
            done.tasks, done.remembered = tasks, remembered
            return done

    def _memory(self, fingerprint: str, tasks: Sequence[Task], reads: Sequence[str]) -> str:
        """Where it is kept what files a global step's stages last read and wrote: named for all that their rows hang on
        but which documents stand. Tasks by number and input, for addresses name both; columns by the stores that hold
        them."""

        def stores(state: Mapping[str, Any]) -> list[list[str]]:
            held = [state["base"]] + ([state["text"]] if "text" in reads else [])
            held += [state["signals"][r.partition(".")[0]] for r in reads if r.partition(".")[0] in state["signals"]]
            return [sorted({f.rpartition("/")[0] for f in files}) for files in held]

        held = [(t.key, stores(t.state)) for t in tasks]
        return f"cache/again/{storage.fingerprint([fingerprint, held])}.json"

    def _recall(self, path: str, base: str, before: Before | None) -> dict[str, Any]:
        """The stages of the earlier run that may be used again. A run that was interrupted after its last stage finds
        its own: it goes by what it used itself, so that it does nothing twice."""
        if not self.storage.exists(path):
            return dict(before.stages) if before is not None else {}
        found = self.storage.read_json(path)
        return dict(found["used"] if found["base"] == base else found["stages"])

    def _merge(self, label: str, trail: str, files: Sequence[str], consumers: int) -> list[str]:
        size = -(-len(files) * consumers // MAX_PAIRS)
        parts = [list(files[i : i + size]) for i in range(0, len(files), size)]
        fingerprint = storage.fingerprint([trail, "merge", size])
        specs = [MergeSpec(i, p) for i, p in enumerate(parts)]
        shared = MergePhase(self.storage.root, fingerprint)
        ids = [f"{i:06d}" for i in range(len(parts))]
        phase = Phase(f"{label}: merge", fingerprint, run_merge, shared, specs, ids)
        return [m["files"][0]["path"] for m in self.driver.run(phase)]

    # -- quantiles --------------------------------------------------------------------------------------------------

    def quantiles(self, wanted: Sequence[Quantile]) -> None:
        """Computes what the rules of the next phase need, over the documents that stand now."""
        pinned = self.plan.pinned
        todo = [q for q in wanted if q not in pinned]
        self.values.update({q: pinned[q] for q in wanted if q in pinned})
        if not todo:
            return
        size = quantiles.TASKS_PER_HISTOGRAM
        states = [m["state"] for m in self.manifests]
        specs = [quantiles.HistogramSpec(i, states[lo : lo + size]) for i, lo in enumerate(range(0, len(states), size))]
        ids = [f"{i:06d}" for i in range(len(specs))]

        def round_(bits: int, prefixes: Sequence[Mapping[str, int]]) -> Sequence[Mapping[str, Any]]:
            shared = quantiles.HistogramPhase(self.storage.root, todo, self.plan.types, bits, prefixes)
            fingerprint = storage.fingerprint(
                [self.decided(), [(q.signal, q.p, q.by) for q in todo], bits, [dict(p) for p in prefixes]]
            )
            name = f"quantiles of {', '.join(sorted({q.signal for q in todo}))}, round {bits // 16 + 1}"
            return self.driver.run(Phase(name, fingerprint, quantiles.run_histogram, shared, specs, ids))

        self.values.update(quantiles.select(todo, round_))


class PoisonFound(Exception):
    """A record failed behind a global step: it is on the poison list now, and the run has to start over."""


def _task_id(spec: MapSpec) -> str:
    return f"{spec.key}.{spec.decision[:16]}"


def _length(split: Any) -> int:
    return int((split.stop if split.stop is not None else split.size) - (split.start or 0))


def _read_poison(store: storage.Storage) -> list[dict[str, str]]:
    if not store.exists("poison.jsonl"):
        return []
    entries = []
    for number, line in enumerate(store.read_bytes("poison.jsonl").splitlines(), 1):
        try:
            entry = json.loads(line) if line.strip() else None
        except ValueError:
            entry = line
        if entry is not None and not (isinstance(entry, dict) and {"doc_id", "file", "reason"} <= entry.keys()):
            raise UserError(
                f"{store.url('poison.jsonl')}, line {number}: expected an object with doc_id, file and reason, found "
                f"{line[:80].decode(errors='replace')}. Mend the line, or remove the file: the records are found again."
            )
        if entry is not None:
            entries.append(entry)
    return entries


def planned(op: PlannedOp) -> str:
    """An op as `plan` shows it."""
    return f"{op.step.name}: " + ("; ".join(r.sql for r in op.rules) or "no rule")
