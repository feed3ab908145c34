"""Measures training steps on one GPU: tokens/s, MFU and memory, with torch.compile of the plain loss as the peer.

python -m benchmarks.gpu_train [--preset 124m 1b 8b] [--seq-len 2048 8192] [--seconds 15]

Computes in bf16 under autocast with fp32 weights and fused AdamW. (8B: weights and moments of 128 GB leave no room on
a GPU of 141 GB, so it runs forward and backward only, with weights in bf16.) Documents have 700 tokens on average and
do not attend to each other. MFU is counted as in training/cost/model_stats.py: 6 N, with the head and without the
embedding, plus the causal half of attention, over the data sheet's peak; beside it MFU with all of attention, and the
share of what a large matrix product reaches in the same run. The attention backend, varlen or flex, is the one that
training.model.attention.attention_backend chooses. Without a GPU it runs one toy model on the CPU, as a smoke test.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import time
from collections.abc import Callable

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor

from training.config import PRESETS
from training.cost.device_specs import find_device, match_device
from training.cost.model_stats import estimate_memory, flops_per_token
from training.model.attention import attention_backend, attention_mask
from training.model.linear_cross_entropy import linear_cross_entropy
from training.model.transformer import Model, ModelConfig

VOCAB = 128_256
TOKENS = {"124m": 65_536, "1b": 16_384, "8b": 8_192, "toy": 512}  # per step, so that activations fit


def batch(tokens: int, seq_len: int, vocab: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    sequences = max(1, tokens // seq_len)
    stream = torch.randint(0, vocab, (sequences, seq_len + 1), generator=g)
    documents = (torch.rand(sequences, seq_len, generator=g) < 1 / 700).long().cumsum(1)
    return stream[:, :-1].to(device), stream[:, 1:].to(device), documents.to(device)


class PlainLoss(Model):
    """The same model with all logits at once."""

    def forward(
        self, tokens: Tensor, targets: Tensor, documents: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype = self.embedding.weight.dtype
        if torch.is_autocast_enabled(tokens.device.type):
            dtype = torch.get_autocast_dtype(tokens.device.type)
        hidden = self.hidden_states(tokens, attention_mask(documents, attention_backend(tokens.device, dtype), dtype))
        return _plain(hidden, self.head.weight, targets), (targets >= 0).sum(), targets


def _logits_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = F.linear(hidden, weight).flatten(0, -2)
    return F.cross_entropy(logits.float(), targets.flatten(), reduction="sum")


_plain = torch.compile(_logits_loss)


def sync(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def product_rate(device: str, size: int) -> float:
    """FLOP/s of a bf16 product of size^3."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = float("inf")
    for _ in range(6):
        sync(device)
        begin = time.perf_counter()
        a @ a
        sync(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def measure(
    device: str, name: str, seq_len: int, loss: str, compiled: bool, seconds: float, peak: float, reach: float
) -> None:
    torch._dynamo.reset()  # so that no kernel compiled for other shapes is reused
    config = ModelConfig(vocab_size=VOCAB if device == "cuda" else 512, **PRESETS[name])
    large = name == "8b"
    with torch.device("meta"):
        model = (Model if loss == "ours" else PlainLoss)(config)
    model.to_empty(device=device)
    if config.tie_embeddings:
        model.head.weight = model.embedding.weight
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.02) if p.dim() > 1 else p.fill_(1.0)
    if large:
        model.to(torch.bfloat16)
    if compiled:
        model.compile_blocks()
    optimizer = None if large else torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    given = batch(TOKENS[name], seq_len, config.vocab_size, device)
    count = given[0].numel()

    def training_step() -> None:
        with contextlib.nullcontext() if large else torch.autocast(device, torch.bfloat16):
            loss_sum, _, _ = model(*given)
        (loss_sum / count).backward()
        if optimizer is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        model.zero_grad(set_to_none=True)

    for _ in range(3):
        training_step()
    sync(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        training_step()
        done += 1
        sync(device)
    rate = done * count / (time.perf_counter() - begin)
    held = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
    planned = estimate_memory(config, given[0].shape[0], seq_len, device=device).peak / 1e9
    said = f"{held:6.1f} GB" + ("" if large or loss != "ours" else f", planned {planned:.1f}")
    flops = flops_per_token(config, seq_len)
    print(
        f"{name:5} {seq_len:5} {'compiled' if compiled else 'eager':8} {loss:5} {rate:10,.0f} tokens/s  "
        f"MFU {rate * flops.causal / peak:.1%} (all of attention {rate * flops.full / peak:.1%}; "
        f"{rate * flops.causal / reach:.1%} of a product)  {said}",
        flush=True,
    )


def loss_memory() -> None:
    """Prints the peak memory of the loss, gradients included, at 32,768 x 4,096 x 128,256."""
    hidden = torch.randn(32_768, 4096, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = (torch.randn(VOCAB, 4096, device="cuda") / 64).to(torch.bfloat16).requires_grad_()
    targets = torch.randint(0, VOCAB, (32_768,), device="cuda")
    losses: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: linear_cross_entropy(hidden, weight, targets)[0],
        "ours, compiled": lambda: linear_cross_entropy(hidden, weight, targets, compiled=True)[0],
        "torch.compile of the plain one": lambda: _plain(hidden, weight, targets),
    }
    for name, loss in losses.items():
        hidden.grad = weight.grad = None
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        try:
            loss().backward()
            peak = f"{(torch.cuda.max_memory_allocated() - before) / 1e9:.2f} GB at the peak, gradients included"
        except torch.OutOfMemoryError:
            peak = "out of memory"
        print(f"loss, 32,768 x 4,096 x 128,256, {name}: {peak}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", choices=["124m", "1b", "8b"], default=["124m", "1b", "8b"])
    parser.add_argument("--seq-len", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--loss", nargs="+", choices=["ours", "plain"], default=["ours", "plain"])
    parser.add_argument("--mode", nargs="+", choices=["eager", "compiled"], default=["compiled", "eager"])
    parser.add_argument("--seconds", type=float, default=15)
    a = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"torch {torch.__version__}: no GPU here; one toy model on the CPU")
        for loss in a.loss:
            reach = product_rate("cpu", 1024)
            measure("cpu", "toy", 128, loss, False, min(a.seconds, 1.0), find_device("cpu").bf16, reach)
        return
    called, reach = torch.cuda.get_device_name(), product_rate("cuda", 8192)
    gpu = match_device(called)
    peak = gpu.bf16 if gpu else reach
    of = (
        f"of {peak / 1e12:.0f} TFLOP/s"
        if gpu
        else "TFLOP/s, used as its peak, as it is not in training/cost/device_specs.py"
    )
    print(f"torch {torch.__version__}, {called}: a product {reach / 1e12:.0f} {of}")
    loss_memory()
    for name in a.preset:
        for seq_len in a.seq_len:
            for mode in a.mode:
                for loss in a.loss:
                    try:
                        measure("cuda", name, seq_len, loss, mode == "compiled", a.seconds, peak, reach)
                    except torch.OutOfMemoryError:
                        print(f"{name:5} {seq_len:5} {mode:8} {loss:5} out of memory", flush=True)
                    gc.collect()
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
