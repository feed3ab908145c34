"""Decides which near-duplicates are kept: the lexicographically first maximal independent set of the verified pairs.

In order of priority, a document is kept unless one that is already kept is verified similar to it. So every removal
points to a *kept* document that really is that similar, no two kept documents are similar, and there are no chains:
with A~B and B~C but not A~C, B is removed because of A, and C is kept.

The set is unique for a graph and an order, so it does not depend on how the edges were found or partitioned. `resolve`
decides what the edges of one partition allow and reports what is still unknown; resolve_duplicates.py passes that
between partitions until nothing is undecided. Documents with equal shingle sets are one document of the graph, the one
of the highest priority (duplicate_edges.py); the others are removed because of it, or together with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.dedup.minhash.duplicate_edges import AT_HIGHER, HIGHER_REMOVED, is_equal_set
from curation.seeded_hash import hash_with_seed, words

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
Measure = Literal["jaccard", "containment"]

LEVELS = 32
RANKS = 256  # values of the first byte of a rank: 32 levels each of eight runs
UNDECIDED, KEPT = 0, 1  # status of a document; 2: removed


def priority_levels(values: npt.NDArray[np.float64]) -> U8:
    """Priorities as one of 32 levels, 0 the highest: by integer part, 31 and above is level 0, NaN is the last level.

    Quantized, because with a fine order (by length, by date) the versions of a growing page form one long chain of
    decisions; within a level the keyed hash scatters them. Without levels, a chain of 20,000 takes thousands of rounds.
    """
    clipped = np.nan_to_num(np.clip(np.floor(values), 0, LEVELS - 1), nan=0.0)
    found: U8 = (LEVELS - 1 - clipped).astype(np.uint8)
    return found


def length_priority(sizes: I64) -> npt.NDArray[np.float64]:
    """Length in bytes as a priority: one more for each doubling of the length."""
    return np.frexp(sizes.astype(np.float64))[1].astype(np.float64)  # of an integer: its bit length


def priority_rank(level: U8, doc_ids: pa.Array, seed: int) -> U64:
    """Level and keyed hash as one number, low for high priority. Ties are broken by doc_id: see `priority_order`."""
    return level.astype(np.uint64) << np.uint64(56) | hash_with_seed(doc_ids, seed, "minhash_dedup") >> np.uint64(8)


def priority_order(ranks: U64, doc_ids: pa.Array) -> I64:
    """Positions in order of priority, the highest first."""
    by_rank = np.argsort(ranks, kind="stable")
    ordered = ranks[by_rank]
    if not (ordered[1:] == ordered[:-1]).any():
        return by_rank
    pair = words(doc_ids)
    return np.lexsort((pair[:, 1], pair[:, 0], ranks))


def left_is_higher(left: U64, left_ids: pa.Array, right: U64, right_ids: pa.Array) -> npt.NDArray[np.bool_]:
    """In which of the pairs (left, right) of ranks and doc_ids the left one has the higher priority."""
    a, b = words(left_ids), words(right_ids)
    by_id = (a[:, 0] < b[:, 0]) | ((a[:, 0] == b[:, 0]) & (a[:, 1] < b[:, 1]))
    first: npt.NDArray[np.bool_] = (left < right) | ((left == right) & by_id)
    return first


def similarity_denominator(measure: Measure, higher_size: I64, lower_size: I64, intersection: I64) -> I64:
    """What the intersection is divided by: the union (Jaccard), or the size of the lower document (containment)."""
    return higher_size + lower_size - intersection if measure == "jaccard" else lower_size


@dataclass(frozen=True)
class Resolution:
    """What one partition decided. All rows are positions in the given table.

    waiting, waiting_kind  rows of lower documents that are still needed, and what is now known of their higher ones
    pending                rows of higher documents that are undecided (or removed, but not yet by which document)
    notify, notify_kind    rows of higher documents that are now decided; the partition of the lower one must know
    removed, removed_by    results: the lower document of row `removed` is a duplicate of the higher one of row
                           `removed_by`; the rows differ for copies of a document that is itself removed
    """

    waiting: I64
    waiting_kind: U8
    pending: I64
    notify: I64
    notify_kind: U8
    removed: I64
    removed_by: I64


def resolve(table: pa.Table, seed: int, measure: Measure, owned: npt.NDArray[np.bool_]) -> Resolution:
    """Decides the documents of rows of EDGES (without RESULT) as far as possible.

    owned   bool [2, rows]: whether this partition owns the higher and the lower document of each row
    """
    from curation.dedup.minhash.independent_set_kernel import greedy_independent_set

    rows = table.num_rows
    kind = table["kind"].to_numpy()
    address = np.concatenate([table["higher"].to_numpy(), table["lower"].to_numpy()])
    _, index, node = np.unique(address, return_index=True, return_inverse=True)
    ids = pa.concat_arrays([c for name in ("higher_id", "lower_id") for c in table[name].chunks]).take(pa.array(index))
    level = np.concatenate([table["higher_level"].to_numpy(), table["lower_level"].to_numpy()])[index]
    by_priority = priority_order(priority_rank(level, ids, seed), ids)
    place = np.empty(len(index), np.int64)
    place[by_priority] = np.arange(len(index))
    higher, lower = place[node[:rows]], place[node[rows:]]
    is_owned = owned.reshape(-1)[index][by_priority]
    intersection, higher_size, lower_size = (
        table[c].to_numpy().astype(np.int64) for c in ("intersection", "higher_size", "lower_size")
    )
    equal = is_equal_set(higher_size, lower_size, intersection)

    # one row per edge, with the most that is known of its higher document; copies need no other edge
    key = lower << 32 | higher
    into = np.flatnonzero((kind <= HIGHER_REMOVED) & ~equal)
    into = into[np.lexsort((kind[into], key[into]))]
    into = into[np.append(key[into][1:] != key[into][:-1], True)] if len(into) else into
    out = np.flatnonzero(kind == AT_HIGHER)
    out = out[np.argsort(key[out], kind="stable")]
    out = out[np.insert(key[out][1:] != key[out][:-1], 0, True)] if len(out) else out

    n = len(index)
    starts = np.searchsorted(lower[into], np.arange(n + 1)).astype(np.int64)
    known = kind[into].copy()
    status, best, undecided = np.zeros(n, np.uint8), np.full(n, -1, np.int64), np.zeros(n, np.int64)
    denominator = similarity_denominator(measure, higher_size, lower_size, intersection)
    greedy_independent_set(
        starts, higher[into], known, is_owned, intersection[into], denominator[into], status, best, undecided
    )

    waiting = (undecided[lower[into]] > 0) & (known != HIGHER_REMOVED)
    resolved = into[(best[lower[into]] == np.arange(len(into))) & (undecided[lower[into]] == 0)]
    decided = status[higher[out]] != UNDECIDED
    elsewhere = ~is_owned[lower[out]]
    notify = out[~equal[out] & decided & elsewhere]
    copies = out[equal[out] & decided & (undecided[higher[out]] == 0)]
    pending = (~equal[out] & ~decided & elsewhere) | (equal[out] & ~(decided & (undecided[higher[out]] == 0)))
    leader = higher[copies]
    removed_by = np.where(status[leader] == KEPT, copies, into[best[leader]] if len(into) else copies)
    return Resolution(
        into[waiting], known[waiting], out[pending], notify, status[higher[notify]],
        np.concatenate([resolved, copies]), np.concatenate([resolved, removed_by]),
    )  # fmt: skip
