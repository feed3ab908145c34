"""Runs the stages of a global step in memory, by the letter of the contract in curation/step.py.

Documents come as tables, one a task. Row numbers are 3i + 1 rather than i, because in a run some rows are dead by the
time a global step comes, so an address is not a position. `cut` deals the same documents into other tasks, to show
that a step does not depend on how they lie.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curation.config import rules
from curation.document import BASE, text_hashes
from curation.step import Corpus, MapStep, PriorRun, Stage, StagePlan, StageResult


def documents(texts: Sequence[str], **columns: Sequence[Any]) -> pa.Table:
    """A table of documents: doc_ids hashed from the position, other base columns null unless given."""
    n = len(texts)
    data: dict[str, Any] = {
        "doc_id": [xxhash.xxh3_128_digest(b"document %d" % i) for i in range(n)],
        "text": list(texts),
        "domain": ["web"] * n,
        "url": [f"http://example.org/{i}" for i in range(n)],
        "source": [{"file": "a.jsonl", "kind": "jsonl", "offset": i, "length": 1, "row": None} for i in range(n)],
    }
    extra = {k: v for k, v in columns.items() if k not in BASE.names}
    data |= {k: list(v) for k, v in columns.items() if k in BASE.names}
    table = pa.table({f.name: pa.array(data.get(f.name, [None] * n), f.type) for f in BASE}, schema=BASE)
    for name, values in extra.items():
        table = table.append_column(name, pa.array(values))
    return table


def cut(table: pa.Table, tasks: int, shuffle: int | None = None) -> list[pa.Table]:
    """The same documents in `tasks` tasks of uneven sizes (some may be empty), shuffled first if a seed is given."""
    n = table.num_rows
    if shuffle is not None:
        order = list(range(n))
        random.Random(shuffle).shuffle(order)
        table = table.take(pa.array(order, pa.int64()))
    rng = random.Random(tasks)
    ends = sorted(rng.randint(0, n) for _ in range(tasks - 1))
    starts = [0, *ends]
    return [table.slice(a, b - a) for a, b in zip(starts, [*ends, n], strict=True)]


@dataclass
class TaskDocuments:
    """The documents of one task, as `curation.step.Documents` describes them."""

    task: int
    table: pa.Table
    batch_rows: int = 7
    expressions: dict[str, str] = field(default_factory=dict)
    features: MapStep | None = None  # run before the step, over the same texts

    def _select(self, columns: Sequence[str]) -> pa.Table:
        asked = {c: self.expressions[c] for c in columns if c in self.expressions}
        table = self.table
        if {"bytes", "text_hash"} & set(columns):  # stored beside the text
            texts = ["" if t is None else t for t in table["text"].to_pylist()]
            table = table.append_column("bytes", pa.array([len(t.encode()) for t in texts], pa.int64()))
            table = table.append_column("text_hash", text_hashes(table["text"]))
        if self.features is not None:
            (batch,) = table.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
            column = self.features(batch).column(self.features.name)
            for i, name in enumerate(self.features.signals.names):
                table = table.append_column(f"{self.features.name}.{name}", column.field(i))
        if asked and table.num_rows:
            computer = rules.Expressions(asked, rules.flatten(table.schema))
            values = computer.compute(table.combine_chunks().to_batches()[0])
            for name, value in zip(asked, values, strict=True):
                table = table.append_column(name, value)
        elif asked:
            for name in asked:
                table = table.append_column(
                    name, pa.array([], pa.float64() if "DOUBLE" in asked[name] else pa.string())
                )
        return table.select(list(columns))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        chosen = self._select(columns)
        for start in range(0, self.table.num_rows, self.batch_rows):
            part = chosen.slice(start, self.batch_rows).combine_chunks()
            rows = min(self.batch_rows, self.table.num_rows - start)
            address = pa.array([self.task << 32 | 3 * (start + i) + 1 for i in range(rows)], pa.int64())
            arrays = [column.combine_chunks() for column in part.columns]
            arrays = [a.chunk(0) if isinstance(a, pa.ChunkedArray) else a for a in arrays]
            fields = [pa.field("address", pa.int64()), *part.schema]
            yield pa.RecordBatch.from_arrays([address, *arrays], schema=pa.schema(fields))

    def take(self, addresses: pa.Array, columns: Sequence[str]) -> pa.RecordBatch:
        rows = []
        for address in addresses.to_pylist():
            assert address >> 32 == self.task, "asked a task for a document of another one"
            row, rest = divmod((address & 0xFFFFFFFF) - 1, 3)
            assert rest == 0 and row < self.table.num_rows, "no such document"
            rows.append(row)
        chosen = self._select(columns)
        table = chosen.take(pa.array(rows, pa.int64())).combine_chunks()
        arrays = [pa.concat_arrays(c.chunks) if c.num_chunks else pa.array([], c.type) for c in table.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=chosen.schema)


class _File(io.RawIOBase):
    """A write-only file without seek, as an upload to an object store is."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.inner.write(view)
        return view.nbytes


@dataclass
class FolderOutput:
    """A sink's output, written below a folder."""

    folder: Path
    outputs: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def create(self, path: str) -> Iterator[Any]:
        target = self.folder / path
        assert not target.exists(), f"two tasks wrote {path}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as f:
            yield _File(f)

    def scratch(self) -> str:
        return tempfile.mkdtemp(dir=self.folder.parent)


@dataclass
class Ran:
    """What came of a plan: the last stage's rows (None after a sink), the name and the result of each stage."""

    rows: pa.Table | None
    names: list[str]
    results: list[StageResult]
    widest: dict[str, int]  # rows given to the largest task of each stage


def corpus_of(tasks: Sequence[pa.Table], seed: int = 17) -> Corpus:
    size = sum(sum(len(t.encode()) for t in table["text"].to_pylist()) for table in tasks)
    return Corpus(documents=sum(t.num_rows for t in tasks), text_bytes=size, tasks=len(tasks), seed=seed)


def run(
    plan: StagePlan, tasks: Sequence[pa.Table], folder: Path | None = None, batch_rows: int = 7,
    expressions: dict[str, str] | None = None,
) -> Ran:  # fmt: skip
    """Runs a plan over documents. `run(step.stages(corpus_of(tasks)), tasks)`; `expressions` are the step's."""
    sent: list[pa.Table] = []  # what each task of the stage before yielded, sorted by `to`
    partitions = 0
    ran = Ran(None, [], [], {})
    stage: Stage | None = next(plan, None)
    while stage is not None:
        assert pickle_roundtrip(stage)
        if stage.at == "documents":
            takes: list[list[int]] = [[i] for i in range(len(tasks))]
            empty = not any(t.num_rows for t in sent)
            assert empty or partitions == len(tasks), "rows for documents go to as many partitions as there are tasks"
        else:
            takes = [list(g) for g in stage.groups] if stage.groups is not None else [[p] for p in range(partitions)]
        yielded, outputs = [], []
        counters: Counter[str] = Counter()
        weights = np.zeros(stage.partitions, np.int64) if stage.weigh is not None else None
        for index, group in enumerate(takes):
            given = [t.filter(pc.is_in(t["to"], pa.array(group, pa.uint32()))) for t in sent]
            rows = [b for t in given for b in t.to_batches(max_chunksize=11)]
            ran.widest[stage.name] = max(ran.widest.get(stage.name, 0), sum(b.num_rows for b in rows))
            arguments: list[Any] = [iter(rows)]
            if stage.at == "documents":
                arguments.append(TaskDocuments(index, tasks[index], batch_rows, expressions or {}, stage.features))
            if stage.reuse == "prior_run":  # there was no earlier run
                arguments.append(PriorRun(lambda: iter(()), lambda: iter(())))
            if stage.sink:
                assert folder is not None
                out = FolderOutput(folder)
                for _ in stage.run(*arguments, out):
                    raise AssertionError("a sink yields nothing")
                outputs.append(out.outputs)
                continue
            batches = []
            for batch in stage.run(*arguments):
                assert batch.schema.equals(stage.schema), f"{stage.name}: {batch.schema} is not {stage.schema}"
                batches.append(batch)
                if stage.counters is not None:
                    counters.update(stage.counters(batch))
                if stage.weigh is not None and batch.num_rows:
                    np.add.at(weights, batch.column("to").to_numpy(), stage.weigh(batch))
            table = pa.Table.from_batches(batches, stage.schema)
            if "to" in stage.schema.names and table.num_rows:
                assert pc.max(table["to"]).as_py() < stage.partitions, f"{stage.name}: beyond its partitions"
                order = sorted(range(table.num_rows), key=table["to"].to_pylist().__getitem__)
                table = table.take(pa.array(order, pa.int64()))
            yielded.append(table)
        if stage.groups is not None and stage.at == "partition":
            taken = [p for g in stage.groups for p in g]
            assert len(taken) == len(set(taken)), "a partition is taken once"
            left = sum(t.num_rows for t in sent) - sum(
                t.filter(pc.is_in(t["to"], pa.array(taken, pa.uint32()))).num_rows for t in sent
            )
            assert left == 0, "rows that no task takes"
        ran.names.append(stage.name)
        ran.results.append(StageResult(dict(counters), outputs, weights))
        ran.rows = None if stage.sink else pa.concat_tables(yielded) if yielded else stage.schema.empty_table()
        sent, partitions = yielded, stage.partitions
        try:
            stage = plan.send(ran.results[-1])
        except StopIteration:
            stage = None
    return ran


def signals(ran: Ran, tasks: Sequence[pa.Table]) -> dict[str, dict[str, Any]]:
    """hex doc_id -> the signals the step gave it; asserts that no document got two rows."""
    assert ran.rows is not None
    ids = {
        task << 32 | 3 * i + 1: value.hex()
        for task, table in enumerate(tasks)
        for i, value in enumerate(table["doc_id"].to_pylist())
    }
    found: dict[str, dict[str, Any]] = {}
    for row in ran.rows.to_pylist():
        name = ids[row.pop("address")]
        assert name not in found, "a document has two rows"
        found[name] = row
    return found


def pickle_roundtrip(stage: Stage) -> bool:
    """Stages travel to workers: everything they run must pickle."""
    pickle.loads(pickle.dumps((stage.run, stage.counters)))
    return True
