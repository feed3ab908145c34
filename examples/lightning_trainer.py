"""Trains with Lightning on a curation run: python examples/lightning_trainer.py RUN OUT

Lightning saves a loader that has state_dict and load_state_dict with its own checkpoints.
"""

import sys

import lightning.pytorch as pl
import torch
from nanogpt_loop import GPT

import training


class Module(pl.LightningModule):
    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.model = GPT(vocab, 64)
        self.losses: list[float] = []
        self.read: list[int] = []

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch.to(device)

    def training_step(self, batch, _):
        loss = self.model(*batch.tensors, batch.position_ids) / (batch.targets != -100).sum()
        self.losses.append(loss.item())
        self.read.append(batch.step)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main(run: str, out: str, steps: int = 4, resume: str | None = None) -> Module:
    """Trains to `steps` and saves OUT/last.ckpt; `resume`: a checkpoint to resume from."""
    torch.manual_seed(17)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    loader = training.dataset(
        run, seq_len=64, global_batch=8, rank=trainer.global_rank, world=trainer.world_size, pin_memory=False
    )
    module = Module(loader.data.manifest.tokenizer.vocab)
    trainer.fit(module, loader, ckpt_path=resume)
    trainer.save_checkpoint(f"{out}/last.ckpt")
    return module


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2]).losses)
