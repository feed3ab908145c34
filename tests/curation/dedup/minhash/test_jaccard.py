"""Exact similarity and priorities, against obvious references.

Covers: jaccard_kernel.py
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.minhash import independent_set
from curation.dedup.minhash.jaccard import ShingleSets, jaccard_similarity, threshold_fraction, verify_pairs

sets = st.lists(st.sets(st.integers(1, 2**64 - 1).map(lambda x: x % 40 + 1 if x % 3 else x), max_size=30), max_size=8)


def test_thresholds_are_the_decimals_written():
    assert threshold_fraction(0.72) == Fraction(18, 25)
    assert threshold_fraction(1.0) == 1 and threshold_fraction(0.1) * 10 == 1


def test_similarity_of_texts():
    assert jaccard_similarity("a b c", "A, b. c!", ngram=2) == 1
    assert jaccard_similarity("a b c", "a b d", ngram=2) == Fraction(1, 3)
    assert jaccard_similarity("", "", ngram=2) == jaccard_similarity("a", "", ngram=2) == 0
    assert jaccard_similarity("abcd", "abce", ngram=2, unit="characters") == Fraction(2, 4)


@settings(max_examples=150, deadline=None)
@given(sets, sets, st.sampled_from([0.01, 0.25, 0.333333, 0.5, 0.72, 1.0]), st.booleans(), st.booleans())
def test_compare_is_set_arithmetic(left, right, threshold, inside, swapped):
    pairs = [(i, j) for i in range(len(left)) for j in range(len(right))]
    lefts, rights = (np.array([p[k] for p in pairs], np.int64) for k in (0, 1))
    one, two = (ShingleSets.from_list([np.array(list(s), np.uint64) for s in many]) for many in (left, right))
    turn = np.full(len(pairs), swapped)
    measure = "containment" if inside else "jaccard"
    which, both = verify_pairs(one, lefts, two, rights, threshold_fraction(threshold), measure, turn)
    expected = []
    for p, (i, j) in enumerate(pairs):
        shared, lower = left[i] & right[j], left[i] if swapped else right[j]
        whole = lower if inside else left[i] | right[j]
        if shared and Fraction(len(shared), len(whole)) >= threshold_fraction(threshold):
            expected.append((p, len(shared)))
    assert list(zip(which.tolist(), both.tolist(), strict=True)) == expected


def test_sets_through_arrow_and_taken():
    some = ShingleSets.from_list([np.array(v, np.uint64) for v in ([1, 2], [], [3])])
    assert some.take(np.array([2, 0, 0, 1])).to_arrow().to_pylist() == [[3], [1, 2], [1, 2], []]
    again = ShingleSets.from_arrow(some.to_arrow())
    assert again.at.tolist() == [0, 2, 2, 3] and again.values.tolist() == [1, 2, 3]


def test_levels_are_doublings():
    sizes = np.array([0, 1, 2, 3, 4, 1023, 1024, 2**30 - 1, 2**30, 2**40])
    assert independent_set.length_priority(sizes).tolist() == [0, 1, 2, 2, 3, 10, 11, 30, 31, 41]
    assert independent_set.priority_levels(independent_set.length_priority(sizes)).tolist() == [
        31,
        30,
        29,
        29,
        28,
        21,
        20,
        1,
        0,
        0,
    ]
    assert independent_set.priority_levels(np.array([-5, 0.9, 30.99, 31, 1e300, np.inf, -np.inf, np.nan])).tolist() == [
        31, 31, 1, 0, 0, 0, 31, 31,
    ]  # fmt: skip


def test_priority_is_level_then_keyed_hash():
    ids = pa.array([bytes([i]) * 16 for i in range(200)], pa.binary(16))
    level = np.array([i % 3 for i in range(200)], np.uint8)
    one, two = (independent_set.priority_order(independent_set.priority_rank(level, ids, seed), ids) for seed in (1, 2))
    assert (np.diff(level[one].astype(int)) >= 0).all() and (one != two).any()
    assert sorted(one.tolist()) == list(range(200))
