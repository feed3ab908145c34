"""Compiled: counts how many values two shingle sets share, with one hash table per document.

s = |A and B|, counted by looking up each value of A in a table of B; a pair stops once too many values are missing.
"""

from __future__ import annotations

import numpy as np

from curation.dedup.minhash.shingles import insert, table_size
from curation.kernels import kernel


@kernel()
def count_intersections(left, left_at, lefts, right, right_at, rights, need, out):  # type: ignore[no-untyped-def]
    """out[p] = the number of shared values of set lefts[p] and set rights[p] if it is at least need[p], else 0.

    Set k of `left` is left[left_at[k]:left_at[k + 1]]. The table is rebuilt where rights[p] changes.
    """
    largest = 0
    for p in range(len(out)):
        largest = max(largest, right_at[rights[p] + 1] - right_at[rights[p]])
    slots = np.zeros(table_size(largest), np.uint64)
    mask = np.uint64(0)
    current = -1
    for p in range(len(out)):
        j = rights[p]
        if j != current:
            current = j
            size = table_size(right_at[j + 1] - right_at[j])
            mask = np.uint64(size - 1)
            slots[:size] = np.uint64(0)
            for k in range(right_at[j], right_at[j + 1]):
                insert(slots, mask, right[k])
        start, end = left_at[lefts[p]], left_at[lefts[p] + 1]
        may_miss = (end - start) - need[p]
        intersection = 0
        for k in range(start, end):
            value = left[k]
            at = value & mask
            while slots[at] != 0 and slots[at] != value:
                at = (at + np.uint64(1)) & mask
            if slots[at] == value:
                intersection += 1
            else:
                may_miss -= 1
                if may_miss < 0:
                    break
        out[p] = intersection if may_miss >= 0 else 0


@kernel()
def copy_sets(values, at, which, out, out_at):  # type: ignore[no-untyped-def]
    """Copies the sets `which` of (values, at) one after the other into `out`, at the offsets `out_at`."""
    for n in range(len(which)):
        start = at[which[n]]
        for k in range(out_at[n + 1] - out_at[n]):
            out[out_at[n] + k] = values[start + k]
