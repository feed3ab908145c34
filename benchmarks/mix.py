"""Solves a mix problem with a known answer: the recommended mix's distance from it, and whether it is better.

    python -m benchmarks.mix [--seeds 1 2] [--runs 32]

For each seed: the recommended shares, the largest error of one, the seconds, and the objective that the confirming runs
reach on the recommended mix, the true best, the uniform and the natural one, the last two being the peers. Runs of one
seed start from the same weights in all four, so their differences are paired.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import planted_mix as planted
from pipelines.experiments.mix import proxy_workers
from pipelines.experiments.mix.results import verdict
from pipelines.experiments.mix.search import search
from pipelines.experiments.mix.search_config import Settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--runs", type=int, default=32)
    options = parser.parse_args()
    print(f"best {planted.BEST.round(3)}, natural {planted.NATURAL}")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            planted.build(Path(folder) / "run", seed)
            truth = dict(zip(planted.DOMAINS, planted.BEST.tolist(), strict=True))
            settings = Settings(
                data=f"{folder}/run", proxy=planted.PROXY, runs=options.runs, seed=seed * 1000, early_stop=False,
                confirm={"seeds": 4, "against": ["uniform", "natural"], "mixes": {"truth": truth}},
            )  # fmt: skip
            began = time.perf_counter()
            made = search(settings, f"{folder}/mix", train=proxy_workers.on_ray())
            seconds = time.perf_counter() - began
        found = np.array([made.recommended[d] for d in planted.DOMAINS])
        error, law = np.abs(found - planted.BEST).max(), made.choice.fitted.name
        print(f"seed {seed}: {found.round(3)}, off by {error:.3f} at most, {seconds:.0f} s, {law}")
        print("   objective: " + ", ".join(f"{arm.name} {np.mean(arm.values):.4f}" for arm in made.arms))
        arms = {arm.name: arm for arm in made.arms}
        pairs = [*made.verdicts, verdict(arms["uniform"], arms["natural"])]
        names = [*(f"recommended less {v.against}" for v in made.verdicts), "uniform less natural"]
        for name, v in zip(names, pairs, strict=True):
            print(f"   {name}: {v.effect:+.4f} ({v.low:+.4f} to {v.high:+.4f}), p {v.p:.2g}: {v.words}", flush=True)


if __name__ == "__main__":
    main()
