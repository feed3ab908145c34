"""Defines the table of verified duplicate pairs (edges), which the rounds decide over and which stays on disk.

An edge says that two documents were compared, shingle by shingle, and are similar enough. It is written twice, to the
*owner partition* of each of its documents, which is chosen by a hash of the doc_id. So all edges of a document are in
one partition, and a decision can be made, or made again, one connected component at a time.

    kind             of a row: what the partition it was sent to has to know (see resolve_duplicates.py)
    higher, lower    addresses of the two documents, by priority: level, then keyed hash of doc_id, then doc_id
    *_id, *_level    their doc_ids, and their levels of priority, 0 the highest
    *_size           how many shingles each has
    intersection     how many shingles they share

Documents with equal shingle sets form a *star*: only the one of the highest priority is compared with the rest of the
corpus, and it has an edge to each of the others, its copies (intersection = higher_size = lower_size). What is decided
for it is decided for them; no other edge of the copies is stored.

Reading edges. The stage `edges` of the step wrote them; run.json lists the stage's fingerprint and its number of
partitions under `stages`, and cache/phases/<fingerprint>.manifests has the tasks' files. `partition_files.read(
storage, files, [p])` gives all rows of partition p. The rows of a document are those of partition `owner_partition(ids,
partitions)` in which its doc_id is lower_id (kind AT_LOWER) or higher_id (kind AT_HIGHER); following the other ids from
partition to partition walks its component. An edge may be stored several times (a pair found in parts of a very large
bucket); `resolve` merges them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.seeded_hash import hash_with_seed

# Kinds of rows. The first three are in the owner partition of the lower document and differ in what is known of the
# higher one.
AT_LOWER, HIGHER_KEPT, HIGHER_REMOVED = 0, 1, 2
AT_HIGHER = 3  # in the owner partition of the higher document, which must notify that of the lower one
RESULT = 4  # the lower document is a duplicate of the higher one, which is kept

EDGES = pa.schema(
    [
        ("to", pa.uint32()),
        ("kind", pa.uint8()),
        ("higher", pa.int64()),
        ("lower", pa.int64()),
        ("higher_id", pa.binary(16)),
        ("lower_id", pa.binary(16)),
        ("higher_level", pa.uint8()),
        ("lower_level", pa.uint8()),
        ("intersection", pa.uint32()),
        ("higher_size", pa.uint32()),
        ("lower_size", pa.uint32()),
    ]
)
ROW_BYTES = 67

EDGES_PER_PARTITION = 1 << 20  # 2^20 edges are 2^21 rows or 140 MB, and about three times that while they are resolved

U32 = npt.NDArray[np.uint32]
OwnerPartition = Callable[[pa.Array, npt.NDArray[np.uint8]], U32]  # (doc_ids, levels) -> partition of each


def owner_partition(ids: pa.Array, partitions: int) -> U32:
    """The partition that has all edges of each document: uint32 [n]."""
    return (hash_with_seed(ids, 0, "edges") % np.uint64(partitions)).astype(np.uint32)


def is_equal_set(higher_size: U32, lower_size: U32, intersection: U32) -> npt.NDArray[np.bool_]:
    """Which edges connect documents with equal shingle sets: bool [n]."""
    equal: npt.NDArray[np.bool_] = (intersection == higher_size) & (intersection == lower_size)
    return equal


def to_both_owners(table: pa.Table, partitions: int) -> Iterator[pa.RecordBatch]:
    """Yields edges (EDGES without `to` and `kind`) as rows for the owner partitions of both documents."""
    for end, kind in (("lower_id", AT_LOWER), ("higher_id", AT_HIGHER)):
        to = pa.array(owner_partition(table[end].combine_chunks(), partitions))
        kinds = pa.array(np.full(table.num_rows, kind, np.uint8))
        columns = [to, kinds, *(table[f.name] for f in EDGES if f.name not in ("to", "kind"))]
        yield from pa.Table.from_arrays(columns, schema=EDGES).to_batches()
