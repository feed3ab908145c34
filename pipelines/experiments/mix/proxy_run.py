"""Trains one proxy: a small training run on one mix, in a directory named by its fingerprint, never trained twice.

A proxy's name is the fingerprint of its training configuration (mix, seed, model, batch, steps) and of the shards. Its
scores are in its own metrics.jsonl. A proxy that was killed resumes from its own checkpoint, and one that was stopped
early can be trained further."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from curation import storage
from curation.core import jsonl_log, yaml_lines


@dataclass(frozen=True)
class Proxy:
    """What to train. settings: a complete training file as a mapping, with the mix in data.weights."""

    settings: Mapping[str, Any]
    data: str
    folder: str
    stop: int | None = None  # step at whose evaluation training may stop
    # Of the training file's strings with `${VAR}`. The settings hold their values, so that the fingerprint follows them
    # and workers need no variables; what a run writes has the references.
    references: Mapping[yaml_lines.Path, str] = field(default_factory=dict)


class Scores(NamedTuple):
    """The scores of an evaluation."""

    losses: dict[str, float]  # by validation set
    tasks: dict[str, float]  # the figures of the training file's `evaluate.tasks`, such as arc.accuracy


class _StopTraining(Exception):
    """Ends the training once the wanted evaluation is done."""


def name(settings: Mapping[str, Any], manifest: str) -> str:
    """The proxy's fingerprint. manifest: digest of the shards' manifest."""
    return storage.fingerprint([dict(settings), manifest])[:20]


def scores(folder: str) -> dict[int, Scores]:
    """The evaluations of the proxy so far, by step."""
    found: dict[int, Scores] = {}
    for entry in jsonl_log.read(Path(folder) / "metrics.jsonl"):
        if entry["kind"] == "validation":
            losses = {name: float(s["loss"]) for name, s in entry["domains"].items()}
            found[entry["step"]] = Scores(losses, entry.get("tasks", {}))
    return found


def finished(folder: str, stop: int) -> bool:
    return stop in scores(folder)


def train(proxy: Proxy) -> dict[int, Scores]:
    """Trains a proxy up to `stop` (or its end) and returns its scores. Runs in its own worker process."""
    from training import config
    from training.train import train as run

    folder = Path(proxy.folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml_lines.dump(dict(proxy.settings))
    settings = config.parse(text, str(folder / "proxy.yaml"), references=proxy.references)
    stop = proxy.stop if proxy.stop is not None else settings.steps
    if finished(proxy.folder, stop):
        return scores(proxy.folder)

    def stop_at_evaluation(entry: dict[str, Any]) -> None:
        if entry["kind"] == "validation" and stop <= entry["step"] < settings.steps:
            raise _StopTraining

    # A proxy is one process; a worker started by srun inherits SLURM_NTASKS, which would have it refused
    os.environ.setdefault("WORLD_SIZE", "1")
    with contextlib.suppress(_StopTraining):
        run(settings, proxy.data, str(folder), report=stop_at_evaluation)
    return scores(proxy.folder)
