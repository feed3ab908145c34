"""Which pairs are worth a look: documents that share a band, without a quadratic blow-up in large buckets.

A bucket holds the documents with one band key. Of those with equal shingle sets only the best takes part; the others
are its copies, a pair each. Each member meets the first B = 256 members in priority order. Members beyond those also
meet in sub-buckets, keyed by another band: again the first B of each. So a bucket of 100,000 costs at most 2 B pairs a
member; a document of lower priority never changes which better ones meet; and what is lost is recall among the members
beyond, counted as pairs that did not meet.

Of the pairs that meet, those whose sketches (64 bits of the signatures) differ by more than 4 sigma from what they
would at the threshold are skipped: pages of one template, mostly, which share a band and little else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

FIRST = 256  # B: only the buckets of templates hold more
AT_ONCE = 1 << 20  # pairs made at once: 16 MB, and a few times that on the way


@dataclass
class Buckets:
    """Band rows, sorted by key and priority, and what became of the pairs in them.

    band    number of the band (the pair of a copy comes from band 0 alone)
    other   the key of another band
    """

    key: U64
    other: U64
    content: U64
    sketch: U64
    band: npt.NDArray[np.uint8]
    differ: int = 64  # bits two sketches may differ in
    first: int = FIRST
    counts: dict[str, int] = field(default_factory=lambda: {"met": 0, "skipped": 0, "unmet": 0, "copies": 0})

    def pairs(self) -> Iterator[tuple[I64, I64]]:
        """(better, worse) as positions, in parts; a pair comes once. `counts` is complete afterwards."""
        # equal sets of a bucket, in priority order; lexsort is stable, so the best of them comes first
        rows = np.lexsort((self.content, self.key))
        begin, rank = _ranks(self.key[rows], self.content[rows])
        again = (rank > 0) & (self.band[rows] == 0)
        leaders, copies = rows[begin[again]], rows[again]
        self.counts["copies"] += len(copies)
        for start in range(0, len(copies), AT_ONCE):
            yield leaders[start : start + AT_ONCE], copies[start : start + AT_ONCE]
        alone = np.sort(rows[rank == 0])
        key = self.key[alone]
        begin, rank = _ranks(key)
        self.counts["unmet"] += int(np.maximum(rank - self.first, 0).sum())
        yield from self._alike(alone, begin, rank)
        beyond = np.flatnonzero(rank >= self.first)
        if len(beyond):
            # stable in position: priority order stays inside a sub-bucket
            beyond = beyond[np.lexsort((beyond, self.other[alone[beyond]], key[beyond]))]
            begin, rank = _ranks(key[beyond], self.other[alone[beyond]])
            self.counts["unmet"] -= int(np.minimum(rank, self.first).sum())
            yield from self._alike(alone[beyond], begin, rank)

    def _alike(self, rows: I64, begin: I64, rank: I64) -> Iterator[tuple[I64, I64]]:
        for left, right in _meet(begin, rank, self.first):
            better, worse = rows[left], rows[right]
            alike = np.bitwise_count(self.sketch[better] ^ self.sketch[worse]) <= self.differ
            self.counts["met"] += len(better)
            self.counts["skipped"] += len(better) - int(alike.sum())
            if alike.any():
                yield better[alike], worse[alike]


def _ranks(*keys: U64) -> tuple[I64, I64]:
    """For each row, where its run of equal keys begins and how many of the run stand before it."""
    n = len(keys[0])
    change = np.zeros(n, bool)
    change[:1] = True
    for key in keys:
        change[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(change).astype(np.int64)
    begin = np.repeat(starts, np.diff(np.append(starts, n)))
    return begin, np.arange(n, dtype=np.int64) - begin


def _meet(begin: I64, rank: I64, first: int) -> Iterator[tuple[I64, I64]]:
    """Positions (better, worse): the member of a run with `rank` before it meets the first min(rank, first) of them."""
    partners = np.minimum(rank, first)
    ends = np.cumsum(partners)
    row = 0
    while row < len(rank):
        done = int(ends[row - 1]) if row else 0
        stop = max(row + 1, int(np.searchsorted(ends, done + AT_ONCE, "right")))
        here = partners[row:stop]
        worse = np.repeat(np.arange(row, stop, dtype=np.int64), here)
        step = np.arange(len(worse), dtype=np.int64) - np.repeat(ends[row:stop] - done - here, here)
        if len(worse):
            yield np.repeat(begin[row:stop], here) + step, worse
        row = stop
