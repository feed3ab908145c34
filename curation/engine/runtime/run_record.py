"""Reads and writes run.json, a run's record: versions, seed, fingerprints, inputs, quantiles, counts and costs."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from curation import storage
from curation.config.stored_pipeline import write_stored_pipeline
from curation.core.errors import DamagedFile, UserError
from curation.core.secrets import mask_secrets
from curation.engine.execution.phases import Phases
from curation.engine.execution.poison_list import FILE as POISON
from curation.engine.planning.plan import Plan
from curation.engine.results.publish import DECIDED, remove_tree
from curation.engine.runtime.not_judged import count_not_judged
from curation.storage import Storage, Written

FORMAT = 3  # of run.json and the files beside it: those of 2 had no checksums, 1 had other names for keys


def read_run(store: Storage) -> dict[str, Any]:
    """The run.json of a run directory. Raises UserError where there is none."""
    made = load_run(store)
    if made is None:
        raise UserError(
            f"{store.root} is not a run directory: it has no run.json\n  give the directory that curate wrote"
        )
    return made


def find_run(store: Storage) -> dict[str, Any] | None:
    """The run.json of a directory, None where there is none yet or a damaged one: what was committed is found by its
    manifests, and run.json is written anew. Raises UserError for that of another version."""
    try:
        return load_run(store)
    except DamagedFile:
        return None


def load_run(store: Storage) -> dict[str, Any] | None:
    """As `find_run`, but raises DamagedFile for a damaged one."""
    if not store.exists("run.json"):
        return None
    try:
        made = store.read_json("run.json")
    except DamagedFile:
        made = {"format": FORMAT}
        with contextlib.suppress(ValueError):  # before format 3 the file had no checksum
            made = dict(store.read_plain_json("run.json"))
        if "checksum" in made or made.get("format") == FORMAT:
            raise
    if made.get("format") != FORMAT:
        raise UserError(
            f"{store.root} was made by another version of gristmill: its run.json has the format "
            f"{made.get('format', 1)}, this version reads {FORMAT}. Curate into a new directory (--run)."
        )
    return made


def run_fingerprint(store: Storage, plan: Plan) -> str:
    """Of all that decides the result: the plan and the poison list. Equal to `done` in run.json: nothing to do."""
    poison = storage.digest(store.read_bytes(POISON)) if store.exists(POISON) else ""
    return storage.fingerprint([plan.fingerprint, poison])


def write_header(store: Storage, plan: Plan) -> None:
    """Writes the resolved configuration before work starts; run.json says from now on that the run is not done."""
    made = find_run(store)
    if made is None:
        store.write_json(
            "run.json", {"format": FORMAT, "name": plan.pipeline.name, "unread": [], "counts": {}, "done": None}
        )
    elif made.get("done") is not None or "stopped" in made:
        kept = {k: v for k, v in made.items() if k not in ("stopped", "undecided")}
        store.write_json("run.json", kept | {"done": None})
    # after run.json, by which the directory is a run's
    write_stored_pipeline(store, plan.pipeline.stored(), plan.pipeline.tree.variables)
    remove_tree(store, DECIDED)
    if store.local:
        os.makedirs(store.full("log"), exist_ok=True)


def write_run(
    store: Storage, plan: Plan, phases: Phases, counts: dict[str, Any], unread: list[dict[str, Any]], done: str | None,
    limit: int | None, sample: float | None, files: Iterable[Written] = (), undecided: Sequence[str] = (),
) -> None:  # fmt: skip
    """Writes run.json at the end of a run, or where it stopped (`done` is None).

    done       see `run_fingerprint`
    files      of the result
    undecided  steps that a run that stopped had not come to
    """
    listed = [
        {"source": s.name, "files": len(files), "bytes": sum(f.size for f in files)}
        # a root with ${VAR} in it is found through pipeline.yaml, which has no value of the variable
        | ({} if ("sources", i, "root") in plan.pipeline.tree.references else {"root": s.root})
        for i, (s, files) in enumerate(zip(plan.pipeline.sources, plan.files, strict=True))
    ]
    costs = [
        {"phase": f"{segment.index}: {segment.name}", "tasks": totals.tasks, **totals.cost.as_dict()}
        for segment, totals in phases.history
    ]
    store.write_json(
        "run.json",
        {
            "format": FORMAT,
            "name": plan.pipeline.name,
            "file": _absolute(plan.pipeline.file),
            "limit": limit,
            "sample": sample,
            "seed": plan.pipeline.seed,
            "done": done,
            "fingerprint": plan.fingerprint,
            "versions": plan.environment,
            "steps": plan.step_fingerprints,
            "inputs": listed,
            "quantiles": [
                {"signal": q.signal, "p": q.p, "by": q.by, "value": v}
                for q, v in sorted(phases.values.items(), key=str)
            ],
            "counts": counts,
            "unread": [u | ({"reason": mask_secrets(str(u["reason"]))} if "reason" in u else {}) for u in unread],
            "left_out": phases.poison.left_out(),
            "undecided": list(undecided),
            "phases": costs,
            "files": sorted((w.as_dict() for w in files), key=lambda w: w["path"]),
            "stages": {name: joined.stage_fingerprints for name, joined in phases.joins.items()},
        },
    )


def _absolute(file: str) -> str:
    """The pipeline file's absolute path, which relative paths in it refer to, for commands run in another folder."""
    return file if storage.is_remote(file) else os.path.abspath(file)


def count_documents(plan: Plan, phases: Phases) -> dict[str, Any]:
    """Counts documents: records in = kept + dropped by step and rule (bytes that could not be read are in `unread`)."""
    first, last = phases.history[0][1], phases.latest
    drops: Counter[tuple[str, str]] = Counter()
    computed: Counter[str] = Counter()
    replayed: Counter[str] = Counter()
    for _, totals in phases.history:
        drops.update(totals.drops)
        computed.update(totals.computed)
        replayed.update(totals.replayed)
    order = {"read": -1} | {e.step.name: i for i, e in enumerate(plan.pipeline.steps)}
    records, out = first.rows_in, last.rows_out
    if records != out + sum(drops.values()):
        raise AssertionError(f"{records} records, {out} kept, {sum(drops.values())} dropped: the sum does not hold")
    return {
        "read": {"records": records, "unread_bytes": sum(u["length"] for u in first.unread)},
        "steps": [
            {"step": s, "rule": r, "dropped": n}
            for (s, r), n in sorted(drops.items(), key=lambda d: (order[d[0][0]], d[0]))
        ],
        "kept": out,
        "text_bytes": last.text_bytes,
        "domains": dict(sorted(last.domains.items())),
        "computed": dict(sorted(computed.items())),
        "replayed": dict(sorted(replayed.items())),
        "not_judged": count_not_judged(plan, phases),
    }
