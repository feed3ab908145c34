"""Finds what earlier runs stored for the rows of a task, and brings the text of rows that lack something (top-up).

A task's signals and texts are in column stores (column_store.py), which hold the rows that got so far under the rules
of their time. When a rule is loosened, rows come back that lack the columns of later steps. Only those rows are
computed: `StoredColumns` says which rows of a chunk have a column, and `TextSource` brings the text of the others, from
the store of the finished text, else from the phase before, else by reading the input again; steps that rewrite text are
then replayed on these rows alone. When nothing is missing the input is not opened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.engine.planning.map_spec import FailedRecord, MapPhase, Op, Poisoned
from curation.engine.tasks import column_store
from curation.engine.tasks.chunk import NO_TEXT, RAW, Chunk
from curation.engine.tasks.task_documents import TaskDocuments
from curation.step import GlobalStep, MapStep
from curation.storage import Storage


class StoredColumns:
    """The columns of a task that earlier runs stored, by store directory."""

    def __init__(self, storage: Storage, files: Mapping[str, Sequence[str]]) -> None:
        self._readers = {directory: column_store.Reader(storage, paths) for directory, paths in files.items()}

    def reader(self, directory: str | None) -> column_store.Reader | None:
        """The reader of a store, None if it holds nothing of this task."""
        return self._readers.get(directory) if directory is not None else None

    def column(
        self, directory: str | None, chunk: Chunk, column: str, kind: pa.DataType
    ) -> tuple[pa.Array, np.ndarray]:
        """The column's values for the rows of the chunk, null where there are none, and a mask of those there are."""
        reader = self.reader(directory)
        table = reader.read(chunk.lo, chunk.hi) if reader is not None else None
        return column_store.align(chunk.rows, table, column, kind)


class TextSource:
    """Brings texts to the stage that a step needs them at.

    apply       runs a map step on a batch: its output, and a mask of the rows on which it failed
    poisoned    the list that `apply` adds failing records to
    read_input  reads the task's input again: (number of the first row, batch)
    """

    def __init__(
        self, phase: MapPhase, stored: StoredColumns, previous: TaskDocuments | None,
        apply: Callable[[Op, pa.RecordBatch], tuple[pa.RecordBatch, np.ndarray]],
        poisoned: list[FailedRecord],
        read_input: Callable[[], Generator[tuple[int, pa.RecordBatch], None, None]],
    ) -> None:  # fmt: skip
        self.phase, self.stored, self.previous = phase, stored, previous
        self.apply, self.poisoned, self.read_input = apply, poisoned, read_input
        self.rewriters = [op for op in phase.ops if op.kind != "rules" and _rewrites(op)]
        self.replayed: Counter[str] = Counter()  # rows that steps were applied to again for their text, by step
        self._raw: _RawText | None = None

    def bring(self, chunk: Chunk, need: np.ndarray, before: int) -> None:
        """Sets the text of the rows in `need` to what it is just before the step at position `before`."""
        path = [op for op in self.rewriters if op.position < before]
        missing = need & (chunk.text_stage == NO_TEXT)
        if missing.any() and len(path) == len(self.rewriters) and self.stored.reader(self.phase.text_store):
            texts, have = self.stored.column(self.phase.text_store, chunk, "text", pa.large_string())
            found = missing & have
            chunk.set_text(found, texts.filter(pa.array(found)), path[-1].position if path else RAW)
            missing &= ~have
        if missing.any():
            chunk.set_text(missing, self._raw_text(chunk.rows[missing], chunk), RAW)
        for op in path:
            late = need & (chunk.text_stage < op.position)
            if not late.any():
                continue
            rows = chunk.batch.filter(pa.array(late))
            if op.kind == "join":
                chunk.set_text(late, _edit(op, rows.column("text"), rows.column(op.step.name)), op.position)
                continue
            out, failed = self.apply(op, rows)
            if failed.any():
                raise Poisoned(self.poisoned, 0)
            self.replayed[op.step.name] += int(late.sum())
            chunk.set_text(late, out.column("text"), op.position)

    def close(self) -> None:
        if self._raw is not None:
            self._raw.close()

    def _raw_text(self, rows: np.ndarray, chunk: Chunk) -> pa.Array:
        """The texts as this phase gets them."""
        if not self.phase.first:
            assert self.previous is not None
            return self.previous.take(pa.array(rows), ["text"]).column("text")
        if self._raw is None:
            self._raw = _RawText(self.read_input())
        return self._raw.get(rows, chunk)


class _RawText:
    """Texts of given rows by reading the input once more, alongside chunks in ascending order.

    Within a chunk requests come in any order: a later row may lack an earlier step's signals than the rows before it.
    So what was read of the chunk so far (1,024 rows at the most) is kept until the next one begins.
    """

    def __init__(self, batches: Generator[tuple[int, pa.RecordBatch], None, None]) -> None:
        self._batches = batches
        self._read: list[tuple[int, pa.Array]] = []  # (first row, texts), ascending
        self._end = 0  # rows before this one have been read

    def get(self, rows: np.ndarray, chunk: Chunk) -> pa.Array:
        """The texts of ascending rows of a chunk; the chunks of later calls must not begin before this one."""
        self._read = [(lo, texts) for lo, texts in self._read if lo + len(texts) > chunk.lo]
        while self._end <= rows[-1]:
            lo, batch = next(self._batches)
            self._end = lo + batch.num_rows
            if self._end > chunk.lo:
                self._read.append((lo, batch.column("text")))
        parts = []
        for lo, texts in self._read:
            first, last = np.searchsorted(rows, [lo, lo + len(texts)])
            if last > first:
                parts.append(texts.take(pa.array(rows[first:last] - lo)))
        return pa.concat_arrays(parts)

    def close(self) -> None:
        self._batches.close()


def _rewrites(op: Op) -> bool:
    assert isinstance(op.step, (MapStep, GlobalStep))
    return op.step.rewrites


def _edit(op: Op, texts: pa.Array, signals: pa.StructArray) -> pa.Array:
    """The texts as a global step changes them, by its signals."""
    assert isinstance(op.step, GlobalStep)
    edited: Any = op.step.edit(texts, signals)
    if edited.type != pa.large_string() or len(edited) != len(texts):
        raise TypeError(f"step {op.step.name}: edit returned {len(edited)} of {edited.type} for {len(texts)} texts")
    return edited
