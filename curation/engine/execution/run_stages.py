"""Runs a stage plan (curation/step.py): the stages of a global step, or of a shuffle that writes the result."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation import storage
from curation.config.resources import Resources
from curation.engine.execution import damaged_files
from curation.engine.execution.driver import Driver, Phase
from curation.engine.execution.executors import Function
from curation.engine.manifests.lazy_sequence import LazySequence
from curation.engine.planning.prior_run import Reusable, Task
from curation.engine.shuffle import exchange, partition_files
from curation.engine.shuffle.exchange import Inputs
from curation.engine.tasks.stage_task import (
    MergePhase,
    MergeSpec,
    StagePhase,
    StageSpec,
    run_merge,
    run_stage,
    run_sum,
)
from curation.step import Stage, StagePlan, StageResult

FILES_PER_SUM = 256  # files whose weights one task sums; the driver itself sums those of so many


@dataclass
class FinishedStages:
    """What the stages of a plan wrote."""

    tasks: Sequence[Task]  # of prior runs and of this one
    first_task: int  # number of this run's first task
    fingerprint: str
    files: list[str] = field(default_factory=list)  # partition files of the latest stage
    joins: Inputs | None = None  # where each task finds its documents' signals, or the input of `last_stage`
    last_stage: Stage | None = None  # run by the tasks of the next map phase
    outputs: list[Mapping[str, Any]] = field(default_factory=list)  # of sinks, in order of tasks
    staged: list[dict[str, Any]] = field(default_factory=list)  # result files of sinks: path, bytes, sha256
    reusable: dict[str, dict[str, Any]] = field(default_factory=dict)  # see planning/prior_run.py
    # stage, fingerprint, partitions, counters, shown: a dict for each stage
    stage_fingerprints: list[dict[str, Any]] = field(default_factory=list)


def run_stages(
    driver: Driver, label: str, plan: StagePlan, tasks: Sequence[Task], first_task: int, reusable: Reusable,
    types: Mapping[str, pa.DataType], expressions: Mapping[str, str], resources: Resources,
) -> FinishedStages:  # fmt: skip
    """Runs all stages over the documents of the tasks, and records what a later execution may use again."""
    done = FinishedStages(tasks, first_task, reusable.execution)
    partitions = 0
    try:
        stage = next(plan)
        while True:
            result = _run_stage(driver, label, stage, done, partitions, reusable, types, expressions, resources)
            partitions = stage.partitions
            stage = plan.send(result)
    except StopIteration:
        if done.files and done.last_stage is None:
            everyone = [[i] for i in range(len(done.tasks))]
            join = storage.fingerprint([done.fingerprint, "join"])
            done.joins = _exchange(driver, label, join, done, everyone, one_file=True)
        if done.reusable:
            reusable.save(driver.storage, done.reusable)
            driver.used.add(reusable.path)
        return done


def _run_stage(
    driver: Driver, label: str, stage: Stage, done: FinishedStages, partitions: int, reusable: Reusable,
    types: Mapping[str, pa.DataType], expressions: Mapping[str, str], resources: Resources,
) -> StageResult:  # fmt: skip
    """Runs one stage on the files of the one before, which has so many partitions, and puts its own in `done`."""
    groups = stage.groups if stage.groups is not None else [[p] for p in range(partitions)]
    fingerprint = storage.fingerprint(
        [done.fingerprint, len(done.stage_fingerprints), stage.name, stage.at, stage.partitions,
         stage.groups and [list(g) for g in stage.groups]]
    )  # fmt: skip
    if stage.at == "documents":
        groups = [[i] for i in range(len(done.tasks))]
    inputs = _exchange(driver, label, fingerprint, done, groups)
    if stage.is_last and stage.at == "documents":
        done.fingerprint, done.joins, done.last_stage = fingerprint, inputs, stage
        done.stage_fingerprints.append(_stage_record(stage, fingerprint, {}, 0))
        return StageResult({}, [])
    prior = reusable.stages.get(stage.name) if stage.reuse else None
    before, outputs = None, []
    if prior is not None:
        if stage.reuse == "prior_run":
            fingerprint = storage.fingerprint([fingerprint, reusable.fingerprint])
        outputs = [*prior["outputs"], *[None] * (len(groups) - len(prior["outputs"]))]  # none of tasks that are new
        before = Inputs.from_dict(prior["inputs"])

    def spec(i: int) -> StageSpec:  # made when its task is submitted
        state = done.tasks[i].state if stage.at == "documents" else None
        made = StageSpec(i, inputs.of(i), list(groups[i]), state)
        if before is not None:
            made = dataclasses.replace(made, prior_inputs=before.of(i), prior_output=outputs[i])
        return made

    if stage.features is not None:
        types = {**types, stage.features.name: pa.struct(list(stage.features.signals))}
    shared = StagePhase(driver.storage.root, fingerprint, stage, types, expressions)
    ids = [f"{i:06d}" for i in range(len(groups))]
    specs = LazySequence(len(groups), spec)
    phase = Phase(f"{label}: {stage.name}", fingerprint, run_stage, shared, specs, ids, resources=resources)
    manifests = driver.run(phase)
    if stage.sink:  # no task reads these before they are published, except the tokenizer's file
        reused = set(driver.reused)
        damaged_files.check(driver, [f for i, m in zip(ids, manifests, strict=True) if i in reused for f in m["files"]])
    counters: Counter[str] = Counter()
    shown = 0
    done.fingerprint, done.files, done.outputs = fingerprint, [], []
    for m in manifests:
        counters.update(m.get("counters", {}))
        shown += m.get("shown", 0)
        if stage.sink:
            done.outputs.append(m["outputs"])
            done.staged += [f | {"directory": f"cache/out/{fingerprint}"} for f in m["files"]]
        else:
            done.files.append(m["files"][0]["path"])
    if stage.reuse:
        done.reusable[stage.name] = {"inputs": inputs.as_dict(), "outputs": done.files}
    totals = dict(sorted(counters.items()))
    done.stage_fingerprints.append(_stage_record(stage, fingerprint, totals, shown))
    weights = None
    if stage.weigh is not None:
        weights = _sum_weights(driver, label, fingerprint, done.files, stage.partitions)
    return StageResult(totals, done.outputs, weights)


def _stage_record(stage: Stage, fingerprint: str, counters: Mapping[str, int], shown: int) -> dict[str, Any]:
    record = {"stage": stage.name, "fingerprint": fingerprint, "partitions": stage.partitions}
    return record | {"counters": counters, "shown": shown}


def _exchange(
    driver: Driver, label: str, fingerprint: str, done: FinishedStages, groups: Sequence[Sequence[int]], *,
    one_file: bool = False,
) -> Inputs:  # fmt: skip
    """The files that consumers of these partitions read: those of the latest stage, or of tasks that merge them."""
    files = done.files
    plan = exchange.plan_merge(len(files), len(groups), one_file=one_file)
    if plan is None:
        return exchange.direct(files, len(groups))
    specs = [
        MergeSpec(number, files[first:end], sorted(p for g in groups[begin:stop] for p in g))
        for number, ((begin, stop), (first, end)) in enumerate(product(pairwise(plan.ranges), pairwise(plan.groups)))
    ]
    return plan.inputs(_merge(driver, f"{label}: merge", [fingerprint, plan.groups, plan.ranges], run_merge, specs))


def _merge(driver: Driver, name: str, of: Sequence[Any], run: Function, specs: Sequence[MergeSpec]) -> list[str]:
    """Runs a phase of merging tasks; returns the file of each."""
    fingerprint = storage.fingerprint(["merge", *of])
    ids = [f"{s.index:06d}" for s in specs]
    phase = Phase(name, fingerprint, run, MergePhase(driver.storage.root, fingerprint), list(specs), ids)
    return [m["files"][0]["path"] for m in driver.run(phase)]


def _sum_weights(
    driver: Driver, label: str, fingerprint: str, files: Sequence[str], partitions: int
) -> npt.NDArray[np.int64]:
    """The weights of partitions, summed over all files: by tasks, round by round, until few files are left."""
    while len(files) > FILES_PER_SUM:
        parts = [files[i : i + FILES_PER_SUM] for i in range(0, len(files), FILES_PER_SUM)]
        specs = [MergeSpec(i, part, range(partitions)) for i, part in enumerate(parts)]
        files = _merge(driver, f"{label}: sum weights", [fingerprint, len(files)], run_sum, specs)
    return partition_files.read_weights(driver.storage, files, partitions)
