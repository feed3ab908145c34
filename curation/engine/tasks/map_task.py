"""Runs a map task: rows of some splits of input through a chain of fused steps and rules.

It stores columns and a decision for each dropped row. Signals are computed only for rows that are left when their step
comes and that no store has yet (top_up.py). So the same code does a first run (everything is missing), a run after a
tightened rule (nothing is missing: the input is not even opened) and one after a loosened rule (the rows that come back
get what they lack). The file of decisions is named after its content: a rule that is changed without effect leaves the
same file, and nothing that reads it runs again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import document
from curation.config import rules
from curation.engine.planning.map_spec import FailedRecord, MapPhase, MapSpec, Op, Poisoned
from curation.engine.tasks import column_store, joined_signals, run_steps
from curation.engine.tasks.chunk import NO_TEXT, RAW, Chunk, expand_mask, id_checksum, replace_values
from curation.engine.tasks.content_named import ContentNamed
from curation.engine.tasks.input_rows import InputRows
from curation.engine.tasks.joined_signals import JoinedSignals
from curation.engine.tasks.scrub import Scrubber
from curation.engine.tasks.task_cost import TaskCost, part
from curation.engine.tasks.task_documents import BASE, DECISION, TEXT, State, TaskDocuments
from curation.engine.tasks.top_up import StoredColumns, TextSource
from curation.step import MapStep
from curation.storage import Storage, failpoint


def run_map(phase: MapPhase, spec: MapSpec) -> dict[str, Any]:
    """Runs one task and returns its manifest. Raises Poisoned, or what storage and readers raise."""
    with Scrubber(phase.scrubber, phase.scrub_before).errors():
        return _MapTask(phase, spec).run()


class _MapTask:
    def __init__(self, phase: MapPhase, spec: MapSpec) -> None:
        self.phase, self.spec = phase, spec
        self.storage = Storage(phase.run)
        self.scrub = Scrubber(phase.scrubber, phase.scrub_before)
        self.dropped: Counter[tuple[int, str, str]] = Counter()
        self.computed: Counter[str] = Counter()
        self.not_judged: dict[str, dict[str, list[int]]] = {}  # step -> signal -> how many, of how many documents
        self.poisoned: list[FailedRecord] = []
        self.places: set[tuple[str, str, str]] = set()  # in the code, where they fail
        self.input = InputRows(phase, spec, self.storage, self.scrub)
        self.rows_in = self.rows_out = self.text_bytes = 0
        self.sum_in = self.sum_out = 0  # order-independent checksums of the ids that came and that stay
        self.domains: Counter[str] = Counter()
        self.writers: dict[str, column_store.Writer] = {}
        self.decisions = ContentNamed()
        self.stored = StoredColumns(self.storage, spec.known)
        self.deciders: dict[int, rules.Decider] = {}
        self.previous: TaskDocuments | None = None
        if spec.state is not None:
            self.previous = TaskDocuments(self.storage, spec.index, State.of(spec.state), phase.types)
        self.text = TextSource(
            phase, self.stored, self.previous, self._apply, self.poisoned,
            lambda: InputRows(phase, spec, self.storage, self.scrub).read(),
        )  # fmt: skip
        self.joined = {name: self._joined(name, files) for name, files in spec.joins.items()}
        self.pending_text: list[tuple[np.ndarray, pa.Array, pa.Array, pa.Array]] = []

    # -- the task ---------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        cost = TaskCost()
        try:
            named: list[tuple[str, str]] = []
            for rows, batch, has_text in self._input_rows():
                if self.spec.dry:
                    files = batch.column("source").to_pylist()
                    named += [
                        (d.hex(), s["file"]) for d, s in zip(batch.column("doc_id").to_pylist(), files, strict=True)
                    ]
                    continue
                with contextlib.suppress(Poisoned):  # the task ends as poisoned once all its rows have been tried
                    self._chunk(rows, batch, has_text)
            if self.poisoned:
                raise Poisoned(self.poisoned, self.input.rows)
            if self.spec.probe is not None:
                return {"rows": self.input.rows, "ids": named}
            self._writer("decision", DECISION)
            empty = ("decision", self.phase.base_store)  # these say something even without rows
            files = {name: w.close(empty=name in empty) for name, w in sorted(self.writers.items())}
            files["decision"] = self.decisions.store(self.storage, f"cache/decisions/{self.spec.key}")
        except BaseException as error:
            for writer in self.writers.values():
                writer.abort(error)
            raise
        finally:
            self.text.close()
        drops: list[tuple[str, str, int]] = [(step, rule, n) for (_, step, rule), n in sorted(self.dropped.items())]
        if self.rows_in != self.rows_out + sum(n for *_, n in drops):
            raise AssertionError(f"task {self.spec.key}: {self.rows_in} in, {self.rows_out} kept, drops {drops}")
        written = {name: w for name, w in files.items() if w is not None}
        failpoint(f"map task {self.spec.key} before manifest")
        return {
            "key": self.spec.key,
            "in": self.rows_in,
            "out": self.rows_out,
            "sum_in": f"{self.sum_in:016x}",
            "sum_out": f"{self.sum_out:016x}",
            "drops": drops,
            "domains": dict(sorted(self.domains.items())),
            "text_bytes": self.text_bytes,
            "unread": self.input.unread,
            **{name: value for name, value in self._counted().items() if value},
            "state": self._state(written).as_dict(),
            "files": [w.as_dict() for w in written.values()],
            "cost": cost.so_far(),
        }

    def _counted(self) -> dict[str, dict[str, Any]]:
        """What the steps counted, of most tasks nothing after the first phase."""
        computed, replayed = dict(sorted(self.computed.items())), dict(sorted(self.text.replayed.items()))
        return {"computed": computed, "not_judged": self.not_judged, "replayed": replayed}

    def _joined(self, name: str, files: Sequence[str]) -> JoinedSignals:
        task, kind = self.spec.numbers[name], self.phase.types[name]
        if name not in self.phase.last_stages:
            return joined_signals.from_files(self.storage, files, task, name, kind)
        assert self.previous is not None
        stage, expressions = self.phase.last_stages[name]
        return joined_signals.from_last_stage(
            stage, expressions, files, task, name, kind, self.previous, self.spec.probe
        )

    def _state(self, written: Mapping[str, Any]) -> State:
        state = State.of(self.spec.state) if self.spec.state is not None else State(rows=self.input.rows)
        for name in [n for n in state.signals if n not in self.phase.types]:  # features of the global step before
            del state.signals[name], state.ops[name]
        known = self.spec.known

        def files(directory: str) -> list[str]:
            new = [written[directory].path] if directory in written else []
            return [*known.get(directory, ()), *new]

        if self.phase.first:
            state.base = files(self.phase.base_store)
        if self.phase.text_store:
            state.text = files(self.phase.text_store)
        for op in self.phase.ops:
            if op.kind != "rules":
                state.signals[op.step.name] = files(op.store)
            state.ops[op.step.name] = op.position
        state.decisions.append(written["decision"].path)
        return state

    def _writer(self, directory: str, schema: pa.Schema) -> column_store.Writer:
        if directory not in self.writers:
            # named for the decision, since joined signals depend on which documents it left
            path = f"{directory}/{self.spec.key}.{self.spec.decision[:12]}.parquet"
            storage = self.decisions if directory == "decision" else self.storage
            self.writers[directory] = column_store.Writer(storage, path, schema)
        return self.writers[directory]

    def _input_rows(self) -> Iterator[tuple[np.ndarray, pa.RecordBatch, bool]]:
        known = self.stored.reader(self.phase.base_store)
        fresh = self.phase.first and known is None and self.spec.probe is None
        writer = self._writer(self.phase.base_store, BASE) if fresh else None
        return self.input.chunks(self.previous, known, writer)

    # -- one chunk --------------------------------------------------------------------------------------------------

    def _chunk(self, rows: np.ndarray, batch: pa.RecordBatch, has_text: bool) -> None:
        self._steps(rows, batch, has_text)
        if self.pending_text:  # of kept and dropped rows together, in order of rows, as stores are
            order = np.argsort(np.concatenate([r for r, *_ in self.pending_text]), kind="stable")
            parts = [pa.RecordBatch.from_arrays([pa.array(r), *a], schema=TEXT) for r, *a in self.pending_text]
            assert self.phase.text_store is not None
            table = pa.Table.from_batches(parts).take(pa.array(order)).combine_chunks()
            self._writer(self.phase.text_store, TEXT).add(table.to_batches()[0])
            self.pending_text = []

    def _steps(self, rows: np.ndarray, batch: pa.RecordBatch, has_text: bool) -> None:
        lo, hi = int(rows[0]), int(rows[-1]) + 1
        self.rows_in += len(rows)
        self.sum_in = (self.sum_in + id_checksum(batch.column("doc_id"))) & 0xFFFFFFFFFFFFFFFF
        if self.phase.first:
            rows, batch = self._read_drops(rows, batch)
        if not has_text:
            batch = document.with_column(batch, "text", pa.nulls(batch.num_rows, pa.large_string()))
        chunk = Chunk(lo, hi, rows, batch, np.full(len(rows), RAW if has_text else NO_TEXT, dtype=np.int32))
        for op in self.phase.ops:
            if not len(chunk.rows):
                return
            if op.kind in ("map", "features"):
                self._compute(chunk, op)
            elif op.kind == "join":
                self._join(chunk, op)
            self._decide(chunk, op)
        if not len(chunk.rows):
            return
        self.rows_out += len(chunk.rows)
        self.sum_out = (self.sum_out + id_checksum(chunk.batch.column("doc_id"))) & 0xFFFFFFFFFFFFFFFF
        for item in chunk.batch.column("domain").value_counts():
            self.domains[item["values"].as_py()] += item["counts"].as_py()
        self._store_kept_text(chunk)

    def _read_drops(self, rows: np.ndarray, batch: pa.RecordBatch) -> tuple[np.ndarray, pa.RecordBatch]:
        """Drops the rows that the rules of reading drop; returns the others."""
        names, values = self.input.read_rules(batch)
        out = np.array([n is not None for n in names], dtype=bool)
        if out.any():
            where = np.flatnonzero(out)
            dropping = [str(names[i]) for i in where]
            self._drop(
                rows[where], -1, ["read"] * len(where), dropping, [values[i] for i in where], [None] * len(where)
            )
        return rows[~out], batch.filter(pa.array(~out)).drop_columns(["drop"])

    def _compute(self, chunk: Chunk, op: Op) -> None:
        step = _map(op)
        kind = pa.struct(list(step.signals))
        values, have = self.stored.column(op.store, chunk, step.name, kind)
        need = ~have
        if need.any():
            self.text.bring(chunk, need, op.position)
            out, failed = self._apply(op, chunk.batch.filter(pa.array(need)))
            if failed.any():  # left out now, so that the others are tried
                keep = ~expand_mask(failed, need)
                chunk.filter(keep)
                values, need = values.filter(pa.array(keep)), need[keep]
            fresh = self.scrub.signals(out.column(step.name), op.position)
            if not fresh.type.equals(kind):
                raise TypeError(f"step {step.name} declared {kind} and returned {fresh.type}")
            if op.kind == "map":
                self.computed[step.name] += len(fresh)
            self._write(op.store, chunk.rows[need], step.name, fresh)
            if step.rewrites:
                chunk.set_text(need, out.column("text"), op.position)
            values = replace_values(values, fresh, need)
        for signal in step.not_judged():
            column = values.field(kind.get_field_index(signal))
            count = pc.sum(column).as_py() or 0 if pa.types.is_int64(column.type) else column.null_count
            total = self.not_judged.setdefault(step.name, {}).setdefault(signal, [0, 0])
            total[0], total[1] = total[0] + count, total[1] + len(column)
        chunk.batch = document.with_column(chunk.batch, step.name, values)

    def _join(self, chunk: Chunk, op: Op) -> None:
        kind = pa.struct(list(op.step.signals))
        values, have = self.stored.column(op.store, chunk, op.step.name, kind)
        if not have.all():
            values = self.joined[op.step.name].of(chunk.rows)
            self._write(op.store, chunk.rows[~have], op.step.name, values.filter(pa.array(~have)))
        chunk.batch = document.with_column(chunk.batch, op.step.name, values)

    def _decide(self, chunk: Chunk, op: Op) -> None:
        if not op.rules:
            return
        if op.position not in self.deciders:
            with part("rules"):
                self.deciders[op.position] = rules.decider(op.rules, chunk.batch.schema)
        if any("text" in columns for columns in self.deciders[op.position].columns):
            self.text.bring(chunk, np.ones(len(chunk.rows), dtype=bool), op.position + 1)
        with part("rules"):
            failed, values = self.deciders[op.position].decide(chunk.batch)
        out = failed >= 0
        if not out.any():
            return
        names = list(op.rules)
        where = np.flatnonzero(out)
        evidence: list[str | None] = [None] * len(where)
        fields = op.step.evidence()
        if fields:
            signals = chunk.batch.column(op.step.name).take(pa.array(where)).to_pylist()
            evidence = [json.dumps({f: s[f] for f in fields}, sort_keys=True) if s else None for s in signals]
        if self.phase.keep_dropped_text and self.text.rewriters:
            last = self.text.rewriters[-1].position
            if op.position >= last:
                _, have = self.stored.column(self.phase.text_store, chunk, "bytes", pa.int64())
                self._store_text(chunk, out & (chunk.text_stage >= last) & ~have)
        self._drop(
            chunk.rows[where], op.position, [op.step.name] * len(where), [names[failed[i]] for i in where],
            [values[i] for i in where], evidence,
        )  # fmt: skip
        chunk.filter(~out)

    def _drop(
        self, rows: np.ndarray, position: int, steps: list[str], names: list[str], values: list[str | None],
        evidence: list[str | None],
    ) -> None:  # fmt: skip
        for step, rule in zip(steps, names, strict=True):
            self.dropped[position, step, rule] += 1
        # a reason may quote the record's text
        stored = self.scrub.strings(pa.array(values, pa.string())).to_pylist()
        arrays = [pa.array(rows), pa.array([position] * len(rows), pa.int32()), steps, names, stored, evidence]
        if self.spec.probe is None:
            cast = [pa.array(a, f.type) for a, f in zip(arrays, DECISION, strict=True)]
            self._writer("decision", DECISION).add(pa.RecordBatch.from_arrays(cast, schema=DECISION))

    def _store_kept_text(self, chunk: Chunk) -> None:
        """Stores the text of the rows that stay in the phase, where it is not stored yet, and counts its bytes."""
        if self.phase.text_store is None:
            if self.previous is not None:
                sizes = self.previous.take(pa.array(chunk.rows), ["bytes"]).column("bytes")
                self.text_bytes += pc.sum(sizes).as_py() or 0
            return
        sizes, have = self.stored.column(self.phase.text_store, chunk, "bytes", pa.int64())
        lengths = self._store_text(chunk, ~have)
        self.text_bytes += (pc.sum(sizes.filter(pa.array(have))).as_py() or 0) + (pc.sum(lengths).as_py() or 0)

    def _store_text(self, chunk: Chunk, which: np.ndarray) -> pa.Array:
        """Stores the text of the rows of the mask, as it is after the phase; returns the bytes of each."""
        if which.any():
            self.text.bring(chunk, which, 1 << 30)
        texts = chunk.batch.column("text").filter(pa.array(which))
        lengths = pc.binary_length(texts).cast(pa.int64())
        if which.any() and self.spec.probe is None:
            self.pending_text.append((chunk.rows[which], texts, lengths, document.text_hashes(texts)))
        return lengths

    # -- steps ------------------------------------------------------------------------------------------------------

    def _apply(self, op: Op, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, np.ndarray]:
        """The step's output for the rows that it does not fail on, and a mask of the others, which go to `poisoned`."""
        out, failed = run_steps.run_step(_map(op), (op.store, op.position), batch)
        for row, failure in failed.items():
            doc, file = batch.column("doc_id")[row].as_py().hex(), batch.column("source")[row].as_py()["file"]
            reason = self.scrub.reason(f"{failure.error}: {failure.message}")
            record = FailedRecord(doc, file, op.step.name, reason, failure.error, failure.at)
            if record.place not in self.places:  # one traceback a place: they are long, and equal but for the message
                self.places.add(record.place)
                record = dataclasses.replace(record, trace=f"{failure.frames}{reason}")
            self.poisoned.append(record)
        return out, run_steps.failure_mask(failed, batch.num_rows)

    def _write(self, directory: str, rows: np.ndarray, name: str, values: pa.Array) -> None:
        if self.spec.probe is None:
            schema = pa.schema([("row", pa.int64()), (name, values.type)])
            self._writer(directory, schema).add(pa.RecordBatch.from_arrays([pa.array(rows), values], schema=schema))


def _map(op: Op) -> MapStep:
    assert isinstance(op.step, MapStep)
    return op.step
