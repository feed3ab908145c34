"""Reads and writes column stores: a value for some of the rows of a task, in files that are only ever added to.

A task's rows are numbered in reading order. A store holds one column (a step's signals, the text, the base columns)
for *some* of the rows, in one or more Parquet files: the first run writes the rows that got so far, a later run with
other rules adds a file with the rows that came back (top_up.py). Files of one task and store never overlap and are
sorted by row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation import checked_parquet
from curation.engine.tasks.content_named import ContentNamed
from curation.engine.tasks.task_cost import part
from curation.storage import Storage, Written

# A row group ends after so many rows or bytes, whichever comes first: a function of the rows alone, so that the size
# of batches never shows in the file. 1,024 rows of web text are about 3 MB; the byte limit keeps huge documents from
# making huge groups.
GROUP_ROWS = 1024
GROUP_BYTES = 8 << 20


class Writer:
    """Writes one Parquet file, re-chunked, created on the first row. Deterministic for the same rows."""

    def __init__(self, storage: Storage | ContentNamed, path: str, schema: pa.Schema, *, level: int = 1) -> None:
        self.storage, self.path, self.schema, self.level = storage, path, schema, level
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0
        self._bytes = 0
        self._context: Any = None
        self._writer: checked_parquet.Writer | None = None
        self.rows = 0
        self.written: Written | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Appends rows; the batch must have the schema given."""
        if batch.num_rows == 0:
            return
        sizes = _row_bytes(batch)
        start = 0
        while start < batch.num_rows:
            room_rows = GROUP_ROWS - self._rows
            ends = np.cumsum(sizes[start : start + room_rows])
            # the row that crosses the byte limit still belongs to the group
            crossing = int(np.searchsorted(ends, GROUP_BYTES - self._bytes))
            take = min(crossing + 1, len(ends))
            self._pending.append(batch.slice(start, take))
            self._rows += take
            self._bytes += int(ends[take - 1])
            start += take
            if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        self._start()
        assert self._writer is not None
        with part("write"):
            table = pa.Table.from_batches(self._pending, self.schema).combine_chunks()
            self._writer.write_table(table, row_group_size=self._rows)
        self.rows += self._rows
        self._pending, self._rows, self._bytes = [], 0, 0

    def _start(self) -> None:
        if self._writer is None:
            self._context = self.storage.create(self.path)
            sink, self.written = self._context.__enter__()
            # bounds of the row numbers are for finding rows; those of signals would take more space than the signals
            self._writer = checked_parquet.Writer(
                sink, self.schema, compression="zstd", compression_level=self.level, write_statistics=["row"]
            )

    def close(self, *, empty: bool = False) -> Written | None:
        """Completes the file; None if there were no rows (with `empty`, a file without rows is written)."""
        self._flush()
        if self._writer is None:
            if not empty:
                return None
            self._start()
        assert self._writer is not None
        self._writer.close()
        self._context.__exit__(None, None, None)
        return self.written

    def abort(self, error: BaseException) -> None:
        """Removes what was written, so that nothing appears under the final name."""
        if self._writer is not None:
            self._writer.abandon()
        if self._context is not None:
            try:
                self._context.__exit__(type(error), error, error.__traceback__)
            except BaseException as e:
                if e is not error:
                    raise


def _row_bytes(batch: pa.RecordBatch) -> np.ndarray:
    """Bytes of variable-length data a row, over top-level string and binary columns; at least 1."""
    total = np.ones(batch.num_rows, dtype=np.int64)
    for column in batch.columns:
        if pa.types.is_large_string(column.type) or pa.types.is_string(column.type):
            kind = np.int64 if pa.types.is_large_string(column.type) else np.int32
            offsets = np.frombuffer(column.buffers()[1], dtype=kind)[column.offset : column.offset + len(column) + 1]
            total += np.diff(offsets.astype(np.int64))
    return total


class Reader:
    """Reads rows of a store, forwards or at random, holding two row groups a file at the most."""

    def __init__(self, storage: Storage, files: Sequence[str], columns: Sequence[str] | None = None) -> None:
        self.columns = list(columns) if columns is not None else None
        self._files = [_File(storage, f, self.columns) for f in files]

    def read(self, lo: int, hi: int) -> pa.Table | None:
        """The stored rows lo <= row < hi, sorted by row; None if there are none."""
        parts = [part for f in self._files for part in f.read(lo, hi)]
        if not parts:
            return None
        table = pa.concat_tables(parts)
        if len(self._files) > 1:
            table = table.sort_by("row")
        return table

    def all_rows(self) -> Iterator[pa.Table]:
        """Every row group of every file, in file order."""
        for f in self._files:
            for i in range(len(f.bounds)):
                yield f.group(i)


class _File:
    def __init__(self, storage: Storage, path: str, columns: list[str] | None) -> None:
        self.handle = checked_parquet.CheckedFile(storage, path)
        self.parquet = pq.ParquetFile(self.handle, pre_buffer=False)
        self.columns = columns if columns is None or "row" in columns else ["row", *columns]
        meta = self.parquet.metadata
        index = self.parquet.schema_arrow.get_field_index("row")
        self.bounds: list[tuple[int, int]] = []
        for g in range(meta.num_row_groups):
            stats = meta.row_group(g).column(index).statistics
            self.bounds.append((stats.min, stats.max))
        self._cache: dict[int, tuple[pa.Table, np.ndarray]] = {}

    def group(self, index: int) -> pa.Table:
        return self._load(index)[0]

    def _load(self, index: int) -> tuple[pa.Table, np.ndarray]:
        if index not in self._cache:
            if len(self._cache) >= 2:
                del self._cache[min(self._cache)]
            with part("read"):
                table = self.parquet.read_row_group(index, columns=self.columns, use_threads=False)
            self._cache[index] = (table, table.column("row").to_numpy())
        return self._cache[index]

    def read(self, lo: int, hi: int) -> Iterator[pa.Table]:
        for index, (first, last) in enumerate(self.bounds):
            if first < hi and last >= lo:
                table, rows = self._load(index)
                a, b = np.searchsorted(rows, [lo, hi])
                if b > a:
                    yield table.slice(int(a), int(b - a))


def align(rows: np.ndarray, table: pa.Table | None, column: str, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """The column's values for exactly `rows` (sorted), null where the table has none, and a mask of those it has."""
    if table is None:
        return pa.nulls(len(rows), kind), np.zeros(len(rows), dtype=bool)
    have = table.column("row").to_numpy()
    at = np.searchsorted(have, rows)
    found = np.zeros(len(rows), dtype=bool)
    inside = at < len(have)
    found[inside] = have[at[inside]] == rows[inside]
    values = table.column(column).combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.nulls(0, kind)
    if found.all() and len(have) == len(rows):
        return values, found
    return values.take(pa.array(np.where(found, at, 0), mask=~found)), found
