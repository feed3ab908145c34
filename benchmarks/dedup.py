"""Compares near-duplicate removal with datatrove's four steps: core-seconds, growth and memory.

    python -m benchmarks.dedup DATA [--documents 100000 1000000] [--datatrove 100000] [--work DIR]

The corpora are those of benchmarks/planted.py, in Parquet files of 12,500 documents, a task each at every size. Ours is
a whole run of the engine in a process of its own, on one core, with `minhash_dedup: {}` as the only step. "stages" is
the CPU time of that step, from reading texts back for signatures to the decision on every document; "whole run" all the
process did: start, reading Parquet, stages, rules, the ledger and the kept documents. The peak is that of the process.
datatrove runs signatures, buckets, clusters and filter with the same bands and rows, two workers, CPU time of all.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import planted

PIPELINE = """
name: planted
sources:
  - {{name: web, read: text, root: "{root}", path: "*.parquet", id: id}}
steps:
  - minhash_dedup: {{}}
engine: {{task_bytes: 1024}}
"""


def ours(root: Path, run_dir: Path) -> None:
    """The run itself, in a process of its own."""
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.runtime.run import curate

    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    file = run_dir.with_suffix(".yaml")
    file.write_text(PIPELINE.format(root=root))
    result = curate(load_pipeline(str(file)), str(run_dir), executor="inline")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {"cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1024, "kept": result.counts["kept"]}
        )
    )


def phases(run_dir: Path) -> list[dict[str, Any]]:
    """Name, tasks, seconds, CPU seconds, bytes written of every phase, in order."""
    found = []
    for path in sorted((run_dir / "cache" / "phases").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        merged = json.loads(path.read_text())
        tasks = list(merged["tasks"].values())
        cost = [t["cost"] for t in tasks]
        found.append(
            {
                "name": merged["name"],
                "tasks": len(tasks),
                "seconds": sum(c["seconds"] for c in cost),
                "cpu": sum(c["cpu_seconds"] for c in cost),
                "peak": max(c["peak_bytes"] or 0 for c in cost) / 2**20,
                "written": sum(f["bytes"] for t in tasks for f in t.get("files", [])) / 1e6,
            }
        )
    return found


def measured(size: int, data: Path, work: Path) -> dict[str, Any]:
    root, run_dir = corpus(size, data, work), work / f"run-{size}"
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.dedup", str(data), "--run", str(root), str(run_dir)]
    begin = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1]) | {"wall": time.perf_counter() - begin, "documents": size}
    table = phases(run_dir)
    mine = [p for p in table if p["name"].startswith("minhash_dedup: ")]
    figures |= {"stages": sum(p["cpu"] for p in mine), "seconds": sum(p["seconds"] for p in mine)}
    print(f"\n{size:,} documents; {size - figures['kept']:,} removed")
    print(f"{'phase':32}{'tasks':>7}{'seconds':>10}{'CPU s':>9}{'peak MB':>9}{'MB out':>9}")
    for p in mine:
        name = p["name"].removeprefix("minhash_dedup: ")
        print(f"{name:32}{p['tasks']:>7}{p['seconds']:>10.2f}{p['cpu']:>9.2f}{p['peak']:>9.0f}{p['written']:>9.1f}")
    stages = json.loads((run_dir / "run.json").read_text())["stages"]["minhash_dedup"]
    for stage in stages:
        if stage["counters"]:
            print(f"  {stage['stage']}: " + ", ".join(f"{k} {v:,}" for k, v in stage["counters"].items()))
    print(f"stages {figures['stages']:.1f} CPU s; whole run {figures['cpu']:.1f} CPU s, {figures['wall']:.1f} s; "
          f"peak {figures['peak']:.0f} MB")  # fmt: skip
    shutil.rmtree(run_dir)
    return figures


def corpus(size: int, data: Path, work: Path) -> Path:
    root = work / f"documents-{size}"
    if not root.exists():
        planted.write(root, *planted.documents(planted.pieces(data), size))
    return root


def datatrove(size: int, data: Path, work: Path) -> float:
    """CPU seconds of datatrove's four steps over the same files."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )  # fmt: skip
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from loguru import logger

    planted.mend_datatrove()
    logger.remove()  # of its 300 lines a step
    root, out = corpus(size, data, work), work / "datatrove"
    shutil.rmtree(out, ignore_errors=True)
    tasks = len(list(root.iterdir()))
    made = MinhashConfig(num_buckets=14, hashes_per_bucket=8)
    folder = {name: str(out / name) for name in ("signatures", "buckets", "remove", "kept", "logs")}
    reader = ParquetReader(str(root))
    steps = {
        "signatures": ([reader, MinhashDedupSignature(folder["signatures"], made)], tasks),
        "buckets": ([MinhashDedupBuckets(folder["signatures"], folder["buckets"], config=made)], 14),
        "clusters": ([MinhashDedupCluster(folder["buckets"], folder["remove"], config=made)], 1),
        "filter": ([reader, MinhashDedupFilter(folder["remove"]), ParquetWriter(folder["kept"])], tasks),
    }  # fmt: skip
    total = 0.0
    print(f"\ndatatrove {version('datatrove')}, {size:,} documents")
    for name, (pipeline, count) in steps.items():
        before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        begin = time.perf_counter()
        LocalPipelineExecutor(
            pipeline, tasks=count, workers=2, logging_dir=f"{folder['logs']}/{name}", start_method="fork"
        ).run()
        after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before, strict=True))
        total += cpu
        print(f"{name:32}{count:>7}{time.perf_counter() - begin:>10.2f}{cpu:>9.2f}")
    shutil.rmtree(out)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--documents", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--datatrove", type=int, default=0, help="documents that datatrove gets, 0: none")
    parser.add_argument("--work", type=Path, default=Path("/tmp/gristmill-dedup"))
    parser.add_argument("--run", nargs=2, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        ours(*args.run)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    for size in args.documents:
        corpus(size, args.data, args.work)
    figures = {size: measured(size, args.data, args.work) for size in args.documents}
    for small, large in zip(args.documents, args.documents[1:], strict=False):
        a, b = figures[small], figures[large]
        growth = {k: math.log(b[k] / a[k]) / math.log(large / small) for k in ("stages", "seconds", "cpu")}
        print(f"\n{small:,} -> {large:,}: CPU of the stages grows as n^{growth['stages']:.2f}, their time as "
              f"n^{growth['seconds']:.2f}, CPU of the whole run as n^{growth['cpu']:.2f}; "
              f"peak memory {b['peak'] / a['peak']:.2f}x")  # fmt: skip
    if args.datatrove:
        theirs = datatrove(args.datatrove, args.data, args.work)
        line = f"\ndatatrove at {args.datatrove:,}: {theirs:.0f} CPU s"
        if args.datatrove in figures:
            mine = figures[args.datatrove]
            line += f"; {theirs / mine['stages']:.0f}x our stages, {theirs / mine['cpu']:.0f}x our whole run"
        print(line)


if __name__ == "__main__":
    main()
