"""Collects what a user should know before the first step: settings without an effect, and slips that cost much.

Each note says what is the case and what to do. A note stops nothing: what cannot work is refused elsewhere.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import torch

from curation.shards import Manifest
from training.checkpoint import disk_space
from training.config import EvaluateConfig, GuardConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from training.cost.device_specs import has_native
from training.cost.model_stats import parameter_counts
from training.data.data_order import OrderLog
from training.model.transformer import ModelConfig

NVIDIA = Path("/proc/driver/nvidia/version")  # there where a driver is, whatever torch was built for


def preflight_notes(
    config: TrainConfig, manifest: Manifest, order: OrderLog, model: ModelConfig, run: Path, validation: Collection[str]
) -> list[str]:
    """Notes on a resolved configuration, its data and this machine. `validation`: names of the validation sets."""
    return [
        *_schedule(config),
        *_device(config),
        *_data(manifest, order, validation),
        *_checkpoints(config, sum(parameter_counts(model).values()), run),
        *_without_effect(config),
    ]


def _schedule(config: TrainConfig) -> Iterator[str]:
    steps, warmup = config.steps, config.schedule.warmup_steps
    if warmup is not None and warmup >= steps > 1:
        reached = config.optimizer.lr * steps / warmup
        yield (
            f"schedule.warmup_steps is {warmup:,} and the run has {steps:,} steps: the learning rate ends at "
            f"{reached:.3g} and does not reach optimizer.lr {config.optimizer.lr:.3g} before the last step; lower it "
            f"(the default is a twentieth, {max(1, steps // 20):,})"
        )
    for change in config.data.changes:
        if change.at >= steps:
            yield (
                f"data.changes at step {change.at:,} never happens: the run has {steps:,} steps; lower `at`, "
                "raise steps, or remove it"
            )


def _device(config: TrainConfig) -> Iterator[str]:
    if config.precision != "auto" and not has_native(config.precision, config.device):
        what = "processor" if config.device == "cpu" else "GPU"
        yield (
            f"precision: {config.precision} is emulated on this {what}, several times slower than fp32; "
            "set precision: fp32 (or auto, in a new run)"
        )
    if config.device != "cpu":
        return
    if NVIDIA.exists() and not torch.cuda.is_available():
        yield (
            f"this machine has an NVIDIA driver, but torch {torch.__version__} finds no GPU: training runs on the CPU; "
            "install torch for CUDA (gristmill doctor)"
        )
    cores, ranks = os.cpu_count() or 1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = config.threads or 1
    limited = "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("OMP_NUM_THREADS") == "1"
    if limited and cores >= 2 * ranks * threads:
        yield (
            f"{ranks * threads} of {cores} cores are used: torchrun sets OMP_NUM_THREADS=1; "
            f"set threads: {cores // ranks}"
        )


def _data(manifest: Manifest, order: OrderLog, validation: Collection[str]) -> Iterator[str]:
    if not validation:
        yield (
            f"no validation set: {manifest.root} held out no documents, so no validation loss is computed; curate with "
            "validation: 0.01, or name another run under data.validation"
        )
    read = {name for segment in order.segments for name in segment.mix}
    for name, shards in manifest.splits.get("train", {}).items():
        if name not in read:
            yield (
                f"{name}: its {shards.tokens:,} tokens are not read: it has no weight in the mix; "
                f"add it to data.weights, or leave it ({', '.join(sorted(read))} are read)"
            )


def _checkpoints(config: TrainConfig, parameters: int, run: Path) -> Iterator[str]:
    each, most = disk_space.checkpoint_bytes(config, parameters)
    free = disk_space.free_bytes(run)
    if each * most > free:
        yield (
            f"checkpoints need up to {each * most / 1e9:,.3f} GB ({most} of {each / 1e9:,.3f} GB) and "
            f"{free / 1e9:,.3f} GB are free in {run}; free space, lower checkpoint.keep or take another disk"
        )
    every, keep_every = config.checkpoint.every, config.checkpoint.keep_every
    if keep_every is not None and keep_every % every:
        yield (
            f"checkpoint.keep_every {keep_every:,} is no multiple of checkpoint.every {every:,}: only every "
            f"{math.lcm(keep_every, every):,} steps a checkpoint is kept; make it a multiple"
        )


def _without_effect(config: TrainConfig) -> Iterator[str]:
    """Values that were changed and that nothing reads: (key, value, default, when it is read)."""
    schedule, guard, optimizer = config.schedule, config.guard, config.optimizer
    rows: list[tuple[str, object, object, str]] = []
    if schedule.kind != "wsd":
        rows += [(f"schedule.{k}", getattr(schedule, k), getattr(ScheduleConfig(), k), "schedule.kind: wsd")
                 for k in ("decay_fraction", "decay_type")]  # fmt: skip
    if schedule.kind == "constant":
        rows += [("schedule.min_lr_ratio", schedule.min_lr_ratio, ScheduleConfig().min_lr_ratio, "a rate that decays")]
    if optimizer.kind != "muon":
        rows += [("optimizer.momentum", optimizer.momentum, OptimizerConfig().momentum, "optimizer.kind: muon")]
    if guard.action == "off":
        rows += [(f"guard.{k}", v, getattr(GuardConfig(), k), "guard.action watch, skip or rollback")
                 for k, v in guard.model_dump().items() if k != "action"]  # fmt: skip
    if guard.action != "rollback":
        # as it is written in the file: a value of a variable goes into no log
        rows += [("exclude_list", config.written()["exclude_list"], None, "guard.action: rollback")]
    if not config.evaluate.tasks:
        rows += [("evaluate.task_limit", config.evaluate.task_limit, EvaluateConfig().task_limit, "evaluate.tasks")]
    for key, value, default, when in rows:
        if value != default:
            yield f"{key}: {value} has no effect: only with {when}; change that or remove {key}"
