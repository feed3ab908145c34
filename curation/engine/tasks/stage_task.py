"""Runs a stage task: one task of a stage of a global step, or of a shuffle that writes the result."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from curation.engine.shuffle import partition_files
from curation.engine.tasks.task_cost import TaskCost
from curation.engine.tasks.task_documents import State, TaskDocuments
from curation.step import PriorRun, Stage
from curation.storage import Storage, Written, failpoint


@dataclass(frozen=True)
class StagePhase:
    """What all tasks of a stage share."""

    run: str
    fingerprint: str
    stage: Stage
    types: Mapping[str, pa.DataType]
    expressions: Mapping[str, str] = field(default_factory=dict)  # of the global step


@dataclass(frozen=True)
class StageSpec:
    """One task: its number, the files sent to it, the partitions of them it takes, and its documents' state."""

    index: int
    files: Sequence[str]
    partitions: Sequence[int]
    state: Mapping[str, Any] | None = None
    prior_inputs: Sequence[str] = ()  # files that this task read in an earlier execution, see `Stage.reuse`
    prior_output: str | None = None  # and the one it wrote


@dataclass
class _Output:
    """Implements `curation.step.Output`: files are staged in a directory of the stage until the result is published."""

    storage: Storage
    directory: str
    outputs: dict[str, Any] = field(default_factory=dict)
    written: list[Written] = field(default_factory=list)
    _scratch: tempfile.TemporaryDirectory[str] | None = None

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[Any]:
        with self.storage.create(f"{self.directory}/{path}") as (f, written):
            yield f
        self.written.append(written)

    def scratch(self) -> str:
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="gristmill-")
        return self._scratch.name

    def close(self) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()


def run_stage(phase: StagePhase, spec: StageSpec) -> dict[str, Any]:
    """Runs one task of a stage and returns its manifest."""
    cost = TaskCost()
    storage, stage = Storage(phase.run), phase.stage
    rows: Iterator[pa.RecordBatch] = partition_files.read(storage, spec.files, spec.partitions, by_file=stage.sink)
    args: list[Any] = [rows]
    documents = None
    if stage.at == "documents":
        assert spec.state is not None
        documents = TaskDocuments(storage, spec.index, State.of(spec.state), phase.types, phase.expressions)
        args.append(documents)
    if stage.reuse == "prior_run":
        args.append(_prior_run(storage, spec))
    counters: Counter[str] = Counter()
    manifest: dict[str, Any] = {"index": spec.index}
    if stage.sink:
        out = _Output(storage, f"cache/out/{phase.fingerprint}")
        try:
            for _ in stage.run(*args, out) or ():
                raise TypeError(f"stage {stage.name} is a sink and must not yield rows")
        finally:
            out.close()
        manifest |= {"files": [w.as_dict() for w in sorted(out.written, key=lambda w: w.path)], "outputs": out.outputs}
    else:
        schema = stage.schema
        last = stage.is_last
        if last:  # a global step's signals go back to the tasks of the documents
            schema = schema.insert(0, pa.field("to", pa.uint32()))
        writer = partition_files.PartitionWriter(
            storage, f"cache/stages/{phase.fingerprint}/{spec.index:06d}.part", schema, stage.weigh
        )
        try:
            if stage.reuse == "rows" and spec.prior_output is not None:
                assert documents is not None
                for batch in _reused_rows(storage, stage, spec.prior_output, documents):
                    if stage.counters is not None:
                        counters.update(stage.counters(batch))
                    writer.add(batch)
            for batch in stage.run(*args):
                if stage.counters is not None:
                    counters.update(stage.counters(batch))
                if last:
                    task = pa.array(batch.column("address").to_numpy() >> 32, pa.uint32())
                    batch = pa.RecordBatch.from_arrays([task, *batch.columns], names=["to", *batch.schema.names])
                writer.add(batch)
            written = writer.close()
        except BaseException as error:
            writer.abort(error)
            raise
        manifest |= {"files": [written.as_dict()], "rows": writer.rows, "counters": dict(sorted(counters.items()))}
    if documents is not None:
        manifest["shown"] = documents.shown
    failpoint(f"stage task {spec.index} before manifest")
    manifest["cost"] = cost.so_far()
    return manifest


def _prior_run(storage: Storage, spec: StageSpec) -> PriorRun:
    """What this task read and wrote in the execution that the specification names."""

    def outputs() -> Iterator[pa.RecordBatch]:
        return partition_files.read_all(storage, spec.prior_output) if spec.prior_output is not None else iter(())

    return PriorRun(lambda: partition_files.read(storage, spec.prior_inputs, spec.partitions), outputs)


def _reused_rows(storage: Storage, stage: Stage, path: str, documents: TaskDocuments) -> Iterator[pa.RecordBatch]:
    """Rows of an earlier execution whose documents still reach the step; those documents are not shown again."""
    had = np.zeros(0, dtype=np.int64)
    kept = documents.kept_rows(0, documents.state.rows)
    for batch in partition_files.read_all(storage, path):
        rows = batch.column("address").to_numpy() & 0xFFFFFFFF
        keep = np.isin(rows, kept)
        had = np.union1d(had, rows[keep])
        batch = batch.filter(pa.array(keep))
        assert stage.repartition is not None
        yield batch.set_column(0, stage.schema.field(0), stage.repartition(batch)) if batch.num_rows else batch
    documents.skip(had)


@dataclass(frozen=True)
class MergePhase:
    """Merges files between producers and consumers where there are too many pairs of them (shuffle/exchange.py)."""

    run: str
    fingerprint: str

    def path(self, index: int) -> str:
        return f"cache/stages/{self.fingerprint}/{index:06d}.part"


@dataclass(frozen=True)
class MergeSpec:
    """One merging task: the files it merges, and which of their partitions."""

    index: int
    files: Sequence[str]
    partitions: Sequence[int]


def run_merge(phase: MergePhase, spec: MergeSpec) -> dict[str, Any]:
    """Merges several producers' files into one with the same rows, in the same order in each partition."""
    written = partition_files.merge(Storage(phase.run), spec.files, phase.path(spec.index), spec.partitions)
    return {"index": spec.index, "files": [written.as_dict()]}


def run_sum(phase: MergePhase, spec: MergeSpec) -> dict[str, Any]:
    """Writes a file without rows that has the summed weights of several."""
    storage = Storage(phase.run)
    weights = partition_files.read_weights(storage, spec.files, len(spec.partitions))
    written = partition_files.write_weights(storage, phase.path(spec.index), weights)
    return {"index": spec.index, "files": [written.as_dict()]}
