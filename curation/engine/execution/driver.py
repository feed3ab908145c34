"""Runs the tasks of a phase: a bounded number in flight, each committed once, finished ones never run again.

The driver holds one compressed manifest a task (phase_records.py) and nothing a document. A task commits by writing its
manifest; when all tasks of a phase have, their manifests are merged into one file, of very many tasks into a few, and
the single ones go. So resuming reads little for a finished phase and one file a task of the phase that was open.
"""

from __future__ import annotations

import heapq
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from curation.config.resources import ORDINARY, Resources
from curation.core.errors import DamagedFile, UserError
from curation.core.local_ray import ray_directory
from curation.engine.execution.disk_space import disk_full, is_disk_full
from curation.engine.execution.event_log import EventLog
from curation.engine.execution.executors import (
    TASK_MEMORY,
    Executor,
    Function,
    InEnvironment,
    Outcome,
    RunFailed,
    WorkerDiffers,
)
from curation.engine.execution.failure_limit import MAX_RECORDS, FailureLimit, by_place
from curation.engine.execution.fatal_record import find_fatal_record
from curation.engine.execution.progress import Progress, Silent
from curation.engine.execution.ray_metrics import RayMetrics
from curation.engine.manifests import phase_records
from curation.engine.manifests.phase_records import InOrder, Manifests, PhaseRecord, Recent
from curation.engine.planning.map_spec import FailedRecord, MapSpec, Poisoned
from curation.engine.tasks.source_changes import SourceChanged
from curation.storage import Storage, failpoint, may_pass

MAX_DEATHS = 3  # of the worker under one task before its records are searched for the one that kills
MAX_NODE_DEATHS = 20  # machines under one task: spot nodes go in waves
MAX_ERRORS = 3  # transient errors (network, object store) of one task
MEMORY_GROWTH = 4
MERGED_TASKS = 4096  # manifests in one file, some MB: what is encoded at a time
MAP = "run_map"  # the function of map tasks
MAX_LOGGED_SIZES = 1000  # tasks of a phase whose sizes are logged one by one


class CacheDamaged(Exception):
    """Files of the cache ({path: reason}) are not what was written: the run has to start over without them."""

    def __init__(self, files: Mapping[str, str]) -> None:
        super().__init__(", ".join(f"{path}: {reason}" for path, reason in sorted(files.items())))
        self.files = files


@dataclass
class Phase:
    """Independent tasks. `ids[i]` names the result of `specs[i]`: equal ids mean equal bytes."""

    name: str
    fingerprint: str
    function: Function
    shared: Any
    specs: MutableSequence[Any]
    ids: list[str]
    sizes: list[int] = field(default_factory=list)  # bytes of each task, for progress
    # failed records by task -> specification and id of these tasks without them
    without: Callable[[Mapping[int, list[FailedRecord]]], Mapping[int, tuple[Any, str]]] | None = None
    limit: FailureLimit | None = None  # of a map phase: how many records may fail
    listed: Callable[[], Sequence[Mapping[str, str]]] = list  # entries of the poison list
    # (spec, manifest) -> whether a finished task had the same files of the phase before; None: it cannot be otherwise
    same_files: Callable[[Any, Mapping[str, Any]], bool] | None = None
    resources: Resources = ORDINARY  # of a task


class Driver:
    """Runs phases in one run directory. `start` makes the executor when the first task has to run."""

    def __init__(
        self, storage: Storage, start: Callable[[], Executor], progress: Progress | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.environment = environment or {}  # what workers must have, see fingerprints.environment
        self.storage, self._start, self.progress = storage, start, progress or Silent()
        self._executor: Executor | None = None
        self._left_out: set[str] = set()  # machines that differ
        self._events: EventLog | None = None
        self._metrics = RayMetrics()
        self.used: set[str] = set()  # manifests of phases, and records, that the run has come to
        self.executed = 0  # tasks run by this driver
        self.computed: Counter[str] = Counter()  # rows whose signals they computed, by step
        self.finished: dict[str, Manifests] = {}  # finished map tasks of any plan, by id
        self.reused: list[str] = []  # tasks of the latest phase that were finished before it was run
        self._recent = Recent()

    @property
    def executor(self) -> Executor:
        if self._executor is None:
            self._executor = self._start()
        return self._executor

    def close(self) -> None:
        if self._executor is not None:
            self._executor.close()
            self._executor = None
        if self._events is not None:
            self._events.close()
            self._events = None

    def load_finished_tasks(self) -> None:
        """Reads the manifests of all finished map tasks, so that a changed plan can use their files."""
        self.finished = {}
        for path in phase_records.paths(self.storage):
            record = self.read_phase(path)
            if record is not None and record.kind == MAP:
                self.finished.update(dict.fromkeys(record.tasks, record.tasks))
        single = Manifests()
        for directory in sorted({p.rpartition("/")[0] for p in self.storage.walk("cache/tasks")}):
            for task, manifest in self._single(directory):
                if "state" in manifest:
                    single.add(task, manifest)
        self.finished.update(dict.fromkeys(single, single))

    def _single(self, directory: str) -> Iterable[tuple[str, dict[str, Any]]]:
        """The tasks of an open phase that are committed, with their manifests."""
        for name in self.storage.names(directory):
            manifest = self.read_manifest(f"{directory}/{name}")
            if manifest is not None:
                yield name.removesuffix(".json"), manifest

    def read_manifest(self, path: str) -> dict[str, Any] | None:
        """A task's manifest; None for a damaged one, which is removed: the task runs again."""
        manifest: dict[str, Any] | None = self._read(path, self.storage.read_json)
        return manifest

    def read_phase(self, path: str) -> PhaseRecord | None:
        """A finished phase, or a part of one; None for a damaged one, which is removed: its tasks run again."""
        record: PhaseRecord | None = self._read(path, partial(phase_records.read, self.storage))
        if record is not None:
            record.tasks.stored(self.storage, path, self._recent)
        return record

    def _read(self, path: str, read: Callable[[str], Any]) -> Any:
        try:
            return read(path)
        except DamagedFile as error:
            self.progress.note(f"the manifest {path} is damaged ({error.reason}): its tasks run again")
            self.storage.remove(path)
            return None

    # -- a phase ----------------------------------------------------------------------------------------------------

    def run(self, phase: Phase) -> Sequence[dict[str, Any]]:
        """Runs the tasks of the phase that are not committed yet; returns the manifests of all, in order."""
        directory, kind = f"cache/tasks/{phase.fingerprint}", phase.function.__name__
        paths = [phase_records.path(phase.fingerprint, i) for i in range(max(1, -(-len(phase.ids) // MERGED_TASKS)))]
        self.used.update(paths)
        done: dict[str, Manifests] = {}
        merged: dict[str, Manifests] = {}  # the tasks in each file
        for path in paths:
            found = self.read_phase(path) if self.storage.exists(path) else None
            if found is not None:
                merged[path] = found.tasks
                done.update(dict.fromkeys(found.tasks, found.tasks))
        new = Manifests()
        if any(i not in done for i in phase.ids):
            done.update({i: self.finished[i] for i in phase.ids if i in self.finished})
            for task, manifest in self._single(directory):
                new.add(task, manifest)
                done[task] = new
        if phase.same_files is not None:
            for i, name in enumerate(phase.ids):
                if name in done and not phase.same_files(phase.specs[i], done[name][name]):
                    del done[name]
        todo = [i for i, name in enumerate(phase.ids) if name not in done]
        self.reused = [i for i in phase.ids if i in done]
        phase.sizes = phase.sizes or [1] * len(phase.specs)
        left = [phase.sizes[i] for i in todo]
        self.progress.phase(phase.name, len(phase.specs), len(phase.specs) - len(todo), left)
        if todo:
            shown = left if len(left) <= MAX_LOGGED_SIZES else [max(left)]  # with their sum: enough for an estimate
            self._log("phase", phase, tasks=len(phase.specs), left=len(left), bytes=sum(left), sizes=shown)
            self._run_tasks(phase, todo, done, new)
        if phase.limit is not None:
            _end_if(phase.limit.all_tried(phase.listed()))
        parts: list[Manifests] = []
        for path, at in zip(paths, range(0, len(paths) * MERGED_TASKS, MERGED_TASKS), strict=True):
            mine = phase.ids[at : at + MERGED_TASKS]
            part = phase_records.merge(self.storage, path, kind, phase.name, mine, done, merged.get(path))
            part.stored(self.storage, path, self._recent)
            parts.append(part)
        failpoint(f"phase {phase.name} merged")
        if self.storage.names(directory):
            self.storage.remove(directory)
        return InOrder(list(phase.ids), parts, MERGED_TASKS)

    def _run_tasks(self, phase: Phase, todo: list[int], done: dict[str, Manifests], new: Manifests) -> None:
        executor = self.executor
        waiting = executor.require(phase.resources)
        if waiting is not None:
            self.progress.note(f"phase {phase.name!r}: {waiting}")
        shared = executor.share(phase.shared)
        queued = todo[::-1]  # taken from the end
        in_flight: dict[Any, int] = {}
        attempts = {i: _Attempts() for i in todo}
        damaged: dict[str, str] = {}
        poisoned: dict[int, list[FailedRecord]] = {}  # by task; set aside until all tasks are tried
        later: list[tuple[float, int]] = []  # a heap: when a task may be tried again, and the task
        if phase.limit is not None:
            for i, name in enumerate(phase.ids):
                if name in done:
                    phase.limit.tried(i, done[name][name]["in"])
        while queued or in_flight or later or poisoned:
            while later and later[0][0] <= time.monotonic():
                queued.append(heapq.heappop(later)[1])
            if not queued and not in_flight and later:
                _pause(later[0][0] - time.monotonic())
                continue
            if not queued and not in_flight:
                queued = self._leave_out(phase, poisoned)
                poisoned = {}
            # twice the slots: a worker that ends finds its next task waiting, and an autoscaler sees demand
            while queued and len(in_flight) < 2 * executor.slots():
                i = queued.pop()
                commit = f"cache/tasks/{phase.fingerprint}/{phase.ids[i]}.json"
                attempts[i].starts += 1
                slots = executor.slots()
                self._log("start", phase, i, attempt=attempts[i].starts, bytes=phase.sizes[i], slots=slots)
                self.progress.start(i, phase.sizes[i], slots)
                memory = (phase.resources.memory_bytes or TASK_MEMORY) * MEMORY_GROWTH ** attempts[i].out_of_memory
                in_flight[
                    executor.submit(
                        InEnvironment(phase.function, self.environment), shared, phase.specs[i], commit, memory
                    )
                ] = i
                if slots == 1:
                    break
            wait = min([1.0, *(max(0.0, when - time.monotonic()) for when, _ in later[:1])])
            if self._events is not None:
                self._events.flush()
            for handle, outcome in executor.wait(list(in_flight), wait):
                i = in_flight.pop(handle)
                if outcome.value is not None:
                    new.add(phase.ids[i], outcome.value)
                    done[phase.ids[i]] = new
                    self.executed += 1
                    self.computed.update(outcome.value.get("computed", {}))
                    rows = {k: outcome.value[k] for k in ("in", "out") if k in outcome.value}
                    self._log("done", phase, i, **rows, **outcome.value.get("cost", {}))
                    self._metrics.task(phase.name, outcome.value, phase.sizes[i])
                    self.progress.task(outcome.value | {"index": i}, phase.sizes[i])
                    if phase.limit is not None:
                        _end_if(phase.limit.tried(i, outcome.value["in"]))
                    continue
                self._log("failed", phase, i, reason=outcome.death or repr(outcome.error)[:500])
                if isinstance(outcome.error, DamagedFile):  # the others may find more, and are not lost
                    damaged[outcome.error.path] = outcome.error.reason
                    continue
                if isinstance(outcome.error, Poisoned) and phase.limit is not None:
                    poisoned[i] = outcome.error.records
                    _end_if(phase.limit.tried(i, outcome.error.rows, poisoned[i]))
                    continue
                delay = self._after_failure(phase, i, outcome, attempts[i], shared)
                heapq.heappush(later, (time.monotonic() + delay, i)) if delay else queued.append(i)

        if damaged:
            raise CacheDamaged(damaged)

    def _leave_out(self, phase: Phase, poisoned: Mapping[int, list[FailedRecord]]) -> list[int]:
        """Puts the failed records on the poison list, unless they are too many; returns their tasks, to run again."""
        assert phase.limit is not None
        _end_if(phase.limit.all_tried(phase.listed()))
        for _, records in sorted(poisoned.items()):
            for (step, _, at), some in by_place(records).items():
                self.progress.note(
                    f"poison: step {step} fails on {len(some):,} of the records of {some[0].file} ({some[0].reason}; "
                    f"{at}); they are left out"
                )
        _replace(phase, poisoned)
        return sorted(poisoned, reverse=True)

    def _after_failure(self, phase: Phase, i: int, outcome: Outcome, attempts: _Attempts, shared: Any) -> float:
        """After how many seconds the task may be tried again, perhaps with another specification; raises if never."""
        error = outcome.error
        if error is not None:
            if isinstance(error, WorkerDiffers):
                self._leave_out_node(error)
                attempts.nodes += 1
                if attempts.nodes >= MAX_NODE_DEATHS:
                    raise RunFailed(f"{attempts.nodes} machines refused one task: {error}") from error
                return 0.0
            if isinstance(error, SourceChanged):
                raise RunFailed(str(error)) from error
            if isinstance(error, (UserError, RunFailed)):
                raise error
            if is_disk_full(error):
                raise disk_full(self.storage, error) from error
            if may_pass(error):
                attempts.errors += 1
                if attempts.errors < MAX_ERRORS:
                    return 0.5 * 2.0**attempts.errors
            trace = "".join(traceback.format_exception(error))[-4000:]
            raise RunFailed(
                f"a task of phase {phase.name!r} fails: {type(error).__name__}: {error}\n{trace}"
            ) from error
        if outcome.node:
            attempts.nodes += 1
            if attempts.nodes < MAX_NODE_DEATHS:
                return 0.0
            raise RunFailed(f"{attempts.nodes} machines died under one task of phase {phase.name!r}: {outcome.death}")
        attempts.deaths += 1
        attempts.out_of_memory += outcome.memory
        if attempts.deaths < MAX_DEATHS:
            return 0.0
        if phase.without is None or not isinstance(phase.specs[i], MapSpec):
            raise RunFailed(
                f"the worker died {attempts.deaths} times under one task of phase {phase.name!r}: {outcome.death}. "
                + (
                    "Give the nodes more memory."
                    if outcome.memory
                    else f"See the worker logs in Ray's log directory ({ray_directory()}/session_latest/logs)."
                )
            )
        self.progress.note(
            f"a worker died {attempts.deaths} times under task {phase.ids[i]}: searching for the record that kills it"
        )
        found = find_fatal_record(
            lambda part: self.wait_for(phase.function, shared, part, phase.resources),
            phase.specs[i],
            phase.name,
            MAX_NODE_DEATHS,
        )
        attempts.fatal += len(found)
        if attempts.fatal > MAX_RECORDS:
            raise RunFailed(
                f"workers die on more than {MAX_RECORDS} records of one task of phase {phase.name!r}, the last one "
                f"document {found[0].doc_id} of {found[0].file}: {outcome.death}. That is a bug in a step or a library "
                "it uses, and not bad records. See the worker logs in Ray's log directory."
            )
        _replace(phase, {i: found})
        attempts.deaths = attempts.out_of_memory = 0
        return 0.0

    def wait_for(self, function: Function, shared: Any, spec: Any, resources: Resources = ORDINARY) -> Outcome:
        """Runs a call that commits nothing and is no task of the run."""
        memory = max(resources.memory_bytes or 0, TASK_MEMORY * MEMORY_GROWTH)
        while True:
            handle = self.executor.submit(InEnvironment(function, self.environment), shared, spec, None, memory)
            while not (ended := self.executor.wait([handle], 10.0)):
                pass
            outcome = ended[0][1]
            if not isinstance(outcome.error, WorkerDiffers):
                return outcome
            self._leave_out_node(outcome.error)

    def _leave_out_node(self, error: WorkerDiffers) -> None:
        """No task goes to this machine from now on. Raises RunFailed if there is no other."""
        if error.node in self._left_out:
            return  # it had several tasks
        self._left_out.add(error.node)
        if not self.executor.leave_out(error.node):
            raise RunFailed(f"{error} Give all nodes one environment.") from error
        self.progress.note(f"{error} It is left out; the run continues without it.")

    def _log(self, event: str, phase: Phase, i: int | None = None, **more: Any) -> None:
        if self._events is None:
            self._events = EventLog(self.storage)
        task = {} if i is None else {"task": phase.ids[i]}
        self._events.add(event, phase=phase.name, **task, **more)


@dataclass
class _Attempts:
    starts: int = 0
    deaths: int = 0
    nodes: int = 0
    out_of_memory: int = 0
    errors: int = 0
    fatal: int = 0  # records that kill the worker


def _pause(seconds: float) -> None:
    """Waits where every task left is to be tried again later."""
    time.sleep(max(0.0, seconds))


def _end_if(message: str | None) -> None:
    if message is not None:
        raise RunFailed(message)


def _replace(phase: Phase, failed: Mapping[int, list[FailedRecord]]) -> None:
    """Replaces tasks by those without their failed records."""
    assert phase.without is not None
    for i, (spec, name) in phase.without(failed).items():
        phase.specs[i], phase.ids[i] = spec, name
