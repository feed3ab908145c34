"""Computes the adjusted counts of every order (Kneser-Ney's number of contexts) from counts of the highest order.

The adjusted count of an n-gram below the highest order is the number of different words seen before it; n-grams that
begin with <s> have no word before them and keep their plain count (Heafield et al. 2013, section 3.2). One pass over
the n-grams of the highest order in suffix order gives all orders: an n-gram of order k begins a new row wherever the
last k words differ from the row before, and its adjusted count is the number of rows of order k + 1 inside it.

A row of order k is identified by its position in suffix order. Its key is (position of its suffix in order k - 1, first
word), so a row of any order is found by one 64-bit number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from curation.quality.ngram.count import BOS, UNK, Counted, Packing
from curation.quality.ngram.disk_arrays import Array, Column


@dataclass
class Order:
    """The n-grams of one order in suffix order, one row each, and their counts of counts.

    words  uint32 (rows, order), as read      key     int64: suffix position << bits | first word; strictly rising
    count  int64, adjusted                    pruned  bool: left out of the model, but not out of its sums
    of     number of rows with adjusted count 0, 1, 2, 3, 4 (pruned ones included, as in lmplz)
    """

    words: Column
    key: Column
    count: Column
    pruned: Column
    of: Array = field(default_factory=lambda: np.zeros(5, np.int64))
    kept: int = 0

    @property
    def rows(self) -> int:
        return self.key.rows

    def append(self, words: Array, key: Array, count: Array, pruned: Array) -> None:
        self.words.append(words)
        self.key.append(key)
        self.count.append(count)
        self.pruned.append(pruned)
        self.of += np.bincount(np.minimum(count, 5), minlength=6)[:5]
        self.kept += int(len(count) - pruned.sum())

    def drop(self) -> None:
        for column in (self.words, self.key, self.count, self.pruned):
            column.drop()


class _OpenRow:
    """The last row of an order, which may continue in the next block."""

    def __init__(self, order: int) -> None:
        self.words = np.empty((0, order), np.uint32)
        self.key = np.empty(0, np.int64)
        self.count = np.empty(0, np.int64)
        self.plain = np.empty(0, np.int64)


def adjust_counts(blocks: Iterable[Counted], packing: Packing, prune: list[int], folder: str) -> list[Order]:
    """Orders 1 to `packing.order`. `prune[k]`: n-grams of order k + 1 with a plain count up to this are pruned.

    Order 1 has a row for every word of the vocabulary (<unk> and <s> with count 0), so a word is its own position.
    """
    n = packing.order
    orders = [_order(k, folder) for k in range(1, n + 1)]
    # <unk> and <s> never occur in the text, and must not enter the discounts
    special = np.array([UNK, BOS], np.uint32)
    orders[0].append(special[:, None], special.astype(np.int64), np.zeros(2, np.int64), np.zeros(2, bool))
    rows = [2] + [0] * (n - 1)  # rows begun so far, by order
    opened = [_OpenRow(k) for k in range(1, n + 1)]
    before: list[Array] | None = None
    for keys, counts in blocks:
        back = packing.unpack(keys)
        m = len(counts)
        if not m:
            continue
        # how many last words a row has in common with the one before it, and how many it has before padding begins
        same, length = np.zeros(m, np.int8), np.full(m, n, np.int8)
        equal, inside = np.ones(m, bool), np.ones(m, bool)
        for j, word in enumerate(back):
            equal[1:] &= word[1:] == word[:-1]
            equal[0] &= before is not None and before[j][0] == word[0]
            same += equal
            length[inside & (word == BOS)] = j + 1
            inside &= word != BOS
        before = [word[-1:].copy() for word in back]
        starts = [(same < k) & (length >= k) for k in range(1, n + 1)]
        position = np.zeros(m, np.int64)  # of the suffix, in the order below
        for k in range(1, n + 1):
            first = np.flatnonzero(starts[k - 1])
            plain = _prefix_sums(np.where(length >= k, counts, 0))
            wider = plain if k == n else _prefix_sums(starts[k])
            bounds = np.concatenate([first, [m]])
            last = opened[k - 1]
            if len(last.count):
                last.plain[-1] += plain[bounds[0]]
                last.count[-1] += wider[bounds[0]]  # 0 where it begins with <s>: such a row is a single one
            if len(first):
                begins = back[k - 1][first]
                new_plain = plain[bounds[1:]] - plain[bounds[:-1]]
                new_count = np.where(begins == BOS, new_plain, wider[bounds[1:]] - wider[bounds[:-1]])
                last.words = np.concatenate([last.words, np.stack([back[j][first] for j in range(k - 1, -1, -1)], 1)])
                last.key = np.concatenate([last.key, (position[first] << packing.bits) | begins.astype(np.int64)])
                last.count = np.concatenate([last.count, new_count])
                last.plain = np.concatenate([last.plain, new_plain])
                _write_rows(orders[k - 1], last, prune[k - 1], 1)
            position = rows[k - 1] - 1 + np.cumsum(starts[k - 1])
            rows[k - 1] += len(first)
    for k in range(1, n + 1):
        _write_rows(orders[k - 1], opened[k - 1], prune[k - 1], 0)
    return orders


def _order(k: int, folder: str) -> Order:
    def column(name: str, dtype: type, width: int = 1) -> Column:
        return Column(os.path.join(folder, f"order{k}-{name}"), dtype, width)

    return Order(
        column("words", np.uint32, k), column("key", np.int64), column("count", np.int64), column("pruned", bool)
    )


def _prefix_sums(values: Array) -> Array:
    """Sums of all values before each position, and of all: length n + 1."""
    out = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=out[1:])
    return out


def _write_rows(order: Order, last: _OpenRow, prune: int, leave: int) -> None:
    """Writes all rows except the last `leave`."""
    stop = len(last.count) - leave
    words = last.words[:stop]
    order.append(words, last.key[:stop], last.count[:stop], last.plain[:stop] <= prune)
    last.words, last.key, last.count, last.plain = (
        last.words[stop:].copy(),
        last.key[stop:].copy(),
        last.count[stop:].copy(),
        last.plain[stop:].copy(),
    )
