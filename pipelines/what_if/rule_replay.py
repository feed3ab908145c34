"""Decides the rules of a run again from the signals stored in its ledger, from the first changed step on.

A document that passes a rule which dropped it before has no signals of the steps after that rule: it *comes back*, and
only a run can decide whether it is kept. Verdicts of global steps (deduplication) are not recomputed; a note says how
many of them depend on a document that no longer reaches the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.checked_parquet import CheckedFile
from curation.config import rules
from curation.config.rules import Quantile
from curation.core.errors import UserError
from curation.storage import Storage
from pipelines.lookup.ledger import ledger_directory, read_ledger
from pipelines.what_if.rule_changes import Step

BATCH_ROWS = 8192
MAX_VALUES = 100_000  # deciding values kept for each step, for the examples

# Where a document ended: the position of a step, or one of these
READ, KEPT, BACK = -1, 1 << 20, 1 << 21  # dropped while reading; kept; comes back (unknown)

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass
class Replay:
    """Where each row of the ledger ended before and after the change: a step's position (or READ, KEPT, BACK), and the
    rule that dropped it ("" for none)."""

    base: pa.Table
    old: Ints
    old_rule: npt.NDArray[np.object_]
    new: Ints
    new_rule: npt.NDArray[np.object_]
    notes: list[str] = field(default_factory=list)
    values: dict[int, dict[int, str]] = field(default_factory=dict)  # step -> row -> deciding value
    quantiles: list[dict[str, Any]] = field(default_factory=list)  # computed again


class RuleReplay:
    """Replays the rules of one run. Raises UserError for a changed rule that names an unknown column."""

    def __init__(self, store: Storage, steps: Sequence[Step], pinned_quantiles: Sequence[Mapping[str, Any]]) -> None:
        self.store, self.steps = store, steps
        self.pinned = {Quantile(q["signal"], q["p"], q["by"]): q["value"] for q in pinned_quantiles}
        self.schema = self._ledger_schema()
        self.first = min(i for i, s in enumerate(steps) if s.old != s.new or i == len(steps) - 1)
        for i, step in enumerate(steps):
            available = self._available_columns(i)
            for rule in _parse_rules(step):
                if step.old.get(rule.name) != rule.sql:
                    rules.check_columns(rule, available)

    def _ledger_schema(self) -> pa.Schema:
        directory = ledger_directory(self.store)
        names = self.store.names(str(directory))
        with CheckedFile(self.store, f"{directory}/{names[0]}") as f:
            return pq.read_schema(f)

    def _available_columns(self, i: int) -> dict[str, pa.DataType]:
        """What a rule of step i may name: base columns of the ledger, and the signals up to this step."""
        later = {s.name for s in self.steps[i + 1 :]}
        excluded = {*later, "step", "rule", "value", "evidence"}
        fields = [f for f in self.schema if f.name not in excluded]
        return rules.flatten(pa.schema(fields)) | {"text": pa.large_string(), "meta": pa.string()}

    def _batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(index of the first row, batch) over the whole ledger."""
        start = 0
        for batch in read_ledger(self.store, list(columns), BATCH_ROWS):
            yield start, batch
            start += batch.num_rows

    def columns(self, names: Sequence[str]) -> pa.Table:
        """Columns of the whole ledger."""
        batches = [b for _, b in self._batches(names)]
        return pa.Table.from_batches(batches, pa.schema([self.schema.field(n) for n in names]))

    def run(self) -> Replay:
        """Decides all rules again, from the first changed step on."""
        base = self.columns(["doc_id", "url", "domain", "read", "step", "rule", "value", "source"])
        position = {s.name: i for i, s in enumerate(self.steps)} | {"read": READ}
        ended = base.column("step").to_pylist()
        old = np.array([KEPT if s is None else position[s] for s in ended], np.int64)
        old_rule = np.array([r or "" for r in base.column("rule").to_pylist()], dtype=object)
        replay = Replay(base, old, old_rule, old.copy(), old_rule.copy())
        new, new_rule = replay.new, replay.new_rule
        alive = old >= self.first
        new[alive], new_rule[alive] = KEPT, ""
        for i in range(self.first, len(self.steps)):
            back = alive & (old < i)  # no signals from here on
            new[back], new_rule[back] = BACK, ""
            alive &= ~back
            if self.steps[i].is_global:
                self._note_global_step(i, replay, bool(back.any()))
            failed = self._decide(i, alive, replay)
            dropped = failed >= 0
            names = np.array([*self.steps[i].new, ""], dtype=object)
            new[dropped], new_rule[dropped] = i, names[failed[dropped]]
            alive &= ~dropped
        return replay

    def _decide(self, i: int, alive: Mask, replay: Replay) -> npt.NDArray[np.int32]:
        """For each row the index of the rule of step i that drops it; -1 for none."""
        step = self.steps[i]
        failed = np.full(len(alive), -1, np.int32)
        if not step.new:
            return failed
        parsed = _parse_rules(step)
        needed = {q for rule in parsed for q in rule.quantiles}
        quantiles = {q: self._quantile(q, alive, replay) for q in sorted(needed)}
        sql = {rule.name: rules.substitute(rule, quantiles) for rule in parsed}
        heads = sorted({c.partition(".")[0] for rule in parsed for c in rule.columns})
        missing = [h for h in heads if self.schema.get_field_index(h) < 0]
        if missing:
            raise UserError(
                f"what-if: rules of {step.name} use {', '.join(missing)}, which the ledger does not store\n"
                "  change the rule in the pipeline file and run gristmill curate: it reuses what is stored"
            )
        decider = rules.Decider(sql, pa.schema([self.schema.field(h) for h in heads]))
        for start, batch in self._batches(heads):
            rows = np.flatnonzero(alive[start : start + batch.num_rows])
            if not len(rows):
                continue
            verdict, values = decider.decide(batch.take(pa.array(rows)))
            failed[start + rows] = verdict
            for row, value in zip((start + rows).tolist(), values, strict=True):
                if value is not None and len(replay.values.setdefault(i, {})) < MAX_VALUES:
                    replay.values[i][row] = value
        decider.close()
        return failed

    def _quantile(self, q: Quantile, alive: Mask, replay: Replay) -> float | dict[str, float] | None:
        """The nearest rank over the documents that reach the step, as a run computes it; pinned ones stay pinned."""
        if q in self.pinned:
            return self.pinned[q]  # type: ignore[no-any-return]
        columns = sorted({c.partition(".")[0] for c in (q.signal, q.by) if c})
        values: list[npt.NDArray[np.float64]] = []
        groups: list[Any] = []
        for start, batch in self._batches(columns):
            chosen = pa.array(alive[start : start + batch.num_rows])
            numbers = _leaf(batch, q.signal).filter(chosen).cast(pa.float64()).to_numpy(zero_copy_only=False)
            values.append(numbers)
            groups += _leaf(batch, q.by).filter(chosen).cast(pa.string()).to_pylist() if q.by else [""] * len(numbers)
        flat = np.concatenate(values) if values else np.zeros(0)
        by_group: dict[str, list[float]] = {}
        for value, group in zip(flat.tolist(), groups, strict=True):
            if group is not None and value == value:
                by_group.setdefault(group, []).append(value)
        found = {g: sorted(v)[q.rank(len(v)) - 1] for g, v in sorted(by_group.items())}
        result = found if q.by else found.get("")
        replay.quantiles.append({"signal": q.signal, "p": q.p, "by": q.by, "value": result})
        return result

    def _note_global_step(self, i: int, replay: Replay, some_come_back: bool) -> None:
        """Notes which verdicts of a global step are uncertain."""
        name = self.steps[i].name
        gone = (replay.old >= i) & (replay.new < i)
        if some_come_back:
            replay.notes.append(f"{name} compares all documents: those that come back may have duplicates")
        if not gone.any():
            return
        kind = self.schema.field(name).type
        affected = 0
        if kind.get_field_index("of") >= 0:
            ids = {d.hex() for d in replay.base.column("doc_id").filter(pa.array(gone)).to_pylist()}
            for start, batch in self._batches([name]):
                of = pc.struct_field(batch.column(name), "of").to_pylist()
                dropped = replay.old[start : start + batch.num_rows] == i
                affected += sum(1 for o, d in zip(of, dropped, strict=True) if d and o in ids)
        if affected or kind.get_field_index("of") < 0:
            replay.notes.append(
                f"{name} compares all documents, and {int(gone.sum()):,} no longer reach it: "
                f"{affected:,} documents that it dropped as their duplicates may be kept"
            )


def _parse_rules(step: Step) -> list[rules.ParsedRule]:
    return [rules.parse(name, sql, f"what-if: {step.name}.{name}") for name, sql in step.new.items()]


def _leaf(batch: pa.RecordBatch, name: str) -> pa.Array:
    head, _, tail = name.partition(".")
    return pc.struct_field(batch.column(head), tail) if tail else batch.column(head)
