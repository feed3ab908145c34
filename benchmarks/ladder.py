"""Fits a scaling law to our trainer's runs: its error for the largest size, and whether corrupted data is noticed.

    python -m benchmarks.ladder --work runs/ladder [--seeds 10] [--only ladder | watch]

Four sizes, each on three multiples of its parameters in tokens, trained on the crawl of `benchmarks.crawl_mix`.
`backtest` fits the law to the three smaller sizes and predicts the largest. The peer is what a plain power law in
compute, L = a C^-b, fitted to the same nine runs says. Then runs of a fifth size: clean ones, and ones of which
a domain's tokens are shuffled on disk once 60 % of the run is over. `watch` compares each with the curve that the
ladder predicts. A second call trains only what is missing.
"""

from __future__ import annotations

import argparse
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.crawl import arguments
from benchmarks.crawl_mix import curated
from pipelines.experiments.mix import proxy_workers
from pipelines.experiments.scaling import backtest, fit, ladder, live_check, live_run, read

BASE: dict[str, Any] = {
    "steps": 1,  # the ladder's own business
    "model": {
        "preset": None,
        "num_layers": 1,
        "hidden_size": 24,
        "num_heads": 2,
        "num_kv_heads": 2,
        "intermediate_size": 64,
        "tie_embeddings": True,
    },
    "data": {"seq_len": 128, "max_epochs": 20},
    "batch": {"global_size": 8},
    "optimizer": {"lr": 0.005},
    "precision": "fp32",
    "device": "cpu",
    "threads": 1,
    "guard": {"action": "watch"},  # or the guard would mask the shuffled documents before the curve shows them
    "evaluate": {"every": 1, "sequences": 64},
    "checkpoint": {"every": 1, "keep": 1},
}
SIZES = (
    {"num_layers": 1, "hidden_size": 24, "num_heads": 2, "num_kv_heads": 2, "intermediate_size": 64},
    {"num_layers": 1, "hidden_size": 40, "num_heads": 2, "num_kv_heads": 2, "intermediate_size": 112},
    {"num_layers": 2, "hidden_size": 56, "num_heads": 2, "num_kv_heads": 2, "intermediate_size": 160},
    {"num_layers": 2, "hidden_size": 80, "num_heads": 2, "num_kv_heads": 2, "intermediate_size": 224},
)
WATCHED = {"num_layers": 2, "hidden_size": 48, "num_heads": 2, "num_kv_heads": 2, "intermediate_size": 128}
MULTIPLES = (3.0, 6.0, 12.0)  # tokens per parameter
FAULT = 0.6  # share of a run after which a domain is shuffled


def shuffle_on_disk(run: Path, domain: str, seed: int) -> None:
    """The tokens of a domain in random order, written over the shards that a training has open."""
    from curation.shards import open_shard

    for path in sorted((run / "result" / "shards" / "train" / domain).glob("*.arrow")):
        tokens = np.array(open_shard(str(path)).tokens)
        at = path.read_bytes().index(tokens.tobytes())
        with open(path, "r+b") as f:
            f.seek(at)
            f.write(np.random.default_rng(seed).permutation(tokens).tobytes())


def watched(run: Path, folder: Path, base: dict[str, Any], size: dict[str, Any], multiple: float, seed: int,
            domain: str | None) -> None:  # fmt: skip
    """Trains a run on its own copy of the shards, which lie in `folder` afterwards; domain: the one that goes wrong."""
    from training.config import parse
    from training.train import train

    data, out = folder / "data", folder / "run"
    made = ladder.runs(ladder.Ladder(base=base, sizes=(size, size), tokens_per_param=(multiple,)), str(run), str(out))
    settings = dict(made[0].settings) | {"seed": seed}
    steps = settings["steps"]
    if (out / "metrics.jsonl").exists() and live_run.final_point(out) is not None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / "result" / "shards", data / "result" / "shards")
    waiting = domain is not None

    def look(entry: dict[str, Any]) -> None:
        nonlocal waiting
        if waiting and entry.get("step", 0) >= FAULT * steps:
            assert domain is not None
            shuffle_on_disk(data, domain, seed)
            waiting = False

    import yaml

    train(parse(yaml.safe_dump(settings), "watched"), str(data), str(out), report=look)


def power_of_compute(flop: np.ndarray, loss: np.ndarray, at: np.ndarray) -> np.ndarray:
    slope, level = np.polyfit(np.log(flop), np.log(loss), 1)
    return np.asarray(np.exp(level + slope * np.log(at)))


def climb(run: Path, folder: Path) -> None:
    """Trains the ladder and says what its law would have said of the largest size."""
    began = time.perf_counter()
    proxies = ladder.runs(ladder.Ladder(base=BASE, sizes=SIZES, tokens_per_param=MULTIPLES), str(run), str(folder))
    trained = ladder.train(proxies, proxy_workers.on_ray())
    print(f"ladder: {len(proxies)} runs, {trained} trained now, {time.perf_counter() - began:.0f} s", flush=True)
    table = read(str(folder))
    made = backtest(table)
    rest = np.flatnonzero(table.n < table.n.max() * 0.999)
    theirs = power_of_compute(table.flop[rest], table.loss[rest], np.array([r["flop"] for r in made.rows]))
    for row, peer in zip(made.rows, theirs, strict=True):
        print(f"   {row['run']}: observed {row['observed']:.4f}, predicted {row['predicted']:.4f} ({row['low']:.4f} to "
              f"{row['high']:.4f}), error {row['error']:+.2%}; a C^-b: {peer / row['observed'] - 1:+.2%}")  # fmt: skip
    peer_error = np.mean([abs(p / r["observed"] - 1) for r, p in zip(made.rows, theirs, strict=True)])
    print(f"backtest: mean error {made.error:.2%}, {made.inside} of {len(made.rows)} within the interval; "
          f"a C^-b: {peer_error:.2%}")  # fmt: skip


def look_at(run: Path, folder: Path, work: Path, seeds: int) -> None:
    """Trains clean and faulty runs, and says of how many `watch` raises an incident."""
    domain = "servers"
    began = time.perf_counter()
    jobs = [(seed, fault) for seed in range(1, seeds + 1) for fault in (None, domain)]
    places = {job: work / f"{'clean' if job[1] is None else 'faulty'}-{job[0]}" for job in jobs}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(watched, run, places[j], BASE, WATCHED, 4.0, j[0] + 100, j[1]) for j in jobs]
        for future in waiting:
            future.result()
    curves, made = live_check.ladder_curves(str(folder)), fit(read(str(folder)), resamples=200)
    raised = {None: 0, domain: 0}
    for job, place in places.items():
        seen = live_run.loss_curve(place / "run")
        left = live_check.find_departure(seen, live_check.predict_band(made, curves, seen))
        raised[job[1]] += left is not None
        if left is not None:
            print(f"   {place.name}: {left.message}")
    print(f"watch: an incident in {raised[domain]} of {seeds} faulty runs and {raised[None]} of {seeds} clean ones; "
          f"{time.perf_counter() - began:.0f} s")  # fmt: skip


def main() -> None:
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where the run, the ladder and the watched runs go")
    parser.add_argument("--seeds", type=int, default=10, help="clean runs, and as many faulty ones [%(default)s]")
    parser.add_argument("--only", choices=("ladder", "watch"), help="one part of it")
    options = parser.parse_args()
    run, folder = options.work / "run", options.work / "ladder"
    curated((options.data / "crawl").resolve(), run)
    if options.only != "watch":
        climb(run, folder)
    if options.only != "ladder":
        look_at(run, folder, options.work / "watched", options.seeds)


if __name__ == "__main__":
    main()
