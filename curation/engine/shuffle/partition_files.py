"""Reads and writes partition files, through which a stage's rows reach the tasks of the next stage.

A producer writes one file. Its rows are sorted by partition in runs of bounded size; each run's share of a partition is
one Arrow record batch message, and an index at the end has the offset of each. A consumer reads the index and then the
byte ranges of its partition, so T producers and P consumers make T files, not T times P.

    magic | batch messages ... | schema | index: int64[n, 4] of (partition, offset, length, checksum) | footer

The footer holds where schema and index are and a checksum of everything from the schema on. Checksums are xxh3-64: each
is compared before what it covers is parsed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import xxhash

from curation.core.errors import DamagedFile
from curation.storage import Storage, Written

MAGIC = b"GMXCHG02"
_FOOTER = struct.Struct("<qqqQ8s")  # where the schema starts, where the index starts, entries, checksum, magic
_ENTRY = 4 * 8  # bytes of an entry of the index
RUN_BYTES = 32 << 20  # rows are held and sorted by so much at a time: what bounds a producer's memory


class PartitionWriter:
    """Collects rows with a column `to` (uint32) and writes them by partition. Row order within a partition is kept."""

    def __init__(self, storage: Storage, path: str, schema: pa.Schema) -> None:
        self.schema = schema
        self._context = storage.create(path)
        self._sink, self.written = self._context.__enter__()
        self._sink.write(MAGIC)
        self._pending: list[pa.RecordBatch] = []
        self._bytes = 0
        self._index: list[tuple[int, int, int, int]] = []
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        if batch.schema != self.schema:
            batch = pa.RecordBatch.from_arrays(
                [batch.column(f.name).cast(f.type) for f in self.schema], schema=self.schema
            )
        self._pending.append(batch)
        self._bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._bytes >= RUN_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.Table.from_batches(self._pending, self.schema).combine_chunks()
        self._pending, self._bytes = [], 0
        to = table.column("to").to_numpy()
        order = np.argsort(to, kind="stable")
        table = table.take(pa.array(order))
        to = to[order]
        starts = np.flatnonzero(np.r_[True, to[1:] != to[:-1]]) if len(to) else np.zeros(0, dtype=np.int64)
        for start, stop in zip(starts, [*starts[1:], len(to)], strict=True):
            part = table.slice(int(start), int(stop - start)).combine_chunks().to_batches()[0]
            at = self._sink.tell()
            message = part.serialize()
            self._sink.write(message)
            self._index.append((int(to[start]), at, message.size, xxhash.xxh3_64_intdigest(message)))

    def close(self) -> Written:
        """Writes index and footer and commits the file."""
        self._flush()
        schema_at = self._sink.tell()
        schema = self.schema.serialize().to_pybytes()
        index = np.array(self._index, dtype="<u8").reshape(-1, 4).tobytes()
        places = (schema_at, schema_at + len(schema), len(self._index))
        self._sink.write(schema + index + _FOOTER.pack(*places, _checksum(schema + index, *places), MAGIC))
        self._context.__exit__(None, None, None)
        return self.written

    def abort(self, error: BaseException) -> None:
        """Removes what was written, so that nothing appears under the final name."""
        try:
            self._context.__exit__(type(error), error, error.__traceback__)
        except BaseException as e:
            if e is not error:
                raise


def read(storage: Storage, files: Sequence[str], partitions: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """The batches sent to these partitions: by partition, then file by file in the order given."""
    opened = [_PartitionFile(storage, f) for f in files] if len(partitions) == 1 else None
    for partition in partitions:
        for i, path in enumerate(files):
            source = opened[i] if opened is not None else _PartitionFile(storage, path)
            yield from source.batches(partition)


def read_all(storage: Storage, path: str) -> Iterator[pa.RecordBatch]:
    """All batches of one file, by partition."""
    source = _PartitionFile(storage, path)
    for partition in np.unique(source.index[:, 0]).tolist():
        yield from source.batches(partition)


class _PartitionFile:
    def __init__(self, storage: Storage, path: str) -> None:
        self.storage, self.path = storage, path
        with self._open() as f:
            size = f.seek(0, 2)
            if size < _FOOTER.size + len(MAGIC):
                raise DamagedFile(path, "it is cut off", storage.root)
            f.seek(size - _FOOTER.size)
            *places, checksum, magic = _FOOTER.unpack(f.read(_FOOTER.size))
            schema_at, index_at, entries = places
            end = index_at + entries * _ENTRY
            if magic != MAGIC or not 0 <= schema_at <= index_at <= end == size - _FOOTER.size:
                raise DamagedFile(path, "it does not end with a footer of this version", storage.root)
            f.seek(schema_at)
            tail: Any = f.read(end - schema_at)
        if _checksum(tail, *places) != checksum:
            raise DamagedFile(path, "its index changed after it was written", storage.root)
        self.schema = pa.ipc.read_schema(pa.py_buffer(tail[: index_at - schema_at]))
        self.index = np.frombuffer(tail, dtype="<u8", offset=index_at - schema_at).reshape(-1, 4)

    def _open(self) -> IO[bytes]:
        try:
            return self.storage.open(self.path)
        except FileNotFoundError as error:
            raise DamagedFile(self.path, "it is missing", self.storage.root) from error

    def batches(self, partition: int) -> Iterator[pa.RecordBatch]:
        mine = self.index[self.index[:, 0] == partition]
        if not len(mine):
            return
        with self._open() as f:
            for _, offset, length, checksum in mine.tolist():
                f.seek(offset)
                message = f.read(length)
                if xxhash.xxh3_64_intdigest(message) != checksum:
                    raise DamagedFile(
                        self.path, f"bytes {offset} and the following changed after they were written",
                        self.storage.root,
                    )  # fmt: skip
                yield pa.ipc.read_record_batch(pa.py_buffer(message), self.schema)


def _checksum(tail: bytes, *places: int) -> int:
    return xxhash.xxh3_64_intdigest(tail + struct.pack("<qqq", *places))


def merge(storage: Storage, files: Sequence[str], path: str) -> Written:
    """Merges partition files into one with the same rows in the same order."""
    sources = [_PartitionFile(storage, f) for f in files]
    schema = sources[0].schema
    writer = PartitionWriter(storage, path, schema)
    try:
        for partition in sorted({int(p) for s in sources for p in s.index[:, 0]}):
            for source in sources:
                for batch in source.batches(partition):
                    writer.add(batch)
        return writer.close()
    except BaseException as error:
        writer.abort(error)
        raise
