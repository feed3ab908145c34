"""Compiled: how many numbers sorted arrays share."""

from __future__ import annotations

from .shingles import jit


@jit
def shared(left, right):  # type: ignore[no-untyped-def]
    """The number of values in both of two ascending arrays without repeats."""
    i = j = count = 0
    while i < len(left) and j < len(right):
        a, b = left[i], right[j]
        # no branch on data: half of the comparisons would be mispredicted
        count += a == b
        i += a <= b
        j += b <= a
    return count


@jit
def shared_pairs(left, left_at, lefts, right, right_at, rights, out):  # type: ignore[no-untyped-def]
    """out[p] = shared values of set lefts[p] and set rights[p]; set k of `left` is left[left_at[k]:left_at[k + 1]]."""
    for p in range(len(out)):
        i, j = lefts[p], rights[p]
        out[p] = shared(left[left_at[i] : left_at[i + 1]], right[right_at[j] : right_at[j + 1]])
