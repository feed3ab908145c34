"""Iterations through PyTorch's DataLoader: workers, pinned memory, and the same batches in the same order as without.

    loader = batches(data, log, range(start, end), rank=0, world=1, accumulation=1, workers=2)

The dataset is a function of the iteration, so any number of workers gives the same batches, a run that resumes begins
its range later, and there is nothing to save. A worker opens shards of its own. Reading takes so little that workers
are of use only where something else is slow: without any, `data.batch` can be called in the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .data import Batch, Data
from .order import OrderLog
from .planning import share


class Iterations(Dataset[list[Batch]]):
    """Item i: the batches of a rank in iteration i, one for each step of accumulation."""

    def __init__(self, data: Data, log: OrderLog, rank: int = 0, world: int = 1, accumulation: int = 1) -> None:
        """Raises UserError where a global batch of the log cannot be dealt evenly, naming the nearest that can."""
        for segment in log.segments:
            share(segment.batch, world, accumulation, rank)
        self.data, self.log, self.rank, self.world, self.accumulation = data, log, rank, world, accumulation

    def __getitem__(self, iteration: int) -> list[Batch]:
        first, last = self.log.span(iteration)
        parts = share(last - first, self.world, self.accumulation, self.rank)
        return [self.data.batch(self.log, first + a, first + b) for a, b in parts]


def batches(
    data: Data,
    log: OrderLog,
    iterations: Sequence[int],
    *,
    rank: int = 0,
    world: int = 1,
    accumulation: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """A DataLoader over iterations; each item is what `Iterations` says."""
    dataset = Iterations(data, log, rank, world, accumulation)
    # far-away shards are fetched by threads, which a forked worker would not have
    context = "spawn" if workers and any(d.remote for d in data.domains.values()) else None
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=iterations,
        num_workers=workers,
        pin_memory=pin_memory and torch.cuda.is_available(),
        multiprocessing_context=context,
        prefetch_factor=4 if workers else None,
    )
