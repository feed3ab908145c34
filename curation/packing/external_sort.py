"""Rows of one task, sorted by key, without holding them all: spilled by bucket, then sorted a bucket at a time.

A bucket is a range of keys, so sorted buckets one after the other are sorted rows. What a shard is made of comes
from every producer in turn; only after the last has come can the first document be written. A few tens of megabytes
in memory are enough for a shard of any size.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from curation.seeded_hash import words

TAKE_ROWS = 1024  # sorted rows copied out at once


class Spill:
    """Takes batches with columns `to` (bucket), `key` and `doc_id`; gives the rows back in the order of the three."""

    def __init__(self, schema: pa.Schema, folder: str) -> None:
        self._schema, self._folder = schema, folder
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        """Appends rows to the files of their buckets."""
        to = batch.column("to").to_numpy()
        cuts = [0, *(np.flatnonzero(to[1:] != to[:-1]) + 1).tolist(), len(to)]
        for start, end in itertools.pairwise(cuts):
            if end > start:
                self._writer(int(to[start])).write_batch(batch.slice(start, end - start))

    def _writer(self, bucket: int) -> pa.ipc.RecordBatchStreamWriter:
        if bucket not in self._writers:
            self._writers[bucket] = pa.ipc.new_stream(self._path(bucket), self._schema)
        return self._writers[bucket]

    def _path(self, bucket: int) -> str:
        return os.path.join(self._folder, f"bucket-{bucket}.arrows")

    def buckets(self) -> Iterator[Iterator[pa.RecordBatch]]:
        """The rows of each bucket in turn, sorted, in batches; each file is removed when it has been read."""
        for writer in self._writers.values():
            writer.close()
        for bucket in sorted(self._writers):
            yield self._sorted(bucket)

    def _sorted(self, bucket: int) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(self._path(bucket)) as file:
            table = pa.ipc.open_stream(file).read_all()
            pair = words(table["doc_id"])
            order = np.lexsort((pair[:, 1], pair[:, 0], table["key"].to_numpy()))
            for start in range(0, len(order), TAKE_ROWS):
                part = table.take(pa.array(order[start : start + TAKE_ROWS])).combine_chunks()
                yield from part.to_batches()
            del table
        os.unlink(self._path(bucket))
