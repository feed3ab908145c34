"""Who stays among verified near-duplicates: the lexicographically first maximal independent set.

Documents stand in priority order. Going down it, a document stays unless one that already stays is verified similar
to it. So every removal points at a *kept* document that really is that similar, no kept two are similar, and nothing
is removed through a chain: with A~B and B~C but not A~C, B goes because of A, and C stays.

The set is unique for a graph and an order, so it does not depend on how the edges were found or dealt out. `settle`
decides what the edges of one partition allow, and says what it could not know; decide.py carries that between
partitions until nothing is open. Documents of equal shingle sets are one document of the graph, the best of them
(edges.py); the others go with it, or because of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.dedup.minhash.duplicate_edges import AT_BETTER, BETTER_GOES, copies
from curation.seeded_hash import keyed, words

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
Measure = Literal["jaccard", "containment"]

LEVELS = 32
RANKS = 256  # values of the first byte of a rank: levels of eight eras
OPEN, STAYS = 0, 1  # what is known of a document; 2: it goes


def levels(values: npt.NDArray[np.float64]) -> U8:
    """Priorities as one of 32 levels, 0 the best: the whole part of each, 31 and above the best, NaN the last.

    Quantised, because a fine order (of lengths, of dates) lets versions of a growing page stand in one long chain of
    decisions; within a level the keyed hash scatters them. A chain of 20,000 takes thousands of rounds without levels.
    """
    clipped = np.nan_to_num(np.clip(np.floor(values), 0, LEVELS - 1), nan=0.0)
    found: U8 = (LEVELS - 1 - clipped).astype(np.uint8)
    return found


def doublings(sizes: I64) -> npt.NDArray[np.float64]:
    """Length in bytes as a priority: one more for each doubling."""
    return np.frexp(sizes.astype(np.float64))[1].astype(np.float64)  # of an integer: its bit length


def rank(level: U8, doc_ids: pa.Array, seed: int) -> U64:
    """Level and keyed hash as one number, small for the best. Equal ones are told apart by doc_id: see `order`."""
    return level.astype(np.uint64) << np.uint64(56) | keyed(doc_ids, seed, "minhash_dedup") >> np.uint64(8)


def order(ranks: U64, doc_ids: pa.Array) -> I64:
    """Positions in priority order."""
    by_rank = np.argsort(ranks, kind="stable")
    ordered = ranks[by_rank]
    if not (ordered[1:] == ordered[:-1]).any():
        return by_rank
    pair = words(doc_ids)
    return np.lexsort((pair[:, 1], pair[:, 0], ranks))


def first_is_better(left: U64, left_ids: pa.Array, right: U64, right_ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Which of the pairs (left, right) of ranks and doc_ids have the left one first in priority order."""
    a, b = words(left_ids), words(right_ids)
    later = (a[:, 0] < b[:, 0]) | ((a[:, 0] == b[:, 0]) & (a[:, 1] < b[:, 1]))
    first: npt.NDArray[np.bool_] = (left < right) | ((left == right) & later)
    return first


def whole(measure: Measure, better_size: I64, worse_size: I64, both: I64) -> I64:
    """What the shared shingles are a part of: of either document (Jaccard), or of the worse one (containment)."""
    return better_size + worse_size - both if measure == "jaccard" else worse_size


@dataclass(frozen=True)
class Settled:
    """What a partition came to. Rows are positions in the table given.

    wait, wait_kind    rows at the worse document that are still needed, and what is known of their better ones now
    owe                rows at the better document, which is not decided yet (or, of its copies, not resolved)
    tell, tell_kind    rows at the better document, which is decided now: its worse neighbour elsewhere has to know
    gone, gone_by      results: the worse document of row `gone` is a duplicate of the better one of row `gone_by`;
                       they differ for copies of a document that goes itself
    """

    wait: I64
    wait_kind: U8
    owe: I64
    tell: I64
    tell_kind: U8
    gone: I64
    gone_by: I64


def settle(table: pa.Table, seed: int, measure: Measure, here: npt.NDArray[np.bool_]) -> Settled:
    """Decides over rows of EDGES as far as they allow; none of them is a RESULT.

    here   (2, rows): whether the better and the worse document of each row have their home in this partition
    """
    from curation.dedup.minhash.independent_set_kernel import walk

    rows = table.num_rows
    kind = table["kind"].to_numpy()
    address = np.concatenate([table["better"].to_numpy(), table["worse"].to_numpy()])
    _, index, node = np.unique(address, return_index=True, return_inverse=True)
    ids = pa.concat_arrays([c for name in ("better_id", "worse_id") for c in table[name].chunks]).take(pa.array(index))
    level = np.concatenate([table["better_level"].to_numpy(), table["worse_level"].to_numpy()])[index]
    by_priority = order(rank(level, ids, seed), ids)
    place = np.empty(len(index), np.int64)
    place[by_priority] = np.arange(len(index))
    better, worse = place[node[:rows]], place[node[rows:]]
    at_home = here.reshape(-1)[index][by_priority]
    both, bs, ws = (table[c].to_numpy().astype(np.int64) for c in ("both", "better_size", "worse_size"))
    equal = copies(bs, ws, both)

    # one row an edge, with the most that is known of its better document; copies wait for nobody
    key = worse << 32 | better
    into = np.flatnonzero((kind <= BETTER_GOES) & ~equal)
    into = into[np.lexsort((kind[into], key[into]))]
    into = into[np.append(key[into][1:] != key[into][:-1], True)] if len(into) else into
    out = np.flatnonzero(kind == AT_BETTER)
    out = out[np.argsort(key[out], kind="stable")]
    out = out[np.insert(key[out][1:] != key[out][:-1], 0, True)] if len(out) else out

    n = len(index)
    starts = np.searchsorted(worse[into], np.arange(n + 1)).astype(np.int64)
    known = kind[into].copy()
    status, best, waits = np.zeros(n, np.uint8), np.full(n, -1, np.int64), np.zeros(n, np.int64)
    total = whole(measure, bs, ws, both)
    walk(starts, better[into], known, at_home, both[into], total[into], status, best, waits)

    wait = (waits[worse[into]] > 0) & (known != BETTER_GOES)
    resolved = into[(best[worse[into]] == np.arange(len(into))) & (waits[worse[into]] == 0)]
    decided = status[better[out]] != OPEN
    elsewhere = ~at_home[worse[out]]
    told = out[~equal[out] & decided & elsewhere]
    copied = out[equal[out] & decided & (waits[better[out]] == 0)]
    owe = (~equal[out] & ~decided & elsewhere) | (equal[out] & ~(decided & (waits[better[out]] == 0)))
    leader = better[copied]
    because = np.where(status[leader] == STAYS, copied, into[best[leader]] if len(into) else copied)
    return Settled(
        into[wait], known[wait], out[owe], told, status[better[told]],
        np.concatenate([resolved, copied]), np.concatenate([resolved, because]),
    )  # fmt: skip
