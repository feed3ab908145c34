"""A run, from a pipeline to a result tree: the order of phases, what stops them, and when there is nothing to do."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from curation import storage
from curation.config import rules
from curation.config.pipeline import Pipeline
from curation.core.errors import UserError
from curation.engine.execution import split_archives
from curation.engine.execution.driver import Driver, Progress, Silent, disk_full, is_disk_full
from curation.engine.execution.executors import Executor
from curation.engine.execution.phases import Phases, PoisonFound, planned
from curation.engine.planning import fingerprint as identity
from curation.engine.planning import plan as planning
from curation.engine.planning import prior_run
from curation.engine.planning.plan import Plan
from curation.engine.results import build_result, generations, publish
from curation.engine.runtime import lock
from curation.step import Corpus, GlobalStep
from curation.storage import Storage, Written, failpoint

DONE, UNCHANGED, QUARANTINED = "done", "unchanged", "quarantined"
FORMAT = 2  # of run.json and the files beside it: 1 had other names for keys and for the list of deleted documents


@dataclass
class RunResult:
    """How a run ended. exit_code: 0 done, 3 done or stopped with something quarantined."""

    status: str
    exit_code: int
    run_dir: str
    counts: dict[str, Any] = field(default_factory=dict)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    executed: int = 0  # tasks run now; the others were there
    computed: dict[str, int] = field(default_factory=dict)  # rows that signals were computed of now, by step


def curate(
    pipeline: Pipeline, run_dir: str, *, executor: str | Callable[[], Executor] = "ray", address: str | None = None,
    workers: int | None = None, limit: int | None = None, sample: float | None = None, allow_missing: bool = False,
    progress: Progress | None = None,
) -> RunResult:  # fmt: skip
    """Brings the run directory to the state that the pipeline and its input ask for, doing only what is missing.

    executor: "ray", "inline", or a function that makes one. allow_missing: go on past files that cannot be read.
    Raises UserError for what the user has to change before any work starts, RunFailed for a run that cannot go on.
    """
    started = time.monotonic()
    identity.refuse_encoding()
    store = Storage(run_dir)
    _same_pipeline(store, pipeline)
    pipeline = generations.applied(store, pipeline)
    plan = planning.make(pipeline, limit=limit, sample=sample)
    poison = storage.digest(store.read_bytes("poison.jsonl")) if store.exists("poison.jsonl") else ""
    finished = _read_run(store)
    if finished and finished.get("done") == _done(plan, poison) and (allow_missing or not finished["unread"]):
        unread = finished["unread"]
        code = 3 if unread else 0
        if pipeline.retention == "none" and store.exists("cache"):  # the run was killed while it removed it
            with lock.hold(store):
                store.remove("cache")
        return RunResult(UNCHANGED, code, run_dir, finished["counts"], unread, time.monotonic() - started)
    try:
        with lock.hold(store):
            if not (finished and finished["done"]):
                store.sweep()
            driver = Driver(store, _starter(executor, address, workers), progress or Silent())
            try:
                outcome = _run(driver, plan, limit, sample, allow_missing)
            finally:
                driver.close()
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(store, error) from error
        raise
    outcome.executed, outcome.computed = driver.executed, dict(sorted(driver.computed.items()))
    outcome.seconds = time.monotonic() - started
    return outcome


def _starter(
    executor: str | Callable[[], Executor], address: str | None, workers: int | None
) -> Callable[[], Executor]:
    from curation.engine.execution import executors

    if callable(executor):
        return executor
    if executor == "inline":
        return executors.Inline
    if executor == "ray":
        return lambda: executors.Ray(address, workers)
    raise UserError(f"unknown executor {executor!r}: expected ray or inline")


def _done(plan: Plan, poison: str) -> str:
    return storage.fingerprint([plan.fingerprint, poison])


def _read_run(store: Storage) -> dict[str, Any] | None:
    try:
        made = dict(store.read_json("run.json")) if store.exists("run.json") else None
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None  # a damaged disk's: what was committed is found by its manifests, and run.json written anew
    if made is not None and made.get("format") != FORMAT:
        raise UserError(
            f"{store.root} was made by another version of gristmill: its run.json has the format "
            f"{made.get('format', 1)}, this version reads {FORMAT}. Curate into a new directory (--run)."
        )
    return made


def _same_pipeline(store: Storage, pipeline: Pipeline) -> None:
    made = _read_run(store)
    if made is not None and made.get("name") != pipeline.name:
        raise UserError(
            f"{store.root} is a run of the pipeline {made.get('name')!r}, and this one is {pipeline.name!r}. Give "
            "another directory with --run, or the old name if it is the same pipeline changed."
        )


def _run(driver: Driver, plan: Plan, limit: int | None, sample: float | None, allow_missing: bool) -> RunResult:
    store = driver.storage
    driver.load_known()
    _write_header(store, plan)
    specs = planning.tasks(plan, limit=limit, cuts=split_archives.cut(driver, plan))
    while True:
        phases = Phases(driver, plan, specs, sample)
        try:
            unread = _map_phases(phases, allow_missing)
            break
        except PoisonFound:
            driver.progress.note("starting over with the poison list; what does not depend on it is not done again")
    if unread and not allow_missing:
        counts = _counts(plan, phases)
        _write_run(store, plan, phases, counts, unread, None, limit, sample)
        return RunResult(QUARANTINED, 3, store.root, counts, unread)
    made = build_result.build(phases)
    counts = _counts(plan, phases) | made.counts
    generations.keep(store)
    files = publish.publish(store, made)
    failpoint("published")
    poison = storage.digest(store.read_bytes("poison.jsonl")) if store.exists("poison.jsonl") else ""
    _write_run(store, plan, phases, counts, unread, _done(plan, poison), limit, sample, files)
    if plan.pipeline.retention == "none":
        store.remove("cache")
    status, code = (QUARANTINED, 3) if unread else (DONE, 0)
    return RunResult(status, code, store.root, counts, unread)


def _map_phases(phases: Phases, allow_missing: bool) -> list[dict[str, Any]]:
    """All phases up to the last rule. Stops before the next global step if a file could not be read."""
    plan, unread = phases.plan, []
    for segment in plan.segments:
        manifests = phases.map(segment)
        if segment.index == 0:
            unread = [u for m in manifests for u in m["unread"]]
            if unread and not allow_missing:
                return unread
            _check_sources(plan, phases)
        if segment.quantiles:
            phases.quantiles(segment.quantiles)
        if segment.then is not None:
            _run_global(phases, segment.then)
    return unread


def _run_global(phases: Phases, step: GlobalStep) -> None:
    seed = phases.plan.pipeline.seed
    earlier = prior_run.load(step, seed)
    corpus = Corpus(
        documents=sum(m["out"] for m in phases.manifests) + (earlier.documents if earlier else 0),
        text_bytes=sum(m["text_bytes"] for m in phases.manifests) + (earlier.text_bytes if earlier else 0),
        tasks=len(phases.manifests) + (len(earlier.tasks) if earlier else 0),
        seed=seed,
        prior_run_boundaries=(*earlier.prior_run_boundaries, len(earlier.tasks)) if earlier else (),
    )
    fingerprint = storage.fingerprint([phases.plan.step_fingerprints[step.name], corpus.seed])
    heads = [c.partition(".")[0] for n, sql in step.expressions().items() for c in rules.parse(n, sql, "").columns]
    reads = [*step.reads, *heads]
    made = phases.stages(step.name, fingerprint, step.stages(corpus), step.expressions(), reads, earlier)
    prior_run.save(phases.storage, step, corpus, made.tasks, made.remembered)
    phases.joins[step.name] = made


def _check_sources(plan: Plan, phases: Phases) -> None:
    records: Counter[int] = Counter()
    for spec, manifest in zip(phases.specs, phases.manifests, strict=True):
        records[spec.source] += manifest["in"]
        if manifest["unread"]:
            records[spec.source] += 1  # its own report says what is wrong with it
    for number, source in enumerate(plan.pipeline.sources):
        if not records[number]:
            raise UserError(
                f"source {source.name!r} is empty: {len(plan.files[number])} files below {source.root} match "
                f"{source.path!r}, and there is no record in them"
            )


# -- what run.json says ------------------------------------------------------------------------------------------------


def _write_header(store: Storage, plan: Plan) -> None:
    """The resolved configuration, before work starts: what `status` and a second driver go by."""
    import yaml

    text = yaml.safe_dump(plan.pipeline.resolved(), sort_keys=False, allow_unicode=True)
    store.write_bytes("pipeline.yaml", text.encode())
    made = _read_run(store)
    if made is None:
        store.write_json(
            "run.json", {"format": FORMAT, "name": plan.pipeline.name, "unread": [], "counts": {}, "done": None}
        )
    elif made.get("done") is not None:
        store.write_json("run.json", made | {"done": None})
    if store.local:
        os.makedirs(store.full("log"), exist_ok=True)


def _write_run(
    store: Storage, plan: Plan, phases: Phases, counts: dict[str, Any], unread: list[dict[str, Any]], done: str | None,
    limit: int | None, sample: float | None, files: Iterable[Written] = (),
) -> None:  # fmt: skip
    listed = [
        {"source": s.name, "root": s.root, "files": len(files), "bytes": sum(f.size for f in files)}
        for s, files in zip(plan.pipeline.sources, plan.files, strict=True)
    ]
    costs = [
        {"phase": f"{segment.index}: {segment.name}", "tasks": len(manifests), **_cost(manifests)}
        for segment, manifests in phases.history
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
            "versions": identity.environment(),
            "steps": plan.step_fingerprints,
            "inputs": listed,
            "quantiles": [
                {"signal": q.signal, "p": q.p, "by": q.by, "value": v}
                for q, v in sorted(phases.values.items(), key=str)
            ],
            "counts": counts,
            "unread": unread,
            "phases": costs,
            "files": sorted((w.as_dict() for w in files), key=lambda w: w["path"]),
            "stages": {name: joined.stage_fingerprints for name, joined in phases.joins.items()},
        },
    )


def _absolute(file: str) -> str:
    """The pipeline file as the paths in it are relative to, whatever folder a later command runs in."""
    return file if storage.is_remote(file) else os.path.abspath(file)


def _cost(manifests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    costs = [m["cost"] for m in manifests if "cost" in m]
    return {
        "seconds": round(sum(c["seconds"] for c in costs), 3),
        "cpu_seconds": round(sum(c["cpu_seconds"] for c in costs), 3),
        "peak_bytes": max((c["peak_bytes"] for c in costs), default=0),
    }


def _counts(plan: Plan, phases: Phases) -> dict[str, Any]:
    """The ledger in numbers: records in = documents kept + dropped by step and rule (+ bytes unread, in `unread`)."""
    first = phases.history[0][1]
    drops: Counter[tuple[str, str]] = Counter()
    computed: Counter[str] = Counter()
    replayed: Counter[str] = Counter()
    for _, manifests in phases.history:
        for m in manifests:
            for step, rule, n in m["drops"]:
                drops[step, rule] += n
            computed.update(m["computed"])
            replayed.update(m["replayed"])
    order = {"read": -1} | {e.step.name: i for i, e in enumerate(plan.pipeline.steps)}
    kept = phases.history[-1][1]
    records, out = sum(m["in"] for m in first), sum(m["out"] for m in kept)
    if records != out + sum(drops.values()):
        raise AssertionError(f"{records} records, {out} kept, {sum(drops.values())} dropped: the sum does not hold")
    domains: Counter[str] = Counter()
    for m in kept:
        domains.update(m["domains"])
    return {
        "read": {"records": records, "unread_bytes": sum(u["length"] for m in first for u in m["unread"])},
        "steps": [
            {"step": s, "rule": r, "dropped": n}
            for (s, r), n in sorted(drops.items(), key=lambda d: (order[d[0][0]], d[0]))
        ],
        "kept": out,
        "text_bytes": sum(m["text_bytes"] for m in kept),
        "domains": dict(sorted(domains.items())),
        "computed": dict(sorted(computed.items())),
        "replayed": dict(sorted(replayed.items())),
    }


# -- looking without running -------------------------------------------------------------------------------------------


def plan(pipeline: Pipeline, run_dir: str) -> dict[str, Any]:
    """What `curate` would do: phases, tasks, bytes, disk. Reads no more than listings and footers."""
    store = Storage(run_dir)
    made = planning.make(generations.applied(store, pipeline))
    specs = planning.tasks(made)
    finished = _read_run(store)
    poison = storage.digest(store.read_bytes("poison.jsonl")) if store.exists("poison.jsonl") else ""
    phases = []
    for segment in made.segments:
        phases.append({"phase": segment.name, "tasks": len(specs), "steps": [planned(op) for op in segment.ops]})
        if segment.quantiles:
            names = ", ".join(f"quantile({q.signal}, {q.p}{', by ' + q.by if q.by else ''})" for q in segment.quantiles)
            phases.append({"phase": names, "tasks": -(-len(specs) // 64) * 4, "steps": []})
        if segment.then is not None:
            phases.append({"phase": segment.then.name, "tasks": None, "steps": ["shuffle"]})
    phases.append({"phase": "tokenizer, shards, documents, ledger", "tasks": None, "steps": ["shuffle"]})
    return {
        "name": pipeline.name,
        "unchanged": bool(finished and finished.get("done") == _done(made, poison)),
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


def read_run(store: Storage) -> dict[str, Any]:
    """The run.json of a run directory. Raises UserError where there is none."""
    made = _read_run(store)
    if made is None:
        raise UserError(
            f"{store.root} is not a run directory: it has no run.json\n  give the directory that curate wrote"
        )
    return made


def status(run_dir: str) -> dict[str, Any]:
    """Where a run stands: finished phases with their tasks, open ones with those done so far."""
    store = Storage(run_dir)
    made = read_run(store)
    finished = []
    for name in store.names("cache/phases"):
        merged = store.read_json(f"cache/phases/{name}")
        finished.append({"phase": merged["name"], "tasks": len(merged["tasks"]), **_cost(merged["tasks"].values())})
    open_ = Counter(p.split("/")[2] for p in store.walk("cache/tasks"))
    return {
        "name": made["name"],
        "state": "done" if made["done"] else ("quarantined" if made["unread"] else "unfinished"),
        "counts": made["counts"],
        "unread": made["unread"],
        "finished": finished,
        "open": dict(open_),
    }
