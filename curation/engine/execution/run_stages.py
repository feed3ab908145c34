"""Runs a stage plan (curation/step.py): the stages of a global step, or of a shuffle that writes the result."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation import storage
from curation.engine.execution import damaged_files
from curation.engine.execution.driver import Driver, Phase
from curation.engine.planning.prior_run import Reusable, Task
from curation.engine.tasks.stage_task import MergePhase, MergeSpec, StagePhase, StageSpec, run_merge, run_stage
from curation.step import Stage, StagePlan, StageResult

# Above so many pairs of producers and consumers, the producers' files are merged first: each consumer opens each file.
MAX_PAIRS = 1_000_000


@dataclass
class FinishedStages:
    """What the stages of a plan wrote."""

    tasks: Sequence[Task]  # of prior runs and of this one
    first_task: int  # number of this run's first task
    fingerprint: str
    files: list[str] = field(default_factory=list)  # partition files of the last stage
    outputs: list[Mapping[str, Any]] = field(default_factory=list)  # of sinks, in order of tasks
    staged: list[dict[str, Any]] = field(default_factory=list)  # result files of sinks: path, bytes, sha256
    reusable: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # see planning/prior_run.py
    # stage, fingerprint, partitions, counters, shown: a dict for each stage
    stage_fingerprints: list[dict[str, Any]] = field(default_factory=list)


def run_stages(
    driver: Driver, label: str, plan: StagePlan, tasks: Sequence[Task], first_task: int, reusable: Reusable,
    types: Mapping[str, pa.DataType], expressions: Mapping[str, str],
) -> FinishedStages:  # fmt: skip
    """Runs all stages over the documents of the tasks, and records what a later execution may use again."""
    done = FinishedStages(tasks, first_task, reusable.execution)
    partitions = 0
    try:
        stage = next(plan)
        while True:
            result = _run_stage(driver, label, stage, done, partitions, reusable, types, expressions)
            partitions = stage.partitions
            stage = plan.send(result)
    except StopIteration:
        reusable.save(driver.storage, done.reusable)
        return done


def _run_stage(
    driver: Driver, label: str, stage: Stage, done: FinishedStages, partitions: int, reusable: Reusable,
    types: Mapping[str, pa.DataType], expressions: Mapping[str, str],
) -> StageResult:  # fmt: skip
    """Runs one stage on the files of the one before, which has so many partitions, and puts its own in `done`."""
    groups = stage.groups if stage.groups is not None else [[p] for p in range(partitions)]
    fingerprint = storage.fingerprint(
        [done.fingerprint, len(done.stage_fingerprints), stage.name, stage.at, stage.partitions,
         stage.groups and [list(g) for g in stage.groups]]
    )  # fmt: skip
    states: list[Mapping[str, Any] | None] = [None] * len(groups)
    if stage.at == "documents":
        groups, states = [[i] for i in range(len(done.tasks))], [t.state for t in done.tasks]
    files = done.files
    if len(files) * len(groups) > MAX_PAIRS:
        files = _merge(driver, label, fingerprint, files, len(groups))
    specs = [StageSpec(i, files, list(g), s) for i, (g, s) in enumerate(zip(groups, states, strict=True))]
    prior = reusable.stages.get(stage.name) if stage.reuse else None
    if prior is not None:
        if stage.reuse == "prior_run":
            fingerprint = storage.fingerprint([fingerprint, reusable.fingerprint])
        outputs = [*prior["outputs"], *[None] * (len(specs) - len(prior["outputs"]))]  # none of tasks that are new
        specs = [dataclasses.replace(s, prior_inputs=prior["inputs"], prior_output=outputs[s.index]) for s in specs]
    shared = StagePhase(driver.storage.root, fingerprint, stage, types, expressions)
    ids = [f"{i:06d}" for i in range(len(specs))]
    manifests = driver.run(Phase(f"{label}: {stage.name}", fingerprint, run_stage, shared, specs, ids))
    counters: Counter[str] = Counter()
    for m in manifests:
        counters.update(m.get("counters", {}))
    done.fingerprint, done.files, done.outputs = fingerprint, [], []
    if stage.sink:
        # no task reads these before they are published, except the tokenizer's file
        damaged_files.check(driver, [f for m in driver.reused for f in m["files"]])
        done.outputs = [m["outputs"] for m in manifests]
        done.staged += [f | {"directory": f"cache/out/{fingerprint}"} for m in manifests for f in m["files"]]
    else:
        done.files = [m["files"][0]["path"] for m in manifests]
    if stage.reuse:
        done.reusable[stage.name] = {"inputs": list(files), "outputs": done.files}
    totals = dict(sorted(counters.items()))
    done.stage_fingerprints.append(
        {
            "stage": stage.name,
            "fingerprint": fingerprint,
            "partitions": stage.partitions,
            "counters": totals,
            "shown": sum(m.get("shown", 0) for m in manifests),
        }
    )
    return StageResult(totals, done.outputs)


def _merge(driver: Driver, label: str, fingerprint: str, files: Sequence[str], consumers: int) -> list[str]:
    """Merges the producers' files into so few that all consumers together open at most MAX_PAIRS."""
    size = -(-len(files) * consumers // MAX_PAIRS)
    parts = [list(files[i : i + size]) for i in range(0, len(files), size)]
    merged = storage.fingerprint([fingerprint, "merge", size])
    specs = [MergeSpec(i, p) for i, p in enumerate(parts)]
    ids = [f"{i:06d}" for i in range(len(parts))]
    phase = Phase(f"{label}: merge", merged, run_merge, MergePhase(driver.storage.root, merged), specs, ids)
    return [m["files"][0]["path"] for m in driver.run(phase)]
