"""Runs a pipeline: brings a run directory to the state that its pipeline file and input ask for.

The order of phases, what stops them, and when there is nothing to do. What a phase is and how tasks are run is in
execution/; what the result consists of is in results/.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.config import rules
from curation.config.pipeline import Pipeline
from curation.config.resources import Resources
from curation.core import cpu_level, published_tree
from curation.core.errors import DamagedFile, UserError
from curation.engine.execution import damaged_files, executors, first_records, split_archives
from curation.engine.execution.disk_space import disk_full, is_disk_full
from curation.engine.execution.driver import CacheDamaged, Driver
from curation.engine.execution.executors import Executor
from curation.engine.execution.phases import Phases, PoisonFound
from curation.engine.execution.progress import Progress, Silent
from curation.engine.planning import fingerprints
from curation.engine.planning.plan import Plan, make_plan
from curation.engine.planning.prior_run import load_prior_run, save_prior_run
from curation.engine.planning.split_input import split_input
from curation.engine.results import build_result, generations, publish
from curation.engine.runtime import lock, prune_cache, stopped_run
from curation.engine.runtime.run_record import count_documents, find_run, run_fingerprint, write_header, write_run
from curation.engine.tasks.check_files import CheckPhase, run_check
from curation.step import Corpus, GlobalStep
from curation.storage import Storage, failpoint
from curation.storage import fingerprint as fingerprint_of

DONE, UNCHANGED, QUARANTINED = "done", "unchanged", "quarantined"


# Written over or removed by a run; what else lies in its directory is left alone
NAMES = (
    "pipeline.yaml", "cache", "generations", "generation.json", "pinned", "deleted_documents.jsonl",
    *(f"{tree}{suffix}" for tree in (publish.RESULT, publish.DECIDED) for suffix in ("", ".new", ".old")),
)  # fmt: skip
# On an object store also these (core/published_tree.py)
REMOTE_NAMES = (published_tree.FOLDER, *map(published_tree.pointer, published_tree.TREES))
# poison.jsonl is not among them: it is an input of a run, so that a replay may be given the list of another


@dataclass
class RunResult:
    """How a run ended. exit_code: 0 done, 3 done or stopped with files quarantined (they could not be read), or done
    with records left out because code failed on them."""

    status: str
    exit_code: int
    run_dir: str
    counts: dict[str, Any] = field(default_factory=dict)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    # because code failed: source, file, step, at (file and line of the code), reason of the first, records
    left_out: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    executed: int = 0  # tasks run now; all others were finished before
    computed: dict[str, int] = field(default_factory=dict)  # rows whose signals were computed now, by step


def curate(
    pipeline: Pipeline, run_dir: str, *, executor: str | Callable[[], Executor] = "ray", address: str | None = None,
    workers: int | None = None, limit: int | None = None, sample: float | None = None, allow_missing: bool = False,
    allow_unreadable: bool = False, check: bool = False, progress: Progress | None = None,
) -> RunResult:  # fmt: skip
    """Runs the pipeline into the run directory, doing only what is missing there.

    executor        "ray", "inline", or a function that makes an executor
    allow_missing   continue without the files that cannot be read
    allow_unreadable  continue though more than half of a source's records cannot be read
    check           compare all files of the run with their checksums first, and compute damaged ones again

    Raises UserError for what the user has to change before any work starts, RunFailed for a run that cannot continue.
    """
    started = time.monotonic()
    fingerprints.check_utf8()
    level = pipeline.engine.cpu_level
    if level is not None:
        cpu_level.require(level, fingerprints.cpu_features())
    store = Storage(run_dir)
    _check_same_pipeline(store, pipeline)
    pipeline = generations.apply_deletions(store, pipeline)
    plan = make_plan(pipeline, limit=limit, sample=sample)
    finished = find_run(store)
    unchanged = finished is not None and finished.get("done") == run_fingerprint(store, plan)
    if check and finished is not None and (store.exists("cache") or not _is_whole(store, finished)):
        unchanged = False
    if finished is not None and unchanged and (allow_missing or not finished["unread"]):
        unread = finished["unread"]
        if pipeline.retention == "none" and store.exists("cache"):  # the run was killed while it removed the cache
            with lock.hold(store):
                store.remove("cache")
        left_out = finished.get("left_out", [])
        code = 3 if unread or left_out else 0
        return RunResult(UNCHANGED, code, run_dir, finished["counts"], unread, left_out, time.monotonic() - started)
    try:
        with lock.hold(store):
            if not (finished and finished["done"]):
                store.sweep()
            needs = [e.resources for e in pipeline.steps]
            start = _executor_factory(executor, address, workers, needs, cpu_level.variables(level) if level else {})
            driver = Driver(store, start, progress or Silent(), plan.environment)
            try:
                outcome = _run(driver, plan, limit, sample, allow_missing, allow_unreadable, check)
            finally:
                driver.close()
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(store, error) from error
        raise
    outcome.executed, outcome.computed = driver.executed, dict(sorted(driver.computed.items()))
    outcome.seconds = time.monotonic() - started
    return outcome


def _executor_factory(
    executor: str | Callable[[], Executor],
    address: str | None,
    workers: int | None,
    needs: Sequence[Resources],
    variables: Mapping[str, str],
) -> Callable[[], Executor]:
    if callable(executor):
        return executor
    if executor == "inline":
        return executors.Inline
    if executor == "ray":
        return lambda: executors.Ray(address, workers, needs, variables)
    raise UserError(f"unknown executor {executor!r}: expected ray or inline")


def _check_same_pipeline(store: Storage, pipeline: Pipeline) -> None:
    made = find_run(store)
    if made is not None and made.get("name") != pipeline.name:
        raise UserError(
            f"{store.root} is a run of the pipeline {made.get('name')!r}, and this one is {pipeline.name!r}. Give "
            "another directory with --run, or the old name if it is the same pipeline changed."
        )
    names = NAMES if store.local else (*NAMES, *REMOTE_NAMES)
    found = [] if store.exists("run.json") else [name for name in names if store.exists(name)]
    if found:  # a run writes run.json first
        raise UserError(
            f"{store.root} holds {', '.join(found)}, and no run wrote {'it' if len(found) == 1 else 'them'}: there is "
            "no run.json. Curating there would overwrite or remove files that are not its own; give another directory "
            "with --run."
        )


def _is_whole(store: Storage, finished: dict[str, Any]) -> bool:
    """Whether the result's files are those that run.json lists: all there is to check where no cache is retained."""
    return not run_check(CheckPhase(store.root), finished["files"])["damaged"]


def _run(
    driver: Driver, plan: Plan, limit: int | None, sample: float | None, allow_missing: bool, allow_unreadable: bool,
    check: bool,
) -> RunResult:  # fmt: skip
    store = driver.storage
    if store.exists("run.json") and find_run(store) is None:
        driver.progress.note("run.json is damaged: it is written again from what is finished")
    driver.load_finished_tasks()
    damages: Counter[str] = Counter()  # how often each file was found damaged
    if check:
        try:
            damaged_files.check_all(driver)
        except CacheDamaged as found:
            damaged_files.start_over(driver, found, damages)
    write_header(store, plan)
    phases: Phases | None = None
    unread: list[dict[str, Any]] = []
    try:
        specs = split_input(plan, limit=limit, cuts=split_archives.split_files(driver, plan))
        if not allow_unreadable:
            first_records.check_in_tasks(driver, plan, specs)
        while True:
            phases = Phases(driver, plan, specs, sample)
            try:
                unread = _run_phases(phases, allow_missing, allow_unreadable)
                stops = (unread and not allow_missing) or not phases.latest.rows_out
                made = None if stops else build_result.build_result(phases)
                break
            except PoisonFound:
                driver.progress.note("starting over without the records on the poison list; finished work is reused")
                driver.load_finished_tasks()
            except CacheDamaged as found:
                damaged_files.start_over(driver, found, damages)
            except DamagedFile as error:  # read by the driver itself
                if not error.path.startswith("cache/"):
                    raise
                damaged_files.start_over(driver, CacheDamaged({error.path: error.reason}), damages)
        if unread and not allow_missing:
            stopped_run.stop(phases, None, unread, limit, sample)
            counts = count_documents(plan, phases)
            return RunResult(QUARANTINED, 3, store.root, counts, unread, phases.poison.left_out())
        if made is None:
            before = " before tokenizing" if plan.pipeline.tokenizer is not None else ""
            raise stopped_run.Explained(
                f"no documents are left{before}: all were dropped by rules or could not be read.",
                f"`gristmill report {store.root}` shows samples, `gristmill explain` and `gristmill what-if` work; "
                "loosen the rule that drops too much, or check the paths and fields of the sources",
            )
        counts = count_documents(plan, phases) | made.counts
        generations.keep_previous_shards(store)
        files = publish.publish(store, made)
        failpoint("published")
        prune_cache.write_used(store, driver.used)
        write_run(store, plan, phases, counts, unread, run_fingerprint(store, plan), limit, sample, files)
    except Exception as error:
        if phases is None:
            stopped_run.mark_stopped(store, str(error))
        else:
            stopped_run.stop(phases, error, unread, limit, sample)
        raise
    if plan.pipeline.retention == "none":
        store.remove("cache")
    left_out = phases.poison.left_out()
    return RunResult(
        QUARANTINED if unread else DONE, 3 if unread or left_out else 0, store.root, counts, unread, left_out
    )


def _run_phases(phases: Phases, allow_missing: bool, allow_unreadable: bool) -> list[dict[str, Any]]:
    """Runs all phases up to the last rule; returns what could not be read.

    Stops before the next global step if there is any, unless it is allowed.
    """
    plan, unread = phases.plan, []
    for segment in plan.segments:
        totals = phases.map(segment)
        if segment.index == 0:
            unread = totals.unread
            if unread and not allow_missing:
                return unread
            _check_sources(plan, phases)
            wrong = first_records.unreadable_source(phases)
            if wrong is not None and not allow_unreadable:
                raise stopped_run.Explained(wrong, first_records.ADVICE)
        if segment.quantiles:
            phases.quantiles(segment.quantiles)
        if segment.then is not None:
            _run_global_step(phases, segment.then)
    return unread


def _run_global_step(phases: Phases, step: GlobalStep) -> None:
    seed = phases.plan.pipeline.seed
    prior = load_prior_run(step, seed)
    corpus = Corpus(
        documents=phases.latest.rows_out + (prior.documents if prior else 0),
        text_bytes=phases.latest.text_bytes + (prior.text_bytes if prior else 0),
        tasks=len(phases.specs) + (len(prior.tasks) if prior else 0),
        seed=seed,
        prior_run_boundaries=(*prior.prior_run_boundaries, len(prior.tasks)) if prior else (),
    )
    fingerprint = fingerprint_of([phases.plan.step_fingerprints[step.name], corpus.seed])
    heads = [c.partition(".")[0] for n, sql in step.expressions().items() for c in rules.parse(n, sql, "").columns]
    needs = next(e.resources for e in phases.plan.pipeline.steps if e.step is step)
    made = phases.stages(
        step.name, fingerprint, step.stages(corpus), step.expressions(), [*step.reads, *heads], prior, needs
    )
    save_prior_run(phases.storage, step, corpus, made.tasks, made.reusable)
    phases.joins[step.name] = made


def _check_sources(plan: Plan, phases: Phases) -> None:
    for number, source in enumerate(plan.pipeline.sources):
        # the report of a file that cannot be read says what is wrong with it
        if not phases.latest.records[number] and not phases.latest.unread_files[number]:
            raise UserError(
                f"source {source.name!r} is empty: {len(plan.files[number])} files below {source.root} match "
                f"{source.path!r}, and they contain no records"
            )
