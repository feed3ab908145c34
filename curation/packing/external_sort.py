"""Sorts the rows of one task by key on disk: rows are spilled to a file per bucket, then sorted one bucket at a time.

A bucket is a range of keys, so the sorted buckets in order are all rows in order. The rows of a shard come from every
producer in turn, and the first document can be written only after the last producer's rows have come. A shard of any
size is sorted in a few tens of megabytes of memory.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from curation.seeded_hash import words

ROWS_PER_BATCH = 1024  # sorted rows copied out at once


class ExternalSorter:
    """Takes batches with the columns `to` (bucket), `key` and `doc_id`; returns the rows in the order of the three."""

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

    def sorted_buckets(self) -> Iterator[Iterator[pa.RecordBatch]]:
        """Yields the sorted rows of each bucket in turn, as batches; a bucket's file is removed after reading."""
        for writer in self._writers.values():
            writer.close()
        for bucket in sorted(self._writers):
            yield self._sorted_rows(bucket)

    def _sorted_rows(self, bucket: int) -> Iterator[pa.RecordBatch]:
        with pa.memory_map(self._path(bucket)) as file:
            table = pa.ipc.open_stream(file).read_all()
            pair = words(table["doc_id"])
            order = np.lexsort((pair[:, 1], pair[:, 0], table["key"].to_numpy()))
            for start in range(0, len(order), ROWS_PER_BATCH):
                part = table.take(pa.array(order[start : start + ROWS_PER_BATCH])).combine_chunks()
                yield from part.to_batches()
            del table
        os.unlink(self._path(bucket))
