"""Defines which token is read when: the data order is a function of (manifest, seed, order log), without other state.

Sequence j of a training belongs to a domain by a table of P entries (mix_table.py), and has an ordinal within that
domain. A keyed permutation maps the ordinal to a block of the domain's tokens (permutation.py, block_order.py). Both
directions are arithmetic, so reading can begin anywhere, on any number of workers, and a checkpoint holds no data state
but the number of sequences read and the order log.

The order log is the append-only history of mix, sequence length, global batch and masked documents. A step is a label:
the log says where its sequences begin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from training.data.mix_table import Ints, OrderError, mix_period


@dataclass(frozen=True)
class Segment:
    """Consecutive sequences of one mix, length, batch size and set of masked documents; the last segment has no end."""

    start: int  # the first sequence j
    ordinals: dict[str, int]  # the first ordinal of each domain, in sequences of this segment's length
    mix: dict[str, int]  # n_d: sequences of each domain in a period
    seq_len: int  # inputs of a sequence; divides the block
    global_size: int  # sequences of a global batch
    masked: tuple[str, ...] = ()  # doc_ids (hex) of the documents that are not trained on
    skipped: dict[str, int] = field(default_factory=dict)  # inputs left out where longer sequences began mid-block


@dataclass(frozen=True)
class OrderLog:
    """The history of how sequences were chosen. With the number of sequences read it is all of the data state."""

    block: int  # inputs of the unit that is permuted
    segments: tuple[Segment, ...]

    @staticmethod
    def new(mix: Mapping[str, int], block: int, seq_len: int, global_size: int) -> OrderLog:
        """A log of one segment, beginning at sequence 0. Raises OrderError if `seq_len` does not divide `block`."""
        _check_divides(seq_len, block)
        mix = dict(sorted(mix.items()))
        return OrderLog(block, (Segment(0, dict.fromkeys(mix, 0), mix, seq_len, global_size),))

    def with_change(self, start: int, **changes: Any) -> OrderLog:
        """The log with another mix, seq_len, global_size or masked documents from sequence `start` on.

        `start` must not be before the last segment. No sequence that was read moves. With longer sequences a domain
        continues at its next multiple of the new length; the inputs passed over, less than one sequence a domain, are
        in `skipped`. Raises OrderError.
        """
        last = self.segments[-1]
        if start < last.start:
            raise OrderError(f"sequence {start} is before the last segment, which begins at {last.start}")
        new = replace(last, start=start, **changes)
        _check_divides(new.seq_len, self.block)
        # A segment that begins here was never read: it is replaced, and counted from the one before it.
        kept = self.segments[:-1] if start == last.start else self.segments
        before = kept[-1] if kept else replace(last, ordinals={})
        read = self.ordinals_at(before, start)
        ordinals, skipped = {}, {}
        for domain in sorted({*read, *new.mix}):
            inputs = read.get(domain, 0) * before.seq_len
            ordinals[domain] = -(-inputs // new.seq_len)
            if ordinals[domain] * new.seq_len != inputs:
                skipped[domain] = ordinals[domain] * new.seq_len - inputs
        new = replace(new, mix=dict(sorted(new.mix.items())), ordinals=ordinals, skipped=skipped)
        return OrderLog(self.block, (*kept, new))

    def with_masked(self, sequence: int, doc_ids: Sequence[str]) -> OrderLog:
        """The log with these documents (hex ids) and no others masked from `sequence` on, in later segments too."""
        later = [s for s in self.segments if s.start > sequence]
        changed = OrderLog(self.block, tuple(s for s in self.segments if s.start <= sequence))
        changed = changed.with_change(sequence, masked=tuple(doc_ids))
        for s in later:
            changed = changed.with_change(s.start, mix=s.mix, seq_len=s.seq_len, global_size=s.global_size)
        return changed

    def ordinals_at(self, segment: Segment, sequence: int) -> dict[str, int]:
        """The ordinal that each domain has reached before `sequence`, which is in `segment` or after it."""
        table, _ = mix_period(tuple(segment.mix.items()))
        periods, rest = divmod(sequence - segment.start, len(table))
        counts = np.bincount(table[:rest], minlength=len(segment.mix))
        read = dict(segment.ordinals)
        for i, (domain, n) in enumerate(segment.mix.items()):
            read[domain] = read.get(domain, 0) + periods * n + int(counts[i])
        return read

    def inputs_read(self, sequence: int) -> dict[str, int]:
        """Inputs that the sequences before `sequence` read from each domain (skipped ones included)."""
        segment = self.segment_at(sequence)
        return {d: n * segment.seq_len for d, n in self.ordinals_at(segment, sequence).items()}

    def step_range(self, step: int) -> tuple[int, int]:
        """The sequences of a step (from 0), as a half-open range. A change in the middle of a batch cut it short."""
        before = 0
        for segment, following in zip(self.segments, (*self.segments[1:], None), strict=True):
            end = None if following is None else following.start
            count = None if end is None else -(-(end - segment.start) // segment.global_size)
            if count is None or step < before + count:
                first = segment.start + (step - before) * segment.global_size
                return first, first + segment.global_size if end is None else min(first + segment.global_size, end)
            before += count
        raise AssertionError("the last segment has no end")

    def step_of(self, sequence: int) -> int:
        """The step (from 0) that reads a sequence: the inverse of `step_range`."""
        before = 0
        for segment, following in zip(self.segments, (*self.segments[1:], None), strict=True):
            if following is None or sequence < following.start:
                return before + (sequence - segment.start) // segment.global_size
            before += -(-(following.start - segment.start) // segment.global_size)
        raise AssertionError("the last segment has no end")

    def sequences_with(self, domain: str, ordinals: Ints, segment: Segment) -> Ints:
        """The sequences at which a domain has these ordinals in a segment, as if the segment had no end."""
        table, _ = mix_period(tuple(segment.mix.items()))
        count = segment.mix[domain]
        turns = np.nonzero(table == list(segment.mix).index(domain))[0]
        periods, rank = np.divmod(ordinals - segment.ordinals.get(domain, 0), count)
        return segment.start + periods * len(table) + turns[rank]

    def segment_at(self, sequence: int) -> Segment:
        """The segment that contains a sequence."""
        return next(s for s in reversed(self.segments) if s.start <= sequence)

    def max_seq_len(self, sequence: int) -> int:
        """The greatest length of the sequences before `sequence`; before the first, that of the first."""
        return max(s.seq_len for s in self.segments if s.start < max(1, sequence))

    def locate(self, first: int, last: int) -> list[tuple[Segment, Ints, Ints]]:
        """Sequences first..last-1, cut by segment: (segment, domain as index into its mix, ordinal in the domain)."""
        parts = []
        for i, segment in enumerate(self.segments):
            end = self.segments[i + 1].start if i + 1 < len(self.segments) else last
            a, b = max(first, segment.start), min(last, end)
            if a >= b:
                continue
            table, rank = mix_period(tuple(segment.mix.items()))
            periods, at = np.divmod(np.arange(a, b, dtype=np.int64) - segment.start, len(table))
            domain = table[at]
            count = np.array(list(segment.mix.values()), np.int64)
            begin = np.array([segment.ordinals.get(d, 0) for d in segment.mix], np.int64)
            ordinals = (begin[domain] + periods * count[domain] + rank[at]).astype(np.int64, copy=False)
            parts.append((segment, domain, ordinals))
        return parts

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, as checkpoints store them."""
        return {"block": self.block, "segments": [{**asdict(s), "masked": list(s.masked)} for s in self.segments]}

    @staticmethod
    def from_dict(value: Mapping[str, Any]) -> OrderLog:
        """The inverse of `as_dict`."""
        segments = tuple(Segment(**{**s, "masked": tuple(s["masked"])}) for s in value["segments"])
        return OrderLog(value["block"], segments)


def _check_divides(seq_len: int, block: int) -> None:
    if block % seq_len:
        raise OrderError(f"a sequence of {seq_len} inputs does not divide the shuffle block of {block}")
