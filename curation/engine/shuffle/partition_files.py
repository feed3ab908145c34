"""Reads and writes partition files, through which a stage's rows reach the tasks of the next stage.

A producer writes one file. Its rows are sorted by partition in runs of bounded size; each run's share of a partition is
one Arrow record batch message, and an index at the end says where each is. A consumer reads the end of the file, the
page of the index that has its partition, and then the bytes of its partition, so T producers and P consumers make T
files, not T times P, and a consumer fetches what it needs and 4 KiB, in two or three requests.

    magic | batch messages ... | pages of the index | schema | directory | footer

    page        64 entries, int64[5]: partition, offset, length, checksum, weight; all entries are sorted by partition
    directory   int64[3] a page: its first and its last partition, and its checksum
    footer      where the index, the schema and the directory start; the number of entries; a checksum of schema and
                directory, and one of these numbers

The weight is the sum of what the stage counts of the rows (`Stage.weigh`), so that sums by partition need no rows.
Checksums are xxh3-64: each is compared before what it covers is parsed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from curation.core.errors import DamagedFile
from curation.engine.shuffle.byte_ranges import ByteRanges
from curation.storage import Storage, Written

MAGIC = b"GMXCHG03"
RUN_BYTES = 32 << 20  # rows are held and sorted by so much at a time: what bounds a producer's memory
WINDOW_BYTES = 32 << 20  # fetched at once by a consumer
FILES_AT_ONCE = 64  # whose ends are fetched at once
TAIL = 4096  # bytes at the end that are fetched at first: all but the batches of a file with some 50 entries

_NUMBERS = struct.Struct("<qqqqQ")  # starts of index, schema and directory; entries; checksum of schema and directory
_FOOTER = struct.Struct(f"<{_NUMBERS.size}sQ8s")  # these, a checksum of them, magic
_ENTRY, _PLACE = 5 * 8, 3 * 8  # bytes of an entry of the index, and of one of the directory
PAGE = 64  # entries

Index = npt.NDArray[np.uint64]


class PartitionWriter:
    """Collects rows with a column `to` (uint32) and writes them by partition. Row order within a partition is kept.

    weigh   gives each row of a batch a weight (int64), see the module
    """

    def __init__(
        self, storage: Storage, path: str, schema: pa.Schema, weigh: Callable[[pa.RecordBatch], Any] | None = None
    ) -> None:
        self.schema, self._weigh = schema, weigh
        self._context = storage.create(path)
        self._sink, self.written = self._context.__enter__()
        self._sink.write(MAGIC)
        self._pending: list[pa.RecordBatch] = []
        self._weights: list[Any] = []
        self._bytes = 0
        self._index: list[tuple[int, int, int, int, int]] = []
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        if batch.schema != self.schema:
            batch = pa.RecordBatch.from_arrays(
                [batch.column(f.name).cast(f.type) for f in self.schema], schema=self.schema
            )
        self._pending.append(batch)
        if self._weigh is not None:
            self._weights.append(np.asarray(self._weigh(batch), np.int64))
        self._bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._bytes >= RUN_BYTES:
            self._flush()

    def add_weights(self, weights: npt.NDArray[np.int64]) -> None:
        """Adds to the weight of each partition without adding rows."""
        self._flush()
        at = self._sink.tell()
        none = xxhash.xxh3_64_intdigest(b"")
        self._index += [(int(p), at, 0, none, int(weights[p])) for p in np.flatnonzero(weights)]

    def _flush(self) -> None:
        if not self._pending:
            return
        table = pa.Table.from_batches(self._pending, self.schema).combine_chunks()
        weights = np.concatenate(self._weights) if self._weights else np.zeros(len(table), np.int64)
        self._pending, self._weights, self._bytes = [], [], 0
        to = table.column("to").to_numpy()
        order = np.argsort(to, kind="stable")
        table, to = table.take(pa.array(order)), to[order]
        starts = np.flatnonzero(np.r_[True, to[1:] != to[:-1]])
        sums = np.add.reduceat(weights[order], starts)
        for start, stop, weight in zip(starts, [*starts[1:], len(to)], sums.tolist(), strict=True):
            part = table.slice(int(start), int(stop - start)).combine_chunks().to_batches()[0]
            at = self._sink.tell()
            message = part.serialize()
            self._sink.write(message)
            self._index.append((int(to[start]), at, message.size, xxhash.xxh3_64_intdigest(message), weight))

    def close(self) -> Written:
        """Writes index and footer and commits the file."""
        self._flush()
        index_at = self._sink.tell()
        index = np.array(self._index, dtype="<u8").reshape(-1, 5)
        index = index[np.argsort(index[:, 0], kind="stable")]
        places = []
        for start in range(0, len(index), PAGE):
            page = index[start : start + PAGE]
            places.append((page[0, 0], page[-1, 0], xxhash.xxh3_64_intdigest(page.tobytes())))
        schema = self.schema.serialize().to_pybytes()
        directory = np.array(places, dtype="<u8").tobytes()
        schema_at = index_at + index.nbytes
        covered = xxhash.xxh3_64_intdigest(schema + directory)
        numbers = _NUMBERS.pack(index_at, schema_at, schema_at + len(schema), len(index), covered)
        footer = _FOOTER.pack(numbers, xxhash.xxh3_64_intdigest(numbers), MAGIC)
        self._sink.write(index.tobytes() + schema + directory + footer)
        self._context.__exit__(None, None, None)
        return self.written

    def abort(self, error: BaseException) -> None:
        """Removes what was written, so that nothing appears under the final name."""
        try:
            self._context.__exit__(type(error), error, error.__traceback__)
        except BaseException as e:
            if e is not error:
                raise


# -- reading -----------------------------------------------------------------------------------------------------------


def read(
    storage: Storage, files: Sequence[str], partitions: Sequence[int], *, by_file: bool = False
) -> Iterator[pa.RecordBatch]:
    """The batches sent to these partitions (ascending): by partition, then file by file in the order given.

    With `by_file` file by file, then by partition: then several partitions of a file are read at once.
    """
    wanted = np.asarray(partitions, np.uint64)
    with ByteRanges(storage) as ranges:
        if len(wanted) == 1 or by_file:
            for at in range(0, len(files), FILES_AT_ONCE):
                heads = _read_heads(ranges, files[at : at + FILES_AT_ONCE], wanted)
                yield from _batches(ranges, [(h, e) for h in heads for e in h.entries.tolist()])
        else:
            groups = (files[at : at + FILES_AT_ONCE] for at in range(0, len(files), FILES_AT_ONCE))
            heads = [h for group in groups for h in _read_heads(ranges, group, wanted)]
            parts = [(e[0], i, h, e) for i, h in enumerate(heads) for e in h.entries.tolist()]
            parts.sort(key=lambda part: part[:2])
            yield from _batches(ranges, [part[2:] for part in parts])


def read_all(storage: Storage, path: str) -> Iterator[pa.RecordBatch]:
    """All batches of one file, by partition."""
    with ByteRanges(storage) as ranges:
        (head,) = _read_heads(ranges, [path], None)
        yield from _batches(ranges, [(head, e) for e in head.entries.tolist()])


def read_weights(storage: Storage, files: Sequence[str], partitions: int) -> npt.NDArray[np.int64]:
    """The weight of each partition, summed over the files; reads their indexes alone."""
    total = np.zeros(partitions, np.int64)
    with ByteRanges(storage) as ranges:
        for at in range(0, len(files), FILES_AT_ONCE):
            for head in _read_heads(ranges, files[at : at + FILES_AT_ONCE], None):
                np.add.at(total, head.entries[:, 0].astype(np.int64), head.entries[:, 4].astype(np.int64))
    return total


def write_weights(storage: Storage, path: str, weights: npt.NDArray[np.int64]) -> Written:
    """Writes a file without rows whose partitions have these weights."""
    writer = PartitionWriter(storage, path, pa.schema([("to", pa.uint32())]))
    writer.add_weights(weights)
    return writer.close()


def merge(storage: Storage, files: Sequence[str], path: str, partitions: Sequence[int]) -> Written:
    """Merges these partitions of several files into one, with the same rows in the same order."""
    with ByteRanges(storage) as ranges:
        (first,) = _read_heads(ranges, files[:1], np.zeros(0, np.uint64))
    writer = PartitionWriter(storage, path, first.schema)
    try:
        for batch in read(storage, files, partitions):
            writer.add(batch)
        return writer.close()
    except BaseException as error:
        writer.abort(error)
        raise


@dataclass
class _Head:
    """What a consumer knows of a file: its schema, and the entries of the partitions that it takes."""

    path: str
    schema: pa.Schema
    entries: Index


def _read_heads(ranges: ByteRanges, files: Sequence[str], wanted: Index | None) -> list[_Head]:
    """The heads of files, those of all together: one request a file, one more where its index is large."""
    ends = [_End(ranges.storage.root, path, tail) for path, tail in
            zip(files, ranges.read([(f, -TAIL, None) for f in files]), strict=True)]  # fmt: skip
    for end, data in _fetch(ranges, [(e, e.missing()) for e in ends]):
        end.extend(data)
    pages = [e.pages(wanted) for e in ends]
    for end, data in _fetch(ranges, list(zip(ends, pages, strict=True))):
        end.page_bytes = data
    return [e.head(wanted, p) for e, p in zip(ends, pages, strict=True)]


def _fetch(ranges: ByteRanges, asked: Sequence[tuple[_End, tuple[int, int]]]) -> Iterator[tuple[_End, bytes]]:
    some = [(end, place) for end, place in asked if end.start > place[0] < place[1]]
    found = ranges.read([(end.path, *place) for end, place in some])
    return zip([end for end, _ in some], found, strict=True)


class _End:
    """The last bytes of a file, from byte `start` on."""

    def __init__(self, root: str, path: str, tail: bytes) -> None:
        self.root, self.path, self.tail = root, path, tail
        if len(tail) < _FOOTER.size:
            raise self.damaged("it is cut off")
        numbers, checksum, magic = _FOOTER.unpack(tail[-_FOOTER.size :])
        if magic != MAGIC or xxhash.xxh3_64_intdigest(numbers) != checksum:
            raise self.damaged("it does not end with a footer of this version")
        self.index_at, self.schema_at, self.directory_at, entries, self.checksum = _NUMBERS.unpack(numbers)
        size = self.directory_at + -(-entries // PAGE) * _PLACE + _FOOTER.size
        self.start = max(0, size - TAIL)  # of a file that is cut off in front of its footer the checksums differ
        self.page_bytes = b""

    def damaged(self, reason: str) -> DamagedFile:
        return DamagedFile(self.path, reason, self.root)

    def missing(self) -> tuple[int, int]:
        """Which bytes have to be fetched for the schema and the directory; with a small index that as well."""
        first = self.index_at if self.schema_at - self.index_at <= TAIL else self.schema_at
        return (first, self.start) if self.start > self.schema_at else (0, 0)

    def extend(self, data: bytes) -> None:
        self.tail, self.start = data + self.tail, self.start - len(data)

    def pages(self, wanted: Index | None) -> tuple[int, int]:
        """Where the pages with these partitions are: from the first to the last of them."""
        covered = self.tail[self.schema_at - self.start : -_FOOTER.size]
        if xxhash.xxh3_64_intdigest(covered) != self.checksum:
            raise self.damaged("its index changed after it was written")
        self.directory: Index = np.frombuffer(covered, "<u8", offset=self.directory_at - self.schema_at).reshape(-1, 3)
        first, last = 0, len(self.directory)
        if wanted is not None:
            held = np.flatnonzero(_any_between(wanted, self.directory[:, 0], self.directory[:, 1]))
            first, last = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, 0)
        self.first_page, self.last_page = first, last
        stop = min(self.index_at + last * PAGE * _ENTRY, self.schema_at)
        return self.index_at + first * PAGE * _ENTRY, stop

    def head(self, wanted: Index | None, place: tuple[int, int]) -> _Head:
        start, stop = place
        data = self.page_bytes or self.tail[start - self.start : stop - self.start]
        size = PAGE * _ENTRY
        for number in range(self.first_page, self.last_page):
            page = data[(number - self.first_page) * size :][:size]
            if xxhash.xxh3_64_intdigest(page) != int(self.directory[number, 2]):
                raise self.damaged("its index changed after it was written")
        entries: Index = np.frombuffer(data, "<u8").reshape(-1, 5)
        if wanted is not None:
            entries = entries[np.isin(entries[:, 0], wanted)]
        schema = pa.ipc.read_schema(
            pa.py_buffer(self.tail[self.schema_at - self.start : self.directory_at - self.start])
        )
        return _Head(self.path, schema, entries)


def _any_between(sorted_values: Index, low: Index, high: Index) -> npt.NDArray[np.bool_]:
    """Whether any of the values is within each of the ranges, ends included."""
    found: npt.NDArray[np.bool_] = np.searchsorted(sorted_values, low) < np.searchsorted(sorted_values, high, "right")
    return found


Part = tuple[_Head, list[int]]  # a file, and an entry of its index


def _batches(ranges: ByteRanges, parts: Sequence[Part]) -> Iterator[pa.RecordBatch]:
    """The batches of these parts in order, fetched so many at once as WINDOW_BYTES have room for."""
    window: list[Part] = []
    size = 0
    for part in parts:
        if size and size + part[1][2] > WINDOW_BYTES:
            yield from _window(ranges, window)
            window, size = [], 0
        if part[1][2]:
            window.append(part)
            size += part[1][2]
    yield from _window(ranges, window)


def _window(ranges: ByteRanges, parts: Sequence[Part]) -> Iterator[pa.RecordBatch]:
    """Fetches the parts together, neighbours in a file as one range."""
    ordered = sorted(range(len(parts)), key=lambda i: (parts[i][0].path, parts[i][1][1]))
    asked: list[tuple[str, int, int]] = []
    place: dict[int, tuple[int, int]] = {}  # part -> range, first byte in it
    for i in ordered:
        head, (_, offset, length, *_) = parts[i]
        if asked and asked[-1][0] == head.path and asked[-1][2] == offset:
            asked[-1] = (head.path, asked[-1][1], offset + length)
        else:
            asked.append((head.path, offset, offset + length))
        place[i] = len(asked) - 1, offset - asked[-1][1]
    data = [memoryview(d) for d in ranges.read(asked)]
    for i, (head, (_, offset, length, checksum, _)) in enumerate(parts):
        number, at = place[i]
        message = data[number][at : at + length]
        if xxhash.xxh3_64_intdigest(message) != checksum:
            raise DamagedFile(
                head.path, f"bytes {offset} and the following changed after they were written", ranges.storage.root
            )
        yield pa.ipc.read_record_batch(pa.py_buffer(message), head.schema)
