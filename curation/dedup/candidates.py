"""Which pairs are worth a look: documents that share a band, without a quadratic blow-up in large buckets.

A bucket holds the documents with one band key. Each member meets the first B = 256 members in priority order. Members
beyond those also meet in sub-buckets, keyed by another band: again the first B of each. So a bucket of 100,000 costs
at most 2 B pairs a member; a document of lower priority never changes which better ones meet; and what is lost is
recall among the members beyond, counted as pairs that did not meet.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

FIRST = 256  # B: only the buckets of templates hold more
AT_ONCE = 1 << 20  # pairs made at once: 16 MB, and a few times that on the way


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


def pairs(key: U64, other: U64, first: int = FIRST) -> Iterator[tuple[I64, I64]]:
    """(better, worse) of documents sorted by (key, priority), in parts; `other` is the key of another band.

    better and worse are positions in the arrays given; a pair comes once.
    """
    begin, rank = _ranks(key)
    yield from _meet(begin, rank, first)
    beyond = np.flatnonzero(rank >= first)
    if len(beyond):
        # stable in position: priority order stays inside a sub-bucket
        beyond = beyond[np.lexsort((beyond, other[beyond], key[beyond]))]
        for better, worse in _meet(*_ranks(key[beyond], other[beyond]), first):
            yield beyond[better], beyond[worse]


def unmet(key: U64, other: U64, first: int = FIRST) -> int:
    """How many pairs of one bucket do not meet in it."""
    _, rank = _ranks(key)
    beyond = np.flatnonzero(rank >= first)
    lost = int((rank - first)[beyond].sum())
    if lost:
        beyond = beyond[np.lexsort((beyond, other[beyond], key[beyond]))]
        lost -= int(np.minimum(_ranks(key[beyond], other[beyond])[1], first).sum())
    return lost
