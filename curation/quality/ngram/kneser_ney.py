"""Computes interpolated modified Kneser-Ney probabilities and back-offs from adjusted counts, order by order.

With the adjusted counts a of adjusted_counts.py, the discounts D of `compute_discounts` and V words without <s> (Chen &
Goodman 1998, section 3; Heafield et al. 2013, section 3):

    p(w | c)  = (a(c w) - D(a(c w))) / sum_x a(c x)  +  b(c) p(w | c')         c' = c without its first word
    b(c)      = (D1 n1(c) + D2 n2(c) + D3 n3+(c) + counts pruned after c) / sum_x a(c x)
    p(w)      = (a(w) - D(a(w))) / sum_x a(x)  +  b() / V                      p(<unk>) = b() / V,   p(<s>) = 1

where n_i(c) is the number of kept words with a(c w) = i after the context c.

Out of core: the rows of an order are on disk in suffix order, and every step reads ranges of them. What needs rows of
another order at random (the sums over a context, and returning them to the n-grams) is distributed to partitions that
fit into memory. So peak memory is the vocabulary and a few blocks, whatever the length of the text.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from curation.quality.ngram.adjusted_counts import Order
from curation.quality.ngram.count import BOS, UNK
from curation.quality.ngram.disk_arrays import Array, Column, Partitions

FALLBACK_DISCOUNTS = (0.0, 0.5, 1.0, 1.5)  # lmplz --discount_fallback


def compute_discounts(of: Array) -> tuple[float, float, float, float] | None:
    """D(0), D(1), D(2), D(3+) from the numbers of n-grams with adjusted count 0 to 4; None if they are undefined.

    D(j) = j - (j + 1) Y n(j + 1) / n(j),  Y = n(1) / (n(1) + 2 n(2))    (Chen & Goodman 1998, equation 26)
    """
    if (of[1:4] == 0).any():
        return None
    y = of[1] / (of[1] + 2 * of[2])
    amounts = [j - (j + 1) * y * of[j + 1] / of[j] for j in (1, 2, 3)]
    # a discount out of range is invalid; lmplz accepts 0, and writes back-offs of minus infinity
    if not all(0 < amount <= j for j, amount in enumerate(amounts, 1)):
        return None
    return 0.0, float(amounts[0]), float(amounts[1]), float(amounts[2])


@dataclass
class SolvedOrder:
    """Computed values of an order, one column each, in suffix order."""

    context: Column | None  # position of an n-gram's context in the order below (None: order 1, all 0)
    probability: Column  # p(w | c)


def solve_unigrams(rows: Order, amount: Array, folder: str) -> SolvedOrder:
    a = rows.count.read(0, rows.rows)
    gamma = (amount[np.minimum(a, 3)].sum()) / a.sum()
    p = (a - amount[np.minimum(a, 3)]) / a.sum() + gamma / (rows.rows - 1)
    p[UNK], p[BOS] = gamma / (rows.rows - 1), 1.0
    column = Column(os.path.join(folder, "p1"), np.float64)
    column.append(p)
    return SolvedOrder(None, column)


def solve_order(
    rows: Order, amount: Array, below: Order, known: SolvedOrder, bits: int, folder: str, block: int, k: int
) -> tuple[SolvedOrder, Column]:
    """Order k from order k - 1: its probabilities and contexts, and the back-offs (log10) of order k - 1."""

    def path(name: str) -> str:
        return os.path.join(folder, f"{name}{k}")

    # 1. Distribute the n-grams by context. The context of (w1 ... wk) is the row of order k - 1 with the suffix
    #    (w2 ... w(k-1)), which is the context of our own suffix, and the first word w1: again one 64-bit key.
    edges = np.array([below.key.read(at, at + 1)[0] for at in range(0, below.rows, block)])
    by_context = Partitions(path("by-context"), 3)
    for at in range(0, rows.rows, block):
        key = rows.key.read(at, at + block)
        suffix, first = key >> bits, key & ((1 << bits) - 1)
        if known.context is None:
            context_key = first
        else:
            low = int(suffix[0])
            context_key = (known.context.read(low, int(suffix[-1]) + 1)[suffix - low] << bits) | first
        a = rows.count.read(at, at + block)
        a[rows.pruned.read(at, at + block)] *= -1  # a negative sign marks a pruned n-gram
        number = np.arange(at, at + len(key))
        by_context.append(np.searchsorted(edges, context_key, "right") - 1, np.stack([context_key, number, a], 1))
    # 2. Context by context: the sums, the back-off of each context, and every n-gram's own share; distribute back.
    by_row = Partitions(path("by-row"), 4)
    backoff = Column(path("backoff"), np.float64)
    for part, low in enumerate(range(0, below.rows, block)):
        keys = below.key.read(low, low + block)
        total, mass = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
        seen = np.zeros((4, len(keys)), np.int64)
        for piece in by_context.read(part, block):
            context, a = np.searchsorted(keys, piece[:, 0]), piece[:, 2]
            total += np.bincount(context, np.abs(a), len(keys)).astype(np.int64)
            mass += np.bincount(context, np.maximum(-a, 0), len(keys)).astype(np.int64)
            for j in (1, 2, 3):
                seen[j] += np.bincount(context[np.minimum(a, 3) == j], minlength=len(keys))
        # integers up to here, so the sums do not depend on the order of their terms
        with np.errstate(invalid="ignore"):
            gamma = (amount[1] * seen[1] + amount[2] * seen[2] + amount[3] * seen[3] + mass) / total
        gamma[total == 0] = 1.0  # no word ever followed: back off without a penalty
        backoff.append(np.log10(gamma))
        for piece in by_context.read(part, block):
            context, a = np.searchsorted(keys, piece[:, 0]), np.abs(piece[:, 2])
            share = (a - amount[np.minimum(a, 3)]) / total[context]
            by_row.append(
                piece[:, 1] // block,
                np.stack([piece[:, 1], context + low, share.view(np.int64), gamma[context].view(np.int64)], 1),
            )
    by_context.drop()
    # 3. In suffix order again: interpolate with the suffix's probability, which is in a range of the order below.
    solved = SolvedOrder(Column(path("context"), np.int64), Column(path("p"), np.float64))
    assert solved.context is not None
    for part, at in enumerate(range(0, rows.rows, block)):
        suffix = rows.key.read(at, at + block) >> bits
        n, low = len(suffix), int(suffix[0])
        table = np.empty((n, 3), np.int64)
        for piece in by_row.read(part, block):
            table[piece[:, 0] - at] = piece[:, 1:]
        share, gamma = table[:, 1].view(np.float64), table[:, 2].view(np.float64)
        solved.context.append(table[:, 0])
        solved.probability.append(share + gamma * known.probability.read(low, int(suffix[-1]) + 1)[suffix - low])
    by_row.drop()
    return solved, backoff
