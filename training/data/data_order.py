"""Which token is read when: the data order as a function of (manifest, seed, order log), and no state beside it.

Window j belongs to a domain by a table of P entries (mix.py), and has an ordinal within that domain. The ordinal names
a block by a keyed permutation (permutation.py, blocks.py). Both directions are arithmetic, so reading can begin
anywhere, on any number of workers, and nothing but a count of windows goes into a checkpoint.

The order log is the append-only history of mix, sequence length, global batch and masked documents. An iteration is a
label: where its windows begin follows from the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from training.data.mix_table import Ints, OrderError, mix_period


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
        read = self.reached(before, window)
        ordinals, skipped = {}, {}
        for domain in sorted({*read, *new.mix}):
            inputs = read.get(domain, 0) * before.sequence
            ordinals[domain] = -(-inputs // new.sequence)
            if ordinals[domain] * new.sequence != inputs:
                skipped[domain] = ordinals[domain] * new.sequence - inputs
        new = replace(new, mix=dict(sorted(new.mix.items())), ordinals=ordinals, skipped=skipped)
        return OrderLog(self.block, (*kept, new))

    def reached(self, segment: Segment, window: int) -> dict[str, int]:
        """The ordinal that each domain has reached before `window`, which lies in or behind `segment`."""
        table, _ = mix_period(tuple(segment.mix.items()))
        periods, rest = divmod(window - segment.window, len(table))
        there = np.bincount(table[:rest], minlength=len(segment.mix))
        read = dict(segment.ordinals)
        for i, (domain, n) in enumerate(segment.mix.items()):
            read[domain] = read.get(domain, 0) + periods * n + int(there[i])
        return read

    def read(self, window: int) -> dict[str, int]:
        """Inputs that the windows before `window` read from each domain (those skipped included)."""
        segment = self.segment(window)
        return {d: n * segment.sequence for d, n in self.reached(segment, window).items()}

    def span(self, iteration: int) -> tuple[int, int]:
        """The windows of an iteration (from 0): its first, and the one behind its last.

        A change that came in the middle of a batch made that batch short.
        """
        before = 0
        for segment, following in zip(self.segments, (*self.segments[1:], None), strict=True):
            end = None if following is None else following.window
            count = None if end is None else -(-(end - segment.window) // segment.batch)
            if count is None or iteration < before + count:
                first = segment.window + (iteration - before) * segment.batch
                return first, first + segment.batch if end is None else min(first + segment.batch, end)
            before += count
        raise AssertionError("the last segment has no end")

    def iteration(self, window: int) -> int:
        """The iteration (from 0) that reads a window: the inverse of `span`."""
        before = 0
        for segment, following in zip(self.segments, (*self.segments[1:], None), strict=True):
            if following is None or window < following.window:
                return before + (window - segment.window) // segment.batch
            before += -(-(following.window - segment.window) // segment.batch)
        raise AssertionError("the last segment has no end")

    def windows_of(self, domain: str, ordinals: Ints, segment: Segment) -> Ints:
        """The windows at which a domain has these ordinals in a segment, whether or not the segment lasts so long."""
        table, _ = mix_period(tuple(segment.mix.items()))
        count = segment.mix[domain]
        turns = np.nonzero(table == list(segment.mix).index(domain))[0]
        periods, rank = np.divmod(ordinals - segment.ordinals.get(domain, 0), count)
        return segment.window + periods * len(table) + turns[rank]

    def segment(self, window: int) -> Segment:
        """The segment that window j lies in."""
        return next(s for s in reversed(self.segments) if s.window <= window)

    def longest(self, window: int) -> int:
        """The longest sequence of the windows before `window` (of none: the first one's)."""
        return max(s.sequence for s in self.segments if s.window < max(1, window))

    def place(self, first: int, last: int) -> list[tuple[Segment, Ints, Ints]]:
        """Windows first..last-1, cut by segment: (segment, domain as index into its mix, ordinal in the domain)."""
        parts = []
        for i, segment in enumerate(self.segments):
            end = self.segments[i + 1].window if i + 1 < len(self.segments) else last
            a, b = max(first, segment.window), min(last, end)
            if a >= b:
                continue
            table, rank = mix_period(tuple(segment.mix.items()))
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
