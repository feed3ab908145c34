"""How similar two documents really are: Jaccard over their shingle sets, counted, not estimated.

LSH proposes and this decides. |A and B| and |A or B| are integers, and the threshold is the fraction its decimal says
(0.72 is 18/25), so whether a pair reaches it is a comparison of integers, the same on every machine.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U64 = npt.NDArray[np.uint64]


def fraction(threshold: float) -> Fraction:
    """The threshold as the decimal that was written: 0.72 -> 18/25."""
    return Fraction(repr(float(threshold)))


def jaccard(left: U64, right: U64) -> tuple[int, int]:
    """(|A and B|, |A or B|) of two sets given as sorted arrays without repeats."""
    from .verify_kernel import shared

    both = int(shared(left, right))
    return both, len(left) + len(right) - both


def reaches(both: int, either: int, threshold: Fraction) -> bool:
    """Whether both/either >= threshold. Two empty sets are similar to nothing."""
    return either > 0 and both * threshold.denominator >= threshold.numerator * either


def can_reach(left: int, right: int, threshold: Fraction) -> bool:
    """Whether sets of these sizes could: the smaller one inside the larger is the best they can do."""
    return reaches(min(left, right), max(left, right), threshold)


def similarity(left: str, right: str, *, ngram: int = 5, unit: str = "words") -> Fraction:
    """The exact Jaccard similarity of two texts over their shingles; 0 where both have none."""
    from . import shingles

    which = {"words": shingles.WORDS, "characters": shingles.CHARACTERS}[unit]
    a, b = shingles.shingle_sets(pa.array([left, right], pa.large_string()), ngram=ngram, unit=which)
    both, either = jaccard(a, b)
    return Fraction(both, either) if either else Fraction(0)
