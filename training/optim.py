"""The optimizer and its learning rate.

AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only: norms have nothing to gain from shrinking. The
learning rate is a function of the iteration, so that resuming needs no scheduler state.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from .config import OptimizerConfig, ScheduleConfig


def adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over all parameters, in the order of their names' definition; fused on every device that has it."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def learning_rate(iteration: int, iterations: int, peak: float, config: ScheduleConfig) -> float:
    """The learning rate of iteration 0..iterations-1.

    Rises linearly over `warmup` iterations, reaching `peak` at the last of them. Then: constant; cosine, half a wave
    from `peak` down to `final * peak` at the last iteration; or wsd (warm-up, stable, decay; Hu et al. 2024, MiniCPM),
    `peak` until the last `decay` share of the iterations and from there linearly down to `final * peak`.
    """
    warmup = max(1, iterations // 20) if config.warmup is None else config.warmup
    if iteration < warmup:
        return peak * (iteration + 1) / warmup
    if config.kind == "constant":
        return peak
    begin = max(warmup, iterations - round(config.decay * iterations)) if config.kind == "wsd" else warmup
    done = (iteration - begin + 1) / max(1, iterations - begin) if iteration >= begin else 0.0
    share = (1 + math.cos(math.pi * done)) / 2 if config.kind == "cosine" else 1 - done
    return peak * (config.final + (1 - config.final) * share)
