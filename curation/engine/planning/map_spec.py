"""Specifies a map task: what all tasks of its phase share (MapPhase) and what is its own (MapSpec)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from curation.engine.planning.exclude_list import ExcludeList
from curation.step import InputSplit, MapStep, Reader, Stage, Step


@dataclass(frozen=True)
class Op:
    """One entry of a phase: compute (or join) a step's signals, or only decide, then apply rules."""

    # "map": compute; "join": take a global step's signals; "rules": signals are stored already; "features": compute
    # what the global step after the phase needs of each text (`GlobalStep.features`)
    kind: str
    step: Step
    position: int  # of the step in the pipeline
    rules: Mapping[str, str]
    store: str  # directory of the step's signals: cache/signals/<step>-<fingerprint>


@dataclass(frozen=True)
class Source:
    """One source as a task needs it."""

    reader: Reader
    root: str
    collection: str
    domain: str


@dataclass(frozen=True)
class MapPhase:
    """What all tasks of a map phase share."""

    run: str
    sources: Sequence[Source]
    ops: Sequence[Op]
    first: bool  # reads the sources; later phases read what the phase before stored
    base_store: str
    text_store: str | None  # where the phase stores text; None if no step of it rewrites text
    types: Mapping[str, pa.DataType]  # struct type of every step of the pipeline
    scrubber: MapStep | None
    scrub_before: int  # strings of steps before this position go through the scrubber
    excluded: ExcludeList
    batch_rows: int
    keep_dropped_text: bool
    sample: float | None
    seed: int
    # global step -> its last stage, which tasks run themselves, and the expressions that it reads
    last_stages: Mapping[str, tuple[Stage, Mapping[str, str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class MapSpec:
    """One task: its rows, and the files that hold some of their columns already."""

    index: int
    key: str
    decision: str  # fingerprint of all that decides which documents stay; part of the names of files that it writes
    source: int = 0
    splits: Sequence[InputSplit] = ()
    limit: int | None = None
    poison: Sequence[tuple[str, str]] = ()  # (doc_id in hex, reason)
    state: Mapping[str, Any] | None = None  # of the phase before
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)  # store directory -> files of this task
    unread: Sequence[Mapping[str, Any]] = ()  # what the task that wrote the base store could not read
    # global step -> files with its signals by task, or those that its last stage reads
    joins: Mapping[str, Sequence[str]] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)  # global step -> this task's number in its stages
    probe: tuple[int, int] | None = (
        None  # only rows of this range, without writing: to find the record that kills a worker
    )
    dry: bool = False  # with `probe`: no step runs either; returns the number of rows and the ids of the range


@dataclass(frozen=True)
class FailedRecord:
    """A record on which code fails. Two with equal `place` fail at the same line of it, in the same way."""

    doc_id: str  # in hex
    file: str
    step: str  # empty where its worker dies: which step kills it is not known
    reason: str  # type and message of the exception, scrubbed
    error: str = ""  # type of the exception
    at: str = ""  # "file:line", in the user's code where that is on the way
    trace: str = ""  # traceback, of the first record of a place in its task

    @property
    def place(self) -> tuple[str, str, str]:
        return self.step, self.error, self.at


class Poisoned(Exception):
    """The records of a task on which code fails, and how many records the task has."""

    def __init__(self, records: Sequence[FailedRecord], rows: int) -> None:
        super().__init__(f"{len(records)} records make a step fail; first: {records[0].reason}")
        self.records, self.rows = list(records), rows

    def __reduce__(self) -> Any:
        return Poisoned, (self.records, self.rows)
