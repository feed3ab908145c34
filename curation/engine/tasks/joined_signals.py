"""Gives a map task the signals that a global step found out about its documents.

They come from files that the step's last stage wrote for this task, or from the last stage itself, where that runs at
documents: the map task runs it, chunk by chunk, on the readers that it reads its own rows with. So a text that the
stage looks at and the task edits (line_dedup) is read once, and the stage has no files and no barrier of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from curation.engine.shuffle import partition_files
from curation.engine.tasks import column_store
from curation.engine.tasks.task_documents import TaskDocuments
from curation.step import Stage
from curation.storage import Storage


class JoinedSignals:
    """The signals of one global step for one task, asked for chunk by chunk in reading order."""

    def __init__(self, batches: Iterator[pa.RecordBatch], task: int, name: str, kind: pa.StructType) -> None:
        """batches: `address` and the fields of `kind`, in reading order."""
        self._batches, self._task, self._name, self._kind = batches, task, name, kind
        self._read: list[pa.Table] = []  # `row` and the step's struct; rows of earlier chunks are dropped
        self._last = -1  # row read

    def of(self, rows: np.ndarray) -> pa.Array:
        """The structs of these rows (ascending, none before those of earlier calls), null where there is none."""
        while self._last < rows[-1]:
            batch = next(self._batches, None)
            if batch is None:
                break
            if batch.num_rows:
                self._add(batch)
        self._read = [t for t in self._read if t.column("row")[-1].as_py() >= rows[0]]
        table = pa.concat_tables(self._read) if self._read else None
        return column_store.align(rows, table, self._name, self._kind)[0]

    def _add(self, batch: pa.RecordBatch) -> None:
        address = batch.column("address").to_numpy()
        numbers = address & 0xFFFFFFFF
        if (address >> 32 != self._task).any() or numbers[0] <= self._last or (np.diff(numbers) <= 0).any():
            raise AssertionError(f"{self._name} yielded two rows of signals for a document of task {self._task}, or "
                                 "rows out of reading order, or of another task")  # fmt: skip
        self._last = int(numbers[-1])
        fields = [batch.column(f.name).cast(f.type) for f in self._kind]
        structs = pa.StructArray.from_arrays(fields, fields=list(self._kind))
        self._read.append(pa.table({"row": numbers, self._name: structs}))


def from_files(
    storage: Storage, files: Sequence[str], task: int, name: str, kind: pa.StructType
) -> JoinedSignals:  # fmt: skip
    """The signals that a last stage at partitions sent to this task."""
    batches = [b for b in partition_files.read(storage, files, [task]) if b.num_rows]
    table = pa.Table.from_batches(batches).sort_by("address").combine_chunks() if batches else None
    return JoinedSignals(iter(table.to_batches() if table is not None else ()), task, name, kind)


def from_last_stage(
    stage: Stage, expressions: Mapping[str, str], files: Sequence[str], task: int, name: str, kind: pa.StructType,
    previous: TaskDocuments, only: tuple[int, int] | None = None,
) -> JoinedSignals:  # fmt: skip
    """The signals as the last stage, run here, yields them over the documents of the phase before; over rows lo <= row
    < hi alone where `only` gives them, so that a search for a fatal record does not meet it in the rest of a chunk."""
    documents = previous.numbered(task, expressions)
    if only is not None:
        rows = np.arange(previous.state.rows)
        documents.skip(rows[(rows < only[0]) | (rows >= only[1])])
    return JoinedSignals(stage.run(partition_files.read(previous.storage, files, [task]), documents), task, name, kind)
