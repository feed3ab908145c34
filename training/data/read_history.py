"""What a run has read: the order log replayed and counted, and asked backwards where a document was read.

Nothing was recorded while it happened. Both answers are computed from the log: `replay` walks through all windows as
the loader does and counts, `seen` inverts the permutation, so that a document's readings in a run of any length are
found without a walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.block_order import DomainOrder
from training.data.data_order import OrderLog, Segment
from training.data.mix_table import OrderError, mix_period

CHUNK = 1 << 16  # windows replayed at a time


@dataclass(frozen=True)
class DomainCount:
    """What was read of a domain: `fewest` and `most` are how often single inputs were, within whole epochs and the one
    begun; `error` is the largest distance from the quota at any prefix of a segment, in windows."""

    windows: int
    tokens: int
    epochs: float
    fewest: int
    most: int
    skipped: int
    error: float


def replay_order(log: OrderLog, orders: dict[str, DomainOrder], windows: int) -> dict[str, DomainCount]:
    """Reads the first `windows` windows again, without their tokens, and counts.

    Raises OrderError where a window does not follow on the one before it in its domain, where an input was read twice
    in an epoch, or a domain is a whole window off its quota: where the log is not one that Gristmill wrote.
    """
    unit = min(s.sequence for s in log.segments)
    names = sorted({d for s in log.segments for d in s.mix})
    counts = {n: np.zeros(orders[n].total * (log.block // unit), np.uint16) for n in names}
    following, turns, tokens = dict.fromkeys(names, 0), dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    skipped = {n: sum(s.skipped.get(n, 0) for s in log.segments) for n in names}
    error = dict.fromkeys(names, 0.0)
    for first in range(0, windows, CHUNK):
        for segment, domains, ordinals in log.place(first, min(first + CHUNK, windows)):
            for i, name in enumerate(segment.mix):
                mine = ordinals[domains == i]
                if not len(mine):
                    continue
                inputs = mine * segment.sequence
                gap = int(inputs[0]) - following[name]
                if (np.diff(mine) != 1).any() or not 0 <= gap <= skipped[name]:
                    raise OrderError(f"the order log is damaged: domain {name} does not go on where it was")
                following[name] = int(inputs[-1]) + segment.sequence
                turns[name] += len(mine)
                tokens[name] += len(mine) * segment.sequence
                _count(counts[name], orders[name], mine, segment, log.block, unit)
    for segment, last in _stretches(log, windows):
        for name, off in quota_errors(segment, last - segment.window).items():
            error[name] = max(error[name], off)
    return {
        n: DomainCount(
            turns[n],
            tokens[n],
            tokens[n] / (orders[n].total * log.block),
            int(counts[n].min()),
            int(counts[n].max()),
            skipped[n],
            error[n],
        )
        for n in names
    }


def _count(
    counts: np.ndarray[tuple[int], np.dtype[np.uint16]],
    order: DomainOrder,
    ordinals: np.ndarray[tuple[int], np.dtype[np.int64]],
    segment: Segment,
    block: int,
    unit: int,
) -> None:
    epochs, blocks, part = order.blocks_of(ordinals, segment.sequence)
    at = blocks * (block // unit) + part * (segment.sequence // unit)
    for epoch in np.unique(epochs).tolist():
        for step in range(segment.sequence // unit):
            here = at[epochs == epoch] + step
            if len(np.unique(here)) != len(here) or (counts[here] > epoch).any():
                raise OrderError(f"the order log is damaged: domain {order.name} read an input twice in epoch {epoch}")
            counts[here] += 1


def _stretches(log: OrderLog, windows: int) -> list[tuple[Segment, int]]:
    ends = [s.window for s in log.segments[1:]] + [windows]
    return [(s, min(end, windows)) for s, end in zip(log.segments, ends, strict=True) if s.window < windows]


def quota_errors(segment: Segment, windows: int) -> dict[str, float]:
    """The largest |windows read - quota| of each domain at any prefix of a segment, computed in integers.

    One period is enough: at its end every domain has exactly its n_d, so the errors repeat.
    """
    table, _ = mix_period(tuple(segment.mix.items()))
    table = table[:windows]
    total = sum(segment.mix.values())
    n = np.arange(1, len(table) + 1, dtype=np.int64)
    errors = {}
    for i, (name, share) in enumerate(segment.mix.items()):
        off = np.abs(np.cumsum(table == i) * total - n * share)
        if off.size and int(off.max()) >= total:
            raise OrderError(f"the order log is damaged: domain {name} is a window off its quota")
        errors[name] = int(off.max(initial=0)) / total
    return errors


@dataclass(frozen=True)
class SequenceRead:
    """A window that took in some of a document's tokens as inputs."""

    iteration: int  # from 1, as the training log counts
    window: int
    epoch: int


def find_reads(
    log: OrderLog, order: DomainOrder, shard: int, first: int, last: int, windows: int
) -> list[SequenceRead]:
    """The windows below `windows` whose inputs hold one of the tokens first..last-1 of a shard, in order."""
    found = []
    for segment, end in _stretches(log, windows):
        if order.name not in segment.mix:
            continue
        begin, upto = segment.ordinals.get(order.name, 0), log.reached(segment, end)[order.name]
        if begin == upto:
            continue
        each = order.total * (log.block // segment.sequence)
        for epoch in range(begin // each, (upto - 1) // each + 1):
            ordinals = order.ordinals_of(epoch, shard, first, last, segment.sequence)
            ordinals = ordinals[(ordinals >= begin) & (ordinals < upto)]
            for window in log.windows_of(order.name, ordinals, segment).tolist():
                found.append(SequenceRead(log.iteration(window) + 1, window, epoch))
    return sorted(found, key=lambda r: r.window)
