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

from curation.shards import read_manifest
from training.config import DataConfig
from training.data.batch import Batch
from training.data.data_order import OrderLog
from training.data.data_schedule import new_data_order, rank_slices
from training.data.dataset import TokenDataset


class StepDataset(Dataset[list[Batch]]):
    """Item i: the batches of a rank in iteration i, one for each step of accumulation."""

    def __init__(
        self, data: TokenDataset, log: OrderLog, rank: int = 0, world: int = 1, accumulation: int = 1, count: int = 0
    ) -> None:
        """Raises UserError where a global batch of the log cannot be dealt evenly, naming the nearest that can.
        `count` is its length, and ends a `for` over it; without one any iteration can be read."""
        for segment in log.segments:
            rank_slices(segment.batch, world, accumulation, rank)
        self.data, self.log, self.rank, self.world, self.accumulation = data, log, rank, world, accumulation
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, iteration: int) -> list[Batch]:
        if self.count and not 0 <= iteration < self.count:
            raise IndexError(f"iteration {iteration} of {self.count}, counted from 0")
        first, last = self.log.span(iteration)
        parts = rank_slices(last - first, self.world, self.accumulation, self.rank)
        return [self.data.batch(self.log, first + a, first + b) for a, b in parts]


def dataset(
    run: str,
    *,
    sequence: int,
    windows: int,
    iterations: int,
    seed: int = 17,
    weights: dict[str, float] | None = None,
    max_epochs: float | None = None,
) -> StepDataset:
    """A curation run's training split as a map-style torch dataset: what a training with these settings reads.

    run       directory or URL of the run
    sequence  inputs of a window; `windows` of them are a batch, `iterations` the length
    weights   share of each domain [default: those of the run's mix]

    Item i is a list of one `Batch`, of tensors [windows, sequence]. It is a function of i alone, so it needs no
    shuffling and has no state. Raises UserError for a mix that would read a domain more often than max_epochs, which is
    by default what the run was made for.
    """
    settings = DataConfig(seq_len=sequence, weights=weights, max_epochs=max_epochs)
    data, log, _ = new_data_order(read_manifest(run), settings, seed, windows, iterations)
    return StepDataset(data, log, count=iterations)


def build_dataloader(
    data: TokenDataset,
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
    dataset = StepDataset(data, log, rank, world, accumulation)
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
