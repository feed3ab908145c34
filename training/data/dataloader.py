"""Gives training steps through PyTorch's DataLoader: workers, pinned memory, the same batches as without it.

    loader = build_dataloader(data, log, range(start, end), rank=0, world=1, accumulation=1, workers=2)

The dataset is a function of the step, so any number of workers gives the same batches, a run that resumes begins its
range later, and there is no state to save. Each worker opens its own shards. Reading is cheap, so workers help only
where something else is slow; without them, `data.batch` can be called in the loop.
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
    """Item i: the batches of a rank in step i (from 0), one for each accumulation pass."""

    def __init__(
        self, data: TokenDataset, log: OrderLog, rank: int = 0, world: int = 1, accumulation: int = 1, count: int = 0
    ) -> None:
        """`count`: its length, which ends a `for` over it; with 0 any step can be read.

        Raises UserError if a global batch of the log cannot be divided evenly, naming the nearest sizes that can.
        """
        for segment in log.segments:
            rank_slices(segment.global_size, world, accumulation, rank)
        self.data, self.log, self.rank, self.world, self.accumulation = data, log, rank, world, accumulation
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> list[Batch]:
        if self.count and not 0 <= step < self.count:
            raise IndexError(f"step {step} of {self.count}, counted from 0")
        first, last = self.log.step_range(step)
        parts = rank_slices(last - first, self.world, self.accumulation, self.rank)
        return [self.data.batch(self.log, first + a, first + b) for a, b in parts]


def dataset(
    run: str,
    *,
    seq_len: int,
    global_size: int,
    steps: int,
    seed: int = 17,
    weights: dict[str, float] | None = None,
    max_epochs: float | None = None,
) -> StepDataset:
    """A curation run's training split as a map-style torch dataset: what a training with these settings reads.

    run          directory or URL of the run
    seq_len      inputs of a sequence
    global_size  sequences of a batch
    steps        batches, the length of the dataset
    weights      share of each domain [default: those of the run's mix]

    Item i is a list of one `Batch`, of tensors [global_size, seq_len]. It is a function of i alone, so it needs no
    shuffling and has no state. Raises UserError for a mix that would read a domain more often than max_epochs [default:
    the cap of the run's mix].
    """
    settings = DataConfig(seq_len=seq_len, weights=weights, max_epochs=max_epochs)
    data, log, _ = new_data_order(read_manifest(run), settings, seed, global_size, steps)
    return StepDataset(data, log, count=steps)


def build_dataloader(
    data: TokenDataset,
    log: OrderLog,
    steps: Sequence[int],
    *,
    rank: int = 0,
    world: int = 1,
    accumulation: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Any]:
    """A DataLoader over these steps; each item is that of `StepDataset`."""
    dataset = StepDataset(data, log, rank, world, accumulation)
    # remote shards are fetched by threads, which a forked worker would not have
    context = "spawn" if workers and any(d.remote for d in data.domains.values()) else None
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        pin_memory=pin_memory and torch.cuda.is_available(),
        multiprocessing_context=context,
        prefetch_factor=4 if workers else None,
    )
