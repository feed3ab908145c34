"""Shows what `curate` would do and what it has done so far, without running anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from curation.config.pipeline import Pipeline
from curation.config.where_condition import one_line
from curation.engine.execution import first_records
from curation.engine.manifests import phase_records
from curation.engine.manifests.phase_totals import total_cost
from curation.engine.planning.plan import PlannedOp, make_plan
from curation.engine.planning.split_input import split_input
from curation.engine.results import generations
from curation.engine.runtime.run_record import find_run, read_run, run_fingerprint
from curation.storage import Storage


def plan_run(pipeline: Pipeline, run_dir: str, *, allow_unreadable: bool = False) -> dict[str, Any]:
    """Says what `curate` would do: phases, tasks, bytes, disk. Reads listings, file footers, and the first records.

    Raises UserError for a source whose first records cannot be read, for the most part, unless that is allowed.
    """
    store = Storage(run_dir)
    made = make_plan(generations.apply_deletions(store, pipeline))
    specs = split_input(made)
    if not allow_unreadable:
        first_records.check_here(made)
    finished = find_run(store)
    phases = []
    for segment in made.segments:
        phases.append({"phase": segment.name, "tasks": len(specs), "steps": [*map(_shown, segment.shown_ops)]})
        if segment.quantiles:
            names = ", ".join(f"quantile({q.signal}, {q.p}{', by ' + q.by if q.by else ''})" for q in segment.quantiles)
            phases.append({"phase": names, "tasks": -(-len(specs) // 64) * 4, "steps": []})
        if segment.then is not None:
            phases.append({"phase": segment.then.name, "tasks": None, "steps": ["shuffle"]})
    phases.append({"phase": "tokenizer, shards, documents, ledger", "tasks": None, "steps": ["shuffle"]})
    return {
        "name": pipeline.name,
        "unchanged": bool(finished and finished.get("done") == run_fingerprint(store, made)),
        "sources": [
            {"source": s.name, "files": len(f), "bytes": sum(x.size for x in f)}
            for s, f in zip(pipeline.sources, made.files, strict=True)
        ],
        "input_bytes": made.input_bytes,
        "tasks": len(specs),
        "largest_task_bytes": max(
            (sum((p.stop or p.size) - (p.start or 0) for p in s.splits) for s in specs), default=0
        ),
        "phases": phases,
        "free_bytes": store.free_bytes(),
    }


def _shown(op: PlannedOp) -> str:
    return f"{op.step.name}: " + ("; ".join(one_line(r.sql) for r in op.rules) or "no rule")


def run_state(made: Mapping[str, Any]) -> str:
    """done, quarantined (files could not be read), stopped (by an error), or unfinished, by a run's run.json."""
    if made["done"]:
        return "done"
    return "quarantined" if made["unread"] else "stopped" if made.get("stopped") else "unfinished"


def run_status(run_dir: str) -> dict[str, Any]:
    """Says how far a run is: finished phases with their tasks, open ones with the number of tasks done so far."""
    store = Storage(run_dir)
    made = read_run(store)
    finished = []
    for path in phase_records.paths(store):
        phase = phase_records.read(store, path)
        finished.append({"phase": phase.name, "tasks": len(phase.tasks), **total_cost(phase.tasks.values())})
    open_ = Counter(p.split("/")[2] for p in store.walk("cache/tasks"))
    return {
        "name": made["name"],
        "state": run_state(made),
        "stopped": made.get("stopped"),
        "left_out": made.get("left_out", []),
        "counts": made["counts"],
        "unread": made["unread"],
        "finished": finished,
        "open": dict(open_),
    }
