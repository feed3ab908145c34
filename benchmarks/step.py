"""Compares a whole training step with nanoGPT's architecture, at equal non-embedding parameters and FLOPs.

python -m benchmarks.step [--vocab 65 50304] [--mode eager compiled] [--precision fp32] [--repeats 5]

Forward, backward, clipping at 1, fused AdamW; both have tied embeddings; ours masks by document (three documents per
sequence), theirs is plain causal. Compiled: ours as training compiles it (one graph per block, one for the loss's
passes), theirs as a whole, as nanoGPT does. The models take turns and the shortest time of each counts. At a large
vocabulary nanoGPT runs with all logits and with torch's own chunked loss; the faster of the two is the one to beat.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.plain import GPT
from training.cost.model_stats import flops_per_token, parameter_counts
from training.model.transformer import Model, ModelConfig


class Ours(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = Model(config)
        self.model.init_weights(1)

    def forward(self, tokens: Tensor, targets: Tensor, documents: Tensor) -> Tensor:
        loss_sum, count, _ = self.model(tokens, targets, documents)
        return loss_sum / count


def training_step(model: nn.Module, precision: str, compiled: bool) -> Callable[[Tensor, Tensor, Tensor], float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, fused=True)
    call: nn.Module = model
    if compiled and isinstance(model, Ours):
        model.model.compile_blocks()  # as training does
    elif compiled:
        call = torch.compile(model)

    def run(tokens: Tensor, targets: Tensor, documents: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            loss = call(tokens, targets, documents)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=[65, 50_304])
    parser.add_argument("--mode", nargs="+", choices=["eager", "compiled"], default=["eager", "compiled"])
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    heads = a.width // 64
    sizes = f"{a.layers} layers, width {a.width}, {a.sequences} x {a.seq_len}"
    print(f"torch {torch.__version__}, {a.threads} threads, {sizes}")
    for vocab in a.vocab:
        config = ModelConfig(vocab, a.layers, a.width, heads, heads, a.width * 8 // 3, True)
        ours = sum(v for k, v in parameter_counts(config).items() if k not in ("embedding", "head"))
        gpt = sum(
            p.numel()
            for n, p in GPT(vocab, a.layers, a.width, heads, a.seq_len).named_parameters()
            if p.dim() and "embedding" not in n and "position" not in n
        )
        flops = flops_per_token(config, a.seq_len).full
        theirs = 6 * (gpt - (2 * a.layers + 1) * a.width + vocab * a.width) + 12 * a.layers * a.width * a.seq_len
        print(f"vocabulary {vocab}: parameters {ours:,} and {gpt:,} ({ours / gpt:.3f}), FLOPs {flops / theirs:.3f}")
        torch.manual_seed(0)
        tokens = torch.randint(0, vocab, (a.sequences, a.seq_len + 1))
        documents = (torch.arange(a.seq_len) // (a.seq_len // 3)).expand(a.sequences, -1).contiguous()
        batch = (tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), documents)
        for precision in a.precision:
            for mode in a.mode:
                models: dict[str, nn.Module] = {"ours": Ours(config)}
                for loss in ["plain", "torch"] if vocab > 1000 else ["plain"]:
                    models[f"nanoGPT, {loss} loss"] = GPT(vocab, a.layers, a.width, heads, a.seq_len, loss)
                runs = {k: training_step(m, precision, mode == "compiled") for k, m in models.items()}
                wall, cpu = dict.fromkeys(runs, float("inf")), dict.fromkeys(runs, float("inf"))
                for turn in range(a.repeats + 2):
                    for name, run in runs.items():
                        begin, spent = time.perf_counter(), time.process_time()
                        run(*batch)
                        if turn > 1:
                            wall[name] = min(wall[name], time.perf_counter() - begin)
                            cpu[name] = min(cpu[name], time.process_time() - spent)
                best, least = (min(v for k, v in t.items() if k != "ours") for t in (wall, cpu))
                for name in runs:
                    rate = tokens[:, 1:].numel() / wall[name]
                    shown = f"{best / wall[name]:.2f} x nanoGPT's best (processor time {least / cpu[name]:.2f} x)"
                    print(f"  {precision} {mode:8} {name:20} {rate:9,.0f} tokens/s  {shown}", flush=True)


if __name__ == "__main__":
    main()
