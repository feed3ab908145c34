"""Writes and opens Parquet files with checksums of all their bytes, so that a damaged file is refused, never believed.

The file is hashed in blocks of 64 KiB (xxh3-64, 9 GiB/s a core). The footer's metadata holds the hashes of the blocks
before it and one of the footer itself, so a file needs no other file to be checked. A reader checks the footer when it
opens the file and a block when it first reads from it, before anything parses the bytes. Parquet's own page checksums
leave headers of pages and the footer to the parser, which finds some damage there and by other errors.
"""

from __future__ import annotations

import io
import re
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation.core.errors import DamagedFile
from curation.storage import Storage

BLOCK = 1 << 16
TAIL = 1 << 16  # bytes at the end that are read at first: the whole footer of most files
_KEY = "gristmill.checksums"
_ZEROS = b"0" * 16  # stands where the footer's own hash will be while the footer is hashed
_VALUE = re.compile(rb"footer ([0-9a-f]{16}) blocks ([0-9a-f]*)")


class Writer:
    """Writes a Parquet file to an open binary file, as pyarrow's ParquetWriter with these options does."""

    def __init__(self, sink: Any, schema: pa.Schema, **options: Any) -> None:
        self._sink = _HashedSink(sink)
        self._writer = pq.ParquetWriter(self._sink, schema, **options)

    def write_table(self, table: pa.Table, row_group_size: int) -> None:
        self._writer.write_table(table, row_group_size=row_group_size)

    def close(self) -> None:
        """Writes the footer. The sink stays open."""
        hashes = self._sink.hold()
        self._writer.add_key_value_metadata({_KEY: f"footer {_ZEROS.decode()} blocks {hashes}"})
        self._writer.close()
        footer = bytes(self._sink.held)
        start = footer.rfind(b"footer %s blocks %s" % (_ZEROS, hashes.encode())) + len(b"footer ")
        if footer[-4:] != b"PAR1" or int.from_bytes(footer[-8:-4], "little") + 8 != len(footer):
            raise AssertionError("pyarrow wrote more than the footer when it closed a file")
        self._sink.sink.write(footer[:start] + _hash(footer) + footer[start + 16 :])

    def abandon(self) -> None:
        """Leaves the file without a footer: pyarrow would write one when the writer is collected."""
        self._writer.is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()


class _HashedSink(io.RawIOBase):
    """Hashes what passes through it by the block; from `hold` on it keeps what is written instead."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.held: bytearray | None = None
        self._size = 0
        self._block = xxhash.xxh3_64()
        self._hashes: list[str] = []

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.held is not None:
            self.held += view
        else:
            at = 0
            while at < view.nbytes:
                part = view[at : at + BLOCK - (self._size + at) % BLOCK]
                self._block.update(part)
                at += part.nbytes
                if (self._size + at) % BLOCK == 0:
                    self._end_block()
            self.sink.write(view)
        self._size += view.nbytes
        return view.nbytes

    def _end_block(self) -> None:
        self._hashes.append(self._block.hexdigest())
        self._block.reset()

    def hold(self) -> str:
        """The hashes of all blocks, the last of which may be shorter; from now on `write` adds to `held`."""
        if self._size % BLOCK:
            self._end_block()
        self.held = bytearray()
        return "".join(self._hashes)


class CheckedFile(io.RawIOBase):
    """A file of `Writer`, open for reading: read(), seek() and tell() as pyarrow uses them. Raises DamagedFile."""

    def __init__(self, storage: Storage, path: str) -> None:
        self._path, self._root = path, storage.root
        try:
            self._file = storage.open(path)
        except FileNotFoundError as error:
            raise DamagedFile(path, "it is missing", storage.root) from error
        try:
            self._size = self._file.seek(0, 2)
            self._footer = self._read_footer()
        except BaseException:
            self._file.close()
            raise
        self._end = self._size - len(self._footer)  # of the blocks
        self._at = 0
        self._cached: tuple[int, bytes] = (0, b"")  # where the last checked blocks start, and their bytes

    def _damaged(self, reason: str) -> DamagedFile:
        return DamagedFile(self._path, reason, self._root)

    def _read_footer(self) -> bytes:
        tail = self._read_at(max(0, self._size - TAIL), self._size)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] != b"PAR1" or not 8 < length <= self._size:
            raise self._damaged("it has no Parquet footer; it is cut off, or its last bytes changed")
        footer = tail[-length:] if length <= len(tail) else self._read_at(self._size - length, self._size)
        found = list(_VALUE.finditer(footer))
        if not found:
            raise self._damaged("its footer has no checksums, or another version of gristmill wrote it")
        mine = found[-1]  # statistics, which may contain text of documents, come before it
        if _hash(footer[: mine.start(1)] + _ZEROS + footer[mine.end(1) :]) != mine[1]:
            raise self._damaged("its footer changed after it was written")
        self._hashes = mine[2]
        if len(self._hashes) != 16 * -(-(self._size - length) // BLOCK):
            raise self._damaged("its size changed after it was written")
        return footer

    def _read_at(self, lo: int, hi: int) -> bytes:
        self._file.seek(lo)
        return self._file.read(hi - lo)

    def _blocks(self, lo: int, hi: int) -> memoryview:
        """The bytes lo to hi before the footer, from checked blocks."""
        start, held = self._cached
        if not start <= lo <= hi <= start + len(held):
            start = lo - lo % BLOCK
            held = self._read_at(start, min(self._end, -(-hi // BLOCK) * BLOCK))
            view = memoryview(held)
            for at in range(0, len(held), BLOCK):
                number = 16 * ((start + at) // BLOCK)
                if _hash(view[at : at + BLOCK]) != self._hashes[number : number + 16]:
                    raise self._damaged(f"bytes {start + at} and the following changed after they were written")
            self._cached = (start, held)
        return memoryview(held)[lo - start : hi - start]

    def check(self) -> None:
        """Reads the whole file. Raises DamagedFile."""
        for at in range(0, self._end, 64 * BLOCK):
            self._blocks(at, min(self._end, at + 64 * BLOCK))

    def read(self, size: int | None = -1) -> bytes:
        lo = self._at
        hi = self._size if size is None or size < 0 else min(self._size, lo + size)
        self._at = max(lo, hi)
        if hi <= self._end:
            return bytes(self._blocks(lo, hi)) if lo < hi else b""
        before = bytes(self._blocks(lo, self._end)) if lo < self._end else b""
        return before + self._footer[max(0, lo - self._end) : hi - self._end]

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _hash(data: Any) -> bytes:
    return xxhash.xxh3_64_hexdigest(data).encode()
