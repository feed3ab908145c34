"""`gristmill what-if`: what other rules would keep and drop, from the signals that a run has stored.

Nothing is read again and nothing computed: the ledger holds every document's signals up to where it ended, so the rules
are asked anew from the first changed step on. A document that the new rules let further than it got before lacks the
signals from there on; it *comes back*, and whether it stays is known only to a run (`gristmill curate` scores exactly
those). What to expect of them is said by the share that stays among the documents of the same domain and language that
did go through those steps. The same holds where a step needs all documents (deduplication): its verdicts stand as they
were, and the answer says how many of them hang on a document that is now gone.

Where no document comes back, and no verdict hangs on one that goes, the answer is exactly what the run then does.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from curation.config import rules
from curation.config.rules import Quantile
from curation.core.errors import UserError
from curation.step import GlobalStep
from curation.storage import Storage
from pipelines.lookup.token_counts import Sizes, sizes

EXAMPLES = 20
SHOWN = 300  # characters of an example's text
BATCH = 8192
_READ, _KEPT = -1, 1 << 20  # where a document ended: in reading, at a step (its position), or nowhere
_BACK = 1 << 21  # ... nowhere that is known: it comes back

Mask = npt.NDArray[np.bool_]


@dataclass
class Step:
    """A step of the run with the rules to be asked: as they were, and as they would be."""

    name: str
    needs_all: bool
    old: dict[str, str]
    new: dict[str, str]


@dataclass
class Answer:
    """What changes. Figures are of documents, bytes of text and tokens; see `WhatIf.answer`."""

    changes: list[dict[str, str | None]]
    exact: bool
    notes: list[str]
    before: dict[str, float]
    after: dict[str, float]
    groups: dict[str, dict[str, dict[str, Any]]]  # domain, language, rule -> name -> figures
    examples: dict[str, list[dict[str, Any]]]
    quantiles: list[dict[str, Any]]
    tokens: str  # how they were counted
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)


def what_if(run_dir: str, sets: Sequence[str], examples: int = EXAMPLES) -> Answer:
    """What the run would keep under other rules. Changes nothing.

    sets   `rule=SQL`, `step.rule=SQL` or `steps.STEP.keep.RULE=SQL`; `null` for the SQL takes a rule away, a rule of a
           new name is asked after the step's others
    Raises UserError for a run that is not finished, a rule that there is not, SQL that does not fit.
    """
    started = time.monotonic()
    answer = _WhatIf(run_dir, sets, examples).answer()
    answer.seconds = round(time.monotonic() - started, 3)
    return answer


class _WhatIf:
    def __init__(self, run_dir: str, sets: Sequence[str], examples: int) -> None:
        self.store = Storage(run_dir)
        if not self.store.exists("result/ledger") or not self.store.exists("pipeline.yaml"):
            raise UserError(f"{run_dir} has no ledger: give the directory of a run that `gristmill curate` finished")
        self.run = self.store.read_json("run.json")
        self.examples = examples
        self.steps, self.language, self.pinned = _steps(self.store, run_dir)
        self.changes = [_change(self.steps, s) for s in sets]
        if not self.changes:
            raise UserError("what-if: no rule is changed; say --set RULE='SQL', or --set RULE=null to take one away")
        self.schema = self._ledger_schema()
        self.first = min(i for i, s in enumerate(self.steps) if s.old != s.new or i == len(self.steps) - 1)
        for i, step in enumerate(self.steps):
            available = self._available(i)
            step_rules = [rules.parse(n, sql, f"what-if: {step.name}.{n}") for n, sql in step.new.items()]
            for rule in step_rules:
                if step.old.get(rule.name) != rule.sql:
                    rules.check_columns(rule, available)
        self.found_quantiles: list[dict[str, Any]] = []
        self.values: dict[int, dict[int, str]] = {}

    def _ledger_schema(self) -> pa.Schema:
        names = self.store.names("result/ledger")
        with self.store.open(f"result/ledger/{names[0]}") as f:
            return pq.read_schema(f)

    def _available(self, i: int) -> dict[str, pa.DataType]:
        """What a rule of step i may name: base columns that the ledger has, and the signals so far."""
        later = {s.name for s in self.steps[i + 1 :]}
        beside = {*later, "step", "rule", "value", "evidence"}
        fields = [f for f in self.schema if f.name not in beside]
        return rules.flatten(pa.schema(fields)) | {"text": pa.large_string(), "meta": pa.string()}

    # -- reading the ledger -----------------------------------------------------------------------------------------

    def _batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(number of the first row, batch) over all files, in their order."""
        at = 0
        for name in self.store.names("result/ledger"):
            with self.store.open(f"result/ledger/{name}") as f:
                for batch in pq.ParquetFile(f).iter_batches(BATCH, columns=list(columns), use_threads=False):
                    yield at, batch
                    at += batch.num_rows

    def _columns(self, names: Sequence[str]) -> pa.Table:
        batches = [b for _, b in self._batches(names)]
        return pa.Table.from_batches(batches, pa.schema([self.schema.field(n) for n in names]))

    # -- deciding ---------------------------------------------------------------------------------------------------

    def answer(self) -> Answer:
        """Asks the rules and adds up."""
        base = self._columns(["doc_id", "url", "domain", "read", "step", "rule", "value", "source"])
        position = {s.name: i for i, s in enumerate(self.steps)} | {"read": _READ}
        steps = base.column("step").to_pylist()
        old = np.array([_KEPT if s is None else position[s] for s in steps], np.int64)
        old_rule = np.array([r or "" for r in base.column("rule").to_pylist()], dtype=object)
        new, new_rule = old.copy(), old_rule.copy()
        alive = old >= self.first
        new[alive], new_rule[alive] = _KEPT, ""
        notes: list[str] = []
        for i in range(self.first, len(self.steps)):
            back = alive & (old < i)  # no signals from here on
            new[back], new_rule[back] = _BACK, ""
            alive &= ~back
            if self.steps[i].needs_all:
                self._note_global(i, old, new, base, notes, bool(back.any()))
            failed = self._decide(i, alive)
            out = failed >= 0
            names = np.array([*self.steps[i].new, ""], dtype=object)
            new[out], new_rule[out] = i, names[failed[out]]
            alive &= ~out
        return self._add_up(base, old, old_rule, new, new_rule, notes)

    def _decide(self, i: int, alive: Mask) -> npt.NDArray[np.int32]:
        """For each row of the ledger the index of the rule of step i that drops it, -1 for none or not asked."""
        step = self.steps[i]
        failed = np.full(len(alive), -1, np.int32)
        if not step.new:
            return failed
        parsed = [rules.parse(n, sql, f"what-if: {step.name}.{n}") for n, sql in step.new.items()]
        wanted = {q for rule in parsed for q in rule.quantiles}
        found = {q: self._quantile(q, alive) for q in sorted(wanted)}
        sql = {rule.name: rules.substitute(rule, found) for rule in parsed}
        heads = sorted({c.partition(".")[0] for rule in parsed for c in rule.columns})
        missing = [h for h in heads if self.schema.get_field_index(h) < 0]
        if missing:
            raise UserError(
                f"what-if: rules of {step.name} look at {', '.join(missing)}, which the ledger does not hold; "
                "change the rule in the pipeline file and run `gristmill curate` again: it decides from what it has"
            )
        decider = rules.Decider(sql, pa.schema([self.schema.field(h) for h in heads]))
        for at, batch in self._batches(heads):
            asked = np.flatnonzero(alive[at : at + batch.num_rows])
            if not len(asked):
                continue
            verdict, values = decider.decide(batch.take(pa.array(asked)))
            failed[at + asked] = verdict
            for row, value in zip((at + asked).tolist(), values, strict=True):
                if value is not None and len(self.values.setdefault(i, {})) < 100_000:
                    self.values[i][row] = value
        decider.close()
        return failed

    def _quantile(self, q: Quantile, alive: Mask) -> float | dict[str, float] | None:
        """The nearest rank over the documents that reach the step, as a run computes it; pinned ones stay pinned."""
        if self.pinned:
            for known in self.run.get("quantiles", []):
                if (known["signal"], known["p"], known["by"]) == (q.signal, q.p, q.by):
                    return known["value"]  # type: ignore[no-any-return]
        columns = sorted({c.partition(".")[0] for c in (q.signal, q.by) if c})
        values: list[npt.NDArray[np.float64]] = []
        groups: list[Any] = []
        for at, batch in self._batches(columns):
            chosen = pa.array(alive[at : at + batch.num_rows])
            numbers = _leaf(batch, q.signal).filter(chosen).cast(pa.float64()).to_numpy(zero_copy_only=False)
            values.append(numbers)
            groups += _leaf(batch, q.by).filter(chosen).cast(pa.string()).to_pylist() if q.by else [""] * len(numbers)
        flat = np.concatenate(values) if values else np.zeros(0)
        by: dict[str, list[float]] = {}
        for value, group in zip(flat.tolist(), groups, strict=True):
            if group is not None and value == value:
                by.setdefault(group, []).append(value)
        found = {g: _nearest_rank(np.sort(np.array(v)), q.p) for g, v in sorted(by.items())}
        result = found if q.by else found.get("")
        self.found_quantiles.append({"signal": q.signal, "p": q.p, "by": q.by, "value": result})
        return result

    def _note_global(
        self, i: int, old: npt.NDArray[np.int64], new: npt.NDArray[np.int64], base: pa.Table, notes: list[str],
        more: bool,
    ) -> None:  # fmt: skip
        """Says what of a step that needs all documents no longer holds for certain."""
        name = self.steps[i].name
        gone = (old >= i) & (new < i)
        if more:
            notes.append(f"{name} compares all documents: those that come back may be duplicates, or have some")
        if not gone.any():
            return
        kind = self.schema.field(name).type
        hang = 0
        if kind.get_field_index("of") >= 0:
            ids = {d.hex() for d in base.column("doc_id").filter(pa.array(gone)).to_pylist()}
            for at, batch in self._batches([name]):
                of = pc.struct_field(batch.column(name), "of").to_pylist()
                dropped = old[at : at + batch.num_rows] == i
                hang += sum(1 for o, d in zip(of, dropped, strict=True) if d and o in ids)
        if hang or kind.get_field_index("of") < 0:
            notes.append(
                f"{name} compares all documents, and {int(gone.sum()):,} no longer reach it: "
                f"{hang:,} documents it dropped were duplicates of those, and may now stay"
            )

    # -- adding up --------------------------------------------------------------------------------------------------

    def _add_up(
        self, base: pa.Table, old: npt.NDArray[np.int64], old_rule: Any, new: npt.NDArray[np.int64], new_rule: Any,
        notes: list[str],
    ) -> Answer:  # fmt: skip
        languages = self._languages(len(old))
        domains = [d or "" for d in base.column("domain").to_pylist()]
        size = sizes(self.store, self.run, base, old == _KEPT)
        back = new == _BACK
        expected = np.zeros(len(old))
        if back.any():
            expected[back] = self._expected(np.flatnonzero(back), old, domains, languages)
            notes.append(
                f"{int(back.sum()):,} documents come back and were never scored by the steps that follow; about "
                f"{expected.sum():,.0f} of them should stay, going by those of their domain and language that were"
            )
        before = old == _KEPT
        after = new == _KEPT
        groups: dict[str, dict[str, dict[str, Any]]] = {"domain": {}, "language": {}, "rule": {}}
        for kind, names in (("domain", domains), ("language", languages)):
            for name, rows in sorted(_rows_by(names).items()):
                figures = _figures(size, rows, before, after, back, expected)
                if figures["lost"]["documents"] or figures["gained"]["documents"] or figures["back"]["documents"]:
                    groups[kind][name or "-"] = figures
        for was, now, rows in self._by_rule(old, old_rule, new, new_rule):
            name = f"{was} -> {now}"
            groups["rule"][name] = {k: float(size.of(rows)[k]) for k in ("documents", "bytes", "tokens")}
        lost, gained = np.flatnonzero(before & ~after), np.flatnonzero(~before & (after | back))
        return Answer(
            changes=self.changes,
            exact=not notes,
            notes=notes,
            before=size.of(np.flatnonzero(before)),
            after=size.of(np.flatnonzero(after)) | {"expected_back": round(float(expected.sum()), 1)},
            groups=groups,
            examples={
                "lost": self._examples(base, lost, new, new_rule, languages),
                "gained": self._examples(base, gained, old, old_rule, languages),
            },
            quantiles=self.found_quantiles,
            tokens=size.how,
        )

    def _languages(self, rows: int) -> list[str]:
        if self.language is None:
            return [""] * rows
        column = self._columns([self.language]).column(0)
        return [c or "" for chunk in column.chunks for c in pc.struct_field(chunk, "code").to_pylist()]

    def _expected(
        self, rows: npt.NDArray[np.int64], old: npt.NDArray[np.int64], domains: list[str], languages: list[str]
    ) -> npt.NDArray[np.float64]:
        """For each document that comes back: of those like it that got past where it ended, the share that stayed."""
        out = np.zeros(len(rows))
        past: dict[tuple[int, str, str], tuple[int, int]] = {}
        ended = sorted({int(e) for e in old[rows]})
        kinds = list(zip(domains, languages, strict=True))
        for end in ended:
            passed: Counter[tuple[str, str]] = Counter()
            stayed: Counter[tuple[str, str]] = Counter()
            for i in np.flatnonzero(old > end).tolist():
                passed[kinds[i]] += 1
                stayed[kinds[i]] += int(old[i] == _KEPT)
            for kind in set(passed):
                past[end, *kind] = (stayed[kind], passed[kind])
            past[end, "", "*"] = (stayed.total(), passed.total())
        for k, row in enumerate(rows.tolist()):
            stayed_, passed_ = past.get((int(old[row]), *kinds[row]), past[int(old[row]), "", "*"])
            out[k] = stayed_ / passed_ if passed_ else 0.0
        return out

    def _by_rule(
        self, old: npt.NDArray[np.int64], old_rule: Any, new: npt.NDArray[np.int64], new_rule: Any
    ) -> Iterator[tuple[str, str, npt.NDArray[np.int64]]]:
        """Documents whose fate changes, by what dropped them before and what drops them now."""
        moved = np.flatnonzero((old != new) | (old_rule != new_rule))
        names = [(self._fate(int(old[i]), old_rule[i]), self._fate(int(new[i]), new_rule[i])) for i in moved.tolist()]
        for (was, now), at in sorted(_rows_by(names).items()):
            yield was, now, moved[at]

    def _fate(self, end: int, rule: str) -> str:
        if end == _KEPT:
            return "kept"
        if end == _BACK:
            return "comes back"
        return f"read.{rule}" if end == _READ else f"{self.steps[end].name}.{rule}"

    def _examples(
        self, base: pa.Table, rows: npt.NDArray[np.int64], end: npt.NDArray[np.int64], rule: Any, languages: list[str]
    ) -> list[dict[str, Any]]:
        """The first of them by id, which is a hash: a fair sample."""
        from pipelines.lookup.document_samples import Sample, with_texts

        out, samples = [], []
        for i in rows[: self.examples].tolist():
            row = base.slice(i, 1).to_pylist()[0]
            value = self.values.get(int(end[i]), {}).get(i) or row["value"]
            samples.append(Sample(row["doc_id"].hex(), row["url"], row["domain"], None, source=row["source"]))
            out.append(
                {
                    "doc_id": row["doc_id"].hex(),
                    "url": row["url"],
                    "domain": row["domain"],
                    "language": languages[i] or None,
                    "rule": self._fate(int(end[i]), rule[i]),
                    "value": json.loads(value) if value else None,
                }
            )
        with_texts(self.store, self.run, {("", ""): samples}, SHOWN)
        for example, sample in zip(out, samples, strict=True):
            example["text"] = None if sample.text is None else " ".join(sample.text.split())[:SHOWN]
        return out


def _steps(store: Storage, run_dir: str) -> tuple[list[Step], str | None, bool]:
    """The steps as the run's resolved pipeline has them, the name of the one that knows languages, and whether
    quantiles were pinned to those of another run."""
    from curation.config.catalogue import STEPS
    from curation.config.step_options import find_class
    from curation.core.yaml_lines import Located

    pipeline = yaml.safe_load(store.read_bytes("pipeline.yaml"))
    written = pipeline["steps"]
    if not written:
        raise UserError(f"what-if: {run_dir} has no steps, so no rules")
    located = Located("pipeline.yaml", {})
    steps, language = [], None
    for entry in written:
        try:
            needs_all = issubclass(find_class(entry["step"], STEPS, located, (), "step"), GlobalStep)
        except UserError:  # a step of the user's own that is not here
            needs_all = False
        steps.append(Step(entry["name"], needs_all, dict(entry["rules"]), dict(entry["rules"])))
        if entry["step"] == "language":
            language = language or entry["name"]
    return steps, language, pipeline.get("quantiles") is not None


LIMITED = re.compile(r"(NOT coalesce\(\(.*?\), FALSE\) OR )\((.*)\)", re.DOTALL)


def _change(steps: Sequence[Step], text: str) -> dict[str, str | None]:
    """Lays one `--set` over the steps; what was changed. `where:` of a step holds for its new rules too."""
    key, equals, sql = text.partition("=")
    key, sql = key.strip(), sql.strip()
    if not equals or not key or not sql:
        raise UserError(f"what-if: --set {text}: expected RULE='SQL', or RULE=null to take the rule away")
    parts = key.split(".")
    if parts[0] == "steps" and len(parts) == 4 and parts[2] == "keep":
        parts = [parts[1], parts[3]]
    known = [f"{s.name}.{r}" for s in steps for r in s.old]
    if len(parts) == 1:
        having = [s for s in steps if key in s.old]
        if len(having) != 1:
            what = "several steps have" if having else "no step has"
            raise UserError(f"what-if: {what} a rule {key!r}; say STEP.{key}\n  rules of the run: {', '.join(known)}")
        step, rule = having[0], key
    else:
        step_named = next((s for s in steps if s.name == parts[0]), None)
        if step_named is None or len(parts) != 2:
            raise UserError(
                f"what-if: --set {key}: expected RULE, STEP.RULE or steps.STEP.keep.RULE\n"
                f"  steps of the run: {', '.join(s.name for s in steps)}"
            )
        step, rule = step_named, parts[1]
    before = step.new.get(rule)
    if sql == "null":
        if before is None:
            raise UserError(f"what-if: {step.name} has no rule {rule!r} to take away\n  it has {', '.join(step.old)}")
        del step.new[rule]
        return {"step": step.name, "rule": rule, "before": before, "after": None}
    limits = {m[1] for s in step.old.values() if (m := LIMITED.fullmatch(s))}
    step.new[rule] = f"{limits.pop()}({sql})" if len(limits) == 1 else sql
    return {"step": step.name, "rule": rule, "before": before, "after": step.new[rule]}


def _leaf(batch: pa.RecordBatch, name: str) -> pa.Array:
    head, _, tail = name.partition(".")
    return pc.struct_field(batch.column(head), tail) if tail else batch.column(head)


def _nearest_rank(ordered: npt.NDArray[np.float64], p: float) -> float:
    return float(ordered[max(1, int(np.ceil(p * len(ordered)))) - 1])


def _rows_by(names: Sequence[Any]) -> dict[Any, npt.NDArray[np.int64]]:
    rows: dict[Any, list[int]] = {}
    for i, name in enumerate(names):
        rows.setdefault(name, []).append(i)
    return {name: np.array(at, np.int64) for name, at in rows.items()}


def _figures(
    size: Sizes, rows: npt.NDArray[np.int64], before: Mask, after: Mask, back: Mask, expected: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Documents, bytes and tokens of a group: kept before and after, lost, gained, and coming back."""
    parts: Mapping[str, Mask] = {
        "before": before,
        "after": after,
        "lost": before & ~after,
        "gained": ~before & after,
        "back": back,
    }
    out: dict[str, Any] = {name: size.of(rows[mask[rows]]) for name, mask in parts.items()}
    return out | {"expected_back": round(float(expected[rows].sum()), 1)}
