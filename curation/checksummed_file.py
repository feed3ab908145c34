"""A file that hashes and counts what is written to it, on its way to another."""

from __future__ import annotations

import hashlib
import io
from typing import Any


class Checksummed(io.RawIOBase):
    """A write-only file that hashes and counts what passes through it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.sha = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.sha.update(view)
        self.inner.write(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        if not self.closed:
            self.inner.flush()
