"""The verified pairs of a corpus as a table in partition files: what rounds decide over, and what stays on disk.

An edge says that two documents were compared, shingle by shingle, and are similar enough. It is written twice, to the
*home* of each of its documents, where a home is a partition chosen by hashing the doc_id. So all edges of a document
are found in one place, and a decision can be made, or made again, component by component.

    kind           of a row: what the home it was sent to has to know (see decide.py)
    better, worse  addresses of the two, in priority order: level, then keyed hash of doc_id, then doc_id
    *_id, *_level  their doc_ids, and their levels of priority, 0 the best
    *_size, both   how many shingles each has, and how many they share

Documents of equal shingle sets are a *star*: the best of them, alone, is compared with the rest of the corpus and has
an edge to each of the others, its copies (both = better_size = worse_size). What holds for it holds for them, and no
other edge of theirs is stored.

Reading them back. The stage `edges` of the step wrote them; run.json lists the stage's fingerprint and its number of
partitions under `stages`, and cache/phases/<fingerprint>.json has the tasks' files. `exchange.read(storage, files,
[p])` gives all rows of home p. A document's rows are those of home `home(ids, partitions)` in which its doc_id is
worse_id (kind AT_WORSE) or better_id (kind AT_BETTER); following the other ids from home to home walks its component.
One edge may be there several times (a pair found in parts of a very large bucket); `decide` merges them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.seeded_hash import keyed

# Kinds of rows. The first three stand at the home of the worse document and differ in what is known of the better one.
AT_WORSE, BETTER_STAYS, BETTER_GOES = 0, 1, 2
AT_BETTER = 3  # at the home of the better document, which has to tell the worse one
RESULT = 4  # worse is a duplicate of better, which stays

EDGES = pa.schema(
    [
        ("to", pa.uint32()),
        ("kind", pa.uint8()),
        ("better", pa.int64()),
        ("worse", pa.int64()),
        ("better_id", pa.binary(16)),
        ("worse_id", pa.binary(16)),
        ("better_level", pa.uint8()),
        ("worse_level", pa.uint8()),
        ("both", pa.uint32()),
        ("better_size", pa.uint32()),
        ("worse_size", pa.uint32()),
    ]
)
ROW_BYTES = 67

EDGES_PER_HOME = 1 << 20  # 2^20 edges are 2^21 rows or 140 MB, and some three times that while they are decided

U32 = npt.NDArray[np.uint32]
Home = Callable[[pa.Array, npt.NDArray[np.uint8]], U32]  # (doc_ids, levels) -> partition of each


def home(ids: pa.Array, partitions: int) -> U32:
    """The partition that holds all edges of each document."""
    return (keyed(ids, 0, "edges") % np.uint64(partitions)).astype(np.uint32)


def copies(better_size: U32, worse_size: U32, both: U32) -> npt.NDArray[np.bool_]:
    """Which edges join equal shingle sets."""
    equal: npt.NDArray[np.bool_] = (both == better_size) & (both == worse_size)
    return equal


def twice(table: pa.Table, partitions: int) -> Iterator[pa.RecordBatch]:
    """Edges (columns of EDGES but `to` and `kind`) as rows for both homes."""
    for end, kind in (("worse_id", AT_WORSE), ("better_id", AT_BETTER)):
        to = pa.array(home(table[end].combine_chunks(), partitions))
        kinds = pa.array(np.full(table.num_rows, kind, np.uint8))
        columns = [to, kinds, *(table[f.name] for f in EDGES if f.name not in ("to", "kind"))]
        yield from pa.Table.from_arrays(columns, schema=EDGES).to_batches()
