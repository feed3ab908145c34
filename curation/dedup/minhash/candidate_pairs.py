"""Finds candidate pairs: documents that share a band of their signature, without quadratic cost in large buckets.

A bucket holds the documents with one band key. Of documents with equal shingle sets only the first by priority takes
part; each of the others, its copies, makes one pair with it. Every member is paired with the first B = 256 members in
priority order. Members after those are also paired within sub-buckets, keyed by another band, again with the first B of
each. So a bucket of 100,000 costs at most 2 B pairs a member, and a document never changes which pairs documents of
higher priority make. The price is recall among the members after the first B, counted as pairs that did not meet.

Pairs whose sketches (64 bits of the signatures) differ by more than 4 sigma from what the threshold implies are
skipped. These are mostly pages of one template, which share a band and little else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

MAX_PARTNERS = 256  # B: only buckets of page templates have more members
PAIRS_AT_ONCE = 1 << 20  # pairs made at once: 16 MB, and a few times that while they are made


@dataclass
class Buckets:
    """Band rows, sorted by key and priority, and counts of the pairs in them.

    band    number of the band (pairs of copies come from band 0 members)
    other   the key of another band, for sub-buckets
    counts  met: pairs compared by sketch; skipped: of these, by their sketches; unmet: pairs of a bucket that were not
            made; copies: pairs of equal shingle sets
    """

    key: U64
    other: U64
    content: U64
    sketch: U64
    band: npt.NDArray[np.uint8]
    max_sketch_distance: int = 64  # bits in which the sketches of a pair may differ
    max_partners: int = MAX_PARTNERS
    counts: dict[str, int] = field(default_factory=lambda: {"met": 0, "skipped": 0, "unmet": 0, "copies": 0})

    def pairs(self) -> Iterator[tuple[I64, I64]]:
        """Yields each pair once, as positions (higher, lower), in parts; `counts` is complete afterwards."""
        # equal sets of a bucket, in priority order; lexsort is stable, so the one of the highest priority comes first
        rows = np.lexsort((self.content, self.key))
        begin, rank = _runs(self.key[rows], self.content[rows])
        is_copy = (rank > 0) & (self.band[rows] == 0)
        leaders, copies = rows[begin[is_copy]], rows[is_copy]
        self.counts["copies"] += len(copies)
        for start in range(0, len(copies), PAIRS_AT_ONCE):
            yield leaders[start : start + PAIRS_AT_ONCE], copies[start : start + PAIRS_AT_ONCE]
        members = np.sort(rows[rank == 0])
        key = self.key[members]
        begin, rank = _runs(key)
        self.counts["unmet"] += int(np.maximum(rank - self.max_partners, 0).sum())
        yield from self._filter_by_sketch(members, begin, rank)
        beyond = np.flatnonzero(rank >= self.max_partners)
        if len(beyond):
            # stable in position: priority order stays inside a sub-bucket
            beyond = beyond[np.lexsort((beyond, self.other[members[beyond]], key[beyond]))]
            begin, rank = _runs(key[beyond], self.other[members[beyond]])
            self.counts["unmet"] -= int(np.minimum(rank, self.max_partners).sum())
            yield from self._filter_by_sketch(members[beyond], begin, rank)

    def _filter_by_sketch(self, rows: I64, begin: I64, rank: I64) -> Iterator[tuple[I64, I64]]:
        for left, right in _bucket_pairs(begin, rank, self.max_partners):
            higher, lower = rows[left], rows[right]
            similar = np.bitwise_count(self.sketch[higher] ^ self.sketch[lower]) <= self.max_sketch_distance
            self.counts["met"] += len(higher)
            self.counts["skipped"] += len(higher) - int(similar.sum())
            if similar.any():
                yield higher[similar], lower[similar]


def _runs(*keys: U64) -> tuple[I64, I64]:
    """For each row, the start of its run of equal keys and its rank in the run."""
    n = len(keys[0])
    change = np.zeros(n, bool)
    change[:1] = True
    for key in keys:
        change[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(change).astype(np.int64)
    begin = np.repeat(starts, np.diff(np.append(starts, n)))
    return begin, np.arange(n, dtype=np.int64) - begin


def _bucket_pairs(begin: I64, rank: I64, max_partners: int) -> Iterator[tuple[I64, I64]]:
    """Yields positions (higher, lower): each member of a run is paired with the first min(rank, max_partners) of it."""
    partners = np.minimum(rank, max_partners)
    ends = np.cumsum(partners)
    row = 0
    while row < len(rank):
        done = int(ends[row - 1]) if row else 0
        stop = max(row + 1, int(np.searchsorted(ends, done + PAIRS_AT_ONCE, "right")))
        counts = partners[row:stop]
        lower = np.repeat(np.arange(row, stop, dtype=np.int64), counts)
        step = np.arange(len(lower), dtype=np.int64) - np.repeat(ends[row:stop] - done - counts, counts)
        if len(lower):
            yield np.repeat(begin[row:stop], counts) + step, lower
        row = stop
