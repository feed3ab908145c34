"""Fits mixing laws to RegMix's published runs: how well they rank unseen mixes, and whether the best law is chosen.

    python -m benchmarks.regmix [--subsets 20]

Every family fitted to the 512 training mixes (1M models, 17 domains, 13 losses) and asked for the 256 test mixes:
Spearman's rho, the mean over the losses, times 100. Then random subsets of 64 of the 512: what cross-validation inside
the subset chose, beside LightGBM (RegMix's own choice) and the mixing law. No fit sees a test mix.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.crawl import arguments, versions
from pipelines.experiments.mix import mixing_laws, model_selection, regmix_tables


def swarm(data: Path, split: str) -> regmix_tables.Swarm:
    folder = data / "mix"
    return regmix_tables.read(
        str(folder / f"regmix_{split}_mixture_1m.csv"), str(folder / f"regmix_{split}_pile_loss_1m.csv")
    )


def rho(fitted: mixing_laws.Fitted, test: regmix_tables.Swarm) -> float:
    said = fitted.predict(test.mixes)
    return 100 * float(np.mean([mixing_laws.spearman(said[:, i], test.values[:, i]) for i in range(said.shape[1])]))


def main() -> None:
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--subsets", type=int, default=20)
    options = parser.parse_args()
    print(versions("lightgbm", "numpy", "scipy"))
    train, test = swarm(options.data, "train"), swarm(options.data, "test")
    for name in mixing_laws.FAMILIES:
        began = time.perf_counter()
        fitted = mixing_laws.fit(name, train.mixes, train.values)
        print(f"512 mixes, {name}: rho {rho(fitted, test):.2f}, {time.perf_counter() - began:.1f} s", flush=True)
    rng = np.random.default_rng(11)
    rows = []
    for number in range(1, options.subsets + 1):
        part = rng.choice(len(train.mixes), 64, replace=False)
        mixes, values = train.mixes[part], train.values[part]
        began = time.perf_counter()
        made = model_selection.choose(mixes, values, nested=False)
        seconds = time.perf_counter() - began
        laws_of = {made.fitted.name: made.fitted}
        for name in ("lightgbm", "mixing_law"):
            laws_of.setdefault(name, mixing_laws.fit(name, mixes, values))
        rows.append([rho(f, test) for f in (made.fitted, laws_of["lightgbm"], laws_of["mixing_law"])])
        said = "chosen {:.2f}, LightGBM {:.2f}, mixing law {:.2f}".format(*rows[-1])
        print(f"subset {number}: {made.fitted.name}: {said}; {seconds:.1f} s", flush=True)
    chosen, trees, law = np.mean(rows, axis=0)
    print(f"mean of {len(rows)} subsets: chosen {chosen:.2f}, LightGBM {trees:.2f}, mixing law {law:.2f}: "
          f"{chosen - max(trees, law):+.2f} against the better of the two")  # fmt: skip


if __name__ == "__main__":
    main()
