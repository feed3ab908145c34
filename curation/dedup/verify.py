"""How similar two documents really are: Jaccard over their shingle sets, counted, not estimated.

LSH proposes and this decides. |A and B| and |A or B| are integers, and the threshold is the fraction its decimal says
(0.72 is 18/25), so whether a pair reaches it is a comparison of integers, the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

# Denominators of thresholds stay below this: products with counts of shingles then fit 64 bits by far.
FINEST = 10**6


def fraction(threshold: float) -> Fraction:
    """The threshold as the decimal that was written: 0.72 -> 18/25."""
    return Fraction(repr(float(threshold)))


@dataclass(frozen=True)
class Sets:
    """Many shingle sets: set k is `values[at[k]:at[k + 1]]`, ascending without repeats."""

    values: U64
    at: I64

    @staticmethod
    def of(sets: list[U64]) -> Sets:
        at = np.concatenate([[0], np.cumsum([len(s) for s in sets], dtype=np.int64)])
        return Sets(np.concatenate(sets) if sets else np.zeros(0, np.uint64), at)

    @staticmethod
    def from_arrow(column: pa.LargeListArray) -> Sets:
        return Sets(column.values.to_numpy(), column.offsets.to_numpy())


def compare(left: Sets, lefts: I64, right: Sets, rights: I64, threshold: Fraction) -> tuple[Any, I64, I64]:
    """(which, both, either) of the pairs (lefts[p], rights[p]) whose Jaccard is at least `threshold`.

    both = |A and B|, either = |A or B|. Pairs whose sizes alone rule it out are not looked at: the smaller set inside
    the larger one is the best they could do. Two empty sets are similar to nothing.
    """
    from .verify_kernel import shared_pairs

    up, down = threshold.numerator, threshold.denominator
    sizes = np.diff(left.at)[lefts], np.diff(right.at)[rights]
    largest = np.maximum(*sizes)
    which = np.flatnonzero((largest > 0) & (np.minimum(*sizes) * down >= up * largest))
    both = np.zeros(len(which), np.int64)
    shared_pairs(left.values, left.at, lefts[which], right.values, right.at, rights[which], both)
    either = sizes[0][which] + sizes[1][which] - both
    reached = both * down >= up * either
    return which[reached], both[reached], either[reached]


def similarity(left: str, right: str, *, ngram: int = 5, unit: str = "words") -> Fraction:
    """The exact Jaccard similarity of two texts over their shingles; 0 where both have none."""
    from . import shingles
    from .verify_kernel import shared

    which = {"words": shingles.WORDS, "characters": shingles.CHARACTERS}[unit]
    a, b = shingles.shingle_sets(pa.array([left, right], pa.large_string()), ngram=ngram, unit=which)
    both = int(shared(a, b))
    either = len(a) + len(b) - both
    return Fraction(both, either) if either else Fraction(0)
