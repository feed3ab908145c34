"""Says which files hold the rows of each task of a stage, and plans the merges between two stages of many tasks.

F producers and C consumers need F x C opens if each consumer opens each file. Where that is more than DIRECT_PAIRS, the
files are merged first: a merge task takes a group of producers and a range of consumers, and writes one file. So each
file is opened once by every range, each consumer opens one file of every group, and the opens are fan x (F + C): they
grow with the tasks, not with their square, and up to fan^2 tasks merge at once.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIRECT_PAIRS = 1 << 12  # up to 64 opens a task where both stages have as many; a merge costs a barrier
FANS = ((1 << 20, 16), (1 << 62, 64))  # up to so many pairs of tasks, so many groups and ranges


@dataclass(frozen=True)
class Inputs:
    """The files of every consumer: the consumers starts[r] <= c < starts[r + 1] read files[r]."""

    starts: Sequence[int]
    files: Sequence[Sequence[str]]
    consumers: int

    def of(self, consumer: int) -> Sequence[str]:
        """The files with rows of a consumer, in the order of their producers; none of one that there was not."""
        return self.files[bisect.bisect_right(self.starts, consumer) - 1] if consumer < self.consumers else ()

    def as_dict(self) -> dict[str, Any]:
        return {"starts": list(self.starts), "files": [list(f) for f in self.files], "consumers": self.consumers}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Inputs:
        return Inputs(data["starts"], data["files"], data["consumers"])


def direct(files: Sequence[str], consumers: int) -> Inputs:
    """Every consumer reads every file."""
    return Inputs([0], [files], consumers)


@dataclass(frozen=True)
class Merge:
    """Groups of producers and ranges of consumers (their bounds): a merge task for each of one with each of the other,
    range by range."""

    groups: Sequence[int]
    ranges: Sequence[int]

    def inputs(self, merged: Sequence[str]) -> Inputs:
        """What consumers read, from the files of the merge tasks."""
        groups = len(self.groups) - 1
        files = [merged[r * groups : (r + 1) * groups] for r in range(len(self.ranges) - 1)]
        return Inputs(self.ranges[:-1], files, self.ranges[-1])


def plan_merge(producers: int, consumers: int, *, one_file: bool = False) -> Merge | None:
    """How to merge; None where consumers read the producers' files. With `one_file` a consumer reads one file then."""
    pairs = producers * consumers
    fan = next(fan for most, fan in FANS if pairs <= most)
    if pairs <= DIRECT_PAIRS or producers == 1 or (min(producers, consumers) <= fan and not one_file):
        return None
    return Merge(_bounds(producers, 1 if one_file else fan), _bounds(consumers, fan))


def _bounds(n: int, parts: int) -> list[int]:
    """The bounds of that many parts of n, as even as can be; of n parts if n is less."""
    parts = min(n, parts)
    return [n * i // parts for i in range(parts + 1)]
