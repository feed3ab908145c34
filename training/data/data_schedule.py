"""Turns the training file's data section into the order log of a whole run, before its first step.

A run begins with one mix, sequence length and global batch; `data.changes` changes any of them from a step on
(annealing towards better data, a growing batch, a longer context at the end). Each becomes a segment of the order log.
Data that would run out is refused here, not a week later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from curation.core.errors import UserError
from curation.shards import Manifest
from training.config import DataConfig
from training.data.data_order import OrderLog
from training.data.dataset import TokenDataset
from training.data.mix_table import OrderError, integer_mix

Settings = dict[str, Any]  # mix, seq_len and global_size, as OrderLog.with_change takes them


def new_data_order(
    manifest: Manifest, config: DataConfig, seed: int, batch: int, steps: int
) -> tuple[TokenDataset, OrderLog, float]:
    """The dataset and order log of a new run, and the largest difference between an integer mix and its weights.

    `batch`: sequences of a global batch. Raises UserError for no weights, an unknown or too small domain, a change that
    does not fit, and a mix that would read a domain more often than the cap on epochs allows, naming the step at which
    that would happen.
    """
    block = config.shuffle_block or max([config.seq_len, *(c.seq_len or 0 for c in config.changes)])
    try:
        stages, rounding = _stages(manifest, config, batch)
        first, changes = stages[0][1], stages[1:]
        log = OrderLog.new(first["mix"], block, first["seq_len"], first["global_size"])
        log = _apply_changes(log, changes, steps)
    except OrderError as error:
        raise UserError(f"data: {error}") from error
    return _open_dataset(manifest, config, seed, log, steps), log, rounding


def resume_data_order(
    manifest: Manifest, config: DataConfig, seed: int, batch: int, steps: int, log: OrderLog, sequence: int
) -> tuple[TokenDataset, OrderLog, float]:
    """As `new_data_order`, for a run that has read the log up to `sequence`, the first of a step.

    What was read does not change, masked documents stay masked, and the rest follows this configuration; if it agrees
    with the log, the log is returned unchanged.
    """
    now = log.step_of(sequence)
    try:
        stages, rounding = _stages(manifest, config, batch)
        current = [settings for at, settings in stages if at <= now][-1]
        kept = OrderLog(log.block, tuple(s for s in log.segments if s.start <= sequence))
        last = kept.segments[-1]
        if current != {"mix": last.mix, "seq_len": last.seq_len, "global_size": last.global_size}:
            kept = kept.with_change(sequence, **current)
        kept = _apply_changes(kept, [(at, settings) for at, settings in stages if at > now], steps)
    except OrderError as error:
        raise UserError(f"data: {error} (data.shuffle_block is fixed when a run begins)") from error
    return _open_dataset(manifest, config, seed, kept, steps), log if kept == log else kept, rounding


def _stages(manifest: Manifest, config: DataConfig, batch: int) -> tuple[list[tuple[int, Settings]], float]:
    """(step, the settings from it on) in order, beginning at step 0; and the largest rounding of a mix."""
    mix, rounding = integer_mix(config.weights or default_weights(manifest))
    stages: list[tuple[int, Settings]] = [(0, {"mix": mix, "seq_len": config.seq_len, "global_size": batch})]
    for change in config.changes:
        settings = dict(stages[-1][1])
        if change.weights is not None:
            settings["mix"], error = integer_mix(change.weights)
            rounding = max(rounding, error)
        settings["seq_len"] = change.seq_len or settings["seq_len"]
        settings["global_size"] = change.global_size or settings["global_size"]
        stages.append((change.at, settings))
    return stages, rounding


def _apply_changes(log: OrderLog, stages: Sequence[tuple[int, Settings]], steps: int) -> OrderLog:
    for at, settings in stages:
        if at < steps:
            log = log.with_change(log.step_range(at)[0], **settings)
    return log


def default_weights(manifest: Manifest) -> dict[str, float]:
    """The weights of the manifest's mix, or, if it has none, every domain by its tokens."""
    if manifest.mix.weights:
        return dict(manifest.mix.weights)
    sizes = {d: shards.tokens for d, shards in manifest.splits.get("train", {}).items()}
    total = sum(sizes.values()) or 1
    return {d: n / total for d, n in sizes.items()}


def _open_dataset(manifest: Manifest, config: DataConfig, seed: int, log: OrderLog, steps: int) -> TokenDataset:
    names = sorted({d for segment in log.segments for d in segment.mix})
    data = TokenDataset(manifest, seed, log.block, names, config.cache << 20)
    cap = config.max_epochs or manifest.mix.max_epochs
    if cap is not None:
        check_epoch_cap(data, log, cap, steps)
    return data


def check_epoch_cap(data: TokenDataset, log: OrderLog, cap: float, steps: int) -> None:
    """Raises UserError if a domain would be read more than `cap` times, naming the step in which it runs out."""
    for name, read in log.inputs_read(log.step_range(steps)[0]).items():
        allowed = cap * data.orders[name].total_blocks * log.block
        if read <= allowed:
            continue
        low, high = 0, steps  # the first step after which the domain was read too often
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (middle, high) if log.inputs_read(log.step_range(middle)[0]).get(name, 0) <= allowed else (low, middle)
            )
        tokens = data.orders[name].total_blocks * log.block
        raise UserError(
            f"domain {name} would be read {read / tokens:.2f} times and the cap is {cap:g} epochs of {tokens} tokens: "
            f"it runs out in step {high} of {steps}; lower its weight or the number of steps, "
            "or raise data.max_epochs"
        )


def steps_within_cap(data: TokenDataset, log: OrderLog, cap: float) -> int:
    """The number of steps that read no domain more than `cap` times."""
    allowed = {name: cap * order.total_blocks * log.block for name, order in data.orders.items()}

    def exceeds(steps: int) -> bool:
        return any(n > allowed[name] for name, n in log.inputs_read(log.step_range(steps)[0]).items())

    high = 1
    while not exceeds(high):
        high *= 2
    return bisect_left(range(high), True, key=exceeds) - 1


def rank_slices(batch: int, world: int, accumulation: int, rank: int) -> list[tuple[int, int]]:
    """The sequences of a global batch that a rank takes in each accumulation pass, as ranges within the batch.

    Pass a takes the a-th part of the batch and rank r the r-th part of that, so the batch read pass by pass and rank by
    rank is the batch in order, for any world size. Where it cannot be divided evenly, ranks differ by at most one
    sequence, in each pass and in all: the sequences left over go to the ranks in turn, through all passes. Raises
    UserError for fewer sequences than ranks × passes: one of them would have nothing to compute.
    """
    if batch < world * accumulation:
        raise UserError(
            f"batch.global_size: a global batch of {batch} cannot be divided over {world} ranks × {accumulation} "
            f"accumulation passes, which need {world * accumulation} sequences or more; take fewer ranks or passes"
        )
    slices, turn = [], 0  # turn: the rank that gets the next sequence left over
    for a in range(accumulation):
        begin, end = a * batch // accumulation, (a + 1) * batch // accumulation
        each, over = divmod(end - begin, world)
        # of the `over` ranks that get one more, beginning with `turn` and on from rank 0, those before this rank
        more = [(r - turn) % world < over for r in range(rank + 1)]
        first = begin + rank * each + sum(more[:rank])
        slices.append((first, first + each + more[rank]))
        turn = (turn + over) % world
    return slices
