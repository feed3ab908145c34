"""A chunk: the rows of a short range that are still alive, their columns so far, how far the text of each has come.

And where its text comes from when it has to be read again: `RawText`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation import document

NO_TEXT, RAW = -2, -1  # how far a row's text has come; else the position of the last rewriting step applied


@dataclass
class Chunk:
    """Rows lo <= row < hi that are alive (`rows`, ascending), their columns, and the stage of each one's text."""

    lo: int
    hi: int
    rows: np.ndarray
    batch: pa.RecordBatch
    stage: np.ndarray

    def filter(self, keep: np.ndarray) -> None:
        self.rows, self.stage = self.rows[keep], self.stage[keep]
        self.batch = self.batch.filter(pa.array(keep))

    def set_text(self, which: np.ndarray, texts: pa.Array, stage: int) -> None:
        """Gives the rows of the mask this text, as it is after the step at position `stage`."""
        self.stage[which] = stage
        if which.any():
            self.batch = document.with_column(self.batch, "text", merge(self.batch.column("text"), texts, which))


class RawText:
    """The text of given rows by reading the input again, in step with ascending chunks.

    Within a chunk requests come in any order: a later row may lack an earlier step's signals than the rows before it.
    So what was read of the chunk so far (1,024 rows at the most) stays until the next one begins.
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


def merge(old: pa.Array, new: pa.Array, where: np.ndarray) -> pa.Array:
    """`old` with `new`'s values, in order, at the places where the mask is true."""
    if where.all():
        return new
    index = np.arange(len(old), dtype=np.int64)
    index[where] = len(old) + np.arange(len(new))
    return pa.concat_arrays([old, new]).take(pa.array(index))


def spread(part: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A mask over the true rows of `where`, as a mask over all rows."""
    out = np.zeros(len(where), dtype=bool)
    out[np.flatnonzero(where)[part]] = True
    return out


def id_sum(ids: pa.Array) -> int:
    """Sum of the ids' first halves modulo 2^64: the same for the same documents in any order."""
    raw = np.frombuffer(ids.buffers()[1], dtype="<u8")[2 * ids.offset : 2 * (ids.offset + len(ids)) : 2]
    return int(raw.sum(dtype=np.uint64))
