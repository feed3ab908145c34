"""A mix problem with a known answer, solved by a search: how far off is the recommended mix, and is it better?

    python -m benchmarks.mix [--seeds 1 2] [--runs 32]

For each seed: the recommended shares, the largest error of one, the seconds, and the confirming runs' verdicts. The
peer is the natural mix, trained beside it with the same seeds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import planted_mix as planted
from pipelines.mix import workers
from pipelines.mix.search import search
from pipelines.mix.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--runs", type=int, default=32)
    options = parser.parse_args()
    print(f"best {planted.BEST.round(3)}, natural {planted.NATURAL}")
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            planted.build(Path(folder) / "run", seed)
            settings = Settings(
                data=f"{folder}/run", proxy=planted.PROXY, runs=options.runs, seed=seed, resamples=50,
                confirm={"seeds": 3, "against": ["natural", "uniform"]},
            )  # fmt: skip
            began = time.perf_counter()
            made = search(settings, f"{folder}/mix", train=workers.on_ray())
            seconds = time.perf_counter() - began
        found = np.array([made.recommended[d] for d in planted.DOMAINS])
        said = ", ".join(f"{v.against} {v.effect:+.4f} (p {v.p:.2g})" for v in made.verdicts)
        error = np.abs(found - planted.BEST).max()
        law = made.choice.fitted.name
        print(f"seed {seed}: {found.round(3)}, off by {error:.3f} at most, {seconds:.0f} s, {law}; {said}")


if __name__ == "__main__":
    main()
