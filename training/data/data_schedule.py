"""The order of a whole run, decided before its first iteration: what is read when, and whether there is enough of it.

A run begins with one mix, sequence length and global batch; `data.changes` says which of them is another from an
iteration on (annealing towards better data, a growing batch, a longer context at the end). All of it becomes segments
of the order log. What cannot be read to the end is refused here and not a week later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curation.core.errors import UserError
from curation.shards import Manifest
from training.config import DataConfig
from training.data.data_order import OrderLog
from training.data.dataset import TokenDataset
from training.data.mix_table import OrderError, integer_mix

Settings = dict[str, Any]  # mix, sequence and batch, as OrderLog.change takes them


def new_data_order(
    manifest: Manifest, config: DataConfig, seed: int, batch: int, iterations: int
) -> tuple[TokenDataset, OrderLog, float]:
    """The data and the order log of a new run, and the largest error of an integer mix against its weights.

    Raises UserError for what cannot be read: no weights, an unknown or too small domain, a change that does not fit,
    and a mix that would read a domain more often than the cap on epochs allows, naming the iteration at which that
    would happen.
    """
    block = config.shuffle_block or max([config.seq_len, *(c.seq_len or 0 for c in config.changes)])
    try:
        stages, rounding = _stages(manifest, config, batch)
        first, changes = stages[0][1], stages[1:]
        log = OrderLog.start(first["mix"], block, first["sequence"], first["batch"])
        log = _apply_changes(log, changes, iterations)
    except OrderError as error:
        raise UserError(f"data: {error}") from error
    return _open_dataset(manifest, config, seed, log, iterations), log, rounding


def resume_data_order(
    manifest: Manifest, config: DataConfig, seed: int, batch: int, iterations: int, log: OrderLog, window: int
) -> tuple[TokenDataset, OrderLog, float]:
    """As `plan`, for a run whose log was read up to `window`, the first of an iteration.

    What was read stays as it was, masked documents stay masked, and from there on it goes by this configuration; where
    that says what the log says, the log comes back unchanged.
    """
    now = log.iteration(window)
    try:
        stages, rounding = _stages(manifest, config, batch)
        current = [settings for at, settings in stages if at <= now][-1]
        kept = OrderLog(log.block, tuple(s for s in log.segments if s.window <= window))
        last = kept.segments[-1]
        if current != {"mix": last.mix, "sequence": last.sequence, "batch": last.batch}:
            kept = kept.change(window, **current)
        kept = _apply_changes(kept, [(at, settings) for at, settings in stages if at > now], iterations)
    except OrderError as error:
        raise UserError(f"data: {error} (the block is the unit of the order, set when the run began)") from error
    return _open_dataset(manifest, config, seed, kept, iterations), log if kept == log else kept, rounding


def _stages(manifest: Manifest, config: DataConfig, batch: int) -> tuple[list[tuple[int, Settings]], float]:
    """(iteration, all that holds from it on), from iteration 0; and the largest rounding of a mix."""
    mix, rounding = integer_mix(config.weights or default_weights(manifest))
    stages: list[tuple[int, Settings]] = [(0, {"mix": mix, "sequence": config.seq_len, "batch": batch})]
    for change in config.changes:
        settings = dict(stages[-1][1])
        if change.weights is not None:
            settings["mix"], error = integer_mix(change.weights)
            rounding = max(rounding, error)
        settings["sequence"] = change.seq_len or settings["sequence"]
        settings["batch"] = change.global_size or settings["batch"]
        stages.append((change.at, settings))
    return stages, rounding


def _apply_changes(log: OrderLog, stages: Sequence[tuple[int, Settings]], iterations: int) -> OrderLog:
    for at, settings in stages:
        if at < iterations:
            log = log.change(log.span(at)[0], **settings)
    return log


def default_weights(manifest: Manifest) -> dict[str, float]:
    """The weights of the manifest's mix, or without one every domain by its tokens."""
    if manifest.mix.weights:
        return dict(manifest.mix.weights)
    sizes = {d: shards.tokens for d, shards in manifest.splits.get("train", {}).items()}
    total = sum(sizes.values()) or 1
    return {d: n / total for d, n in sizes.items()}


def _open_dataset(manifest: Manifest, config: DataConfig, seed: int, log: OrderLog, iterations: int) -> TokenDataset:
    names = sorted({d for segment in log.segments for d in segment.mix})
    data = TokenDataset(manifest, seed, log.block, names, config.cache << 20)
    cap = config.max_epochs or manifest.mix.max_epochs
    if cap is not None:
        check_epoch_cap(data, log, cap, iterations)
    return data


def check_epoch_cap(data: TokenDataset, log: OrderLog, cap: float, iterations: int) -> None:
    """Raises UserError where a domain would be read more than `cap` times, naming the iteration in which it ends."""
    for name, read in log.read(log.span(iterations)[0]).items():
        allowed = cap * data.orders[name].total * log.block
        if read <= allowed:
            continue
        low, high = 0, iterations  # the first iteration after which the domain was read too often
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if log.read(log.span(middle)[0]).get(name, 0) <= allowed else (low, middle)
        tokens = data.orders[name].total * log.block
        raise UserError(
            f"domain {name} would be read {read / tokens:.2f} times and the cap is {cap:g} epochs of {tokens} tokens: "
            f"it runs out in step {high} of {iterations}; lower its weight or the number of steps, "
            "or raise data.max_epochs"
        )


def rank_slices(batch: int, world: int, accumulation: int, rank: int) -> list[tuple[int, int]]:
    """Which windows of a global batch a rank takes in each step of accumulation, as ranges within the batch.

    Step a takes the a-th part of the batch and rank r the r-th part of that, so the batch read step by step and rank by
    rank is the batch in order, whatever the world. Raises UserError where it cannot be dealt evenly, naming the nearest
    that can.
    """
    parts = world * accumulation
    if batch % parts:
        near = [n for n in (batch // parts * parts, (batch // parts + 1) * parts) if n]
        raise UserError(
            f"batch.global_size: a global batch of {batch} cannot be dealt to {world} ranks × {accumulation} steps of "
            f"accumulation; {' or '.join(map(str, near))} can"
        )
    size = batch // parts
    return [((a * world + rank) * size, (a * world + rank + 1) * size) for a in range(accumulation)]
