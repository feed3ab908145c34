"""How similar two documents really are: counted over their shingle sets, not estimated.

LSH proposes and this decides. With a = |A|, b = |B| and s = |A and B|, the Jaccard similarity of a pair is
s / (a + b - s), and the containment of the worse document B in the better one s / b. All are integers and the threshold
is the fraction its decimal says (0.72 is 18/25), so whether a pair reaches it is a comparison of integers, the same on
every machine:

    Jaccard       s (up + down) >= up (a + b)         threshold = up / down
    containment   s down >= up b
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

# Denominators of thresholds stay below this: products with counts of shingles then fit 64 bits by far.
FINEST = 10**6


def fraction(threshold: float) -> Fraction:
    """The threshold as the decimal that was written: 0.72 -> 18/25."""
    return Fraction(repr(float(threshold)))


@dataclass(frozen=True)
class Sets:
    """Many shingle sets: set k is `values[at[k]:at[k + 1]]`, each value once and none of them 0."""

    values: U64
    at: I64

    @staticmethod
    def of(sets: list[U64]) -> Sets:
        at = np.concatenate([[0], np.cumsum([len(s) for s in sets], dtype=np.int64)])
        return Sets(np.concatenate(sets) if sets else np.zeros(0, np.uint64), at)

    @staticmethod
    def from_arrow(column: pa.LargeListArray) -> Sets:
        return Sets(column.values.to_numpy(), column.offsets.to_numpy())

    def to_arrow(self) -> pa.LargeListArray:
        return pa.LargeListArray.from_arrays(pa.array(self.at), pa.array(self.values))

    def sizes(self) -> I64:
        return np.diff(self.at)

    def take(self, which: I64) -> Sets:
        """Sets by number, repeats allowed."""
        from curation.dedup.minhash.jaccard_kernel import gather

        at = np.concatenate([[0], np.cumsum(self.sizes()[which])])
        values = np.empty(int(at[-1]), np.uint64)
        gather(self.values, self.at, which, values, at)
        return Sets(values, at)


def compare(
    left: Sets, lefts: I64, right: Sets, rights: I64, threshold: Fraction, measure: Measure = "jaccard",
    turned: npt.NDArray[np.bool_] | None = None,
) -> tuple[I64, I64]:  # fmt: skip
    """(which, both) of the pairs (lefts[p], rights[p]) that are similar enough; both = |A and B|.

    The left one is the better document, but where `turned`. Pairs should come sorted by `rights`. A pair is given up
    as soon as it cannot reach the threshold any more. Two empty sets are similar to nothing.
    """
    from curation.dedup.minhash.jaccard_kernel import shared_pairs

    up, down = threshold.numerator, threshold.denominator
    a, b = left.sizes()[lefts], right.sizes()[rights]
    if measure == "jaccard":
        need = -(-up * (a + b) // (up + down))
    else:
        need = -(-up * (b if turned is None else np.where(turned, a, b)) // down)
    need = np.maximum(need, 1)
    which = np.flatnonzero(np.minimum(a, b) >= need)
    both = np.zeros(len(which), np.int64)
    shared_pairs(left.values, left.at, lefts[which], right.values, right.at, rights[which], need[which], both)
    reached = both > 0
    return which[reached], both[reached]


def similarity(left: str, right: str, *, ngram: int = 5, unit: str = "words") -> Fraction:
    """The exact Jaccard similarity of two texts over their shingles; 0 where both have none."""
    from curation.dedup.minhash import shingles

    a, b = shingles.shingle_sets(pa.array([left, right], pa.large_string()), ngram=ngram, unit=shingles.UNITS[unit])
    both = len(np.intersect1d(a, b, assume_unique=True))
    either = len(a) + len(b) - both
    return Fraction(both, either) if either else Fraction(0)
