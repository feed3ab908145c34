"""What a training run's directory says of its size and its losses, finished or not."""

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
    from training.model.transformer import ModelConfig


@dataclass(frozen=True)
class Point:
    """A run: parameters, the tokens it is to be trained on and how many of them differ, its validation loss."""

    n: float
    d: float
    unique: float
    loss: float


@dataclass(frozen=True)
class Curve:
    """A run's training loss: at each step so far, of how many."""

    point: Point  # its loss is nan until the run is over
    steps: int
    step: Floats
    loss: Floats


def final(folder: Path) -> Point | None:
    """The finished run's point, its loss the mean over all validation tokens; None while it is not over."""
    entries = _entries(folder)
    config, made = _config(folder)
    last = next((e for e in reversed(entries) if e["kind"] == "validation"), None)
    if last is None or last["step"] < config.steps:
        return None
    return Point(made.n, made.d, made.unique, float(last["loss"]))


def curve(folder: Path) -> Curve:
    """The training loss so far. Raises UserError where there is no training run."""
    entries = [e for e in _entries(folder) if e["kind"] == "train"]
    config, made = _config(folder)
    at = np.array([float(e["step"]) for e in entries])
    return Curve(made, config.steps, at, np.array([float(e["loss"]) for e in entries]))


def multiplied(shape: ModelConfig) -> int:
    """Parameters that take part in a product: all but an embedding that is no head too, which is only looked up."""
    from training.cost.model_stats import parameter_counts

    parts = parameter_counts(shape)
    return sum(parts.values()) - (0 if shape.tie_embeddings else parts["embedding"])


def _entries(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise UserError(f"{folder} is not a training run: it has no metrics.jsonl")
    check_format(folder)
    return list(jsonl_log.read(path))


def _config(folder: Path) -> tuple[Any, Point]:
    from training import config as training_config
    from training.train import model_config

    config = training_config.parse((folder / "train.yaml").read_text(), str(folder / "train.yaml"))
    data = json.loads((folder / "data.json").read_text())
    n = float(multiplied(model_config(config, int(data["tokenizer"]["vocab"]))))
    d = float(config.steps * config.batch.global_size * config.data.seq_len)
    return config, Point(n, d, min(d, _unique(data["root"], config.data.weights, d)), float("nan"))


def _unique(root: str, weights: dict[str, float] | None, d: float) -> float:
    """Tokens that differ among the d read: of each domain no more than it has."""
    from curation.shards import ShardError, read_manifest

    try:
        manifest = read_manifest(root)
    except ShardError:
        return d  # the shards have moved: then nothing is known of repetition
    split = {name: float(s.tokens) for name, s in manifest.splits.get("train", {}).items()}
    shares = dict(weights or manifest.mix.weights or split)
    total = sum(shares.values())
    return sum(min(split.get(name, 0.0), d * share / total) for name, share in shares.items())
