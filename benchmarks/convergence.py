"""Does our trainer reach the loss of the plain reference? Same data, equal iterations, three seeds each; a figure.

python benchmarks/convergence.py shared/data --work runs/convergence [--iterations 300] [--one ours 1] [--out docs]

Text of the crawl's pages through a byte-level BPE of 4,096; a tenth of the documents held out. `ours` is the model
with its loss, masks and AdamW; `plain` the same decoder written out (benchmarks/plain.py) with all logits, torch's
cross-entropy and AdamW, from other seeds' weights and data orders. Finished runs are kept as JSON, so that the six can
be run one by one (--one NAME SEED); the figure is drawn from those that are there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
from pathlib import Path

import numpy as np
import torch
from plain import PlainLlama
from torch import Tensor, nn
from toxicity import crawled

from training.config import PRESETS, ScheduleConfig
from training.model import Model, Shape
from training.optim import learning_rate

VOCAB, SEEDS = 4096, (1, 2, 3)


def tokens(data: Path, work: Path) -> tuple[Tensor, Tensor]:
    """Training and validation streams of the crawl's pages, each document opened by EOS (0)."""
    cached = work / "tokens.npz"
    if not cached.exists():
        import tokenizers

        texts = sorted(set(crawled(data / "crawl")))
        np.random.default_rng(0).shuffle(texts)
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
        bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=VOCAB, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
        )
        bpe.train_from_iterator(texts[::4], trainer)
        ids = [np.array([0, *e.ids], np.int32) for e in bpe.encode_batch(texts, add_special_tokens=False)]
        held = len(ids) // 10
        work.mkdir(parents=True, exist_ok=True)
        np.savez(cached, train=np.concatenate(ids[held:]), validation=np.concatenate(ids[:held]))
    found = np.load(cached)
    return torch.from_numpy(found["train"]).long(), torch.from_numpy(found["validation"]).long()


def windows(stream: Tensor, starts: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    cut = torch.stack([stream[s : s + length + 1] for s in starts.tolist()])
    return cut[:, :-1], cut[:, 1:], (cut[:, :-1] == 0).cumsum(1)


def run(name: str, seed: int, a: argparse.Namespace, train: Tensor, held: Tensor) -> dict[str, list[list[float]]]:
    torch.manual_seed(seed + 100 * (name == "plain"))
    shape = Shape(vocab=VOCAB, **PRESETS[a.preset])
    model: nn.Module = Model(shape) if name == "ours" else PlainLlama(shape)
    (model if isinstance(model, Model) else model.held).initialise(seed + 100 * (name == "plain"))  # type: ignore[operator, union-attr]
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def loss(batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16) if a.precision == "bf16" else contextlib.nullcontext():
            out = model(*batch)
        return out if isinstance(out, Tensor) else out[0] / out[1]

    curve = []
    places = torch.arange(64) * ((len(held) - a.length - 1) // 64)
    for i in range(a.iterations + 1):
        if i % max(1, a.iterations // 6) == 0 or i == a.iterations:
            with torch.no_grad():
                scores = [float(loss(windows(held, p, a.length))) for p in places.split(8)]
            curve.append([i, statistics.fmean(scores)])
            print(f"{name} seed {seed} iteration {i}: validation {curve[-1][1]:.4f}", flush=True)
        if i == a.iterations:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(i, a.iterations, a.lr, ScheduleConfig())
        loss(windows(train, torch.randint(0, len(train) - a.length - 1, (a.windows,)), a.length)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {"validation": curve}


def figure(curves: dict[str, dict[int, list[list[float]]]]) -> str:
    """An SVG of all curves: validation loss over iterations, a line a seed."""
    points = [p for seeds in curves.values() for c in seeds.values() for p in c]
    right, low, high = max(p[0] for p in points), min(p[1] for p in points), max(p[1] for p in points)

    def at(p: list[float]) -> str:
        return f"{60 + 560 * p[0] / right:.1f},{20 + 300 * (high - p[1]) / (high - low):.1f}"

    colours = {"ours": "#1f6feb", "plain": "#d1242f"}
    lines = [
        f'<polyline fill="none" stroke="{colours[name]}" points="{" ".join(map(at, c))}"/>'
        for name, seeds in curves.items()
        for c in seeds.values()
    ]
    marks = [
        f'<text x="8" y="{24 + 300 * (high - v) / (high - low):.0f}">{v:.2f}</text>'
        for v in (low, (low + high) / 2, high)
    ]
    legend = [f'<text x="{480 + 80 * i}" y="40" fill="{c}">{n}</text>' for i, (n, c) in enumerate(colours.items())]
    axis = f'<text x="60" y="345">0</text><text x="560" y="345">{right:.0f} iterations</text>'
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 360" font-family="sans-serif" font-size="13">'
    return "\n".join([head, *lines, *marks, *legend, axis, "</svg>", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"))
    parser.add_argument("--preset", default="10m")
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    train, held = tokens(a.data, a.work)
    print(f"{len(train):,} tokens to train on, {len(held):,} held out")
    wanted = [(a.one[0], int(a.one[1]))] if a.one else [(n, s) for s in SEEDS for n in ("ours", "plain")]
    for name, seed in wanted:
        done = a.work / f"{name}-{seed}.json"
        if not done.exists():
            done.write_text(json.dumps(run(name, seed, a, train, held)))
    curves: dict[str, dict[int, list[list[float]]]] = {}
    for path in sorted(a.work.glob("*-*.json")):
        name, seed_text = path.stem.split("-")
        curves.setdefault(name, {})[int(seed_text)] = json.loads(path.read_text())["validation"]
    last = {n: [c[-1][1] for c in seeds.values()] for n, seeds in curves.items()}
    for name, values in last.items():
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        print(f"{name}: {len(values)} seeds, validation {statistics.fmean(values):.4f} +- {spread:.4f}")
    if a.out is not None:
        (a.out / "convergence.svg").write_text(figure(curves))


if __name__ == "__main__":
    main()
