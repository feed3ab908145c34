"""Finds the steps where loss and gradient norm change because the training file says so.

A new mix, batch size or sequence length, and the decay of a warm-up-stable-decay schedule, give both another level or
another spread. The spike guard begins a new baseline there, and compares no documents across. The end of the warm-up is
none: the learning rate reaches its peak without a jump, and that is when a run needs its guard most.
"""

from __future__ import annotations

from training.config import TrainConfig
from training.data.data_order import OrderLog
from training.optim.lr_schedule import decay_begin


def stage_starts(config: TrainConfig, order: OrderLog) -> list[int]:
    """The steps (from 0) that begin a stage, in order; step 0 is the first. Masking a document begins none."""
    starts = {0}
    for before, segment in zip(order.segments, order.segments[1:], strict=False):
        read_as = (before.mix, before.seq_len, before.global_size)
        if read_as != (segment.mix, segment.seq_len, segment.global_size):
            starts.add(order.step_of(segment.start))
    if config.schedule.kind == "wsd":
        starts.add(decay_begin(config.steps, config.schedule))
    return sorted(starts)


def stage_of(step: int, starts: list[int]) -> int:
    """The start of the stage that a step (from 0) is in."""
    return max(start for start in starts if start <= step)
