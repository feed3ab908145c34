"""Reads the size and the losses of a training run, finished or not, for scaling laws."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curation.core import jsonl_log
from curation.core.errors import UserError
from pipelines.experiments.scaling.scaling_law import Floats
from training.metrics.log_format import check_format

if TYPE_CHECKING:
    from training.config import TrainConfig
    from training.model.transformer import ModelConfig


@dataclass(frozen=True)
class Point:
    """A run: parameters, planned training tokens, unique tokens among them, validation loss."""

    n: float
    d: float
    unique: float
    loss: float


@dataclass(frozen=True)
class Curve:
    """The training loss of a run at each step so far; `steps`: the planned number."""

    point: Point  # its loss is NaN until the run is finished
    steps: int
    step: Floats
    loss: Floats


def final_point(folder: Path) -> Point | None:
    """The point of a finished run, with its mean loss over all validation tokens; None for an unfinished run."""
    entries = _entries(folder)
    config, made = _config(folder)
    last = next((e for e in reversed(entries) if e["kind"] == "validation"), None)
    if last is None or last["step"] < config.steps:
        return None
    return Point(made.n, made.d, made.unique, float(last["loss"]))


def loss_curve(folder: Path) -> Curve:
    """The training loss so far. Raises UserError for a folder without a training run."""
    entries = [e for e in _entries(folder) if e["kind"] == "train"]
    config, made = _config(folder)
    at = np.array([float(e["step"]) for e in entries])
    return Curve(made, config.steps, at, np.array([float(e["loss"]) for e in entries]))


def matmul_parameters(config: ModelConfig) -> int:
    """Parameters in matrix products: all but an untied input embedding, which is only looked up."""
    from training.cost.model_stats import parameter_counts

    parts = parameter_counts(config)
    return sum(parts.values()) - (0 if config.tie_embeddings else parts["embedding"])


def _entries(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"{folder} is not a training run: it has no metrics.jsonl")
    check_format(folder)
    return list(jsonl_log.read(path))


def _config(folder: Path) -> tuple[Any, Point]:
    from training import config as training_config
    from training.train import model_config

    config = training_config.load(str(folder / "train.yaml"))
    data = json.loads((folder / "data.json").read_text())
    n = float(matmul_parameters(model_config(config, int(data["tokenizer"]["vocab"]))))
    d = float(sum(steps * global_size * seq_len for steps, global_size, seq_len in config.stages()))
    return config, Point(n, d, min(d, _unique(data["root"], config, d)), float("nan"))


def _unique(root: str, config: TrainConfig, d: float) -> float:
    """Unique tokens among the d tokens read: of each domain at most the tokens that it has."""
    from curation.shards import ShardError, read_manifest

    try:
        manifest = read_manifest(root)
    except ShardError:
        return d  # the shards are gone, so repetition is unknown
    split = {name: float(s.tokens) for name, s in manifest.splits.get("train", {}).items()}
    wanted: dict[str, float] = {}
    step = 0
    for steps, global_size, seq_len in config.stages():
        changed = [c.weights for c in config.data.changes if c.at <= step and c.weights is not None]
        shares = dict((changed or [config.data.weights or dict(manifest.mix.weights) or split])[-1])
        total = sum(shares.values())
        for name, share in shares.items():
            wanted[name] = wanted.get(name, 0.0) + steps * global_size * seq_len * share / total
        step += steps
    return sum(min(split.get(name, 0.0), tokens) for name, tokens in wanted.items())
