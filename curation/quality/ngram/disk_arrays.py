"""Stores arrays larger than memory on disk: written once from front to back, read by range or by partition.

The n-gram estimator never reads a random element of an array that may not fit into memory. It reads ranges in order,
and to join two orders it first distributes the rows to partitions, each of which fits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Column:
    """An array of rows (of `width` numbers each) in a file: append, then read ranges."""

    def __init__(self, path: str, dtype: npt.DTypeLike, width: int = 1) -> None:
        self.path, self.dtype, self.width, self.rows = path, np.dtype(dtype), width, 0
        self._file = open(path, "w+b")  # noqa: SIM115 (open as long as the column lives)

    def append(self, rows: Array) -> None:
        """Rows after those already there: shape (n,), or (n, width)."""
        self._file.seek(0, os.SEEK_END)
        np.ascontiguousarray(rows, self.dtype).tofile(self._file)
        self.rows += len(rows)

    def read(self, start: int, stop: int) -> Array:
        """Rows [start, stop): shape (n,) or (n, width)."""
        self._file.flush()
        self._file.seek(start * self.width * self.dtype.itemsize)
        flat = np.fromfile(self._file, self.dtype, (min(stop, self.rows) - start) * self.width)
        return flat if self.width == 1 else flat.reshape(-1, self.width)

    def drop(self) -> None:
        """Closes and deletes the file."""
        self._file.close()
        os.unlink(self.path)


class Partitions:
    """Rows of `width` 8-byte numbers, distributed to numbered partitions of one file."""

    def __init__(self, path: str, width: int) -> None:
        self._column = Column(path, np.int64, width)
        self._extents: dict[int, list[tuple[int, int]]] = {}

    def append(self, partition: Array, rows: Array) -> None:
        """Appends each row to its partition. Shapes (n,) and (n, width); order within a partition is kept."""
        order = np.argsort(partition, kind="stable")
        numbers, starts = np.unique(partition[order], return_index=True)
        base = self._column.rows
        self._column.append(rows[order])
        for number, start, stop in zip(numbers, starts, [*starts[1:], len(order)], strict=True):
            self._extents.setdefault(int(number), []).append((base + int(start), base + int(stop)))

    def read(self, partition: int, rows: int) -> Iterator[Array]:
        """The rows of one partition in pieces of about `rows` (its extents are joined up to that)."""
        pending: list[Array] = []
        size = 0
        for start, stop in self._extents.get(partition, ()):
            for at in range(start, stop, rows):
                piece = self._column.read(at, min(at + rows, stop))
                pending.append(piece)
                size += len(piece)
                if size >= rows:
                    yield np.concatenate(pending)
                    pending, size = [], 0
        if pending:
            yield np.concatenate(pending)

    def drop(self) -> None:
        self._column.drop()
