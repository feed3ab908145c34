"""Counts what the steps of a run could not judge: documents, parts of documents, and parts of their inputs.

A step names the signals and counters that show it (`Step.not_judged`). Map tasks count signals of all documents that
reach the step, computed now or earlier, so the counts are those of the result.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from curation.engine.execution.phases import Phases
from curation.engine.planning.plan import Plan


def count_not_judged(plan: Plan, phases: Phases) -> list[dict[str, Any]]:
    """{step, what, count, of} in the order of the pipeline, without counts of 0; `of` is null where it is unknown."""
    counts: Counter[tuple[str, str]] = Counter()
    reached: Counter[tuple[str, str]] = Counter()
    for _, totals in phases.history:
        counts.update(totals.not_judged)
        reached.update(totals.judged_of)
    for name, joined in phases.joins.items():
        for stage in joined.stage_fingerprints:
            counts.update({(name, counter): count for counter, count in stage["counters"].items()})
    rows: list[dict[str, Any]] = []
    for entry in plan.pipeline.steps:
        step = entry.step
        for key, what in step.not_judged().items():
            parts = key in step.signals.names and pa.types.is_int64(step.signals.field(key).type)
            of = None if parts else reached.get((step.name, key))
            rows.append({"step": step.name, "what": what, "count": counts[step.name, key], "of": of})
        for what, (count, total) in step.unusable_inputs().items():
            rows.append({"step": step.name, "what": what, "count": count, "of": total})
    return [row for row in rows if row["count"]]
