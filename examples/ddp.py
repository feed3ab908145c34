"""Trains with DistributedDataParallel: torchrun --nproc-per-node 2 examples/ddp.py RUN

A global batch of 9 over two ranks gives one of them 5 sequences and the other 4. DDP averages gradients over ranks, so
each rank's summed loss is scaled by ranks / targets of all ranks: the step is that of one process.
"""

import sys

import torch
from nanogpt_loop import GPT
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import training


def main(run: str, steps: int = 8) -> list[float]:
    torch.manual_seed(17)
    loader = training.dataset(run, seq_len=64, global_batch=9, steps=steps)  # rank and world are torch.distributed's
    model = DistributedDataParallel(GPT(loader.data.manifest.tokenizer.vocab, 64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for batch in loader:
        count = (batch.targets != -100).sum()
        distributed.all_reduce(count)
        loss = model(*batch.tensors, batch.position_ids) / count
        (loss * distributed.get_world_size()).backward()
        optimizer.step()
        optimizer.zero_grad()
        distributed.all_reduce(loss.detach_())
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    losses = main(sys.argv[1])
    if distributed.get_rank() == 0:
        print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")
    distributed.destroy_process_group()
