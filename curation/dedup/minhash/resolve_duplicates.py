"""Verified edges become signals, by rounds over partitions: no task sees more than the edges of one of them.

All edges of a document lie at its home (edges.py). In a round each home decides what it can: a document stays where
no undecided better neighbour is left and none stays, it goes where a better neighbour stays (Blelloch, Fineman and Shun
2012, who do this for one document at a time; here a home walks down all of its own at once, which reaches the same set
sooner). What it decided it tells the homes of worse neighbours, as rows for the next round. With 32 levels and a keyed
hash as priorities the rounds are few (O(log n) for random priorities, Fischer and Noever 2018).

What `ROUNDS` rounds leave is decided by time-forward processing (Chiang et al. 1995): the rows are dealt out anew, by
ranges of priority, and one task walks through the ranges, the best first. All that a range has to know of better
documents has been written to its file by then, so memory holds one range at a time.

    round n    partition   undecided rows and messages; results travel along
    deal       partition   (seldom) what is left, by range of priority
    forward    one task    (seldom) range by range
    report     partition   results to the tasks where the documents lie
    tell       documents   a row for every document
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
from curation.dedup.minhash.duplicate_edges import AT_BETTER, AT_WORSE, EDGES, RESULT, Home, copies, home
from curation.seeded_hash import words
from curation.step import Documents, Stage, StagePlan

SIGNALS = pa.schema(
    [("duplicate", pa.bool_()), ("of", pa.string()), ("similarity", pa.float64()), ("copies", pa.int64())]
)
# To a document's task: whose duplicate it is (null: it stays), how similar, and how many documents it stands for.
DECIDED = pa.schema(
    [
        ("to", pa.uint32()),
        ("address", pa.int64()),
        ("of", pa.binary(16)),
        ("both", pa.int64()),
        ("whole", pa.int64()),
        ("copies", pa.int64()),
    ]
)
TOLD = pa.schema([("address", pa.int64()), *SIGNALS])

ROUNDS = 8
OPEN_PER_RANGE = 1 << 20  # rows that one range of the time-forward walk aims at


@dataclass(frozen=True)
class Order:
    """What decides: the seed of the keyed hash, and what similarity is a share of."""

    seed: int
    measure: independent_set.Measure


def stages(order: Order, partitions: int, tasks: int, rounds: int = ROUNDS) -> StagePlan:
    """From the rows of the stage `edges`, in `partitions` homes, to a row for every document."""
    at_home = partial(_home, partitions)
    left = 1
    for number in range(1, rounds + 1):
        run = partial(one_round, order, at_home)
        done = yield Stage(f"round {number}", run, EDGES, partitions, counters=count)
        left = done.counters.get("open", 0)
        if not left:
            break
    if left:
        bits = max(0, (left // OPEN_PER_RANGE).bit_length())
        ranges = independent_set.RANKS << bits
        yield Stage("deal", partial(deal, partial(by_range, order.seed, bits)), EDGES, ranges)
        run = partial(forward, order, bits, partitions)
        yield Stage("forward", run, EDGES, partitions, groups=[list(range(ranges))], counters=count)
    yield Stage("report", partial(report, order.measure), DECIDED, tasks, counters=count_decided)
    yield Stage("tell", tell, TOLD, at="documents")


def _home(partitions: int, ids: pa.Array, levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    return home(ids, partitions)


def by_range(seed: int, bits: int, ids: pa.Array, levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The range of priority each document lies in, 0 the best: its level and the first bits of its keyed hash."""
    return (independent_set.rank(levels, ids, seed) >> np.uint64(56 - bits)).astype(np.uint32)


def count(batch: pa.RecordBatch) -> Mapping[str, int]:
    """Rows that a further round has to look at, and documents whose fate is known."""
    open_ = int((batch.column("kind").to_numpy() != RESULT).sum())
    return {"open": open_, "duplicates": batch.num_rows - open_}


def count_decided(batch: pa.RecordBatch) -> Mapping[str, int]:
    return {"duplicates": batch.num_rows - batch.column("of").null_count}


# -- rounds -----------------------------------------------------------------------------------------------------------


def one_round(order: Order, at_home: Home, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One partition's part in a round."""
    table = pa.Table.from_batches(rows, EDGES)
    if table.num_rows == 0:
        return
    passed = pc.equal(table["kind"], RESULT)
    results = table.filter(passed)
    yield from results.to_batches()
    table = table.filter(pc.invert(passed))
    if table.num_rows:
        me = table["to"][0].as_py()
        yield from settled(order, at_home, table.combine_chunks(), me)


def settled(order: Order, at_home: Home, table: pa.Table, me: int) -> Iterator[pa.RecordBatch]:
    """What partition `me` has to send on: what it still needs to itself, what it decided to whom it concerns."""
    homes = {end: _homes(at_home, table, end) for end in ("better", "worse")}
    here = np.stack([homes["better"] == me, homes["worse"] == me])
    s = independent_set.settle(table, order.seed, order.measure, here)
    yield from _rows(table, s.wait, s.wait_kind, homes["worse"])
    yield from _rows(table, s.owe, np.full(len(s.owe), AT_BETTER, np.uint8), homes["better"])
    yield from _rows(table, s.tell, s.tell_kind, homes["worse"])
    if len(s.gone):
        worse, by = table.take(pa.array(s.gone)), table.take(pa.array(s.gone_by))
        # a copy of a document that goes is as similar to the one that stays as that document is
        columns = {f.name: worse[f.name] if f.name.startswith("worse") else by[f.name] for f in EDGES}
        columns["to"] = pa.chunked_array([pa.array(homes["worse"][s.gone])])
        columns["kind"] = pa.chunked_array([pa.array(np.full(len(s.gone), RESULT, np.uint8))])
        yield from pa.table(columns, schema=EDGES).to_batches()


def _homes(at_home: Home, table: pa.Table, end: str) -> npt.NDArray[np.uint32]:
    return at_home(table[f"{end}_id"].combine_chunks(), table[f"{end}_level"].to_numpy())


def _rows(
    table: pa.Table, which: npt.NDArray[np.int64], kind: npt.NDArray[np.uint8], to: npt.NDArray[np.uint32]
) -> Iterator[pa.RecordBatch]:
    if len(which):
        part = table.take(pa.array(which))
        part = part.set_column(0, EDGES.field("to"), pa.array(to[which]))
        yield from part.set_column(1, EDGES.field("kind"), pa.array(kind)).to_batches()


# -- what rounds leave ------------------------------------------------------------------------------------------------


def deal(ranges: Home, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What is left, to the range of the document it is about; each open edge to the ranges of both of its documents."""
    table = pa.Table.from_batches(rows, EDGES).combine_chunks()
    if table.num_rows == 0:
        return
    kind = table["kind"].to_numpy()
    both, bs, ws = (table[c].to_numpy() for c in ("both", "better_size", "worse_size"))
    # messages come with this round, so an edge is open only if no message about it is here
    key = np.stack([table["worse"].to_numpy(), table["better"].to_numpy()])
    into = np.flatnonzero(kind < AT_BETTER)
    into = into[np.lexsort((kind[into], key[1][into], key[0][into]))]
    last = np.ones(len(into), bool)
    last[:-1] = (key[:, into[1:]] != key[:, into[:-1]]).any(axis=0)
    into = into[last]
    worse, better = _homes(ranges, table, "worse"), _homes(ranges, table, "better")
    yield from _rows(table, into, kind[into], worse)
    unknown = into[kind[into] == AT_WORSE]
    owe = np.concatenate([unknown, np.flatnonzero((kind == AT_BETTER) & copies(bs, ws, both))])
    yield from _rows(table, owe, np.full(len(owe), AT_BETTER, np.uint8), better)
    done = np.flatnonzero(kind == RESULT)
    yield from _rows(table, done, kind[done], worse)


def forward(order: Order, bits: int, partitions: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Walks through the ranges in order; `rows` come by range. What one tells later ones waits in their files."""
    ranges = partial(by_range, order.seed, bits)
    with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
        waiting = _Mail(folder)
        for me, batches in _by_range(rows, independent_set.RANKS << bits):
            table = pa.Table.from_batches([*batches, *waiting.take(me)], EDGES)
            passed = pc.equal(table["kind"], RESULT)
            to_some = pa.array(np.full(table.num_rows, me % partitions, np.uint32))
            yield from table.set_column(0, EDGES.field("to"), to_some).filter(passed).to_batches()
            table = table.filter(pc.invert(passed)).combine_chunks()
            if not table.num_rows:
                continue
            for batch in settled(order, ranges, table, me):
                kind = batch.column("kind")
                if kind[0].as_py() == RESULT:  # a batch is of one kind, or of messages
                    to_some = pa.array(np.full(batch.num_rows, me % partitions, np.uint32))
                    yield batch.set_column(0, EDGES.field("to"), to_some)
                    continue
                for to in np.unique(batch.column("to").to_numpy()):
                    if to <= me:
                        raise AssertionError("a document of this range waits for one of this range or before it")
                    waiting.put(int(to), batch.filter(pc.equal(batch.column("to"), to)))


def _by_range(rows: Iterator[pa.RecordBatch], ranges: int) -> Iterator[tuple[int, list[pa.RecordBatch]]]:
    """(range, its batches) of every range in order, also of those that nothing was sent to at first."""
    ahead = next(rows, None)
    for me in range(ranges):
        mine: list[pa.RecordBatch] = []
        while ahead is not None and ahead.num_rows and ahead.column("to")[0].as_py() == me:
            mine.append(ahead)
            ahead = next(rows, None)
        yield me, mine


class _Mail:
    """Rows for later ranges, in one file each."""

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


def report(measure: independent_set.Measure, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Each result to the task of the duplicate, and as one more that the kept document stands for to its task."""
    for batch in rows:
        both, bs, ws = (batch.column(c).to_numpy().astype(np.int64) for c in ("both", "better_size", "worse_size"))
        whole = independent_set.whole(measure, bs, ws, both)
        for end, of, stands in (("worse", batch.column("better_id"), 0), ("better", None, 1)):
            address = batch.column(end)
            n = batch.num_rows
            columns = [
                pa.array((address.to_numpy() >> 32).astype(np.uint32)),
                address,
                of if of is not None else pa.nulls(n, pa.binary(16)),
                pa.array(both),
                pa.array(whole),
                pa.array(np.full(n, stands, np.int64)),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=DECIDED)


def tell(rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    """The signals of every document: as decided, or kept where it has no edge."""
    table = pa.Table.from_batches(rows, DECIDED).combine_chunks()
    gone = pc.is_valid(table["of"])
    stands = np.sort(table.filter(pc.invert(gone))["address"].to_numpy())
    table = table.filter(gone).sort_by("address").combine_chunks()
    decided = table["address"].to_numpy()
    if (decided[1:] == decided[:-1]).any():
        raise AssertionError("a document was decided twice")
    of = _hex(table["of"].combine_chunks())
    similar = pa.array(table["both"].to_numpy() / table["whole"].to_numpy())
    for batch in documents.batches([]):
        address = batch.column("address").to_numpy()
        at = np.minimum(np.searchsorted(decided, address), max(0, len(decided) - 1))
        dup = decided[at] == address if len(decided) else np.zeros(len(address), bool)
        where = pa.array(at, pa.int64(), mask=~dup)
        copied = 1 + np.searchsorted(stands, address, "right") - np.searchsorted(stands, address, "left")
        columns = [pa.array(dup), of.take(where), similar.take(where), pa.array(copied, pa.int64(), mask=dup)]
        yield pa.RecordBatch.from_arrays([batch.column("address"), *columns], schema=TOLD)


def _hex(ids: pa.Array) -> pa.Array:
    """16-byte ids as strings of 32 hexadecimal digits."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    data = words(ids).view(np.uint8).reshape(-1, 16)
    text = np.stack([digits[data >> 4], digits[data & 15]], axis=2).tobytes()
    at = np.arange(0, 32 * len(data) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(data), pa.py_buffer(at), pa.py_buffer(text))
