"""Predicts whether a training fits in memory, how long it takes and what it costs; compares a running one with that.

`plan_training` refuses a training that does not fit and suggests changes that make it fit. `LiveStats` compares a
running training with its plan. The formulas are in model_stats.py, the devices in device_specs.py.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from curation.core.errors import UserError
from training.config import TrainConfig
from training.cost.device_specs import Device, find_device, has_native
from training.cost.model_stats import (
    Flops,
    Memory,
    estimate_memory,
    flops_per_token,
    parameter_counts,
    state_bytes_by_recipe,
)
from training.model.transformer import ModelConfig

USABLE = 0.92  # share of a device's memory; context, fragmentation and communication buffers take the rest
ASSUMED_MFU = 0.4  # if no measured value is given; Llama 3's report gives 0.38 to 0.43 (Dubey et al. 2024, table 4)


@dataclass(frozen=True)
class TrainingPlan:
    """The predicted figures of a training.

    `flops` is per token, in the first stage of the data schedule; `memory` is per device, in bytes; `cost` is in the
    currency of the price, None without one.
    """

    device: str
    gpus: int
    parameters: dict[str, int]
    total_parameters: int
    flops: Flops
    memory: Memory
    recipes: dict[str, int]
    micro_size: int
    steps: int
    tokens_per_step: int
    tokens: int
    total_flops: float
    mfu: float
    tokens_per_second: float
    days: float
    cost: float | None


def peak_stage_memory(
    config: TrainConfig,
    model_config: ModelConfig,
    device: Device,
    gpus: int,
    *,
    micro_size: int | None,
    checkpointing: bool,
) -> Memory:
    """The memory of each of `gpus` devices in the stage of the data schedule that needs most."""

    def stage_memory(sequences: int, seq_len: int) -> Memory:
        share = max(1, sequences // gpus)
        micro = min(micro_size or config.batch.global_size, share)
        return estimate_memory(
            model_config,
            micro,
            seq_len,
            precision=_precision(config, device),
            checkpointing=checkpointing,
            shards=min(gpus, config.parallel.dp_shard or gpus),
            device=device.kind,
            accumulate=micro < share,
            optimizer=config.optimizer.kind,
        )

    return max((stage_memory(sequences, seq_len) for _, sequences, seq_len in config.stages()), key=lambda m: m.peak)


def _precision(config: TrainConfig, device: Device) -> str:
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.kind == "cuda" or has_native("bf16", "cpu") else "fp32"


def plan_training(
    config: TrainConfig,
    vocab: int,
    *,
    device: Device | None = None,
    gpus: int = 1,
    mfu: float = ASSUMED_MFU,
    price: float | None = None,
) -> TrainingPlan:
    """Predicts size, memory, time and cost of a training on `gpus` devices.

    `device` defaults to this machine's; `mfu` is the share of its peak FLOP/s that is expected; `price` is per device
    and hour. Raises UserError if the training does not fit, with changes that would make it fit, or if training would
    refuse to start.
    """
    device = device or find_device(None)
    model_config = ModelConfig(**config.model.sizes(vocab))
    for _, sequences, _ in config.stages():
        if sequences % gpus:
            raise UserError(
                f"batch.global_size {sequences} does not divide over {gpus} devices; "
                f"{math.ceil(sequences / gpus) * gpus} would"
            )
    if gpus % (config.parallel.dp_shard or 1):
        raise UserError(f"parallel.dp_shard {config.parallel.dp_shard} does not divide {gpus} devices")
    found = peak_stage_memory(
        config,
        model_config,
        device,
        gpus,
        micro_size=config.batch.micro_size,
        checkpointing=config.activation_checkpointing == "full",
    )
    room = int(device.memory * USABLE)
    if found.peak > room:
        would = suggest_fits(config, model_config, device, gpus, room)
        parts = {k: v for k, v in asdict(found).items() if k != "peak" and v}
        raise UserError(
            f"{found.peak / 1e9:.1f} GB are needed on each {device.name} and {room / 1e9:.1f} of its "
            f"{device.memory / 1e9:.0f} can be used ({', '.join(f'{k} {v / 1e9:.1f}' for k, v in parts.items())}). "
            + ("What would fit: " + "; or ".join(would) if would else "Nothing tried here would fit: a smaller model?")
        )
    flops = flops_per_token(model_config, config.data.seq_len)
    read = [
        (steps * sequences * seq_len, flops_per_token(model_config, seq_len))
        for steps, sequences, seq_len in config.stages()
    ]
    tokens, total_flops = sum(n for n, _ in read), float(sum(n * f.causal for n, f in read))
    seconds = total_flops / (gpus * device.peak(_precision(config, device)) * mfu)
    parts, days = parameter_counts(model_config), seconds / 86400
    total = sum(parts.values())
    return TrainingPlan(
        device.name,
        gpus,
        parts,
        total,
        flops,
        found,
        state_bytes_by_recipe(total),
        min(config.batch.micro_size or config.batch.global_size, config.batch.global_size // gpus),
        config.steps,
        config.batch.global_size * config.data.seq_len,
        tokens,
        total_flops,
        mfu,
        tokens / seconds,
        days,
        None if price is None else days * 24 * gpus * price,
    )


def suggest_fits(config: TrainConfig, model_config: ModelConfig, device: Device, gpus: int, room: int) -> list[str]:
    """Changes of a training that needs more than `room` bytes per device, each of which makes it fit; smallest first.

    Tries smaller micro-batches, without and with activation checkpointing, more shards per copy of the model, more
    devices and, if none of these is enough, shorter sequences.
    """

    def fits(to: TrainConfig, gpus: int, micro: int, checkpointing: bool) -> bool:
        need = peak_stage_memory(to, model_config, device, gpus, micro_size=micro, checkpointing=checkpointing)
        return need.peak <= room

    share, checkpointed = config.batch.global_size // gpus, config.activation_checkpointing == "full"
    most = min(config.batch.micro_size or share, share)
    tries = [m for m in range(most, 0, -1) if share % m == 0]
    would = [f"batch.micro_size={m}" for m in tries if fits(config, gpus, m, checkpointed)][:1]
    if not checkpointed:
        fitting = (m for m in tries if fits(config, gpus, m, True))
        would += [f"activation_checkpointing=full, batch.micro_size={m}" for m in islice(fitting, 1)]
    if config.parallel.dp_shard is not None:
        config = config.model_copy(update={"parallel": config.parallel.model_copy(update={"dp_shard": None})})
        if fits(config, gpus, 1, checkpointed):
            would.append(f"parallel.dp_shard={gpus}, batch.micro_size=1")
    more = [g for g in (2**i for i in range(1, 13)) if g > gpus and not any(w % g for _, w, _ in config.stages())]
    would += [f"--gpus {g}, batch.micro_size=1" for g in more if fits(config, g, 1, checkpointed)][:1]
    if not would:
        would += [
            f"--gpus {g}, activation_checkpointing=full, batch.micro_size=1" for g in more if fits(config, g, 1, True)
        ][:1]
    if not would and not config.data.changes:
        for length in (config.data.seq_len >> i for i in range(1, config.data.seq_len.bit_length())):
            data = config.data.model_copy(update={"seq_len": length})
            if fits(config.model_copy(update={"data": data}), gpus, 1, True):
                return [f"data.seq_len={length}, activation_checkpointing=full, batch.micro_size=1"]
    return would


def as_dict(plan: TrainingPlan) -> dict[str, Any]:
    """A plan as plain values; `flops` also has the totals by both conventions, full and causal."""
    return {**asdict(plan), "flops": {**asdict(plan.flops), "full": plan.flops.full, "causal": plan.flops.causal}}


class LiveStats:
    """Compares a running training with its plan; the metrics log calls it with the tokens and seconds of a step."""

    def __init__(self, config: TrainConfig, model_config: ModelConfig, device: Device | None, ranks: int) -> None:
        """`device`: what each rank computes on; None if its peak FLOP/s is unknown."""
        self._model_config, self.device = model_config, device
        self._peak = None if device is None else ranks * device.peak(config.precision)
        self._memory = (
            None
            if device is None or device.kind == "cpu"
            else peak_stage_memory(
                config,
                model_config,
                device,
                ranks,
                micro_size=config.batch.micro_size,
                checkpointing=config.activation_checkpointing == "full",
            ).peak
        )

    def stats(self, tokens: int, seconds: float, seq_len: int, bytes_held: int) -> dict[str, float]:
        """The speed and memory figures of one step.

        tokens_per_s; mfu, counting the causal half of attention, and mfu_full, counting all of it; of_plan, mfu as a
        share of ASSUMED_MFU; memory, the peak bytes so far on the first rank; memory_of_plan, as a share of the plan's.
        A CPU's memory is that of the whole process, code and libraries included, so it has no memory_of_plan.
        """
        rate = tokens / seconds
        found = {"tokens_per_s": round(rate, 1)}
        if self._peak is not None:
            flops = flops_per_token(self._model_config, seq_len)
            mfu = rate * flops.causal / self._peak
            full = rate * flops.full / self._peak
            found |= {"mfu": round(mfu, 4), "mfu_full": round(full, 4), "of_plan": round(mfu / ASSUMED_MFU, 4)}
        found["memory"] = bytes_held
        if self._memory is not None:
            found["memory_of_plan"] = round(bytes_held / self._memory, 4)
        return found
