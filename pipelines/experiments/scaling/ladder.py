"""Trains a ladder of small runs to fit a scaling law to: every model size on several numbers of tokens per parameter.

    base: train.yaml                     # a training file; model and steps come from the ladder
    sizes: [{num_layers: 2, hidden_size: 64, num_heads: 2, num_kv_heads: 2, intermediate_size: 192}, …]
    tokens_per_param: [10, 20, 40]

Runs are named by size and tokens and are ordinary training runs, so an interrupted ladder resumes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PrivateAttr

from curation.core import yaml_lines
from curation.core.errors import UserError
from curation.core.schema import Section, validate
from pipelines.experiments.mix.proxy_run import Proxy
from pipelines.experiments.scaling import live_run

if TYPE_CHECKING:
    from training.config import TrainConfig


class Ladder(Section):
    """A ladder file."""

    base: dict[str, Any] | str
    sizes: Annotated[tuple[dict[str, Any], ...], Field(min_length=2)]
    tokens_per_param: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (10.0, 20.0, 40.0)
    _references: dict[yaml_lines.Path, str] = PrivateAttr(default_factory=dict)  # of an inline base


def load(path: str) -> Ladder:
    """Reads a ladder file. Raises UserError with file, line, key, value and what was expected."""
    tree = yaml_lines.load(path)
    if isinstance(tree.root, dict) and isinstance(tree.root.get("base"), str):
        tree.root["base"] = os.path.join(os.path.dirname(os.path.abspath(path)), tree.root["base"])
    ladder = validate(Ladder, tree.root, tree)
    ladder._references.update(tree.references_below("base"))
    return ladder


def runs(ladder: Ladder, data: str, folder: str) -> list[Proxy]:
    """The training runs of the ladder, smallest first. Raises UserError for a size that a training file cannot have."""
    from curation.shards import read_manifest
    from training import config
    from training.train import model_config

    loaded = config.load(ladder.base) if isinstance(ladder.base, str) else _parse(ladder.base, ladder._references)
    base = loaded.model_dump(mode="json")
    if base["data"]["changes"]:
        raise UserError(
            "the ladder's base has data.changes, whose steps are those of one run; each size of the ladder has its "
            "own number of steps\n  remove data.changes from the base"
        )
    vocab = read_manifest(data).tokenizer.vocab
    made = []
    for size in ladder.sizes:
        settings = base | {"model": {"preset": None, "tie_embeddings": base["model"]["tie_embeddings"], **size}}
        n = live_run.matmul_parameters(model_config(_parse(settings), vocab))
        for multiple in ladder.tokens_per_param:
            tokens_per_step = base["batch"]["global_size"] * base["data"]["seq_len"]
            steps = max(1, round(multiple * n / tokens_per_step))
            every = {"every": max(1, steps // 4)}
            mine = settings | {
                "steps": steps,
                "evaluate": base["evaluate"] | {"every": steps},
                "checkpoint": base["checkpoint"] | every,
            }
            name = f"n{n:09d}-d{steps * tokens_per_step:011d}"
            made.append(Proxy(mine, data, str(Path(folder) / name), references=loaded.references))
    return sorted(made, key=lambda p: p.folder)


def train(proxies: Sequence[Proxy], workers: Callable[[Sequence[Proxy]], None]) -> int:
    """Trains the runs that are not finished yet; returns their number."""
    from pipelines.experiments.mix import proxy_run

    todo = [p for p in proxies if not proxy_run.finished(p.folder, int(p.settings["steps"]))]
    if todo:
        workers(todo)
    return len(todo)


def _parse(value: dict[str, Any], references: Mapping[yaml_lines.Path, str] | None = None) -> TrainConfig:
    from training import config

    return config.parse(yaml_lines.dump(value), "base", references=references)
