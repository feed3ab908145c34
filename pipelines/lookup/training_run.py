"""Reads the logs, incidents and configuration of a training run, for `report`, `compare` and `watch`.

Reads only small files of the run's folder; uses no device.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.core import jsonl_log
from curation.core.errors import UserError
from training.metrics.log_format import check_format


@dataclass
class Training:
    """A training run, finished or not. Curves are lists of (step, value)."""

    name: str
    folder: str
    config: dict[str, Any] = field(default_factory=dict)  # the resolved train.yaml
    train: list[tuple[int, float]] = field(default_factory=list)
    domains: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # training loss
    lr: list[tuple[int, float]] = field(default_factory=list)
    grad_norm: list[tuple[int, float]] = field(default_factory=list)
    update_ratio: list[tuple[int, float]] = field(default_factory=list)  # norm of the update over norm of the weights
    speed: list[tuple[int, float]] = field(default_factory=list)  # tokens per second
    mfu: list[tuple[int, float]] = field(default_factory=list)  # counting causal attention
    efficiency: list[tuple[float, float, float]] = field(default_factory=list)  # mfu, mfu_full, of_plan of each step
    validation: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # domain -> loss
    scores: list[dict[str, Any]] = field(default_factory=list)  # evaluations, as in metrics.jsonl
    tasks: list[dict[str, Any]] = field(default_factory=list)  # evaluations with benchmark tasks
    events: list[dict[str, Any]] = field(default_factory=list)  # of the spike guard
    incidents: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    sequences: int = 0
    tokens: int = 0
    seconds: float = 0.0
    planned_seconds: float = 0.0  # time of these steps by the plan; 0: unknown
    latest_speed: dict[str, Any] = field(default_factory=dict)  # the newest line of speed.jsonl
    sample_text: str | None = None  # text that the model generated

    @property
    def last(self) -> dict[str, dict[str, Any]]:
        """The newest evaluation, by domain."""
        return dict(self.scores[-1]["domains"]) if self.scores else {}

    @property
    def step(self) -> int:
        return self.train[-1][0] if self.train else 0

    @property
    def planned(self) -> int | None:
        """Steps that the training file asks for."""
        value = self.config.get("steps")
        return int(value) if value is not None else None


def is_training(folder: str) -> bool:
    """Whether a folder holds a training run."""
    return os.path.isfile(os.path.join(folder, "metrics.jsonl")) or os.path.isfile(os.path.join(folder, "train.yaml"))


def trainings_of_run(run_dir: str) -> list[Training]:
    """The trainings in RUN/train, by name."""
    root = os.path.join(run_dir, "train")
    if not os.path.isdir(root):
        return []
    return [read(os.path.join(root, n)) for n in sorted(os.listdir(root)) if is_training(os.path.join(root, n))]


def read(folder: str) -> Training:
    """Reads a training run. Raises UserError for a folder without one."""
    if not is_training(folder):
        raise UserError(
            f"{folder} is not a training run: it has no metrics.jsonl\n  give the output directory of gristmill train"
        )
    check_format(Path(folder))
    made = Training(os.path.basename(os.path.abspath(folder)), folder, _config(folder))
    for entry in jsonl_log.read(os.path.join(folder, "metrics.jsonl")):
        _add_entry(made, entry)
    for entry in jsonl_log.read(os.path.join(folder, "speed.jsonl")):
        made.seconds += entry["seconds"]
        made.speed.append((entry["step"], entry["tokens_per_s"]))
        if "mfu" in entry:
            made.mfu.append((entry["step"], entry["mfu"]))
            made.efficiency.append((entry["mfu"], entry["mfu_full"], entry["of_plan"]))
            made.planned_seconds += entry["seconds"] * entry["of_plan"]
        made.latest_speed = entry
    made.sessions = list(jsonl_log.read(os.path.join(folder, "sessions.jsonl")))
    places = os.path.join(folder, "incidents")
    for name in sorted(os.listdir(places)) if os.path.isdir(places) else []:
        if re.fullmatch(r"\d{4,}\.json", name):  # as the training names them
            with open(os.path.join(places, name), encoding="utf-8") as f:
                made.incidents.append(json.load(f))
    sample = os.path.join(folder, "sample.txt")
    if os.path.isfile(sample):
        with open(sample, encoding="utf-8") as f:
            made.sample_text = f.read()
    return made


def _add_entry(made: Training, entry: Mapping[str, Any]) -> None:
    """Adds an entry of metrics.jsonl."""
    i = entry["step"]
    if entry["kind"] == "train":
        curves = {"loss": made.train, "lr": made.lr, "grad_norm": made.grad_norm, "update_ratio": made.update_ratio}
        for key, line in curves.items():
            if entry.get(key) is not None:
                line.append((i, entry[key]))
        for domain, loss in (entry.get("domains") or {}).items():
            if loss is not None:
                made.domains.setdefault(domain, []).append((i, loss))
        made.tokens, made.sequences = entry["tokens"], entry.get("sequences", 0)
    elif entry["kind"] == "event":
        made.events.append(dict(entry))
    elif entry["kind"] == "validation":
        made.scores.append(dict(entry))
        if entry.get("tasks"):
            made.tasks.append(dict(entry))
        for domain, score in entry["domains"].items():
            made.validation.setdefault(domain, []).append((i, score["loss"]))


def _config(folder: str) -> dict[str, Any]:
    from curation.core import yaml_lines

    path = os.path.join(folder, "train.yaml")
    if not os.path.isfile(path):
        return {}
    return dict(yaml_lines.load(path, yaml_lines.KeepVariables()).root or {})


def describe_event(event: Mapping[str, Any]) -> str:
    """What the spike guard did, in one line."""
    if event["event"] == "rollback":
        masked = (
            f"{len(event['blamed'])} documents masked" if event["blamed"] else "no document identified as the cause"
        )
        return f"step {event['confirmed']}: loss spike, rolled back to step {event['step']}, {masked}"
    names = {"skip": "update skipped", "anomaly": "anomaly", "overflow": "fp16 overflow, update skipped"}
    line = f"step {event['step']}: {names.get(event['event'], event['event'])}"
    if "grad_norm" in event:
        for name, key in (("loss", "loss"), ("gradient norm", "grad_norm")):
            value, usual = event[key], event.get(f"usual_{key}")
            line += f", {name} " + ("not finite" if value is None else f"{value:.3g}")
            line += f", usual {usual:.3g}" if usual is not None else ""
    return line
