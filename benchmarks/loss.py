"""Compares the fused loss with the plain one and torch's own: time, memory beyond inputs and gradients, error to fp64.

python -m benchmarks.loss [--rows 2048] [--hidden 512 2048] [--vocab 32000 50304 128256] [--error] [--compiled]

Forward and backward of the mean loss; the contenders take turns and the least time of each counts, as wall time and as
processor time. Memory: the peak of live storages, on a GPU that of the allocator. Error (--error): norm-wise against
fp64 of the same inputs, at 1/16 of the vocabulary, as a multiple of the plain loss's. Compiled (--compiled, and on a
GPU always): the plain loss through torch.compile, and ours with its passes compiled; on a CPU their memory goes unseen.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
import torch._dynamo
import torch.nn.functional as F
from torch import Tensor

from benchmarks.memory_profile import LiveStorages
from training.model.linear_cross_entropy import linear_cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = hidden @ weight.T
    return F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), targets)


def ours(hidden: Tensor, weight: Tensor, targets: Tensor, compiled: bool = False) -> Tensor:
    loss_sum, count, _ = linear_cross_entropy(hidden, weight, targets, compiled=compiled)
    return loss_sum / count


def contenders(device: str, compiled: bool) -> dict[str, Loss]:
    found: dict[str, Loss] = {"plain": plain, "ours": ours}
    if hasattr(F, "linear_cross_entropy"):
        options = torch.nn.LinearCrossEntropyOptions()
        found["torch"] = lambda h, w, y: F.linear_cross_entropy(h, w, y, options=options)
    if compiled or device == "cuda":
        found["plain, compiled"] = torch.compile(plain)
        found["ours, compiled"] = partial(ours, compiled=True)
    if device == "cuda":
        try:
            from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

            found["liger"] = lambda h, w, y: liger_fused_linear_cross_entropy(h, w, y)
        except ImportError:
            print("liger-kernel is not installed; left out")
    return found


def inputs(rows: int, width: int, vocab: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(rows, width, device=device).to(dtype).requires_grad_()
    weight = (torch.randn(vocab, width, device=device) * width**-0.5).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(0, vocab, (rows,), device=device)


def memory(loss: Loss, hidden: Tensor, weight: Tensor, targets: Tensor) -> int:
    """Peak bytes beyond inputs, weight and their gradients."""
    hidden.grad = weight.grad = None
    ends = hidden.nbytes + weight.nbytes
    if hidden.is_cuda:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss(hidden, weight, targets).backward()
        return int(torch.cuda.max_memory_allocated() - before - ends)
    with LiveStorages([hidden, weight, targets]) as live:
        loss(hidden, weight, targets).backward()
    return live.peak - live.known - ends


def seconds(losses: dict[str, Loss], given: tuple[Tensor, Tensor, Tensor], repeats: int) -> dict[str, list[float]]:
    """Least wall and processor seconds of each contender, taking turns.

    The first turn is to warm up. Who needs five times as long as the plain one in it is not run again (on a CPU torch's
    own needs minutes at the largest shapes in bf16).
    """
    torch._dynamo.reset()  # a general graph of other sizes would be nobody's best
    for name, loss in losses.items():  # what is imported and compiled at the first call is nobody's slowness
        loss(*(given if "compiled" in name else inputs(8, 16, 64, given[0].dtype, given[0].device.type))).backward()
    best = {name: [float("inf")] * 2 for name in losses}
    running = dict(losses)
    for turn in range(repeats + 1):
        for name, loss in list(running.items()):
            given[0].grad = given[1].grad = None
            wall, cpu = time.perf_counter(), time.process_time()
            loss(*given).backward()
            if given[0].is_cuda:
                torch.cuda.synchronize()
            took = [time.perf_counter() - wall, time.process_time() - cpu]
            if turn == 0 and name == "plain":
                slow = 5 * took[0]
            if turn == 0 and took[0] > slow:
                del running[name]
            if turn or name not in running:
                best[name] = [min(a, b) for a, b in zip(best[name], took, strict=True)]
    return best


def error(loss: Loss, rows: int, width: int, vocab: int, dtype: torch.dtype, device: str) -> tuple[float, float]:
    """Norm-wise relative error of the gradients by hidden and weight."""
    hidden, weight, targets = inputs(rows, width, vocab, dtype, device)
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    plain(*exact, targets).backward()
    loss(hidden, weight, targets).backward()
    got = [(t.grad.double() - e.grad).norm() / e.grad.norm() for t, e in zip((hidden, weight), exact, strict=True)]
    return float(got[0]), float(got[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--vocab", type=int, nargs="+", default=[32_000, 50_304, 128_256])
    parser.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--error", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    print(f"torch {torch.__version__}, {a.device}, {a.threads} threads, {a.rows} rows; seconds: wall (processor)")
    losses = contenders(a.device, a.compiled)
    for name in a.dtype:
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
        for width in a.hidden:
            for vocab in a.vocab:
                given = inputs(a.rows, width, vocab, dtype, a.device)
                took = seconds(losses, given, a.repeats)
                seen = [k for k in losses if a.device == "cuda" or "compiled" not in k]
                held = {k: memory(losses[k], *given) for k in seen}
                for k, (wall, cpu) in took.items():
                    times = f"{wall:8.3f} ({cpu:7.3f}) s  {cpu / took['plain'][1]:5.2f} x plain's processor time"
                    beyond = f"{held[k] / 2**20:9.1f} MiB  1/{held['plain'] / max(1, held[k]):.1f}" if k in held else ""
                    print(f"{name} {width:5} x {vocab:7}  {k:16} {times}  {beyond}".rstrip(), flush=True)
            if a.error:
                wrong = {k: error(f, a.rows, width, 2048, dtype, a.device) for k, f in losses.items()}
                shown = ", ".join(
                    f"{k} {e[0]:.2e} {e[1]:.2e} ({e[0] / wrong['plain'][0]:.2f}, {e[1] / wrong['plain'][1]:.2f} x)"
                    for k, e in wrong.items()
                )
                print(f"{name} {width:5} error of the gradients by hidden and weight: {shown}", flush=True)


if __name__ == "__main__":
    main()
