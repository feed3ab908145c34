"""Describes a curation for a cluster, and checks that every machine can reach what it reads and writes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from curation.config.pipeline import Pipeline
from curation.core.errors import UserError
from curation.storage import is_remote


@dataclass(frozen=True)
class Job:
    """A curation, the machines that it asks for, and how a driver that died is started again: the same command."""

    name: str
    file: str  # the pipeline file, absolute, on this machine
    run: str  # run directory
    sets: tuple[str, ...] = ()
    nodes: int = 4
    cpus: int = 16  # a node
    memory_gb: int = 64
    gpus: int = 0
    restarts: int = 10  # of the driver

    def command(self, file: str, *options: str) -> list[str]:
        """The command of the driver. `file`: the pipeline file where the driver runs."""
        sets = [part for s in self.sets for part in ("--set", s)]
        return ["gristmill", "curate", file, "--run", self.run, *sets, *options]

    def shell_command(self, file: str, *options: str) -> str:
        return shlex.join(self.command(file, *options))


def check_reach(pipeline: Pipeline, job: Job, *, shared_disk: bool) -> None:
    """Raises UserError for a path that only this machine has.

    shared_disk   the machines have this machine's folders (Slurm); else all has to be on an object store, and the
                  pipeline file travels alone
    """
    if shared_disk:
        return
    local = [f"the run directory {job.run}"] if not is_remote(job.run) else []
    local += [f"the root {s.root} of the source {s.name}" for s in pipeline.sources if not is_remote(s.root)]
    local += [f"the exclude list {path}" for path in pipeline.exclude if not is_remote(path)]
    local += [f"the file of the step {e.name}" for e in pipeline.steps if e.target.rpartition(":")[0].endswith(".py")]
    tokenizer = pipeline.tokenizer.file if pipeline.tokenizer is not None else None
    local += [f"the tokenizer {tokenizer}"] if tokenizer and not is_remote(tokenizer) else []
    for entry in pipeline.steps:
        inputs = [*entry.step.inputs(), *(m for m in entry.step.models() if os.sep in m)]
        local += [f"{path}, which the step {entry.name} reads" for path in inputs if not is_remote(path)]
    if local:
        raise UserError(
            f"{job.file}: the machines of the cluster have no part of this machine's disk, and {'; '.join(local)} is "
            "on it\n  copy it to an object store (s3://...), or a step's code into an installed package of the image"
        )


def needs(pipeline: Pipeline, job: Job) -> None:
    """Raises UserError where a step declares more than a node has."""
    for entry in pipeline.steps:
        if not entry.resources.tasks_on(job.cpus, job.memory_gb * 10**9, job.gpus):
            raise UserError(
                f"{entry.line}: the step {entry.name} declares `resources: {{{entry.resources}}}`, and a node has "
                f"{job.cpus} CPUs, {job.memory_gb}GB of memory and {job.gpus} GPUs\n"
                "  give --cpus, --memory-gb and --gpus of the nodes, or lower what the step declares"
            )


def check_sizes(values: Sequence[tuple[str, int, int]]) -> None:
    """Raises UserError for (option, value, least value) that is too small."""
    for option, value, least in values:
        if value < least:
            raise UserError(f"{option} is {value}: expected {least} or more")
