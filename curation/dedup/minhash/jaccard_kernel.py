"""Compiled: how many numbers two sets share, by one hash table for all that a document is compared with."""

from __future__ import annotations

import numpy as np

from curation.dedup.minhash.shingles import insert, jit, table_size


@jit
def shared_pairs(left, left_at, lefts, right, right_at, rights, need, out):  # type: ignore[no-untyped-def]
    """out[p] = shared values of set lefts[p] and set rights[p] if there are need[p] or more, else 0.

    Set k of `left` is left[left_at[k]:left_at[k + 1]]. The table is made anew where rights[p] changes.
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
        missable = (end - start) - need[p]
        both = 0
        for k in range(start, end):
            value = left[k]
            at = value & mask
            while slots[at] != 0 and slots[at] != value:
                at = (at + np.uint64(1)) & mask
            if slots[at] == value:
                both += 1
            else:
                missable -= 1
                if missable < 0:
                    break
        out[p] = both if missable >= 0 else 0


@jit
def gather(values, at, which, out, out_at):  # type: ignore[no-untyped-def]
    """Sets `which` of (values, at), one after the other, into `out` where `out_at` says."""
    for n in range(len(which)):
        start = at[which[n]]
        for k in range(out_at[n + 1] - out_at[n]):
            out[out_at[n] + k] = values[start + k]
