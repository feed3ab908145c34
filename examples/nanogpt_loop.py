"""Trains a small GPT on a curation run with a loop in the manner of nanoGPT: python examples/nanogpt_loop.py RUN

Attention stays within documents, the loss is divided by the targets of the whole step, and a checkpoint is the model,
the optimizer and the loader's state.
"""

import sys

import torch
from torch import nn
from torch.nn import functional as F

import training


class GPT(nn.Module):
    """Two blocks; positions and attention begin anew in each document."""

    def __init__(self, vocab: int, length: int, width: int = 32, heads: int = 2, blocks: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "norm": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width),
                "mlp": nn.Sequential(
                    nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
                ),
            })
            for _ in range(blocks)
        )  # fmt: skip
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens, targets, documents, position_ids):
        """The summed loss of all targets; -100 marks those that are not trained on."""
        rows, length = tokens.shape
        mask = (documents[:, :, None] == documents[:, None, :]).tril()[:, None]
        x = self.tokens(tokens) + self.positions(position_ids)
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm"](x)).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            x = x + block["out"](y.transpose(1, 2).reshape(rows, length, -1))
            x = x + block["mlp"](x)
        return F.cross_entropy(self.head(x).flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")


def main(run: str, steps: int = 8) -> list[float]:
    torch.manual_seed(17)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = training.dataset(run, seq_len=64, global_batch=8, accumulation=2, steps=steps)
    model = GPT(loader.data.manifest.tokenizer.vocab, 64).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses, total, count = [], 0.0, 0
    for batch in loader:  # one accumulation pass
        batch = batch.to(device)
        loss = model(*batch.tensors, batch.position_ids)
        loss.backward()
        total, count = total + loss.item(), count + int((batch.targets != -100).sum())
        if batch.ends_step:
            for parameter in model.parameters():
                parameter.grad /= count
            optimizer.step()
            optimizer.zero_grad()
            losses.append(total / count)
            total, count = 0.0, 0
            # all of the data's state; `loader.load_state_dict` resumes from it, with any number of ranks
            checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "data": loader.state_dict()}
    assert checkpoint["data"]["step"] == steps
    return losses


if __name__ == "__main__":
    losses = main(sys.argv[1])
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}")
