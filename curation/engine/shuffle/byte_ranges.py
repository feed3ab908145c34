"""Reads byte ranges of many files, exactly those asked for.

A file object of an object store reads ahead (s3fs: 50 MiB a seek), which pays where a file is read from end to end. A
task that takes its partition from each of many files wants a few kilobytes of each, so here a range is one request of
that range, and those of one call run together. On a local disk a file is opened once and stays open while others are
read, up to a number of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Self

from curation.core.errors import DamagedFile
from curation.storage import Storage

MAX_OPEN = 128  # local files held open at once: a process may have 1,024 by default

Range = tuple[str, int, int | None]  # path, first byte (negative: so many from the end), the byte after the last


class ByteRanges:
    """Ranges of the files of a storage. A context manager: local files are open until it ends."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._open: dict[str, IO[bytes]] = {}  # the latest used last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def read(self, ranges: Sequence[Range]) -> list[bytes]:
        """The bytes of each range, fewer where the file ends before. Raises DamagedFile for a file that is missing."""
        if self.storage.local:
            return [self._read_local(*r) for r in ranges]
        found = self.storage.read_ranges(ranges) if ranges else []
        for (path, _, _), data in zip(ranges, found, strict=True):
            if isinstance(data, FileNotFoundError):
                raise DamagedFile(path, "it is missing", self.storage.root) from data
            if isinstance(data, Exception):
                if not self.storage.size(path):  # no range of an empty object can be satisfied
                    raise DamagedFile(path, "it is cut off", self.storage.root) from data
                raise data
        return [bytes(data) for data in found if not isinstance(data, Exception)]

    def _read_local(self, path: str, start: int, stop: int | None) -> bytes:
        file = self._open.pop(path, None)
        if file is None:
            if len(self._open) >= MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            try:
                file = self.storage.open(path)
            except FileNotFoundError as error:
                raise DamagedFile(path, "it is missing", self.storage.root) from error
        self._open[path] = file
        if start < 0:
            start = max(0, file.seek(0, 2) + start)
        file.seek(start)
        return file.read() if stop is None else file.read(stop - start)
