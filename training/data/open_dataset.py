"""Opens the training split of a curation run for any training loop: `training.dataset(...)`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch

from curation.core import yaml_lines
from curation.core.errors import UserError
from curation.core.schema import validate
from curation.shards import Manifest, read_manifest
from training.config import DataConfig
from training.data.batch import Batch
from training.data.data_order import OrderLog
from training.data.data_schedule import new_data_order, resume_data_order
from training.data.dataset import TokenDataset
from training.data.loader import TokenLoader


def dataset(
    run: str | Sequence[str],
    *,
    seq_len: int,
    global_batch: int,
    rank: int | None = None,
    world: int | None = None,
    accumulation: int = 1,
    weights: Mapping[str, float] | None = None,
    changes: Sequence[Mapping[str, Any]] = (),
    seed: int = 17,
    steps: int | None = None,
    max_epochs: float | None = None,
    shuffle_block: int | None = None,
    packing: Literal["stream", "best_fit"] = "stream",
    masked: Iterable[str] = (),
    transform: Callable[[Batch], Any] | None = None,
    prefetch: int = 8,
    pin_memory: bool | None = None,
    cache: int = 1024,
) -> TokenLoader:
    """The training split of one or more curation runs as a loader: see `TokenLoader` for what it can do.

    run            directory or URL (local, S3, ...) of a run, or several of one tokenizer
    seq_len        input tokens of a sequence
    global_batch   sequences of an optimizer step, over all ranks and passes
    rank, world    this process and how many there are [default: those of torch.distributed, if it is initialized]
    accumulation   passes of a step: each is an item of the loader
    weights        share of each domain [default: those of the run's mix]
    changes        {"at": step, "weights" / "seq_len" / "global_size": new value}, in the order of their steps
    seed           of the order
    steps          where the loader ends [default: after max_epochs]
    max_epochs     how often a domain is read at most [default: the cap of the run's mix; without one there is no end]
    shuffle_block  tokens shuffled as a unit, a multiple of each seq_len [default: the longest seq_len]
    packing        stream: documents end to end, cut where a sequence ends. best_fit: rearranged so that few are cut
    masked         doc_ids (hex) of documents that are not trained on
    transform      makes an item of a `Batch`, in the thread that reads ahead
    prefetch       items read ahead; 0 reads each when it is asked for
    pin_memory     tensors in page-locked memory [default: where CUDA is]
    cache          MiB of remote shards held in memory

    Raises UserError for settings that do not fit the data or each other, ShardError for shards that cannot be read.
    """
    settings = {
        "seq_len": seq_len, "weights": weights and dict(weights), "changes": [dict(c) for c in changes],
        "shuffle_block": shuffle_block, "max_epochs": max_epochs, "cache": cache,
    }  # fmt: skip
    text = json.dumps({key: value for key, value in settings.items() if value is not None}, default=repr)
    config = validate(DataConfig, json.loads(text), yaml_lines.parse(text, "training.dataset"))
    manifest = read_manifest(run)
    cap = config.max_epochs or manifest.mix.max_epochs
    if steps is None:  # then the cap says where it ends, and not whether it is allowed
        config = config.model_copy(update={"max_epochs": math.inf})
    last = sys.maxsize if steps is None else steps

    if packing not in ("stream", "best_fit"):
        raise UserError(f"training.dataset: packing is {packing!r}, expected stream or best_fit")
    data, log, _ = new_data_order(manifest, config, seed, global_batch, last)
    if packing == "best_fit":
        data.pack_best_fit()
    if masked:
        log = log.with_masked(0, sorted(masked))
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    return TokenLoader(
        data,
        log,
        rank=rank if rank is not None else torch.distributed.get_rank() if group else 0,
        world=world if world is not None else torch.distributed.get_world_size() if group else 1,
        accumulation=accumulation,
        steps=steps,
        prefetch=prefetch,
        pin_memory=torch.cuda.is_available() if pin_memory is None else pin_memory,
        transform=transform,
        max_epochs=cap if steps is None and cap is not None and math.isfinite(cap) else None,
        reschedule=partial(_reschedule, manifest, config, seed, global_batch, last, packing),
    )


def _reschedule(
    manifest: Manifest,
    config: DataConfig,
    seed: int,
    batch: int,
    steps: int,
    packing: str,
    log: OrderLog,
    sequence: int,
) -> tuple[TokenDataset, OrderLog]:
    """The data, and the log, which from `sequence` on follows these settings."""
    data, log, _ = resume_data_order(manifest, config, seed, batch, steps, log, sequence)
    if packing == "best_fit":
        data.pack_best_fit()
    return data, log
