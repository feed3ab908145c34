"""Compares the trainer's validation loss with that of a plain reference: same data, equal steps, three seeds; a figure.

    python -m benchmarks.convergence --work runs/convergence [--steps 600] [--one ours 1] [--out docs]

The data is the test data's crawl, curated with deduplication, with a vocabulary of 4,096 and a tenth of the documents
held out. `ours` is `training.train` as `gristmill train` calls it: order, masks, chunked loss, spike guard,
checkpoints, bf16. `plain` is what one writes in an afternoon: the same decoder with scores and logits written out
(benchmarks/plain.py), sequences cut at random places, torch's AdamW and cross-entropy, the schedule by its formula.
Both are scored on the same held-out sequences. Finished runs stay in the folder, so the six can be run one by one; the
figure shows those that are there.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.crawl import arguments
from benchmarks.crawl_mix import curated
from benchmarks.plain import PlainLlama
from curation.core import jsonl_log
from curation.shards import Manifest, read_manifest
from training.config import TrainConfig
from training.data.token_streams import DomainStream, validation_streams
from training.evaluation.validation_loss import evaluate_domains, mean_loss
from training.metrics.log_format import METRICS
from training.train import model_config, train

SEEDS, VOCAB, POINTS = (1, 2, 3), 4096, 6
Curve = list[tuple[int, float]]  # step and validation loss


def settings(options: argparse.Namespace, seed: int) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "steps": options.steps,
            "seed": seed,
            "model": {"preset": options.preset},
            "data": {"seq_len": options.seq_len, "max_epochs": 20},
            "batch": {"global_size": options.global_size},
            "optimizer": {"lr": options.lr},
            "precision": "bf16",
            "device": "cpu",
            "threads": options.threads,
            "evaluate": {"every": max(1, options.steps // POINTS), "sequences": 64},
        }
    )


def ours(config: TrainConfig, data: Path, work: Path) -> Curve:
    folder = work / f"ours-{config.seed}"
    train(config, str(data), str(folder))
    return [(e["step"], e["loss"]) for e in jsonl_log.read(folder / METRICS) if e["kind"] == "validation"]


def plain(config: TrainConfig, manifest: Manifest) -> Curve:
    """The reference: no line of the trainer but the model's initialisation and the held-out sequences."""
    torch.manual_seed(config.seed + 100)
    torch.set_num_threads(config.threads or torch.get_num_threads())
    stream = np.concatenate(
        [
            domain.shard(i).tokens.astype(np.int64)
            for name, split in manifest.splits["train"].items()
            for domain in [DomainStream(name, manifest, split)]
            for i in range(len(domain.entries))
        ]
    )
    tokens = torch.from_numpy(stream)
    model = PlainLlama(model_config(config, manifest.tokenizer.vocab))
    model.held.init_weights(config.seed + 100)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    norms = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    last, length, warmup = config.steps, config.data.seq_len, config.steps // 20

    def score() -> float:
        found = evaluate_domains(
            model.held, validation_streams(manifest, {}), length=length, micro=config.batch.global_size,
            limit=config.evaluate.sequences, device=torch.device("cpu"),
            autocast=torch.autocast("cpu", torch.bfloat16),
        )  # fmt: skip
        loss = mean_loss(found)
        assert loss is not None
        return loss

    curve = [(0, score())]
    for i in range(last):
        share = (i - warmup) / (last - warmup)
        rate = (i + 1) / warmup if i < warmup else 0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = config.optimizer.lr * rate
        places = torch.randint(0, len(tokens) - length - 1, (config.batch.global_size,)).tolist()
        cut = torch.stack([tokens[p : p + length + 1] for p in places])
        with torch.autocast("cpu", torch.bfloat16):
            loss: Tensor = model(cut[:, :-1], cut[:, 1:], (cut[:, :-1] == manifest.tokenizer.eos).cumsum(1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (i + 1) % config.evaluate.every == 0 or i + 1 == last:
            curve.append((i + 1, score()))
            print(f"plain, seed {config.seed}: step {i + 1}, validation {curve[-1][1]:.4f}", flush=True)
    return curve


def figure(curves: dict[str, dict[int, Curve]]) -> str:
    """An SVG of all curves: validation loss over steps, a line a seed."""
    points = [p for seeds in curves.values() for c in seeds.values() for p in c]
    right, low, high = max(p[0] for p in points), min(p[1] for p in points), max(p[1] for p in points)

    def at(step: float, loss: float) -> str:
        return f"{60 + 560 * step / right:.1f},{20 + 300 * (high - loss) / (high - low):.1f}"

    looks = {"ours": 'stroke="#1f6feb"', "plain": 'stroke="#d1242f" stroke-dasharray="5 4"'}
    lines = [
        f'<polyline fill="none" {looks[name]} points="{" ".join(at(*p) for p in curve)}"/>'
        for name, seeds in curves.items()
        for curve in seeds.values()
    ]
    marks = [
        f'<text x="8" y="{24 + 300 * (high - v) / (high - low):.0f}">{v:.2f}</text>'
        f'<line x1="60" x2="620" y1="{at(0, v).split(",")[1]}" y2="{at(0, v).split(",")[1]}" stroke="#8884"/>'
        for v in (low, (low + high) / 2, high)
    ]
    legend = [
        f'<line x1="{440 + 90 * i}" x2="{470 + 90 * i}" y1="36" y2="36" {look}/>'
        f'<text x="{476 + 90 * i}" y="40">{name}</text>'
        for i, (name, look) in enumerate(looks.items())
    ]
    axis = f'<text x="60" y="345">0</text><text x="530" y="345">{right} steps</text>'
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 360" font-family="sans-serif" font-size="13" '
        'fill="#777" role="img" aria-label="Validation loss over steps">'
    )
    return "\n".join([head, *marks, *lines, *legend, axis, "</svg>", ""])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where the shards and the runs go")
    parser.add_argument("--out", type=Path, help="folder for convergence.svg")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "SEED"), help="train this one alone")
    parser.add_argument("--preset", default="10m")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--global-size", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    curated((options.data / "crawl").resolve(), options.work / "run", vocab=VOCAB)
    manifest = read_manifest(str(options.work / "run"))
    held = sum(d.tokens for d in manifest.splits["validation"].values())
    print(f"{sum(d.tokens for d in manifest.splits['train'].values()):,} tokens to train on, {held:,} held out")
    wanted = (
        [(options.one[0], int(options.one[1]))] if options.one else [(n, s) for s in SEEDS for n in ("ours", "plain")]
    )
    for name, seed in wanted:
        done, config = options.work / f"{name}-{seed}.json", settings(options, seed)
        if not done.exists():
            began = time.perf_counter()
            curve = ours(config, options.work / "run", options.work) if name == "ours" else plain(config, manifest)
            done.write_text(json.dumps(curve))
            print(
                f"{name}, seed {seed}: validation {curve[-1][1]:.4f}, {time.perf_counter() - began:.0f} s", flush=True
            )
    curves: dict[str, dict[int, Curve]] = {"ours": {}, "plain": {}}
    for path in sorted(options.work.glob("*-*.json")):
        name, seed_text = path.stem.split("-")
        curves[name][int(seed_text)] = [(i, loss) for i, loss in json.loads(path.read_text())]
    last = {name: [c[-1][1] for c in seeds.values()] for name, seeds in curves.items()}
    for name, values in last.items():
        if len(values) > 1:
            spread = statistics.stdev(values)
            print(f"{name}: {len(values)} seeds, validation {statistics.fmean(values):.4f}, s.d. {spread:.4f}")
    if min(map(len, last.values())) > 1:
        error = math.sqrt(sum(statistics.variance(v) / len(v) for v in last.values()))
        less = statistics.fmean(last["ours"]) - statistics.fmean(last["plain"])
        print(f"ours less plain: {less:+.4f}, s.e. {error:.4f}")
    if options.out is not None:
        (options.out / "convergence.svg").write_text(figure(curves))


if __name__ == "__main__":
    main()
