"""Exact similarity and the decision, each against the obvious reference."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import cluster
from curation.dedup.verify import Sets, compare, fraction, similarity

sets = st.lists(st.sets(st.integers(0, 2**64 - 1).map(lambda x: x % 40 if x % 3 else x), max_size=30), max_size=8)


def test_thresholds_are_the_decimals_written():
    assert fraction(0.72) == Fraction(18, 25)
    assert fraction(1.0) == 1 and fraction(0.1) * 10 == 1


def test_similarity_of_texts():
    assert similarity("a b c", "A, b. c!", ngram=2) == 1
    assert similarity("a b c", "a b d", ngram=2) == Fraction(1, 3)
    assert similarity("", "", ngram=2) == similarity("a", "", ngram=2) == 0
    assert similarity("abcd", "abce", ngram=2, unit="characters") == Fraction(2, 4)


@settings(max_examples=150, deadline=None)
@given(sets, sets, st.sampled_from([0.01, 0.25, 0.333333, 0.5, 0.72, 1.0]))
def test_compare_is_set_arithmetic(left, right, threshold):
    pairs = [(i, j) for i in range(len(left)) for j in range(len(right))]
    lefts, rights = (np.array([p[k] for p in pairs], np.int64) for k in (0, 1))
    one, two = (Sets.of([np.array(sorted(s), np.uint64) for s in many]) for many in (left, right))
    which, both, either = compare(one, lefts, two, rights, fraction(threshold))
    expected = [
        (p, len(left[i] & right[j]), len(left[i] | right[j]))
        for p, (i, j) in enumerate(pairs)
        if left[i] | right[j] and Fraction(len(left[i] & right[j]), len(left[i] | right[j])) >= fraction(threshold)
    ]
    assert list(zip(which.tolist(), both.tolist(), either.tolist(), strict=True)) == expected


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**32))
def test_the_decision_is_the_first_maximal_independent_set(n, seed):
    rng = random.Random(seed)
    edges = {(u, v): (rng.randint(7, 10), 10) for v in range(n) for u in range(v) if rng.random() < 0.3}
    order = list(edges)
    rng.shuffle(order)
    columns = [np.array(c, np.int64) for c in zip(*((u, v, *edges[u, v]) for u, v in order), strict=True)]
    decision = cluster.first_independent_set(n, *(columns or [np.zeros(0, np.int64)] * 4))
    kept: list[int] = []
    stands = dict.fromkeys(range(n), 0)
    for v in range(n):
        near = [u for u in kept if (u, v) in edges]
        if near:
            best = max(near, key=lambda u: (edges[u, v][0], -u))
            assert decision.of[v] == best and order[decision.edge[v]] == (best, v)
            stands[best] += 1
        else:
            kept.append(v)
            assert decision.of[v] == decision.edge[v] == -1
            stands[v] += 1
    assert decision.copies.tolist() == [stands[v] for v in range(n)]


def test_a_long_chain_of_decisions_takes_no_recursion():
    n = 50_000
    u = np.arange(n - 1, dtype=np.int64)
    ones = np.ones(n - 1, np.int64)
    decision = cluster.first_independent_set(n, u, u + 1, ones, ones)
    assert (decision.of[1::2] == np.arange(0, n - 1, 2)[: n // 2]).all() and (decision.of[::2] == -1).all()


def test_levels_are_doublings():
    assert cluster.levels(np.array([0, 1, 2, 3, 4, 1023, 1024, 2**30 - 1, 2**30, 2**40])).tolist() == [
        31, 30, 29, 29, 28, 21, 20, 1, 0, 0,
    ]  # fmt: skip


def test_priority_is_level_then_keyed_hash():
    ids = pa.array([bytes([i]) * 16 for i in range(200)], pa.binary(16))
    level = np.array([i % 3 for i in range(200)], np.uint8)
    one, two = (np.lexsort(cluster.priority(level, ids, seed)) for seed in (1, 2))
    assert (np.diff(level[one].astype(int)) >= 0).all() and (one != two).any()
    assert sorted(one.tolist()) == list(range(200))
