"""Writes a file whose name is a hash of its bytes, so that what is equal is the same file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

from curation.checksummed_file import Checksummed
from curation.storage import Storage, Written, digest


class ContentNamed:
    """One file, held in memory until its bytes are known, which then name it: what is equal is the same file."""

    def __init__(self) -> None:
        self._data = io.BytesIO()

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[tuple[Checksummed, Written]]:
        """As `Storage.create`; the path is not used."""
        yield Checksummed(self._data), Written(path)

    def store(self, storage: Storage, stem: str) -> Written:
        """Writes the file as `<stem>.<hash of its bytes>.parquet`."""
        data = self._data.getvalue()
        return storage.write_bytes(f"{stem}.{digest(data)[:32]}.parquet", data)
