"""Defines steps and readers: the interface between the engine and everything that processes text.

A `MapStep` is a pure function of a row, given rows by the batch. A `GlobalStep` needs all documents at once and says
how, as a few stages with a shuffle between each two. Steps compute *signals*; *rules* (SQL predicates over signals)
decide which documents stay. The engine knows steps through this file alone.

Steps are plain dataclasses: the fields are the options of the pipeline file, checked there against their types.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class RecordError(Exception):
    """One record is broken in a way its reader or a step names; it becomes a drop with this reason."""


class UnreadableFile(Exception):
    """A file cannot be read from `offset` on: `length` bytes, which the ledger counts as unread."""

    def __init__(self, path: str, reason: str, offset: int = 0, length: int = 0) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason, self.offset, self.length = path, reason, offset, length

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.reason, self.offset, self.length)


class Step:
    """What map and global steps share. Subclasses are dataclasses; a field `name` renames the signal struct."""

    version: ClassVar[str] = "1"  # part of the fingerprint, beside the code itself
    reads: ClassVar[tuple[str, ...]] = ("text",)  # columns it looks at: base columns or names of earlier steps
    name: str

    @property
    def signals(self) -> pa.Schema:
        """Fields of the struct column `self.name` that this step adds."""
        raise NotImplementedError

    def rules(self) -> Mapping[str, str]:
        """The rules that hold unless the pipeline file says otherwise: name -> SQL predicate that must be TRUE."""
        return {}

    def evidence(self) -> Sequence[str]:
        """Signals that go with every drop of this step's rules into the ledger (say, the duplicate that was kept)."""
        return ()

    def models(self) -> Sequence[str]:
        """Model names or paths it loads; their checksums are part of the fingerprint, absent ones are refused."""
        return ()

    def packages(self) -> Sequence[str]:
        """Modules that it imports when it runs, with its options; a run without one of them is refused."""
        return ()

    def plugins(self) -> Sequence[type]:
        """Classes of others that it runs and that its options name; their code is part of the fingerprint."""
        return ()

    def inputs(self) -> Sequence[str]:
        """Paths or globs of other files it reads (evaluation sets, lists); contents are part of the fingerprint."""
        return ()

    def check(self) -> None:
        """Raises UserError for options that types alone cannot refuse. Called before any work starts."""

    def not_judged(self) -> Mapping[str, str]:
        """What shows that the step could not judge (a language without a model) -> what that is, in words.

        Of a map step these are signals: documents in which one is null are counted, and an int64 signal is summed, for
        parts of documents. Of a global step they are counters of its stages. Run, report and status show the counts.
        """
        return {}

    def unusable_inputs(self) -> Mapping[str, tuple[int, int]]:
        """Parts of its `inputs` that it cannot use: what they are, in words -> (how many, of how many). Asked when a
        run ends."""
        return {}


class MapStep(Step):
    """A pure function of a batch: `f(batch)[i] == f(batch[i:i+1])[0]`, on any machine.

    `__call__` returns the batch with one struct column more (its signals, named `self.name`) and, if `rewrites`, with
    another `text`. It opens no sockets and takes every limit in size or work, never in time.
    """

    rewrites: ClassVar[bool] = False
    # True for a step that scrubs personal data: the engine sends every string it stores through `scrub`
    scrubs: ClassVar[bool] = False

    def open(self) -> None:
        """Loads models. Called once a worker process, before the first batch."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        raise NotImplementedError

    def scrub(self, strings: pa.Array) -> pa.Array:
        """The same strings with personal data replaced; only for steps with `scrubs`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Corpus:
    """Size of the documents that reach a global step: what it may plan its stages by."""

    documents: int
    text_bytes: int
    tasks: int  # documents live in this many tasks, numbered from 0
    seed: int
    # First task of each run after the earliest, for a step with `prior_run`: tasks below the first boundary are of the
    # earliest run. Documents of earlier runs come first in every order of priority; the figures above include them.
    prior_run_boundaries: tuple[int, ...] = ()

    def run_number(self, task: int) -> int:
        """Which run the documents of a task belong to; 0 is the earliest."""
        return sum(task >= first for first in self.prior_run_boundaries)


class Documents(Protocol):
    """The documents of one task that no rule has dropped so far, for a stage that runs `at="documents"`."""

    task: int

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All of them, in reading order, with a column `address` (int64: task << 32 | row) before `columns`: base
        columns, structs of earlier steps, or names of the step's `expressions`; `bytes` and `text_hash`, the size and
        the xxh3-128 of the text, which is then not read."""
        ...

    def take(self, addresses: pa.Array, columns: Sequence[str]) -> pa.RecordBatch:
        """Those at `addresses` (all of this task, each once or more), in that order."""
        ...


@dataclass(frozen=True)
class Stage:
    """One parallel phase of a global step: rows in, rows out, each row marked with its destination partition.

    The first stage runs once a task of documents (`at="documents"`). Its rows go to `partitions` partitions, by
    their column `to` (uint32); the next stage runs once a partition (`at="partition"`) or, where it must see the
    documents again, once a task (`at="documents"`: then `to` is the task, address >> 32).

    run          at="documents": run(rows, documents); at="partition": run(rows). `rows` iterates over the batches
                 sent to this task, in the order of the tasks that sent them (so the same on every run); it is empty
                 for the first stage. Yields batches of `schema`.
    schema       schema of what it yields; includes `to: uint32`, unless it is the last stage or a sink.
    groups       which partitions each task of *this* stage takes together; default: each by itself. Its rows come by
                 partition; those of a sink by the task that sent them, so that each file is read once.
    counters     counts of one yielded batch, by name; the sums over all batches come back from the stage's `yield`.
    weigh        a whole number (int64) for each row of a yielded batch, summed by partition: `StageResult.weights`.
    sink         the stage writes files of the result: run takes a further argument `out` (see `Output`), yields
                 nothing, and returns through `out.outputs`.
    reuse        what an earlier execution of this stage left that may be used again, where code, options and the
                 columns that the step reads are the same. "rows": the first stage's rows, which depend on one
                 document each (column `address`); rows of documents that still reach the step are copied,
                 `repartition` gives their destinations (the number of partitions may have changed), and `documents`
                 shows only the others. "prior_run": `run` takes a further argument, see `PriorRun`. Later stages
                 must not depend on the order of rows.
    repartition  the destination partition (uint32) of each row of a batch that is copied.
    features     the step's `GlobalStep.features`, for a stage that reads their column (its name is theirs).

    The last stage of a GlobalStep yields `address: int64` and the step's signals, one row for each document that the
    step has a result for; all others have null signals (so write rules accordingly). Where it runs at="documents" it
    yields them in reading order; the next map phase runs it, task by task, so that both read texts once.
    """

    name: str
    run: Callable[..., Iterator[pa.RecordBatch]]
    schema: pa.Schema
    partitions: int = 1
    at: str = "partition"
    groups: Sequence[Sequence[int]] | None = None
    counters: Callable[[pa.RecordBatch], Mapping[str, int]] | None = None
    weigh: Callable[[pa.RecordBatch], npt.NDArray[np.int64]] | None = None
    sink: bool = False
    reuse: Literal["rows", "prior_run"] | None = None
    repartition: Callable[[pa.RecordBatch], pa.Array] | None = None
    features: MapStep | None = None

    @property
    def is_last(self) -> bool:
        """Whether it yields a global step's signals."""
        return "to" not in self.schema.names and not self.sink


@dataclass(frozen=True)
class PriorRun:
    """What this task of this stage read and wrote in an earlier execution; both are empty if there was none.

    The documents in it have the same text and the same signals that the step reads. Which documents reach the step
    may differ."""

    inputs: Callable[[], Iterator[pa.RecordBatch]]
    outputs: Callable[[], Iterator[pa.RecordBatch]]


class Output(Protocol):
    """Where a sink stage writes: files that appear in the result tree together, when the task is committed."""

    outputs: dict[str, Any]  # JSON-able; goes into `StageResult.outputs`

    def create(self, path: str) -> Any:
        """A context manager over a binary file object for `result/<path>`; checksummed and atomic."""
        ...

    def scratch(self) -> str:
        """A local directory for temporaries, removed after the task."""
        ...


@dataclass(frozen=True)
class StageResult:
    """Result of a finished stage, sent to the generator that planned it."""

    counters: Mapping[str, int]
    outputs: Sequence[Mapping[str, Any]]  # of sinks: one a task, in order
    weights: npt.NDArray[np.int64] | None = None  # of the partitions, for a stage that weighs its rows


StagePlan = Generator[Stage, StageResult, None]


class GlobalStep(Step):
    """A step that needs all documents: deduplication, shuffles. A generator of stages.

    `stages` yields one `Stage` at a time and is sent the `StageResult` of each, so that later ones can be planned
    on counts of earlier ones (the number of shards, whether another round is needed). It must be deterministic: on
    resume it is replayed with the stored results.

    One that `rewrites` text says in its signals what is to be done to each text, and `edit` does it: a pure function of
    a row, which the engine calls where the text is next needed. So an edit can be replayed from the ledger, and a step
    that keeps what it took out in its signals can be undone from there.
    """

    rewrites: ClassVar[bool] = False
    # The directory of a run whose documents, as they reached this step there, come before this run's. A step that has
    # the option follows `Corpus.prior_run_boundaries`; the engine gives it the tasks of both.
    prior_run: str | None = None

    def expressions(self) -> Mapping[str, str]:
        """SQL over a document's base columns and signals of earlier steps, each under a name that starts with "@".

        The engine checks it as it does rules; `Documents.batches` and `take` give the values under these names. A row
        on which an expression fails has null.
        """
        return {}

    def features(self) -> MapStep | None:
        """What the stages need of each text and is small beside it: a hash, a signature.

        The phase before the step computes it, while texts are in memory, and keeps it as it keeps signals: under
        another option texts are read again, and no earlier step runs again. The name has a "-", so it is no step's.
        """
        return None

    def stages(self, corpus: Corpus) -> StagePlan:
        raise NotImplementedError

    def edit(self, texts: pa.Array, signals: pa.StructArray) -> pa.Array:
        """The texts (large_string) as they are after this step; its signals may be null. Only for `rewrites`."""
        raise NotImplementedError


@dataclass(frozen=True)
class InputSplit:
    """A part of one input file: all of it, or an exact range of it. Splits never cut a record."""

    path: str  # below the source's root
    size: int  # bytes of the whole file as stored
    version: str  # mtime or etag: with size, how a changed file is noticed
    start: int | None = None  # bytes into the file (Parquet: first row group); None: from its beginning
    stop: int | None = None
    extra: Mapping[str, Any] | None = None  # what a reader needs to enter in the middle (counts so far)


class Reader(Protocol):
    """How files of one kind become documents. A dataclass, like a step: its fields are the source's options.

    It may have a method `packages`, which is to a reader what `Step.packages` is to a step; a method `index`, which is
    as `split` but may read the whole file: it is called for large files for which `needs_index(path)` is true; a
    method `may_split(whole, target)`: False for a file that `split` would return as it is, which is then not opened;
    and a method `reads_beside(path)`: endings of other files below the root that it may read for this one. When one of
    those changes, the file is read again.
    """

    def split(self, whole: InputSplit, /, root: str, target: int) -> list[InputSplit]:
        """Cuts a whole file into splits of about `target` bytes where that is exact, else returns it as it is.
        Cheap: looks at no more than a footer or a few kilobytes around each cut."""
        ...

    def read(
        self, split: InputSplit, /, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `document.READ_BATCH`, at most `rows` rows each, smaller where rows are large.

        Every record of the file is a row: a document, or a row with `drop` set. Raises UnreadableFile for what
        cannot be read at all (rows yielded before stay).
        """
        ...

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """The record as stored (decompressed), from a document's `source`: what `explain` and `trace-token` show."""
        ...
