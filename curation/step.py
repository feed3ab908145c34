"""What a step is: the contract between the engine and everything that looks at text.

A `MapStep` is a pure function of a row, given rows by the batch. A `GlobalStep` needs all documents at once and says
how, as a few stages with a shuffle between each two. Steps compute *signals*; *rules* (SQL predicates over signals)
decide who stays. The engine knows steps through this file alone.

Steps are plain dataclasses: the fields are the options of the pipeline file, checked there against their types.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa


class RecordError(Exception):
    """One record is broken in a way its reader or a step names; it becomes a drop with this reason."""


class UnreadableFile(Exception):
    """A file (or the rest of one) cannot be read: `length` bytes from `offset` on are the ledger's third term."""

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
        """Modules that it imports where it works, with the options it has; a run without one of them is refused."""
        return ()

    def inputs(self) -> Sequence[str]:
        """Paths or globs of other files it reads (evaluation sets, lists); contents are part of the fingerprint."""
        return ()

    def check(self) -> None:
        """Raises UserError for options that types alone cannot refuse. Called before any work starts."""


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
    """What a global step may know before it plans: figures of the documents that reach it."""

    documents: int
    text_bytes: int
    tasks: int  # documents live in this many tasks, numbered from 0
    seed: int
    # With `against`: the first task of each later run. Those before it hold documents of earlier runs, which come first
    # in every order of priority, in the order of the runs. The figures above count them in.
    eras: tuple[int, ...] = ()

    def era(self, task: int) -> int:
        """Which run the documents of a task came with, 0 the earliest."""
        return sum(task >= first for first in self.eras)


class Documents(Protocol):
    """The documents of one task that are still alive, for a stage that runs `at="documents"`."""

    task: int

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All of them, in reading order, with a column `address` (int64: task << 32 | row) before `columns`: base
        columns, structs of earlier steps, or names of the step's `expressions`."""
        ...

    def take(self, addresses: pa.Array, columns: Sequence[str]) -> pa.RecordBatch:
        """Those at `addresses` (all of this task, each once or more), in that order."""
        ...


@dataclass(frozen=True)
class Stage:
    """One parallel phase of a global step: rows in, rows out, each row marked with where it goes.

    The first stage runs once a task of documents (`at="documents"`). Its rows go to `partitions` partitions, by
    their column `to` (uint32); the next stage runs once a partition (`at="partition"`) or, where it must see the
    documents again, once a task (`at="documents"`: then `to` is the task, address >> 32).

    run        at="documents": run(rows, documents); at="partition": run(rows). `rows` iterates over the batches
               sent to this task, in the order of the tasks that sent them (so the same on every run); it is empty
               for the first stage. Yields batches of `schema`.
    schema     what it yields; has `to: uint32`, unless it is the last stage or a sink.
    groups     which partitions each task of *this* stage takes together; default: each by itself.
    tally      counts added up over all yielded batches; the sums come back from the stage's `yield`.
    sink       the stage writes files of the result: run takes a further argument `out` (see `Output`), yields
               nothing, and returns through `out.facts`.
    again      what of an earlier run over the same input may be used again, where code, options and the columns that
               the step reads are the same: "rows" (of a first stage with a column `address`: rows of a document hang
               on that document alone, so those of documents that still stand are taken over, dealt out by `deal`, and
               `documents` shows the others only), or "earlier" (run takes a further argument, see `Earlier`). What
               comes after must not depend on the order of rows.

    The last stage of a GlobalStep yields `address: int64` and the step's signals, a row for each document that the
    step has something to say about; for the others its signals are null (so write rules accordingly).
    """

    name: str
    run: Callable[..., Iterator[pa.RecordBatch]]
    schema: pa.Schema
    partitions: int = 1
    at: str = "partition"
    groups: Sequence[Sequence[int]] | None = None
    tally: Callable[[pa.RecordBatch], Mapping[str, int]] | None = None
    sink: bool = False
    again: Literal["rows", "earlier"] | None = None
    deal: Callable[[pa.RecordBatch], pa.Array] | None = None


@dataclass(frozen=True)
class Earlier:
    """What the same task of the same stage was sent and what it yielded in an earlier run; nothing if there was none.

    Texts and all else that the step reads were the same for the documents in it; other documents may have stood."""

    given: Callable[[], Iterator[pa.RecordBatch]]
    left: Callable[[], Iterator[pa.RecordBatch]]


class Output(Protocol):
    """Where a sink stage writes: files that appear in the result tree together, when the task is committed."""

    facts: dict[str, Any]  # JSON-able; given to whoever ran the stage, in order of tasks

    def create(self, path: str) -> Any:
        """A context manager over a binary file object for `result/<path>`; checksummed and atomic."""
        ...

    def scratch(self) -> str:
        """A local directory for temporaries, removed after the task."""
        ...


@dataclass(frozen=True)
class StageResult:
    """What a finished stage tells the generator that planned it."""

    tally: Mapping[str, int]
    facts: Sequence[Mapping[str, Any]]  # one a task, for sinks


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
    # the option honours `Corpus.eras`; the engine gives it the tasks of both.
    against: str | None = None

    def expressions(self) -> Mapping[str, str]:
        """SQL over a document's base columns and signals of earlier steps, each under a name that starts with "@".

        The engine checks it as it does rules; `Documents.batches` and `take` give the values under these names. A row
        on which an expression fails has null.
        """
        return {}

    def stages(self, corpus: Corpus) -> StagePlan:
        raise NotImplementedError

    def edit(self, texts: pa.Array, signals: pa.StructArray) -> pa.Array:
        """The texts (large_string) as they are after this step; its signals may be null. Only for `rewrites`."""
        raise NotImplementedError


@dataclass(frozen=True)
class InputSplit:
    """A part of one input file: all of it, or an exact range of it. Pieces never cut a record."""

    path: str  # below the source's root
    size: int  # bytes of the whole file as stored
    version: str  # mtime or etag: with size, how a changed file is noticed
    start: int | None = None  # bytes into the file (Parquet: first row group); None: from its beginning
    stop: int | None = None
    extra: Mapping[str, Any] | None = None  # what a reader needs to enter in the middle (counts so far)


class Reader(Protocol):
    """How files of one kind become documents. A dataclass, like a step: its fields are the source's options.

    It may have a method `packages`, which is to a reader what `Step.packages` is to a step.
    """

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """Cuts a whole file into pieces of about `target` bytes where that is exact, else returns it as it is.
        Cheap: looks at no more than a footer or a few kilobytes around each cut."""
        ...

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `record.READ_BATCH`, at most `rows` rows each, smaller where rows are large.

        Every record of the file is a row: a document, or a row with `drop` set. Raises UnreadableFile for what
        cannot be read at all (rows yielded before stay).
        """
        ...

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """The record as stored (decompressed), from a document's `source`: what explain and trace show."""
        ...
