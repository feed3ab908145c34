"""Computes the exact similarity of document pairs by counting shared shingles.

MinHash only proposes pairs; this decides. With a = |A|, b = |B| and s = |A and B|, the Jaccard similarity of a pair is
s / (a + b - s); the containment of B, the document of lower priority, in A is s / b. The threshold is an exact fraction
of the decimal as written (0.72 is 18/25), so the comparison is one of integers, with the same result on every machine:

    Jaccard       s (num + den) >= num (a + b)         threshold = num / den
    containment   s den >= num b
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.dedup.minhash.independent_set import Measure

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

# Largest denominator of a threshold: products with counts of shingles then fit 64 bits.
MAX_DENOMINATOR = 10**6


def threshold_fraction(threshold: float) -> Fraction:
    """The threshold as an exact fraction of its decimal: 0.72 -> 18/25."""
    return Fraction(repr(float(threshold)))


@dataclass(frozen=True)
class ShingleSets:
    """Several shingle sets: set k is `values[at[k]:at[k + 1]]`; its values are distinct and not 0."""

    values: U64
    at: I64

    @staticmethod
    def from_list(sets: list[U64]) -> ShingleSets:
        at = np.concatenate([[0], np.cumsum([len(s) for s in sets], dtype=np.int64)])
        return ShingleSets(np.concatenate(sets) if sets else np.zeros(0, np.uint64), at)

    @staticmethod
    def from_arrow(column: pa.LargeListArray) -> ShingleSets:
        return ShingleSets(column.values.to_numpy(), column.offsets.to_numpy())

    def to_arrow(self) -> pa.LargeListArray:
        return pa.LargeListArray.from_arrays(pa.array(self.at), pa.array(self.values))

    def sizes(self) -> I64:
        return np.diff(self.at)

    def take(self, which: I64) -> ShingleSets:
        """The sets with these numbers, in this order; repeats are allowed."""
        from curation.dedup.minhash.jaccard_kernel import copy_sets

        at = np.concatenate([[0], np.cumsum(self.sizes()[which])])
        values = np.empty(int(at[-1]), np.uint64)
        copy_sets(self.values, self.at, which, values, at)
        return ShingleSets(values, at)


def verify_pairs(
    left: ShingleSets, lefts: I64, right: ShingleSets, rights: I64, threshold: Fraction, measure: Measure = "jaccard",
    swapped: npt.NDArray[np.bool_] | None = None,
) -> tuple[I64, I64]:  # fmt: skip
    """The pairs (lefts[p], rights[p]) that reach the threshold: (their positions p, their intersection sizes).

    The left document has the higher priority, except where `swapped`. Pairs should be sorted by `rights`. Counting
    stops as soon as a pair cannot reach the threshold. An empty set is similar to nothing.
    """
    from curation.dedup.minhash.jaccard_kernel import count_intersections

    num, den = threshold.numerator, threshold.denominator
    a, b = left.sizes()[lefts], right.sizes()[rights]
    if measure == "jaccard":
        need = -(-num * (a + b) // (num + den))
    else:
        need = -(-num * (b if swapped is None else np.where(swapped, a, b)) // den)
    need = np.maximum(need, 1)
    which = np.flatnonzero(np.minimum(a, b) >= need)
    intersection = np.zeros(len(which), np.int64)
    count_intersections(
        left.values, left.at, lefts[which], right.values, right.at, rights[which], need[which], intersection
    )
    reached = intersection > 0
    return which[reached], intersection[reached]


def jaccard_similarity(left: str, right: str, *, ngram: int = 5, unit: str = "words") -> Fraction:
    """The exact Jaccard similarity of two texts over their shingles; 0 if both have none."""
    from curation.dedup.minhash import shingles

    a, b = shingles.shingle_sets(pa.array([left, right], pa.large_string()), ngram=ngram, unit=shingles.UNITS[unit])
    intersection = len(np.intersect1d(a, b, assume_unique=True))
    union = len(a) + len(b) - intersection
    return Fraction(intersection, union) if union else Fraction(0)
