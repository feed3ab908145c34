"""Finds the files that earlier executions of a global step left and that can be used again.

After a global step has run, two records say which files each of its reusable stages (`Stage.reuse`) read and wrote:

    cache/reuse/<key>.json        for this run, after a rule has changed or documents were deleted (runtime/delete.py).
                                  The key is a fingerprint of everything that the rows of the stages depend on, except
                                  which documents reach the step
    cache/prior_run/<step>.json   for a later run that names this one as `prior_run`. It also lists this run's tasks;
                                  the later run takes them before its own, as if it had read their input too, so the
                                  addresses in the files stay valid

In all three cases every stage runs over all documents, as in a fresh run, and takes rows (band keys, URL hashes) and
verified pairs from the record instead of computing them. So the outcome is that of a fresh run by construction; why
not only the affected documents are decided again is in docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation import storage
from curation.core.errors import DamagedFile, UserError
from curation.engine.planning import fingerprints
from curation.step import Corpus, GlobalStep
from curation.storage import Storage

# stage -> {"inputs": which files each of its tasks read (shuffle/exchange.py), "outputs": a file for each task}
StageFiles = Mapping[str, Mapping[str, Any]]

FORMAT = 2  # of the records: those of 1 had other inputs


@dataclass(frozen=True)
class Task:
    """A task as a global step sees it: the key of its input, and which files hold its columns."""

    key: str
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Reusable:
    """The stage files that one execution of a global step may use, and where it records its own."""

    path: str
    execution: str  # fingerprint of this execution
    stages: StageFiles

    @property
    def fingerprint(self) -> str:
        return storage.fingerprint(self.stages)

    def save(self, store: Storage, made: StageFiles) -> None:
        """Records the files of this execution. Once for all stages: recorded one by one, a run that dies between two
        would leave pairs noted as compared whose results were never written."""
        store.write_json(self.path, {"execution": self.execution, "used": self.stages, "stages": made})


def find_reusable(
    store: Storage, step_fingerprint: str, tasks: Sequence[Task], reads: Sequence[str], execution: str,
    prior: PriorRunRecord | None,
) -> Reusable:  # fmt: skip
    """What an execution of a global step may use: the record of its latest execution here, else of its prior run.

    step_fingerprint  of the step's code, options and seed
    reads             columns that the step reads
    execution         fingerprint of this execution. A run that was interrupted after its last stage finds its own
                      record; it then uses what that used, so that finished tasks are not run again
    """
    heads = [name.partition(".")[0] for name in reads]

    def columns(state: Mapping[str, Any]) -> list[list[str]]:  # by the folders of their files
        files = [state["base"], *([state["text"]] if "text" in reads else [])]
        files += [state["signals"][head] for head in heads if head in state["signals"]]
        return [sorted({f.rpartition("/")[0] for f in paths}) for paths in files]

    # tasks by number and input, since addresses are made of both
    key = storage.fingerprint([step_fingerprint, [(t.key, columns(t.state)) for t in tasks]])
    path = f"cache/reuse/{key}.json"
    if not store.exists(path):
        return Reusable(path, execution, dict(prior.stages) if prior is not None else {})
    try:
        record = store.read_json(path)
    except DamagedFile:  # counts as absent; it is written again when the step has run
        return Reusable(path, execution, dict(prior.stages) if prior is not None else {})
    return Reusable(path, execution, dict(record["used"] if record["execution"] == execution else record["stages"]))


@dataclass(frozen=True)
class PriorRunRecord:
    """Documents and stage files of the run that a step names as `prior_run`, and of its own prior runs; paths are
    absolute."""

    documents: int
    text_bytes: int
    prior_run_boundaries: tuple[int, ...]
    tasks: Sequence[Task]
    stages: StageFiles
    fingerprint: str


def save_prior_run(store: Storage, step: GlobalStep, corpus: Corpus, tasks: Sequence[Task], made: StageFiles) -> None:
    """Saves what a later run needs to have this one as its prior run. Steps without reusable stages save nothing."""
    if made:
        record = {
            "format": FORMAT,
            "step": _same_step(step),
            "seed": corpus.seed,
            "documents": corpus.documents,
            "text_bytes": corpus.text_bytes,
            "prior_run_boundaries": list(corpus.prior_run_boundaries),
            "tasks": [{"key": t.key, "state": t.state} for t in tasks],
            "stages": made,
        }
        store.write_json(f"cache/prior_run/{step.name}.json", record)


def load_prior_run(step: GlobalStep, seed: int) -> PriorRunRecord | None:
    """What the step's prior run saved; None for a step without one.

    Raises UserError for a run without such a record, and for one that was made with other options, seed or code.
    """
    if step.prior_run is None:
        return None
    store = Storage(step.prior_run)
    path = f"cache/prior_run/{step.name}.json"
    if not store.exists(path):
        raise UserError(
            f"{step.name}: prior_run {step.prior_run} is not a finished run with a step {step.name!r} and its cache. "
            "Name the directory of a finished run whose pipeline has that step and whose `retention` is not none"
        )
    record = store.read_json(path)
    if (record.get("format"), record["step"], record["seed"]) != (FORMAT, _same_step(step), seed):
        raise UserError(
            f"{step.name}: in prior_run {step.prior_run} the step had other options, another seed or another version "
            "of the code, so the two cannot be compared: curate that run again, or change this one's options"
        )
    tasks = [Task(t["key"], _absolute(store, t["state"])) for t in record["tasks"]]
    stages = {
        name: {
            "inputs": files["inputs"] | {"files": [[store.url(f) for f in some] for some in files["inputs"]["files"]]},
            "outputs": [store.url(f) for f in files["outputs"]],
        }
        for name, files in record["stages"].items()
    }
    return PriorRunRecord(
        record["documents"], record["text_bytes"], tuple(record["prior_run_boundaries"]), tasks, stages,
        storage.digest(store.read_bytes(path)),
    )  # fmt: skip


def _same_step(step: GlobalStep) -> str:
    """Fingerprint of a step's code and options, apart from its prior run."""
    return storage.fingerprint(
        [fingerprints.code_of(type(step)).sources, fingerprints.options(step) | {"prior_run": None}]
    )


def _absolute(store: Storage, state: Mapping[str, Any]) -> dict[str, Any]:
    """A task's state with all paths absolute."""
    moved: dict[str, Any] = dict(state)
    for name in ("base", "text", "decisions"):
        moved[name] = [store.url(f) for f in state[name]]
    moved["signals"] = {step: [store.url(f) for f in files] for step, files in state["signals"].items()}
    return moved
