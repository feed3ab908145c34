"""Recomputes what a training has read: counts by domain, and the steps that read a document.

Nothing is recorded during training; both answers are computed from the order log. `replay_order` goes through all
sequences as the loader does and counts; `find_reads` inverts the permutation, so that the reads of a document are found
in a run of any length without going through it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.data.block_order import DomainOrder
from training.data.data_order import OrderLog, Segment
from training.data.mix_table import OrderError, mix_period

CHUNK = 1 << 16  # sequences replayed at a time


@dataclass(frozen=True)
class DomainCount:
    """What was read of a domain.

    `fewest` and `most` are how often the least and most read inputs were read; `error` is the largest
    distance from the mix at any prefix of a segment, in sequences.
    """

    sequences: int
    tokens: int
    epochs: float
    fewest: int
    most: int
    skipped: int
    error: float


def replay_order(log: OrderLog, orders: dict[str, DomainOrder], sequences: int) -> dict[str, DomainCount]:
    """Goes through the first `sequences` sequences again, without their tokens, and counts.

    Raises OrderError for a log that Gristmill did not write: a sequence does not follow the one before it in its
    domain, an input is read twice in an epoch, or a domain is a whole sequence off its quota.
    """
    unit = min(s.seq_len for s in log.segments)
    names = sorted({d for s in log.segments for d in s.mix})
    counts = {n: np.zeros(orders[n].total_blocks * (log.block // unit), np.uint16) for n in names}
    following, turns, tokens = dict.fromkeys(names, 0), dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    skipped = {n: sum(s.skipped.get(n, 0) for s in log.segments) for n in names}
    error = dict.fromkeys(names, 0.0)
    for first in range(0, sequences, CHUNK):
        for segment, domains, ordinals in log.locate(first, min(first + CHUNK, sequences)):
            for i, name in enumerate(segment.mix):
                mine = ordinals[domains == i]
                if not len(mine):
                    continue
                inputs = mine * segment.seq_len
                gap = int(inputs[0]) - following[name]
                if (np.diff(mine) != 1).any() or not 0 <= gap <= skipped[name]:
                    raise OrderError(f"the order log is damaged: domain {name} does not continue where it was left")
                following[name] = int(inputs[-1]) + segment.seq_len
                turns[name] += len(mine)
                tokens[name] += len(mine) * segment.seq_len
                _count(counts[name], orders[name], mine, segment, log.block, unit)
    for segment, last in _segment_ends(log, sequences):
        for name, off in quota_errors(segment, last - segment.start).items():
            error[name] = max(error[name], off)
    return {
        n: DomainCount(
            turns[n],
            tokens[n],
            tokens[n] / (orders[n].total_blocks * log.block),
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
    epochs, blocks, part = order.blocks_of(ordinals, segment.seq_len)
    at = blocks * (block // unit) + part * (segment.seq_len // unit)
    for epoch in np.unique(epochs).tolist():
        for step in range(segment.seq_len // unit):
            here = at[epochs == epoch] + step
            if len(np.unique(here)) != len(here) or (counts[here] > epoch).any():
                raise OrderError(f"the order log is damaged: domain {order.name} read an input twice in epoch {epoch}")
            counts[here] += 1


def _segment_ends(log: OrderLog, sequences: int) -> list[tuple[Segment, int]]:
    """The segments of the first `sequences` sequences, each with its end."""
    ends = [s.start for s in log.segments[1:]] + [sequences]
    return [(s, min(end, sequences)) for s, end in zip(log.segments, ends, strict=True) if s.start < sequences]


def quota_errors(segment: Segment, sequences: int) -> dict[str, float]:
    """The largest |sequences read - quota| of each domain at any prefix of a segment, computed in integers.

    One period is enough: at its end every domain has exactly its n_d, so the errors repeat.
    """
    table, _ = mix_period(tuple(segment.mix.items()))
    table = table[:sequences]
    total = sum(segment.mix.values())
    n = np.arange(1, len(table) + 1, dtype=np.int64)
    errors = {}
    for i, (name, share) in enumerate(segment.mix.items()):
        off = np.abs(np.cumsum(table == i) * total - n * share)
        if off.size and int(off.max()) >= total:
            raise OrderError(f"the order log is damaged: domain {name} is a whole sequence off its quota")
        errors[name] = int(off.max(initial=0)) / total
    return errors


@dataclass(frozen=True)
class SequenceRead:
    """A sequence with some of a document's tokens among its inputs."""

    step: int  # from 1, as metrics.jsonl counts
    sequence: int
    epoch: int


def find_reads(
    log: OrderLog, order: DomainOrder, shard: int, first: int, last: int, sequences: int
) -> list[SequenceRead]:
    """The reads of tokens first..last-1 of a shard by the first `sequences` sequences of a training, in order."""
    found = []
    for segment, end in _segment_ends(log, sequences):
        if order.name not in segment.mix:
            continue
        begin, upto = segment.ordinals.get(order.name, 0), log.ordinals_at(segment, end)[order.name]
        if begin == upto:
            continue
        each = order.total_blocks * (log.block // segment.seq_len)
        for epoch in range(begin // each, (upto - 1) // each + 1):
            ordinals = order.ordinals_of(epoch, shard, first, last, segment.seq_len)
            ordinals = ordinals[(ordinals >= begin) & (ordinals < upto)]
            for sequence in log.sequences_with(order.name, ordinals, segment).tolist():
                found.append(SequenceRead(log.step_of(sequence) + 1, sequence, epoch))
    return sorted(found, key=lambda r: r.sequence)
