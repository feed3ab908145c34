"""Compiled: how many numbers two sorted arrays share."""

from __future__ import annotations

from .shingles import jit


@jit
def shared(left, right):  # type: ignore[no-untyped-def]
    """The number of values in both of two ascending arrays without repeats."""
    i = j = count = 0
    while i < len(left) and j < len(right):
        a, b = left[i], right[j]
        if a == b:
            count += 1
        # no branch on data: half of the comparisons would be mispredicted
        i += a <= b
        j += b <= a
    return count
