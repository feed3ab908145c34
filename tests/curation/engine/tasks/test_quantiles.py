"""Quantiles by radix selection are those found by sorting.

Covers: curation/engine/execution/quantile_rounds.py
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curation.config.rules import Quantile
from curation.engine.tasks import quantiles

VALUES = st.lists(st.one_of(st.floats(allow_nan=True, width=64), st.none()), max_size=60)


@given(st.floats(allow_nan=False))
def test_bits_and_back(value: float) -> None:
    bits = int(quantiles.ordered_bits(np.array([value]))[0])
    assert quantiles.from_ordered_bits(bits) == value


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_order_is_kept(a: float, b: float) -> None:
    x, y = (int(v) for v in quantiles.ordered_bits(np.array([a, b])))
    assert (a < b) == (x < y) and (a == b) == (x == y)


def _rounds(tasks: list[tuple[list[float | None], list[str | None]]], wanted: list[Quantile]):
    def round_(bits, prefixes):
        phase = quantiles.HistogramPhase("", wanted, {}, bits, prefixes)
        manifests = []
        for values, groups in tasks:
            counts = [{} for _ in wanted]
            for i, q in enumerate(wanted):
                by = pa.array(groups, pa.string()) if q.by else None
                quantiles._count(phase, i, pa.array(values, pa.float64()), by, counts[i])
            manifests.append({"counts": counts})
        return manifests

    return round_


@given(st.lists(VALUES, min_size=1, max_size=4), st.floats(0, 1))
def test_nearest_rank(tasks: list[list[float | None]], p: float) -> None:
    q = Quantile("a.x", p)
    found = quantiles.select([q], _rounds([(t, [None] * len(t)) for t in tasks], [q]))[q]
    ordered = sorted(v for t in tasks for v in t if v is not None and not math.isnan(v))
    if not ordered:
        assert found is None
    else:
        assert found == ordered[max(1, math.ceil(Fraction(repr(p)) * len(ordered))) - 1]


def test_the_rank_of_every_thousandth_of_up_to_a_thousand_values() -> None:
    """Against the definition: the first of the values such that so many thousandths of all are not above it."""
    wanted = [Quantile("a.x", i / 1000) for i in range(1001)]
    for n in range(1, 1001):
        rank = 1
        for i, q in enumerate(wanted):
            while rank * 1000 < i * n:
                rank += 1
            assert q.rank(n) == rank, (q.p, n)


def test_seven_percent_of_a_hundred_values() -> None:
    q = Quantile("a.x", 0.07)
    assert quantiles.select([q], _rounds([([float(v) for v in range(1, 101)], [None] * 100)], [q])) == {q: 7.0}


def test_by_group_and_several_at_once() -> None:
    tasks = [([3.0, 1.0, None, 9.0], ["en", "en", "en", "de"]), ([2.0, 7.0, 5.0], ["en", "de", None])]
    half, most = Quantile("a.x", 0.5, "b.y"), Quantile("a.x", 1.0)
    found = quantiles.select([half, most], _rounds(tasks, [half, most]))
    assert found == {half: {"de": 7.0, "en": 2.0}, most: 9.0}
