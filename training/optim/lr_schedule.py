"""Computes the learning rate of a training step: warm-up, then constant, cosine or warm-up-stable-decay (WSD).

The rate is a function of the step alone, so that resuming needs no scheduler state.
"""

from __future__ import annotations

import math

from training.config import ScheduleConfig


def learning_rate(iteration: int, iterations: int, peak: float, config: ScheduleConfig) -> float:
    """The learning rate of iteration 0..iterations-1.

    Rises linearly over `warmup` iterations, reaching `peak` at the last of them. Then: constant; cosine, half a wave
    from `peak` down to `final * peak` at the last iteration; or wsd (warm-up, stable, decay; Hu et al. 2024, MiniCPM),
    `peak` until the last `decay` share of the iterations and from there down to `final * peak`: linearly, as 1 - sqrt
    of the share done (Hägele et al. 2024, which found it best), or half a cosine wave.
    """
    warmup = max(1, iterations // 20) if config.warmup is None else config.warmup
    if iteration < warmup:
        return peak * (iteration + 1) / warmup
    if config.kind == "constant":
        return peak
    begin = max(warmup, iterations - round(config.decay * iterations)) if config.kind == "wsd" else warmup
    done = (iteration - begin + 1) / max(1, iterations - begin) if iteration >= begin else 0.0
    form = config.form if config.kind == "wsd" else "cosine"
    share = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "sqrt": 1 - math.sqrt(done)}[form]
    return peak * (config.final + (1 - config.final) * share)
