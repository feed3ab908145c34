"""Computes the learning rate of a training step: warm-up, then constant, cosine or warm-up-stable-decay (WSD).

The rate is a function of the step alone, so that resuming needs no scheduler state.
"""

from __future__ import annotations

import math

from training.config import ScheduleConfig


def learning_rate(step: int, steps: int, peak: float, config: ScheduleConfig) -> float:
    """The learning rate of step 0..steps-1.

    Rises linearly over `warmup_steps`, reaching `peak` at the last of them. Then: constant; cosine, half a wave from
    `peak` down to `min_lr_ratio * peak` at the last step; or wsd (warm-up, stable, decay; Hu et al. 2024, MiniCPM),
    `peak` until the last `decay_fraction` of the steps and from there down to `min_lr_ratio * peak`: linearly, as
    1 - sqrt of the share done (Hägele et al. 2024, which found it best), or half a cosine wave.
    """
    warmup = warmup_steps(steps, config)
    if step < warmup:
        return peak * (step + 1) / warmup
    if config.kind == "constant":
        return peak
    begin = decay_begin(steps, config)
    done = (step - begin + 1) / max(1, steps - begin) if step >= begin else 0.0
    decay = config.decay_type if config.kind == "wsd" else "cosine"
    share = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "sqrt": 1 - math.sqrt(done)}[decay]
    return peak * (config.min_lr_ratio + (1 - config.min_lr_ratio) * share)


def warmup_steps(steps: int, config: ScheduleConfig) -> int:
    """Steps in which the rate rises."""
    return max(1, steps // 20) if config.warmup_steps is None else config.warmup_steps


def decay_begin(steps: int, config: ScheduleConfig) -> int:
    """The first step (from 0) of the decay: after the warm-up, or for wsd where its last part begins."""
    warmup = warmup_steps(steps, config)
    return max(warmup, steps - round(config.decay_fraction * steps)) if config.kind == "wsd" else warmup
