"""Keeps one document of each group with an equal key: the decision that exact and URL deduplication share.

Every document sends its key (a 128-bit hash of its text or its URL), its doc_id and its address to the partition of the
key, which so has all documents with that key. The document of the lowest preference number is kept; among equal ones
the first by keyed hash of doc_id. So the decision depends on the documents and the seed alone, not on tasks or order.

Two different texts have the same 128-bit hash with a probability of n^2 / 2^129: 10^-19 for 10^10 documents.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.seeded_hash import hash_with_seed, words

# Rows in memory at once: 2^20 of 48 to 60 bytes, and as much again while they are sorted, are about 100 MB.
ROWS_PER_PARTITION = 1 << 20

SIGNALS = pa.schema([("duplicate", pa.bool_()), ("of", pa.string()), ("copies", pa.int64())])
DECISIONS = pa.schema([("address", pa.int64()), *SIGNALS])


def partition_count(documents: int) -> int:
    """The number of partitions for so many documents."""
    return max(1, -(-documents // ROWS_PER_PARTITION))


def partition_of(hashes: pa.Array, partitions: int) -> pa.Array:
    """The partition of each 16-byte hash: uint32 [n]."""
    return pa.array((words(hashes)[:, 1] % np.uint64(partitions)).astype(np.uint32))


def repartition(partitions: int, batch: pa.RecordBatch) -> pa.Array:
    """The partition of each row of an earlier run, by its column `hash` (see `Stage.repartition`)."""
    return partition_of(batch.column("hash"), partitions)


def keep_one(table: pa.Table, preference: npt.NDArray[np.int64], seed: int, step: str) -> pa.RecordBatch:
    """Decides which document of each hash is kept; returns a row of DECISIONS for every document.

    table       columns hash, doc_id (binary(16)) and address, one chunk each, at least one row
    preference  of each row: the lowest of its hash is kept
    step        name of the step, the purpose of the keyed hash
    """
    hashes, ids = words(table["hash"]), words(table["doc_id"])
    rank = hash_with_seed(table["doc_id"], seed, step)
    # the doc_id breaks ties of its own keyed hash, so no two documents are equal
    order = np.lexsort((ids[:, 1], ids[:, 0], rank, preference, hashes[:, 1], hashes[:, 0]))
    hashes = hashes[order]
    first = np.concatenate([[True], (hashes[1:] != hashes[:-1]).any(axis=1)])
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, table.num_rows))
    kept = np.repeat(order[starts], counts)  # for each row in order: the row that is kept for its hash
    doc_ids = table["doc_id"].to_pylist()
    return pa.RecordBatch.from_arrays(
        [
            table["address"].combine_chunks().take(pa.array(order)),
            pa.array(~first),
            pa.array([None if f else doc_ids[k].hex() for f, k in zip(first, kept, strict=True)], pa.string()),
            pa.array(np.repeat(counts, counts), pa.int64(), mask=~first),
        ],
        schema=DECISIONS,
    )
