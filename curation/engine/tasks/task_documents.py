"""Reads the documents of one task as they are after some phase: columns and signals joined by row, without drops.

A task's *state* says which files hold what; it is the part of a map task's manifest that later phases read. Nothing is
computed here, only joined.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import checked_parquet, document
from curation.config import rules
from curation.engine.tasks import column_store
from curation.storage import Storage

# The base store: everything that a reader returns of a record but its text, and the key to look up its URL by. The key
# is of the URL as crawled, since the stored URL may have been scrubbed.
BASE = pa.schema(
    [
        pa.field("row", pa.int64()),
        *(f for f in document.BASE if f.name != "text"),
        pa.field("url_key", pa.uint64()),
        pa.field("read", document.READ),
        pa.field("drop", document.DROP),
    ]
)
# The text store. Size and hash (xxh3-128) lie beside the text, so that stages that need no more do not read it.
# Its version is TEXT_FORMAT in planning/plan.py.
TEXT = pa.schema(
    [("row", pa.int64()), ("text", pa.large_string()), ("bytes", pa.int64()), ("text_hash", pa.binary(16))]
)
DECISION = pa.schema(
    [
        ("row", pa.int64()),
        ("op", pa.int32()),  # position of the step in the pipeline, -1 for reading
        ("step", pa.string()),
        ("rule", pa.string()),
        ("value", pa.string()),  # JSON of the signals that the rule refers to
        ("evidence", pa.string()),  # JSON
    ]
)
OUTCOME = pa.struct([(f.name, f.type) for f in DECISION if f.name != "row"])
CHUNK = 1024  # rows joined at a time


@dataclass
class State:
    """Which files hold a task's columns. Plain data, stored in manifests."""

    rows: int = 0
    base: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)  # of the latest phase that rewrote text
    signals: dict[str, list[str]] = field(default_factory=dict)  # step name -> files, in pipeline order
    ops: dict[str, int] = field(default_factory=dict)  # step name -> position in the pipeline
    decisions: list[str] = field(default_factory=list)  # one a map phase so far

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def columns(self) -> list[str]:
        """The files of all stores: what a later plan may use again."""
        return [*self.base, *self.text, *(file for files in self.signals.values() for file in files)]

    @staticmethod
    def of(data: Mapping[str, Any]) -> State:
        return State(
            data["rows"], list(data["base"]), list(data["text"]), {k: list(v) for k, v in data["signals"].items()},
            dict(data["ops"]), list(data["decisions"]),
        )  # fmt: skip


class TaskDocuments:
    """Implements `curation.step.Documents` for a task; with `everything` it gives the dropped ones too."""

    def __init__(
        self, storage: Storage, task: int, state: State, types: Mapping[str, pa.DataType],
        expressions: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.storage, self.task, self.state, self.types = storage, task, state, types
        self.expressions = expressions or {}
        self._computers: dict[tuple[str, ...], rules.Expressions] = {}
        self._readers: dict[tuple[str, ...], column_store.Reader] = {}
        self.shown = 0  # documents that `batches` gave
        self._skipped = np.zeros(0, dtype=np.int64)
        self._drops = _load_decisions(storage, state.decisions)

    def numbered(self, task: int, expressions: Mapping[str, str]) -> TaskDocuments:
        """The same documents for a stage that knows the task by this number. Both use the same readers: what is read
        for the one, chunk by chunk, is in memory for the other."""
        out = copy.copy(self)
        out.task, out.expressions, out._computers, out.shown = task, expressions, {}, 0
        return out

    def _reader(self, name: str, columns: Sequence[str]) -> column_store.Reader:
        key = (name, *columns)
        if key not in self._readers:
            stores = {"text": self.state.text, "base": self.state.base}
            files = stores[name] if name in stores else self.state.signals.get(name, [])
            self._readers[key] = column_store.Reader(self.storage, files, columns)
        return self._readers[key]

    def type_of(self, column: str) -> pa.DataType:
        """The Arrow type of a base column, a step's struct, or a dotted signal of one."""
        if column in TEXT.names:
            return TEXT.field(column).type
        if column == "outcome":
            return OUTCOME
        head, _, tail = column.partition(".")
        kind = BASE.field(head).type if head in BASE.names else self.types[head]
        return kind.field(kind.get_field_index(tail)).type if tail else kind

    def batches(self, columns: Sequence[str], *, everything: bool = False) -> Iterator[pa.RecordBatch]:
        """Batches in reading order: `address`, then `columns`. With `everything`, dropped documents too; ask for the
        column `outcome` to distinguish them (null: kept). Signals of steps that a document did not reach are null."""
        for lo in range(0, self.state.rows, CHUNK):
            hi = min(lo + CHUNK, self.state.rows)
            rows = np.arange(lo, hi, dtype=np.int64)
            if not everything:
                rows = rows[~self._dropped(rows)]
                rows = rows[~np.isin(rows, self._skipped)]
            if len(rows):
                self.shown += len(rows)
                yield self._join(rows, columns)

    def skip(self, rows: np.ndarray) -> None:
        """Leaves these rows out of `batches` from now on: their results are reused."""
        self._skipped = rows

    def kept_rows(self, lo: int, hi: int) -> np.ndarray:
        """Rows lo <= row < hi that no decision has dropped."""
        rows = np.arange(lo, hi, dtype=np.int64)
        kept: np.ndarray = rows[~self._dropped(rows)]
        return kept

    def take(self, addresses: pa.Array, columns: Sequence[str]) -> pa.RecordBatch:
        """The documents at `addresses`, in that order, repeats allowed."""
        wanted = np.asarray(addresses).astype(np.int64) & 0xFFFFFFFF
        rows, inverse = np.unique(wanted, return_inverse=True)
        return self._join(rows, columns).take(pa.array(inverse))

    def _dropped(self, rows: np.ndarray) -> np.ndarray:
        at = np.searchsorted(self._drops.rows, rows)
        at[at == len(self._drops.rows)] = 0
        if not len(self._drops.rows):
            return np.zeros(len(rows), dtype=bool)
        hit: np.ndarray = self._drops.rows[at] == rows
        return hit

    def _join(self, rows: np.ndarray, columns: Sequence[str]) -> pa.RecordBatch:
        asked = tuple(c for c in columns if c in self.expressions)
        if not asked:
            return self._stored(rows, columns)
        if asked not in self._computers:
            available = rules.flatten(pa.schema([*BASE, pa.field("text", pa.large_string()), *self.types.items()]))
            self._computers[asked] = rules.Expressions({c: self.expressions[c] for c in asked}, available)
        computer = self._computers[asked]
        stored = [c for c in columns if c not in self.expressions]
        heads = dict.fromkeys([*stored, *(c.partition(".")[0] for c in computer.columns)])
        batch = self._stored(rows, list(heads))
        values = dict(zip(asked, computer.compute(batch), strict=True))
        arrays = [values[c] if c in values else batch.column(c) for c in ("address", *columns)]
        return pa.RecordBatch.from_arrays(arrays, names=["address", *columns])

    def _stored(self, rows: np.ndarray, columns: Sequence[str]) -> pa.RecordBatch:
        out: dict[str, pa.Array] = {"address": pa.array((np.int64(self.task) << 32) | rows)}
        lo, hi = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 0)
        cache: dict[str, pa.Table | None] = {}
        wanted: dict[str, list[str]] = {}  # of each store, only the columns asked for
        for column in columns:
            head = column.partition(".")[0]
            mine = wanted.setdefault(_store_of(head), [])
            mine += [head] if head not in mine else []

        def table(name: str) -> pa.Table | None:
            if name not in cache:
                cache[name] = self._read(name, wanted[name], rows, lo, hi)
            return cache[name]

        reached = self._drops.reached(rows) if any(self._step_of(c) for c in columns) or "outcome" in columns else None
        for column in columns:
            head, _, tail = column.partition(".")
            if column == "outcome":
                out[column] = self._drops.outcome(rows)
                continue
            if column in TEXT.names:
                values, _ = column_store.align(rows, table("text"), column, self.type_of(column))
            elif head in BASE.names:
                values, _ = column_store.align(rows, table("base"), head, self.type_of(head))
            else:
                values, _ = column_store.align(rows, table(head), head, self.type_of(head))
                unreached = np.zeros(0, dtype=bool)
                if reached is not None and head in self.state.ops:  # a step that no phase has run yet has no signals
                    unreached = reached < self.state.ops[head]
                if unreached.any():
                    keep = np.where(unreached, -1, np.arange(len(rows)))
                    values = values.take(pa.array(keep, mask=unreached))
            if tail:
                values = pc.struct_field(values, tail)
            out[column] = values
        return pa.RecordBatch.from_arrays(list(out.values()), names=list(out))

    def _step_of(self, column: str) -> bool:
        return column.partition(".")[0] in self.state.ops

    def _read(self, name: str, columns: Sequence[str], rows: np.ndarray, lo: int, hi: int) -> pa.Table | None:
        reader = self._reader(name, columns)
        if hi - lo <= 4 * CHUNK:
            return reader.read(lo, hi)
        # scattered rows: only the chunks that hold some of them
        parts = []
        for chunk in np.unique(rows // CHUNK):
            part = reader.read(int(chunk) * CHUNK, (int(chunk) + 1) * CHUNK)
            if part is not None:
                inside = rows[(rows >= chunk * CHUNK) & (rows < (chunk + 1) * CHUNK)]
                have = part.column("row").to_numpy()
                parts.append(part.filter(pa.array(np.isin(have, inside))))
        return pa.concat_tables(parts) if parts else None


def _store_of(column: str) -> str:
    """The store of a column; a step's signals have one of its name."""
    return "text" if column in TEXT.names else "base" if column in BASE.names else column


class _Drops:
    """A task's dropped rows, sorted, with what dropped them."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table.sort_by("row").combine_chunks()
        self.rows = self.table.column("row").to_numpy()
        self._ops = self.table.column("op").to_numpy()

    def reached(self, rows: np.ndarray) -> np.ndarray:
        """Position of the last step each row reached: that of the step that dropped it, else past all steps."""
        out = np.full(len(rows), np.iinfo(np.int32).max, dtype=np.int64)
        if len(self.rows):
            at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
            hit = self.rows[at] == rows
            out[hit] = self._ops[at[hit]]
        return out

    def outcome(self, rows: np.ndarray) -> pa.Array:
        if not len(self.rows):
            return pa.nulls(len(rows), OUTCOME)
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        hit = self.rows[at] == rows
        taken = self.table.select([f.name for f in OUTCOME]).take(pa.array(at)).combine_chunks()
        fields = [c.combine_chunks() if isinstance(c, pa.ChunkedArray) else c for c in taken.columns]
        return pa.StructArray.from_arrays(fields, fields=list(OUTCOME), mask=pa.array(~hit))


def _load_decisions(storage: Storage, files: Sequence[str]) -> _Drops:
    import pyarrow.parquet as pq

    tables = []
    for path in files:
        with checked_parquet.CheckedFile(storage, path) as f:
            tables.append(pq.read_table(f, schema=DECISION))
    return _Drops(pa.concat_tables(tables) if tables else DECISION.empty_table())
