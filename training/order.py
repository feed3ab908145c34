"""Which token is read when: the data order as a function of (manifest, seed, order log), and no state beside it.

Window j belongs to a domain by a table of P entries laid by Tijdeman's chairman assignment, and has an ordinal within
that domain. The ordinal names a block by a keyed permutation. Both directions are arithmetic, so reading can begin
anywhere, on any number of workers, and nothing but a count of windows goes into a checkpoint.

The permuted unit is a block of `max_seq_len` inputs. It never crosses shards, so that a shard can be read alone, and
every shard has the same number of blocks each epoch: (tokens - 1) // block. What is left over, less than a block, goes
partly before the first block and partly behind the last one, divided anew each epoch by a keyed hash.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]

MAX_PERIOD = 1 << 16
EXTENT_BYTES = 8 << 20  # read as a unit: large enough for an object store, small enough to hold a group of them
EXTENTS_IN_GROUP = 8  # blocks are permuted across this many extents, so 64 MiB a domain are in use at a time
ROUNDS = 6


class OrderError(ValueError):
    """A mix, length or domain that no order exists for; the message names the figures."""


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


def chairman(counts: Sequence[int]) -> Ints:
    """One period in which i stands counts[i] times, off its quota by at most 1 - 1/(2k-2) < 1 at every prefix.

    Tijdeman, "The chairman assignment problem", Discrete Mathematics 32 (1980): among those who have earned the chair
    (deficit at least 1/(2k-2)) it goes to whoever would be too late first (deficit 1 - 1/(2k-2)). Deficits of i after
    n steps with a turns are n * counts[i] / P - a, so both moments are integers in closed form, kept here in two heaps.
    Largest remainder is no sequence at all, and greedy largest deficit reaches an error of 1.28.
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


def key(*parts: object) -> int:
    """A 64-bit key of a tuple of ints and strings (BLAKE2b over its text; the parts cannot run into each other)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def _mix64(x: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(positions: Ints, size: int, permutation: int) -> Ints:
    """The images of `positions` under the keyed permutation of range(size), size up to 2^63.

    A balanced Feistel network over the next even number of bits; an image outside the range is sent through again
    until it is inside (cycle walking: Black & Rogaway, "Ciphers with arbitrary finite domains", 2002), fewer than four
    times on average.
    """
    if size <= 1:
        return np.zeros_like(positions)
    half = np.uint64(((size - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << int(half)) - 1)
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        keys = _mix64(
            np.uint64(permutation) + np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        )
        x = positions.astype(np.uint64)
        todo = np.arange(len(x))
        while len(todo):
            left, right = x[todo] >> half, x[todo] & low
            for round_key in keys:
                left, right = right, left ^ (_mix64(right ^ round_key) & low)
            x[todo] = left << half | right
            todo = todo[x[todo] >= np.uint64(size)]
    return x.astype(np.int64)


@dataclass(frozen=True)
class Segment:
    """A stretch of windows under one mix, sequence length, batch and set of masked documents; the last has no end."""

    window: int  # the first window j
    ordinals: dict[str, int]  # the first ordinal of each domain, in windows of this segment's length
    mix: dict[str, int]  # n_d: windows of each domain in a period
    sequence: int  # inputs in a window; divides the block
    batch: int  # windows in a global batch
    masked: tuple[str, ...] = ()  # doc_ids (hex) whose tokens are no targets
    skipped: dict[str, int] = field(default_factory=dict)  # inputs left out where a longer sequence began mid-block


@dataclass(frozen=True)
class OrderLog:
    """The append-only history of how windows were chosen. With the count of consumed windows: all of the data state."""

    block: int
    segments: tuple[Segment, ...]

    @staticmethod
    def start(mix: Mapping[str, int], block: int, sequence: int, batch: int) -> OrderLog:
        """A log of one segment, beginning at window 0."""
        if block % sequence:
            raise OrderError(f"a sequence of {sequence} does not divide the block of {block}")
        mix = dict(sorted(mix.items()))
        return OrderLog(block, (Segment(0, dict.fromkeys(mix, 0), mix, sequence, batch),))

    def change(self, window: int, **changes: Any) -> OrderLog:
        """The log with another mix, sequence, batch or masked documents from `window` on, the last segment or later.

        No window that was read moves. With a longer sequence a domain goes on at its next whole window; the inputs
        passed over, less than a window a domain, are in `skipped`.
        """
        last = self.segments[-1]
        if window < last.window:
            raise OrderError(f"window {window} is before the last segment, which begins at {last.window}")
        new = replace(last, window=window, **changes)
        if self.block % new.sequence:
            raise OrderError(f"a sequence of {new.sequence} does not divide the block of {self.block}")
        # A segment that begins here was never read: it is replaced, and counted from the one before it.
        kept = self.segments[:-1] if window == last.window else self.segments
        before = kept[-1] if kept else replace(last, ordinals={})
        read = self._read(before, window)
        ordinals, skipped = {}, {}
        for domain in sorted({*read, *new.mix}):
            inputs = read.get(domain, 0) * before.sequence
            ordinals[domain] = -(-inputs // new.sequence)
            if ordinals[domain] * new.sequence != inputs:
                skipped[domain] = ordinals[domain] * new.sequence - inputs
        new = replace(new, mix=dict(sorted(new.mix.items())), ordinals=ordinals, skipped=skipped)
        return OrderLog(self.block, (*kept, new))

    def _read(self, segment: Segment, window: int) -> dict[str, int]:
        """The ordinal that each domain has reached before `window`, which lies in or behind `segment`."""
        table, _ = period(tuple(segment.mix.items()))
        periods, rest = divmod(window - segment.window, len(table))
        there = np.bincount(table[:rest], minlength=len(segment.mix))
        read = dict(segment.ordinals)
        for i, (domain, n) in enumerate(segment.mix.items()):
            read[domain] = read.get(domain, 0) + periods * n + int(there[i])
        return read

    def read(self, window: int) -> dict[str, int]:
        """Inputs that the windows before `window` read from each domain (those skipped included)."""
        segment = self.segment(window)
        return {d: n * segment.sequence for d, n in self._read(segment, window).items()}

    def segment(self, window: int) -> Segment:
        """The segment that window j lies in."""
        return next(s for s in reversed(self.segments) if s.window <= window)

    def place(self, first: int, last: int) -> list[tuple[Segment, Ints, Ints]]:
        """Windows first..last-1, cut by segment: (segment, domain as index into its mix, ordinal in the domain)."""
        parts = []
        for i, segment in enumerate(self.segments):
            end = self.segments[i + 1].window if i + 1 < len(self.segments) else last
            a, b = max(first, segment.window), min(last, end)
            if a >= b:
                continue
            table, rank = period(tuple(segment.mix.items()))
            periods, at = np.divmod(np.arange(a, b, dtype=np.int64) - segment.window, len(table))
            domain = table[at]
            count = np.array(list(segment.mix.values()), np.int64)
            begin = np.array([segment.ordinals.get(d, 0) for d in segment.mix], np.int64)
            ordinals = (begin[domain] + periods * count[domain] + rank[at]).astype(np.int64, copy=False)
            parts.append((segment, domain, ordinals))
        return parts

    def as_dict(self) -> dict[str, Any]:
        return {"block": self.block, "segments": [{**asdict(s), "masked": list(s.masked)} for s in self.segments]}

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> OrderLog:
        segments = tuple(Segment(**{**s, "masked": tuple(s["masked"])}) for s in value["segments"])
        return OrderLog(value["block"], segments)


@cache
def period(mix: tuple[tuple[str, int], ...]) -> tuple[Ints, Ints]:
    """The table of a mix, and for each entry how many of the same domain stand before it in the period."""
    table = chairman([n for _, n in mix])
    rank = np.empty_like(table)
    for i in range(len(mix)):
        at = table == i
        rank[at] = np.arange(np.count_nonzero(at))
    return table, rank


class DomainOrder:
    """Where the blocks of a domain are, and which of them stands at which ordinal.

    Blocks are numbered through the shards. Extents of consecutive blocks are permuted each epoch, and then the blocks
    within each group of extents in that order, so that a reader far from the data fetches whole extents and holds one
    group. All extents have the same number of blocks but the last one; where that one lands, what follows begins
    `deficit` blocks earlier.
    """

    def __init__(self, name: str, tokens: Sequence[int], block: int, itemsize: int, seed: int) -> None:
        """`tokens`: tokens of each shard. Raises OrderError for a domain smaller than a block."""
        self.name, self.block, self.seed = name, block, seed
        self.tokens = np.array(tokens, np.int64)
        self.blocks = np.maximum(self.tokens - 1, 0) // block
        self.bounds = np.concatenate([[0], np.cumsum(self.blocks)]).astype(np.int64)
        self.total = int(self.bounds[-1])
        if not self.total:
            raise OrderError(
                f"domain {name} is smaller than a block: its largest shard has {max(tokens, default=0)} tokens, "
                f"a block needs {block + 1} (sequence length {block} and the next token); "
                "shorten data.sequence, give the domain more data, or set its weight to 0"
            )
        self.extent = min(max(1, EXTENT_BYTES // (block * itemsize)), self.total)
        self.extents = -(-self.total // self.extent)
        self.deficit = self.extents * self.extent - self.total
        self._extents: tuple[int, Ints] | None = None

    @property
    def remainder(self) -> int:
        """Tokens that are no target in an epoch: the first of each shard, and less than a block a shard besides."""
        return int(self.tokens.sum()) - self.total * self.block

    def cut(self, epoch: int, shard: int) -> int:
        """Inputs before the first block of a shard in an epoch: 0 to what the blocks leave over."""
        slack = max(int(self.tokens[shard]) - 1, 0) - int(self.blocks[shard]) * self.block
        return key(self.seed, "cut", self.name, epoch, shard) % (slack + 1)

    def _extent_order(self, epoch: int) -> Ints:
        """The extents as an epoch reads them; one epoch is remembered, a window looks at one or two."""
        if self._extents is None or self._extents[0] != epoch:
            extent_key = key(self.seed, "extents", self.name, epoch)
            self._extents = epoch, permute(np.arange(self.extents, dtype=np.int64), self.extents, extent_key)
        return self._extents[1]

    def permuted(self, epoch: int, positions: Ints) -> Ints:
        """The blocks that stand at `positions` of an epoch."""
        size, extents = self.extent, self.extents
        extent_key = key(self.seed, "extents", self.name, epoch)
        order = (
            permute(np.arange(extents, dtype=np.int64), extents, extent_key) if extents > 1 else np.zeros(1, np.int64)
        )
        short = int(np.nonzero(order == extents - 1)[0][0])  # the slot at which the last, shorter extent landed
        short_end = (short + 1) * size - self.deficit
        slot = np.where(positions < short_end, positions, positions + self.deficit) // size
        group = slot // EXTENTS_IN_GROUP
        blocks = np.empty_like(positions)
        for g in np.unique(group):
            first, last = int(g) * EXTENTS_IN_GROUP, min((int(g) + 1) * EXTENTS_IN_GROUP, extents)
            begin = first * size - (self.deficit if first > short else 0)
            end = last * size - (self.deficit if last > short else 0)
            here = np.nonzero(group == g)[0]
            inside = permute(positions[here] - begin, end - begin, key(self.seed, "blocks", self.name, epoch, int(g)))
            at = begin + inside
            at_slot = np.where(at < short_end, at, at + self.deficit) // size
            slot_begin = at_slot * size - np.where(at_slot > short, self.deficit, 0)
            blocks[here] = order[at_slot] * size + (at - slot_begin)
        return blocks

    def locate(self, ordinals: Ints, sequence: int) -> tuple[Ints, Ints, Ints]:
        """(epoch, shard, first token) of the windows with these ordinals, `sequence` inputs each."""
        parts = self.block // sequence
        block_ordinal, part = np.divmod(ordinals, parts)
        epochs, positions = np.divmod(block_ordinal, self.total)
        blocks = np.empty_like(positions)
        starts = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            blocks[here] = self.permuted(int(epoch), positions[here])
        shards = np.searchsorted(self.bounds, blocks, side="right") - 1
        for epoch, shard in sorted(set(zip(epochs.tolist(), shards.tolist(), strict=True))):
            here = (epochs == epoch) & (shards == shard)
            starts[here] = self.cut(epoch, shard)
        starts += (blocks - self.bounds[shards]) * self.block + part * sequence
        return epochs, shards, starts
