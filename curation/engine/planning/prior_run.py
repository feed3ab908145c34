"""What an earlier run left of a global step, for a step that has it as `prior_run`.

A run notes, for each of its global steps, where its documents stood when they reached it (the states of its tasks) and
which files its stages wrote. A later run takes those tasks before its own, as if it had read their input too: stages
find their rows written and look at no document again (`Stage.again`), and texts are read where they lie, of those
documents that have a candidate among the new ones.

The note is cache/index/<step>.json:
{kin, seed, documents, text_bytes, prior_run_boundaries, tasks: [{key, state}], stages}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation import storage
from curation.core.errors import UserError
from curation.engine.planning import fingerprint as identity
from curation.step import Corpus, GlobalStep
from curation.storage import Storage


@dataclass(frozen=True)
class Task:
    """A task as a global step sees it: the name of its input, and which files hold its columns."""

    key: str
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Before:
    """Documents of earlier runs; paths are absolute."""

    documents: int
    text_bytes: int
    prior_run_boundaries: tuple[int, ...]
    tasks: Sequence[Task]
    stages: Mapping[str, Any]
    fingerprint: str


def save(store: Storage, step: GlobalStep, corpus: Corpus, tasks: Sequence[Task], stages: Mapping[str, Any]) -> None:
    """Saves what a later run needs to have this one as its prior run. Steps without reusable stages save nothing."""
    if stages:
        note = {
            "kin": _kin(step),
            "seed": corpus.seed,
            "documents": corpus.documents,
            "text_bytes": corpus.text_bytes,
            "prior_run_boundaries": list(corpus.prior_run_boundaries),
            "tasks": [{"key": t.key, "state": t.state} for t in tasks],
            "stages": stages,
        }
        store.write_json(f"cache/index/{step.name}.json", note)


def load(step: GlobalStep, seed: int) -> Before | None:
    """What the step's prior run saved; None for a step without one.

    Raises UserError for a run without it, and for one that was made with other options.
    """
    if step.prior_run is None:
        return None
    store = Storage(step.prior_run)
    path = f"cache/index/{step.name}.json"
    if not store.exists(path):
        raise UserError(
            f"{step.name}: prior_run {step.prior_run}, which is no run with a step {step.name!r} and its cache: name "
            "the directory of a finished run whose pipeline has that step and whose `retention` is not none"
        )
    note = store.read_json(path)
    if (note["kin"], note["seed"]) != (_kin(step), seed):
        raise UserError(
            f"{step.name}: prior_run {step.prior_run}, where the step had other options, another seed or another "
            "version of the code; only what was made alike can be compared: curate that run again, or change this "
            "one's options"
        )
    tasks = [Task(t["key"], _absolute(store, t["state"])) for t in note["tasks"]]
    stages = {
        name: {kind: [store.url(f) for f in files] for kind, files in s.items()} for name, s in note["stages"].items()
    }
    print_ = storage.digest(store.read_bytes(path))
    return Before(note["documents"], note["text_bytes"], tuple(note["prior_run_boundaries"]), tasks, stages, print_)


def _kin(step: GlobalStep) -> str:
    """Of the step but for its prior run."""
    return storage.fingerprint([identity.code_fingerprint(type(step)), identity.options(step) | {"prior_run": None}])


def _absolute(store: Storage, state: Mapping[str, Any]) -> dict[str, Any]:
    """A task's state with all paths absolute."""
    moved: dict[str, Any] = dict(state)
    for name in ("base", "text", "decisions"):
        moved[name] = [store.url(f) for f in state[name]]
    moved["signals"] = {step: [store.url(f) for f in files] for step, files in state["signals"].items()}
    return moved
