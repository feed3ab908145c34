"""Keeps what a run had decided when it stops: the ledger so far, the counts, and why it stopped.

Without it, a run whose rules dropped everything would end with nothing that says which rule dropped what and why.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.checked_parquet import CheckedFile
from curation.core.errors import UserError
from curation.engine.execution.disk_space import is_disk_full
from curation.engine.execution.phases import Phases
from curation.engine.execution.progress import Silent
from curation.engine.planning.plan import Plan
from curation.engine.results import build_result, publish
from curation.engine.runtime.run_record import count_documents, find_run, write_run
from curation.storage import Storage

SAMPLE_ROWS = 1 << 17  # of the ledger, for reasons: it is sorted by id, a hash, so the first rows are a random sample
MAX_RULES, MAX_REASON_CHARS = 20, 100  # shown in a message


class Explained(UserError):
    """An error about what the rules dropped: `stop` adds the table of rules to its message, before the advice."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(f"{message}\n  {advice}")
        self.message, self.advice = message, advice

    def add_table(self, table: str) -> None:
        self.args = (f"{self.message}\n{table}\n  {self.advice}",)


def undecided_steps(plan: Plan, phases: Phases) -> list[str]:
    """The steps whose rules no finished map phase has applied."""
    done = {op.step.name for segment, _ in phases.history for op in segment.ops if op.rules or not _has_rules(plan, op)}
    return [entry.step.name for entry in plan.pipeline.steps if entry.step.name not in done]


def _has_rules(plan: Plan, op: Any) -> bool:
    return bool(plan.pipeline.steps[op.position].rules)


def stop(
    phases: Phases, error: Exception | None, unread: list[dict[str, Any]], limit: int | None, sample: float | None
) -> None:
    """Keeps what the run had decided when it ended, and why it did: `error`, or what could not be read.

    Raises nothing of its own. Where the disk is full nothing is written.
    """
    plan, store = phases.plan, phases.storage
    if error is not None and (is_disk_full(error) or is_disk_full(error.__cause__ or error)):
        return
    if phases.history:
        driver = phases.driver
        shown, driver.progress = driver.progress, Silent()  # the run has ended for whoever watches it
        counts = count_documents(plan, phases)
        try:
            if counts["read"]["records"]:
                publish.publish(store, build_result.build_ledger(phases), publish.DECIDED)
            undecided = undecided_steps(plan, phases)
            write_run(store, plan, phases, counts, unread, None, limit, sample, undecided=undecided)
        except Exception as second:  # the first error is the one to report, whatever this is
            shown.note(f"what the run had decided could not be kept: {type(second).__name__}: {str(second)[:200]}")
        driver.progress = shown
        if isinstance(error, Explained):
            error.add_table(rules_table(store, counts))
    if error is not None:
        mark_stopped(store, str(error) or type(error).__name__)


def mark_stopped(store: Storage, reason: str) -> None:
    """Writes to run.json why the run stopped."""
    try:
        store.write_json("run.json", (find_run(store) or {}) | {"stopped": reason})
    except OSError:  # the error that ended the run is reported; this is about showing it once more
        return


# -- why documents are gone -------------------------------------------------------------------------------------------


def rules_table(store: Storage, counts: dict[str, Any]) -> str:
    """What each rule dropped, and the commonest reasons, as lines of text."""
    rows = [(r["step"], r["rule"], r["dropped"]) for r in counts["steps"]]
    reasons = _reasons(store)
    left = counts["read"]["records"]
    lines = [("step", "rule", "dropped", "left", "commonest reasons"), ("read", "", "", f"{left:,}", "")]
    for step, rule, dropped in rows[:MAX_RULES]:
        left -= dropped
        lines.append((step, rule, f"{dropped:,}", f"{left:,}", reasons.get((step, rule), "")))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    text = [
        f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}  {e}".rstrip()
        for a, b, c, d, e in lines
    ]
    if len(rows) > MAX_RULES:
        text.append(f"  and {len(rows) - MAX_RULES} more rules")
    return "\n".join(text)


def _reasons(store: Storage) -> dict[tuple[str, str], str]:
    """For each (step, rule): the values that decided, in words, from the first rows of the ledger."""
    tree = publish.DECIDED
    values: dict[tuple[str, str], Counter[str]] = {}
    rows = 0
    for name in store.names(f"{tree}/ledger"):
        with CheckedFile(store, f"{tree}/ledger/{name}") as f:
            for batch in pq.ParquetFile(f).iter_batches(8192, columns=["step", "rule", "value"], use_threads=False):
                dropped = batch.filter(pc.is_valid(batch.column("step")))
                columns = (dropped.column(c).to_pylist() for c in ("step", "rule", "value"))
                for step, rule, value in zip(*columns, strict=True):
                    values.setdefault((step, rule), Counter())[value or ""] += 1
                rows += batch.num_rows
                if rows >= SAMPLE_ROWS:
                    break
        if rows >= SAMPLE_ROWS:
            break
    return {key: _in_words(found)[:MAX_REASON_CHARS] for key, found in values.items()}


def _in_words(values: Counter[str]) -> str:
    """Reasons of reading as they are, the commonest two; of signals the range of numbers and the commonest others."""
    parsed = [(json.loads(v) if v else None, n) for v, n in values.items()]
    if not all(isinstance(v, dict) for v, _ in parsed):
        return "; ".join(f"{v} ({n:,})" if v else f"({n:,})" for v, n in sorted(parsed, key=lambda p: -p[1])[:2])
    parts = []
    signals: list[tuple[dict[str, Any], int]] = [(v, n) for v, n in parsed if isinstance(v, dict)]
    for name in dict.fromkeys(k for v, _ in signals for k in v):
        seen = [(v.get(name), n) for v, n in signals]
        numbers = sorted(x for x, _ in seen if isinstance(x, (int, float)) and not isinstance(x, bool))
        if numbers and len(numbers) == len(seen):
            low, high = f"{numbers[0]:.4g}", f"{numbers[-1]:.4g}"
            parts.append(f"{name} = {low}" if low == high else f"{name} = {low} to {high}")
        else:
            count: Counter[str] = Counter()
            for x, n in seen:
                count[json.dumps(x, ensure_ascii=False)] += n
            parts.append(f"{name} = " + ", ".join(f"{x} ({n:,})" for x, n in count.most_common(2)))
    return "; ".join(parts)
