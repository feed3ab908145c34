"""Turns mix weights into integers, and these into the table that says which domain each sequence of a period is from.

The integers n_d with sum P *are* the mix. One period is laid out by Tijdeman's chairman assignment, so that at every
prefix each domain is within one sequence of its quota.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]

MAX_PERIOD = 1 << 16


class OrderError(ValueError):
    """Raised for a mix, length or domain that cannot be ordered; the message names the numbers."""


def integer_mix(weights: Mapping[str, float]) -> tuple[dict[str, int], float]:
    """Weights as integers whose sum is the period P, and the largest rounding |n_d / P - w_d|.

    P is the common denominator of the weights as they are written in decimal, if that is at most 2^16, else 2^16 by
    largest remainders; every domain with a positive weight gets at least 1. Domains of weight 0 are left out.
    """
    exact = {d: Fraction(str(w)) for d, w in sorted(weights.items()) if w != 0}
    if not exact or any(w < 0 for w in exact.values()):
        raise OrderError(f"the mix needs positive weights, got {dict(weights)}")
    total = sum(exact.values())
    exact = {d: w / total for d, w in exact.items()}
    period = math.lcm(*(w.denominator for w in exact.values()))
    if period <= MAX_PERIOD:
        return {d: int(w * period) for d, w in exact.items()}, 0.0
    if len(exact) > MAX_PERIOD:
        raise OrderError(f"a mix has at most {MAX_PERIOD} domains, got {len(exact)}")
    count = {d: max(1, math.floor(w * MAX_PERIOD)) for d, w in exact.items()}
    missing = MAX_PERIOD - sum(count.values())
    # Positive: the largest remainders gain one each. Negative: the domains raised to 1 are paid for by the most over.
    while missing:
        step = 1 if missing > 0 else -1
        best = max(
            (d for d in count if count[d] + step >= 1), key=lambda d: (step * (exact[d] * MAX_PERIOD - count[d]), d)
        )
        count[best] += step
        missing -= step
    divisor = math.gcd(*count.values())
    count = {d: n // divisor for d, n in count.items()}
    period = sum(count.values())
    return count, float(max(abs(Fraction(n, period) - exact[d]) for d, n in count.items()))


def chairman_assignment(counts: Sequence[int]) -> Ints:
    """One period in which i occurs counts[i] times, off its quota by at most 1 - 1/(2k-2) < 1 at every prefix.

    Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): among those who have earned the chair
    (deficit at least 1/(2k-2)) it goes to whoever would be too late first (deficit 1 - 1/(2k-2)). Deficits of i after
    n steps with a turns are n * counts[i] / P - a, so both moments are integers in closed form, kept here in two heaps.
    Largest remainder gives no sequence, and greedy largest deficit reaches an error of 1.28.
    """
    k, period = len(counts), sum(counts)
    table = np.zeros(period, np.int64)
    if k == 1:
        return table
    scale = 2 * k - 2

    def earliest(
        i: int, turns: int, threshold: int
    ) -> int:  # the first n with scale * (n*c - P*turns) >= threshold * P
        return -((-threshold * period - scale * period * turns) // (scale * counts[i]))

    turns = [0] * k
    waiting = [(earliest(i, 0, 1), i) for i in range(k)]
    ready: list[tuple[int, int]] = []
    heapq.heapify(waiting)
    for n in range(1, period + 1):
        while waiting and waiting[0][0] <= n:
            i = heapq.heappop(waiting)[1]
            heapq.heappush(ready, (earliest(i, turns[i], scale - 1), i))
        i = heapq.heappop(ready)[1]
        table[n - 1] = i
        turns[i] += 1
        heapq.heappush(waiting, (earliest(i, turns[i], 1), i))
    return table


@cache
def mix_period(mix: tuple[tuple[str, int], ...]) -> tuple[Ints, Ints]:
    """The table of a mix, and for each entry how many of the same domain come before it in the period."""
    table = chairman_assignment([n for _, n in mix])
    rank = np.empty_like(table)
    for i in range(len(mix)):
        at = table == i
        rank[at] = np.arange(np.count_nonzero(at))
    return table, rank
