"""Decides which verified duplicates are kept, in rounds over partitions, and emits the signals of every document.

No task has more than one partition's edges in memory.

All edges of a document are in its owner partition (duplicate_edges.py). In a round each partition decides what it can:
a document is kept if no undecided neighbour of higher priority is left and none is kept; it is removed if such a
neighbour is kept (Blelloch, Fineman and Shun 2012, who do this for one document at a time; here a partition decides
all of its own in one pass, which reaches the same set sooner). It then notifies the partitions of neighbours of lower
priority, with rows for the next round. With 32 levels and a keyed hash as priorities the number of rounds is small
(O(log n) for random priorities, Fischer and Noever 2018).

What is undecided after `ROUNDS` rounds is resolved by time-forward processing (Chiang et al. 1995): rows are
partitioned again, by ranges of priority, and one task visits the ranges from the highest to the lowest. By then all
that a range needs to know of documents of higher priority has been written to its file, so memory holds one range at a
time.

    round n        partition   undecided rows and notifications; results are passed along
    split_ranges   partition   (rarely) undecided rows, by range of priority
    walk_ranges    one task    (rarely) range by range
    decisions      partition   results, to the tasks of the documents
    signals        documents   one row for every document
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.dedup.minhash import independent_set
from curation.dedup.minhash.duplicate_edges import (
    AT_HIGHER,
    AT_LOWER,
    EDGES,
    RESULT,
    OwnerPartition,
    is_equal_set,
    owner_partition,
)
from curation.step import Documents, Stage, StagePlan

SIGNALS = pa.schema(
    [("duplicate", pa.bool_()), ("of", pa.string()), ("similarity", pa.float64()), ("copies", pa.int64())]
)
# For a document's task: the document that it is a duplicate of (null: it is kept), how similar, and how many duplicates
# the row adds to it.
DECISIONS = pa.schema(
    [
        ("to", pa.uint32()),
        ("address", pa.int64()),
        ("of", pa.binary(16)),
        ("intersection", pa.int64()),
        ("denominator", pa.int64()),
        ("copies", pa.int64()),
    ]
)
SIGNAL_ROWS = pa.schema([("address", pa.int64()), *SIGNALS])

ROUNDS = 8
OPEN_PER_RANGE = 1 << 20  # rows that a range of the time-forward walk should have


@dataclass(frozen=True)
class ResolveOptions:
    """The seed of the keyed hash, and the measure of similarity."""

    seed: int
    measure: independent_set.Measure


def resolve_stages(options: ResolveOptions, partitions: int, tasks: int, rounds: int = ROUNDS) -> StagePlan:
    """Stages from the rows of the stage `edges`, in `partitions` owner partitions, to a row for every document."""
    owner_of = partial(_owner, partitions)
    left = 1
    for number in range(1, rounds + 1):
        run = partial(resolve_round, options, owner_of)
        done = yield Stage(f"round {number}", run, EDGES, partitions, counters=count_open)
        left = done.counters.get("open", 0)
        if not left:
            break
    if left:
        bits = max(0, (left // OPEN_PER_RANGE).bit_length())
        ranges = independent_set.RANKS << bits
        yield Stage("split_ranges", partial(split_by_range, partial(priority_range, options.seed, bits)), EDGES, ranges)
        run = partial(walk_ranges, options, bits, partitions)
        yield Stage("walk_ranges", run, EDGES, partitions, groups=[list(range(ranges))], counters=count_open)
    yield Stage("decisions", partial(send_decisions, options.measure), DECISIONS, tasks, counters=count_decided)
    yield Stage("signals", emit_signals, SIGNAL_ROWS, at="documents")


def _owner(partitions: int, ids: pa.Array, levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    return owner_partition(ids, partitions)


def priority_range(seed: int, bits: int, ids: pa.Array, levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The range of priority of each document, 0 the highest: its level and the first bits of its keyed hash."""
    return (independent_set.priority_rank(levels, ids, seed) >> np.uint64(56 - bits)).astype(np.uint32)


def count_open(batch: pa.RecordBatch) -> Mapping[str, int]:
    """Counts undecided rows, and documents that are found to be duplicates."""
    open_ = int((batch.column("kind").to_numpy() != RESULT).sum())
    return {"open": open_, "duplicates": batch.num_rows - open_}


def count_decided(batch: pa.RecordBatch) -> Mapping[str, int]:
    """Counts duplicates."""
    return {"duplicates": batch.num_rows - batch.column("of").null_count}


# -- rounds -----------------------------------------------------------------------------------------------------------


def resolve_round(
    options: ResolveOptions, owner_of: OwnerPartition, rows: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """One round of one partition: passes results on, decides the rest as far as possible."""
    table = pa.Table.from_batches(rows, EDGES)
    if table.num_rows == 0:
        return
    is_result = pc.equal(table["kind"], RESULT)
    results = table.filter(is_result)
    yield from results.to_batches()
    table = table.filter(pc.invert(is_result))
    if table.num_rows:
        number = table["to"][0].as_py()
        yield from resolve_partition(options, owner_of, table.combine_chunks(), number)


def resolve_partition(
    options: ResolveOptions, owner_of: OwnerPartition, table: pa.Table, number: int
) -> Iterator[pa.RecordBatch]:
    """Decides in partition `number`; yields rows that it still needs, notifications to others, and results."""
    owners = {end: _owners(owner_of, table, end) for end in ("higher", "lower")}
    owned = np.stack([owners["higher"] == number, owners["lower"] == number])
    s = independent_set.resolve(table, options.seed, options.measure, owned)
    yield from _rows(table, s.waiting, s.waiting_kind, owners["lower"])
    yield from _rows(table, s.pending, np.full(len(s.pending), AT_HIGHER, np.uint8), owners["higher"])
    yield from _rows(table, s.notify, s.notify_kind, owners["lower"])
    if len(s.removed):
        lower, by = table.take(pa.array(s.removed)), table.take(pa.array(s.removed_by))
        # a copy of a removed document is as similar to the kept one as that document is
        columns = {f.name: lower[f.name] if f.name.startswith("lower") else by[f.name] for f in EDGES}
        columns["to"] = pa.chunked_array([pa.array(owners["lower"][s.removed])])
        columns["kind"] = pa.chunked_array([pa.array(np.full(len(s.removed), RESULT, np.uint8))])
        yield from pa.table(columns, schema=EDGES).to_batches()


def _owners(owner_of: OwnerPartition, table: pa.Table, end: str) -> npt.NDArray[np.uint32]:
    return owner_of(table[f"{end}_id"].combine_chunks(), table[f"{end}_level"].to_numpy())


def _rows(
    table: pa.Table, which: npt.NDArray[np.int64], kind: npt.NDArray[np.uint8], to: npt.NDArray[np.uint32]
) -> Iterator[pa.RecordBatch]:
    if len(which):
        part = table.take(pa.array(which))
        part = part.set_column(0, EDGES.field("to"), pa.array(to[which]))
        yield from part.set_column(1, EDGES.field("kind"), pa.array(kind)).to_batches()


# -- time-forward processing of what is undecided after the rounds ----------------------------------------------------


def split_by_range(ranges: OwnerPartition, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Sends undecided rows to the range of their document, and each open edge to the ranges of both documents."""
    table = pa.Table.from_batches(rows, EDGES).combine_chunks()
    if table.num_rows == 0:
        return
    kind = table["kind"].to_numpy()
    intersection, higher_size, lower_size = (table[c].to_numpy() for c in ("intersection", "higher_size", "lower_size"))
    # notifications arrive with these rows, so an edge is open only if there is none about it
    key = np.stack([table["lower"].to_numpy(), table["higher"].to_numpy()])
    into = np.flatnonzero(kind < AT_HIGHER)
    into = into[np.lexsort((kind[into], key[1][into], key[0][into]))]
    last = np.ones(len(into), bool)
    last[:-1] = (key[:, into[1:]] != key[:, into[:-1]]).any(axis=0)
    into = into[last]
    lower, higher = _owners(ranges, table, "lower"), _owners(ranges, table, "higher")
    yield from _rows(table, into, kind[into], lower)
    unknown = into[kind[into] == AT_LOWER]
    pending = np.concatenate(
        [unknown, np.flatnonzero((kind == AT_HIGHER) & is_equal_set(higher_size, lower_size, intersection))]
    )
    yield from _rows(table, pending, np.full(len(pending), AT_HIGHER, np.uint8), higher)
    done = np.flatnonzero(kind == RESULT)
    yield from _rows(table, done, kind[done], lower)


def walk_ranges(
    options: ResolveOptions, bits: int, partitions: int, rows: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Visits the ranges in order; `rows` are ordered by range. Notifications to later ranges wait in files."""
    ranges = partial(priority_range, options.seed, bits)
    with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
        messages = _RangeFiles(folder)
        for number, batches in _group_by_range(rows, independent_set.RANKS << bits):
            table = pa.Table.from_batches([*batches, *messages.take(number)], EDGES)
            is_result = pc.equal(table["kind"], RESULT)
            any_partition = pa.array(np.full(table.num_rows, number % partitions, np.uint32))
            yield from table.set_column(0, EDGES.field("to"), any_partition).filter(is_result).to_batches()
            table = table.filter(pc.invert(is_result)).combine_chunks()
            if not table.num_rows:
                continue
            for batch in resolve_partition(options, ranges, table, number):
                kind = batch.column("kind")
                if kind[0].as_py() == RESULT:  # a batch has only results or only notifications
                    any_partition = pa.array(np.full(batch.num_rows, number % partitions, np.uint32))
                    yield batch.set_column(0, EDGES.field("to"), any_partition)
                    continue
                for to in np.unique(batch.column("to").to_numpy()):
                    if to <= number:
                        raise AssertionError("a row is sent to a range that was already visited")
                    messages.put(int(to), batch.filter(pc.equal(batch.column("to"), to)))


def _group_by_range(rows: Iterator[pa.RecordBatch], ranges: int) -> Iterator[tuple[int, list[pa.RecordBatch]]]:
    """Yields (range, its batches) of every range in order, also of ranges without rows."""
    batch = next(rows, None)
    for number in range(ranges):
        batches: list[pa.RecordBatch] = []
        while batch is not None and batch.num_rows and batch.column("to")[0].as_py() == number:
            batches.append(batch)
            batch = next(rows, None)
        yield number, batches


class _RangeFiles:
    """Rows for later ranges, in one file per range."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def put(self, to: int, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            message = batch.serialize()
            with open(f"{self.folder}/{to}", "ab") as f:
                f.write(message.size.to_bytes(8, "little"))
                f.write(message)

    def take(self, to: int) -> Iterator[pa.RecordBatch]:
        try:
            with open(f"{self.folder}/{to}", "rb") as f:
                while size := f.read(8):
                    data = f.read(int.from_bytes(size, "little"))
                    yield pa.ipc.read_record_batch(pa.py_buffer(data), EDGES)
        except FileNotFoundError:
            return


# -- signals ----------------------------------------------------------------------------------------------------------


def send_decisions(measure: independent_set.Measure, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Sends each result to the task of the duplicate, and to the task of the kept document as one more copy of it."""
    for batch in rows:
        intersection, higher_size, lower_size = (
            batch.column(c).to_numpy().astype(np.int64) for c in ("intersection", "higher_size", "lower_size")
        )
        denominator = independent_set.similarity_denominator(measure, higher_size, lower_size, intersection)
        for end, of, copies in (("lower", batch.column("higher_id"), 0), ("higher", None, 1)):
            address = batch.column(end)
            n = batch.num_rows
            columns = [
                pa.array((address.to_numpy() >> 32).astype(np.uint32)),
                address,
                of if of is not None else pa.nulls(n, pa.binary(16)),
                pa.array(intersection),
                pa.array(denominator),
                pa.array(np.full(n, copies, np.int64)),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=DECISIONS)


def emit_signals(rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    """Yields the signals of every document: as decided, or kept if it has no edge."""
    table = pa.Table.from_batches(rows, DECISIONS).combine_chunks()
    removed = pc.is_valid(table["of"])
    kept_addresses = np.sort(table.filter(pc.invert(removed))["address"].to_numpy())
    table = table.filter(removed).sort_by("address").combine_chunks()
    decided = table["address"].to_numpy()
    if (decided[1:] == decided[:-1]).any():
        raise AssertionError("a document was decided twice")
    of = pa.array([doc_id.hex() for doc_id in table["of"].to_pylist()], pa.string())
    similar = pa.array(table["intersection"].to_numpy() / table["denominator"].to_numpy())
    for batch in documents.batches([]):
        address = batch.column("address").to_numpy()
        at = np.minimum(np.searchsorted(decided, address), max(0, len(decided) - 1))
        dup = decided[at] == address if len(decided) else np.zeros(len(address), bool)
        where = pa.array(at, pa.int64(), mask=~dup)
        copies = (
            1 + np.searchsorted(kept_addresses, address, "right") - np.searchsorted(kept_addresses, address, "left")
        )
        columns = [pa.array(dup), of.take(where), similar.take(where), pa.array(copies, pa.int64(), mask=dup)]
        yield pa.RecordBatch.from_arrays([batch.column("address"), *columns], schema=SIGNAL_ROWS)
