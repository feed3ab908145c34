"""Which pairs are worth a look: documents that share a band, without a quadratic blow-up in large buckets.

A bucket holds the documents with one band key. Each member meets the first B = 256 members in priority order. Members
beyond those also meet in sub-buckets, keyed by another band: again the first B of each. So a bucket of 100,000 costs
at most 2 * 256 pairs a member; a document of lower priority never changes which better ones meet; and what is lost is
recall among the members beyond, counted as pairs that did not meet.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

FIRST = 256  # B: measured on crawls, all but template buckets are smaller


def _meet(starts: I64, counts: I64, first: int) -> tuple[I64, I64]:
    """Positions (better, worse): in each run, member i meets members 0 .. min(i, first) - 1."""
    positions = np.arange(int(counts.sum()), dtype=np.int64)
    begin = np.repeat(starts, counts)
    rank = positions - np.repeat(np.cumsum(counts) - counts, counts)
    partners = np.minimum(rank, first)
    worse = np.repeat(begin + rank, partners)
    step = np.arange(int(partners.sum()), dtype=np.int64) - np.repeat(np.cumsum(partners) - partners, partners)
    return np.repeat(begin, partners) + step, worse


def _runs(*keys: U64) -> tuple[I64, I64]:
    """Starts and lengths of the runs of equal keys."""
    n = len(keys[0])
    if n == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    change = np.zeros(n, bool)
    change[0] = True
    for key in keys:
        change[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(change).astype(np.int64)
    return starts, np.diff(np.append(starts, n))


def pairs(key: U64, other: U64, first: int = FIRST) -> tuple[I64, I64, int]:
    """(better, worse, unmet) of documents sorted by (key, priority); `other` is the key of another band.

    better and worse are positions in the arrays given; unmet is how many pairs of one bucket did not meet in it.
    """
    starts, counts = _runs(key)
    better, worse = _meet(starts, counts, first)
    total = int((counts * (counts - 1) // 2).sum())
    large = counts > first
    if large.any():
        beyond = np.concatenate(
            [np.arange(s + first, s + c) for s, c in zip(starts[large], counts[large], strict=True)]
        )
        # stable: priority order stays inside a sub-bucket
        beyond = beyond[np.lexsort((beyond, other[beyond], key[beyond]))]
        b, w = _meet(*_runs(key[beyond], other[beyond]), first)
        better, worse = np.concatenate([better, beyond[b]]), np.concatenate([worse, beyond[w]])
    return better, worse, total - len(better)
