"""Writes the ledger of the result: every document of the run, kept or dropped, sorted by id for look-up.

Two shuffles. Documents go to partitions by the first bits of their id, are sorted and written with their outcome and
signals. URLs go to partitions by the first bits of their key, and map a URL to ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import checked_parquet, document
from curation.core.errors import UserError
from curation.engine.tasks.task_documents import OUTCOME, TaskDocuments
from curation.step import Corpus, Output, Stage, StagePlan

ROWS_PER_FILE = 1 << 17  # about 130,000 rows, sorted in memory
GROUP = 4096  # rows read to answer one question
BASE_COLUMNS = ("doc_id", "url", "domain", "source", "date", "read")
OUTCOME_COLUMNS = ("step", "rule", "value", "evidence")


def ledger_schema(types: Sequence[tuple[str, pa.DataType]]) -> pa.Schema:
    """The ledger's schema for a pipeline whose steps have these signal structs, in order."""
    base = [pa.field(c, pa.binary(16) if c == "doc_id" else _type(c)) for c in BASE_COLUMNS]
    outcome = [pa.field(c, pa.string()) for c in OUTCOME_COLUMNS]
    return pa.schema([*base, *outcome, *(pa.field(n, t) for n, t in types)])


def _type(name: str) -> pa.DataType:
    return document.READ if name == "read" else document.BASE.field(name).type


def partition_count(documents: int) -> int:
    """Number of files: a power of two, so that each gets about ROWS_PER_FILE rows."""
    n = 1
    while documents > n * ROWS_PER_FILE:
        n *= 2
    return n


def ledger_stages(corpus: Corpus, types: Sequence[tuple[str, pa.DataType]]) -> StagePlan:
    """`corpus.documents` counts all records of the run here, dropped ones too."""
    schema, n = ledger_schema(types), partition_count(corpus.documents)
    bits = n.bit_length() - 1
    marked = schema.insert(0, pa.field("to", pa.uint32()))
    yield Stage("ledger rows", _Rows(schema, bits), marked, n, at="documents")
    yield Stage("ledger", _Ledger(schema, n), schema, sink=True)


def url_stages(corpus: Corpus) -> StagePlan:
    """The index from URL keys to document ids."""
    n = partition_count(corpus.documents)
    schema = pa.schema([("to", pa.uint32()), ("url_key", pa.uint64()), ("doc_id", pa.binary(16))])
    yield Stage("url keys", _Urls(schema, n.bit_length() - 1), schema, n, at="documents")
    yield Stage("urls", _UrlIndex(n), schema, sink=True)


@dataclass(frozen=True)
class _Rows:
    schema: pa.Schema
    bits: int

    def __call__(self, rows: Iterator[pa.RecordBatch], documents: TaskDocuments) -> Iterator[pa.RecordBatch]:
        steps = [n for n in self.schema.names if n not in (*BASE_COLUMNS, *OUTCOME_COLUMNS)]
        wanted = [*BASE_COLUMNS, "outcome", *steps]
        for batch in documents.batches(wanted, everything=True):
            outcome = batch.column("outcome")
            assert outcome.type == OUTCOME
            parts = {c: batch.column(c) for c in (*BASE_COLUMNS, *steps)}
            parts |= {c: pc.struct_field(outcome, c) for c in OUTCOME_COLUMNS}
            arrays = [id_prefix(batch.column("doc_id"), self.bits), *(parts[f.name].cast(f.type) for f in self.schema)]
            yield pa.RecordBatch.from_arrays(arrays, names=["to", *self.schema.names])


def id_prefix(ids: pa.Array, bits: int) -> pa.Array:
    """The first bits of each id, as a partition number."""
    raw = np.frombuffer(ids.buffers()[1], dtype=np.uint8).reshape(-1, 16)[ids.offset : ids.offset + len(ids), :4]
    high = np.ascontiguousarray(raw).view(">u4").ravel().astype(np.uint32)
    return pa.array(high >> np.uint32(32 - bits) if bits else np.zeros(len(ids), dtype=np.uint32), pa.uint32())


@dataclass(frozen=True)
class _Ledger:
    schema: pa.Schema
    files: int

    def __call__(self, rows: Iterator[pa.RecordBatch], out: Output) -> Iterator[pa.RecordBatch]:
        batches = list(rows)
        if not batches:
            return iter(())
        number = batches[0].column("to")[0].as_py()
        table = pa.Table.from_batches([b.drop_columns(["to"]) for b in batches], self.schema)
        ids = table.column("doc_id").to_pylist()
        order = sorted(range(len(ids)), key=ids.__getitem__)
        for a, b in pairwise(order):
            if ids[a] == ids[b]:
                raise UserError(_same_id(table, a, b))
        table = table.take(pa.array(order, pa.int64()))
        with out.create(file_name("ledger", number, self.files)) as f:
            write_sorted(f, table)
        out.outputs["rows"] = table.num_rows
        return iter(())


def file_name(directory: str, number: int, files: int) -> str:
    """`ledger/00003-of-00008.parquet`: the number of partitions is in the name, since empty ones leave no file."""
    return f"{directory}/{number:05d}-of-{files:05d}.parquet"


def write_sorted(file: Any, table: pa.Table) -> None:
    """Writes Parquet for look-ups by the first column: small row groups, their bounds in the footer."""
    with checked_parquet.Writer(file, table.schema, compression="zstd", compression_level=1) as writer:
        writer.write_table(table.combine_chunks(), row_group_size=GROUP)


def _same_id(table: pa.Table, a: int, b: int) -> str:
    one, two = (table.column("source")[i].as_py() for i in (a, b))
    return (
        f"two records have the id {table.column('doc_id')[a].as_py().hex()}: {_where(one)} and {_where(two)}. Two "
        "sources of one collection read the same file, or files that differ only in their compression: give them "
        "different `collection` names, or take one out."
    )


def _where(source: dict[str, Any]) -> str:
    return f"{source['file']} at " + (
        f"row {source['row']}" if source["offset"] is None else f"byte {source['offset']}"
    )


@dataclass(frozen=True)
class _Urls:
    schema: pa.Schema
    bits: int

    def __call__(self, rows: Iterator[pa.RecordBatch], documents: TaskDocuments) -> Iterator[pa.RecordBatch]:
        for batch in documents.batches(["url_key", "doc_id"], everything=True):
            batch = batch.filter(pc.is_valid(batch.column("url_key")))
            keys = batch.column("url_key").to_numpy(zero_copy_only=False).astype(np.uint64)
            to = (keys >> np.uint64(64 - self.bits)).astype(np.uint32) if self.bits else np.zeros(len(keys), np.uint32)
            arrays = [pa.array(to), pa.array(keys), batch.column("doc_id").cast(pa.binary(16))]
            yield pa.RecordBatch.from_arrays(arrays, schema=self.schema)


@dataclass(frozen=True)
class _UrlIndex:
    files: int

    def __call__(self, rows: Iterator[pa.RecordBatch], out: Output) -> Iterator[pa.RecordBatch]:
        batches = list(rows)
        if batches:
            table = pa.Table.from_batches(batches)
            number = table.column("to")[0].as_py()
            table = table.drop_columns(["to"]).sort_by([("url_key", "ascending"), ("doc_id", "ascending")])
            with out.create(file_name("urls", number, self.files)) as f:
                write_sorted(f, table)
        return iter(())
