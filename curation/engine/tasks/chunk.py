"""Holds a chunk of a task: the rows of a short range that no rule has dropped yet, and their columns so far."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation import document

# How far the text of a row has been brought; else the position of the last rewriting step that was applied to it
NO_TEXT, RAW = -2, -1


@dataclass
class Chunk:
    """Rows lo <= row < hi that are left (`rows`, ascending), their columns, and the stage of each row's text."""

    lo: int
    hi: int
    rows: np.ndarray
    batch: pa.RecordBatch
    text_stage: np.ndarray

    def filter(self, keep: np.ndarray) -> None:
        """Drops the rows outside the mask."""
        self.rows, self.text_stage = self.rows[keep], self.text_stage[keep]
        self.batch = self.batch.filter(pa.array(keep))

    def set_text(self, which: np.ndarray, texts: pa.Array, stage: int) -> None:
        """Gives the rows of the mask this text, as it is after the step at position `stage`."""
        self.text_stage[which] = stage
        if which.any():
            self.batch = document.with_column(
                self.batch, "text", replace_values(self.batch.column("text"), texts, which)
            )


def replace_values(old: pa.Array, new: pa.Array, where: np.ndarray) -> pa.Array:
    """`old` with the values of `new`, in order, at the places where the mask is true."""
    if where.all():
        return new
    index = np.arange(len(old), dtype=np.int64)
    index[where] = len(old) + np.arange(len(new))
    return pa.concat_arrays([old, new]).take(pa.array(index))


def expand_mask(part: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A mask over the true rows of `where`, as a mask over all rows."""
    out = np.zeros(len(where), dtype=bool)
    out[np.flatnonzero(where)[part]] = True
    return out


def id_checksum(ids: pa.Array) -> int:
    """Sum of the ids' first halves modulo 2^64: the same for the same documents in any order."""
    raw = np.frombuffer(ids.buffers()[1], dtype="<u8")[2 * ids.offset : 2 * (ids.offset + len(ids)) : 2]
    return int(raw.sum(dtype=np.uint64))
