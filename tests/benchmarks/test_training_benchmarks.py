"""Benchmarks that need hours or a GPU also run at their smallest size, so that a broken one is found here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the benchmark would take minutes")
def test_gpu_train_falls_back() -> None:
    said = run("gpu_train", "--seconds", "0.1", "--loss", "ours")
    assert "no GPU here" in said and "tokens/s  MFU" in said


def test_loss_and_step() -> None:
    small = ["--rows", "64", "--hidden", "32", "--vocab", "500", "--repeats", "1", "--threads", "1", "--error"]
    assert "error of the gradients" in run("loss", *small)
    sizes = ["--layers", "2", "--width", "64", "--sequences", "1", "--seq-len", "32"]
    small = ["--vocab", "65", "--mode", "eager", *sizes, "--repeats", "1", "--threads", "1"]
    assert "nanoGPT, plain loss" in run("step", *small)


def test_the_plain_decoder_is_ours() -> None:
    """Loss and gradients of the convergence benchmark's reference are those of the model, documents included."""
    from benchmarks.plain import PlainLlama
    from training.model.transformer import ModelConfig

    plain = PlainLlama(
        ModelConfig(
            vocab_size=60,
            num_layers=2,
            hidden_size=32,
            num_heads=4,
            num_kv_heads=2,
            intermediate_size=48,
            tie_embeddings=True,
        )
    )
    model = plain.held
    model.init_weights(1)
    tokens = torch.randint(0, 60, (2, 33), generator=torch.Generator().manual_seed(0))
    batch = tokens[:, :-1], tokens[:, 1:], torch.arange(32).expand(2, -1) // 10
    loss_sum, count, _ = model(*batch)
    (loss_sum / count).backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    loss = plain(*batch)
    loss.backward()
    assert loss.item() == pytest.approx((loss_sum / count).item(), rel=1e-6)
    for name, p in model.named_parameters():
        assert torch.allclose(p.grad, ours[name], atol=1e-6), name
