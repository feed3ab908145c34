"""Searches a mix on a real crawl and measures whether the recommended mix beats the natural one, with its uncertainty.

    python -m benchmarks.crawl_mix --work runs/crawl_mix [--runs 32] [--seeds 5]

The crawl of documentation sites in the test data, curated with deduplication; its domains are what the pages are about,
by host. Each proxy is a decoder of two layers and width 64, trained on some 200,000 tokens. The peer is the natural
mix, trained beside the recommended one with the same seeds. Run again it goes on where it was, and trains nothing
twice; what was curated and trained stays in the folder, the report too: `mix/report.html`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import yaml

from benchmarks.crawl import arguments
from pipelines.experiments.mix import proxy_workers
from pipelines.experiments.mix.report_page import render
from pipelines.experiments.mix.search import search
from pipelines.experiments.mix.search_config import Settings

HOSTS = {
    "databases": ("postgresql", "sqlite", "sqlalchemy"),
    "servers": ("httpd",),
    "code": ("django", "git", "devref", "debmake", "policy"),
}
PROXY = {
    "steps": 200,
    "model": {
        "preset": None,
        "num_layers": 2,
        "hidden_size": 64,
        "num_heads": 2,
        "num_kv_heads": 2,
        "intermediate_size": 192,
        "tie_embeddings": True,
    },
    "data": {"seq_len": 128, "max_epochs": 20},
    "batch": {"global_size": 8},
    "optimizer": {"lr": 0.005},
    "precision": "fp32",
    "device": "cpu",
    "evaluate": {"every": 100, "sequences": 48},
    "checkpoint": {"every": 100, "keep": 1},
}


def pipeline(crawl: Path, pattern: str = "docs-0*.warc.gz", vocab: int = 1024) -> str:
    """The pipeline file: pages of some length, each once, in the groups of HOSTS; the rest is the domain `debian`."""
    groups = {
        name: " OR ".join(f"url LIKE 'http://{host}.docs.test%'" for host in hosts) for name, hosts in HOSTS.items()
    }
    return yaml.safe_dump(
        {
            "name": "crawl_mix",
            "sources": [{"name": "debian", "read": "warc", "root": str(crawl), "path": pattern}],
            "steps": [
                {"extract": {}, "keep": {"short": "extract.chars >= 500"}},
                {"exact_dedup": {}},
                {"minhash_dedup": {}},
            ],
            "mix": {"groups": groups, "max_epochs": 20},
            "tokenizer": {"train": {"kind": "bpe", "vocab": vocab}},
            "validation": 0.1,
        },
        sort_keys=False,
    )


def curated(crawl: Path, run: Path, pattern: str = "docs-0*.warc.gz", executor: str = "ray", vocab: int = 1024) -> None:
    """Brings the run to its end, where it is not there yet."""
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.runtime.run import curate

    run.parent.mkdir(parents=True, exist_ok=True)
    file = run.with_suffix(".yaml")
    file.write_text(pipeline(crawl, pattern, vocab))
    curate(load_pipeline(str(file)), str(run), executor=executor)


def main() -> None:
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where the run, the proxies and the report go")
    parser.add_argument("--runs", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    began = time.perf_counter()
    run, folder = options.work / "run", options.work / "mix"
    curated((options.data / "crawl").resolve(), run)
    print(f"curated: {time.perf_counter() - began:.0f} s", flush=True)
    settings = Settings(
        data=str(run), proxy=PROXY, runs=options.runs, budget=2e6, max_epochs=4,
        confirm={"seeds": options.seeds, "against": ["natural"]},
    )  # fmt: skip
    began = time.perf_counter()
    made = search(
        settings, str(folder), train=proxy_workers.on_ray(), progress=lambda message: print(message, flush=True)
    )
    (folder / "report.html").write_text(render(made, "the crawl: mix search"), encoding="utf-8")
    print(f"{len(made.mixes)} proxies and the confirming runs: {made.trained} trained now, "
          f"{time.perf_counter() - began:.0f} s; law {made.choice.fitted.name}, rho {made.choice.scores}")  # fmt: skip
    for name in made.domains:
        share, low, high = made.recommended[name], made.low[name], made.high[name]
        print(f"   {name}: {share:.3f} ({low:.3f} to {high:.3f}), natural {made.natural[name]:.3f}")
    for arm in made.arms:
        print(f"   objective of {arm.name}: {sum(arm.values) / len(arm.values):.4f}")
    for v in made.verdicts:
        print(f"   against {v.against}: {v.effect:+.4f} ({v.low:+.4f} to {v.high:+.4f}), p {v.p:.2g}: {v.words}")
    for note in made.notes:
        print("   " + note)
    print(folder / "report.html")


if __name__ == "__main__":
    main()
