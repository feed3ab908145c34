"""Predicts whether a training fits in memory, how long it takes and what it costs; compares a running one with that.

`plan_training` refuses a training that does not fit and says what would. `LiveStats` compares a running training with
its plan. The sums are in model_stats.py, the devices in device_specs.py.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from curation.core.errors import UserError
from training.config import TrainConfig
from training.cost.device_specs import Device, find_device, has_native_bf16
from training.cost.model_stats import (
    Flops,
    Memory,
    estimate_memory,
    flops_per_token,
    parameter_counts,
    state_bytes_by_recipe,
)
from training.model.transformer import ModelConfig

USABLE = 0.92  # of a device's memory: context, fragmentation and communication buffers take the rest
ASSUMED_MFU = 0.4  # where nothing was measured; Llama 3's report gives 0.38 to 0.43 (Dubey et al. 2024, table 4)


@dataclass(frozen=True)
class TrainingPlan:
    """The predicted figures of a training. `flops`: per token, of its first stage; `cost`: None without a price."""

    device: str
    gpus: int
    parameters: dict[str, int]
    total_parameters: int
    flops: Flops
    memory: Memory
    recipes: dict[str, int]
    micro: int
    iterations: int
    tokens_per_iteration: int
    tokens: int
    total_flops: float
    mfu: float
    tokens_per_second: float
    days: float
    cost: float | None


def peak_stage_memory(
    config: TrainConfig,
    shape: ModelConfig,
    device: Device,
    gpus: int,
    *,
    micro: int | None,
    checkpointing: bool,
) -> Memory:
    """What each of `gpus` devices holds in the stage of the training that holds most."""

    def at(windows: int, sequence: int) -> Memory:
        share = max(1, windows // gpus)
        few = min(micro or config.batch.global_size, share)
        return estimate_memory(
            shape,
            few,
            sequence,
            precision=_precision(config, device),
            checkpointing=checkpointing,
            shards=min(gpus, config.parallel.dp_shard or gpus),
            device=device.kind,
            accumulate=few < share,
            optimizer=config.optimizer.kind,
        )

    return max((at(windows, sequence) for _, windows, sequence in config.stages()), key=lambda m: m.peak)


def _precision(config: TrainConfig, device: Device) -> str:
    if config.precision != "auto":
        return config.precision
    return "bf16" if device.kind == "cuda" or has_native_bf16("cpu") else "fp32"


def plan_training(
    config: TrainConfig,
    vocab: int,
    *,
    device: Device | None = None,
    gpus: int = 1,
    mfu: float = ASSUMED_MFU,
    price: float | None = None,
) -> TrainingPlan:
    """What `config` comes to on `gpus` devices (default: this machine's). `price`: of a device's hour.

    Raises UserError where it does not fit, saying what would, and where training would refuse to begin.
    """
    device = device or find_device(None)
    shape = ModelConfig(vocab_size=vocab, **config.model.model_dump(exclude={"preset"}))
    for _, windows, _ in config.stages():
        if windows % gpus:
            raise UserError(
                f"batch.global_size {windows} does not divide over {gpus} devices; "
                f"{math.ceil(windows / gpus) * gpus} would"
            )
    if gpus % (config.parallel.dp_shard or 1):
        raise UserError(f"parallel.dp_shard {config.parallel.dp_shard} does not divide {gpus} devices")
    found = peak_stage_memory(
        config,
        shape,
        device,
        gpus,
        micro=config.batch.micro_size,
        checkpointing=config.activation_checkpointing == "full",
    )
    room = int(device.memory * USABLE)
    if found.peak > room:
        would = suggest_fits(config, shape, device, gpus, room)
        parts = {k: v for k, v in asdict(found).items() if k != "peak" and v}
        raise UserError(
            f"{found.peak / 1e9:.1f} GB are needed on each {device.name} and {room / 1e9:.1f} of its "
            f"{device.memory / 1e9:.0f} can be used ({', '.join(f'{k} {v / 1e9:.1f}' for k, v in parts.items())}). "
            + ("What would fit: " + "; or ".join(would) if would else "Nothing tried here would fit: a smaller model?")
        )
    flops = flops_per_token(shape, config.data.seq_len)
    read = [
        (count * windows * sequence, flops_per_token(shape, sequence)) for count, windows, sequence in config.stages()
    ]
    tokens, total_flops = sum(n for n, _ in read), float(sum(n * f.causal for n, f in read))
    seconds = total_flops / (gpus * device.peak(_precision(config, device)) * mfu)
    parts, days = parameter_counts(shape), seconds / 86400
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


def suggest_fits(config: TrainConfig, shape: ModelConfig, device: Device, gpus: int, room: int) -> list[str]:
    """What of a training that needs more than `room` bytes could be another so that it fits, the least first.

    Tried are smaller micro-batches, without and with recomputation, more shards of a copy, more devices and, where
    nothing of these would do, shorter windows.
    """

    def fits(to: TrainConfig, gpus: int, micro: int, checkpointing: bool) -> bool:
        return peak_stage_memory(to, shape, device, gpus, micro=micro, checkpointing=checkpointing).peak <= room

    share, checkpointed = config.batch.global_size // gpus, config.activation_checkpointing == "full"
    most = min(config.batch.micro_size or share, share)
    tries = [m for m in range(most, 0, -1) if share % m == 0]
    would = [f"batch.micro_size={m}" for m in tries if fits(config, gpus, m, checkpointed)][:1]
    if not checkpointed:
        would += [f"activation_checkpointing=full, batch.micro_size={m}" for m in tries if fits(config, gpus, m, True)][
            :1
        ]
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
    """A plan as plain values, with the FLOPs of both conventions."""
    return {**asdict(plan), "flops": {**asdict(plan.flops), "full": plan.flops.full, "causal": plan.flops.causal}}


class LiveStats:
    """A running training against its plan: train.py hands it tokens and seconds and writes down what it answers."""

    def __init__(self, config: TrainConfig, shape: ModelConfig, device: Device | None, ranks: int) -> None:
        """`device`: what each of the ranks computes on; None where no peak of it is known."""
        self._shape, self.device = shape, device
        self._peak = None if device is None else ranks * device.peak(config.precision)
        self._memory = (
            None
            if device is None or device.kind == "cpu"
            else peak_stage_memory(
                config,
                shape,
                device,
                ranks,
                micro=config.batch.micro_size,
                checkpointing=config.activation_checkpointing == "full",
            ).peak
        )

    def stats(self, tokens: int, seconds: float, sequence: int, bytes_held: int) -> dict[str, float]:
        """Of an iteration: tokens_per_s; mfu and mfu_full, by the causal half and by all of attention; of_plan.

        memory: the bytes held at once so far, on the first rank; memory_of_plan: as a share of the plan's. A CPU's are
        those of the whole process, code and libraries included, so there is no share of them.
        """
        rate = tokens / seconds
        found = {"tokens_per_s": round(rate, 1)}
        if self._peak is not None:
            flops = flops_per_token(self._shape, sequence)
            mfu = rate * flops.causal / self._peak
            full = rate * flops.full / self._peak
            found |= {"mfu": round(mfu, 4), "mfu_full": round(full, 4), "of_plan": round(mfu / ASSUMED_MFU, 4)}
        found["memory"] = bytes_held
        if self._memory is not None:
            found["memory_of_plan"] = round(bytes_held / self._memory, 4)
        return found
