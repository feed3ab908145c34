"""A dataloader for torchtitan: its trainer takes items (inputs, labels) and saves the loader with each checkpoint.

    python examples/torchtitan_dataloader.py RUN

torchtitan's own loader asserts that the number of ranks has not changed since a checkpoint; this one resumes with any.
"""

import sys

import torch
from nanogpt_loop import GPT
from torch.distributed.checkpoint.stateful import Stateful

import training


def build_dataloader(run, dp_rank, dp_world_size, seq_len, global_batch_size, accumulation, steps=None):
    """The loader for `TrainSpec.build_dataloader_fn`; it has __iter__, state_dict and load_state_dict."""
    return training.dataset(
        run, seq_len=seq_len, global_batch=global_batch_size, rank=dp_rank, world=dp_world_size,
        accumulation=accumulation, steps=steps,
        transform=lambda batch: ({"input": batch.tokens, "positions": batch.position_ids}, batch.targets),
    )  # fmt: skip


def main(run: str, steps: int = 4) -> None:
    """What torchtitan's trainer does with it: iterate, save with the checkpoint, load, iterate on."""
    loader = build_dataloader(run, 0, 1, 64, 8, 2, steps)
    assert isinstance(loader, Stateful)
    model = GPT(loader.data.manifest.tokenizer.vocab, 64)
    iterator = iter(loader)
    for _ in range(2 * 2):
        inputs, labels = next(iterator)
        documents = (inputs["positions"] == 0).cumsum(dim=1)
        model(inputs["input"], labels, documents, inputs["positions"]).backward()
    state = loader.state_dict()

    ranks = [build_dataloader(run, rank, 3, 64, 8, 1, steps) for rank in range(3)]  # three ranks instead of one
    for rank in ranks:
        rank.load_state_dict(state)
    went_on = torch.cat([next(rank)[0]["input"] for rank in ranks])
    expected = torch.cat([next(iterator)[0]["input"] for _ in range(2)])
    assert torch.equal(went_on, expected)
    print("three ranks resume where one stopped")


if __name__ == "__main__":
    main(sys.argv[1])
