"""What a driver needs for runs of very many tasks: its memory, its completions a second, how long it takes to resume.

    python -m benchmarks.scale [--tasks 1000000] [--phases 10] [--map-phases 3]

The driver is the real one, on a local disk; the executor runs nothing and returns manifests as tasks of a stage make
them, and in some phases as map tasks of nine steps do; those of the latest map phase are kept, as in a run. So the
figures are those of the driver's own work: submitting, logging, merging manifests, reading them again. The exchanges
between two stages are planned for growing numbers of tasks, and their opens and merge tasks counted.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.engine.execution.driver import Driver, Phase
from curation.engine.execution.executors import Outcome
from curation.engine.manifests.lazy_sequence import LazySequence
from curation.engine.shuffle import exchange
from curation.storage import Storage

SLOTS = 4096  # of a cluster of 64 machines


class MadeUp:
    """An executor whose tasks are done when they are asked for, in the order in which they were submitted."""

    def require(self, resources: Any) -> str | None:
        return None

    def slots(self) -> int:
        return SLOTS

    def share(self, value: Any) -> Any:
        return value

    def submit(self, function: Any, shared: Any, spec: Any, commit: str | None, memory: int) -> Any:
        return function.function, spec

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        return [(h, Outcome(value=h[0](None, h[1]))) for h in handles]

    def leave_out(self, node: str) -> bool:
        return True

    def close(self) -> None:
        return None


def run_stage(shared: Any, index: int) -> dict[str, Any]:
    """A manifest as a task of a stage returns it."""
    path = f"cache/stages/5d41402abc4b2a76b9719d911017c592/{index:06d}.part"
    return {
        "index": index, "files": [{"path": path, "bytes": (1 << 24) + index, "sha256": _hex(index, 64)}],
        "rows": 30_000 + index % 997, "counters": {}, "shown": 1024,
        "cost": {"seconds": 20 + index % 1000 / 1000, "cpu_seconds": 19 + index % 997 / 1000,
                 "peak_bytes": (800 << 20) + (index % 9973 << 12)},
    }  # fmt: skip


STEPS = ("extract", "language", "urls", "gopher", "c4", "pii", "perplexity", "toxicity", "quality")


def run_map(shared: Any, index: int) -> dict[str, Any]:
    """A manifest as the map task returns it that reads a crawl, computes nine steps and drops by their rules."""
    digits = "".join(_hex(index * 64 + i, 64) for i in range(14))  # 12 files have a checksum of their own
    key, run, decision = _hex(index, 24), digits[:12], digits[-64:]

    def file(folder: str) -> str:
        return f"cache/{folder}/{key}.{run}.parquet"

    signals = {step: [file(f"signals/{step}-{FOLDERS[i]}")] for i, step in enumerate(STEPS)}
    base, text = file(f"signals/read-{FOLDERS[-2]}"), file(f"docs/{FOLDERS[-1]}")
    decisions = f"cache/decisions/{key}.{decision[:32]}.parquet"
    rows = 1000 + index % 977
    state = {
        "rows": rows, "base": [base], "text": [text], "signals": signals,
        "ops": {step: i for i, step in enumerate(STEPS)}, "decisions": [decisions],
    }  # fmt: skip
    paths = [base, text, *(f for files in signals.values() for f in files)]
    written = [{"path": p, "bytes": 90_000 + (index * 31 + i * 7) % 9973, "sha256": digits[i * 64 + 12 : i * 64 + 76]}
               for i, p in enumerate(paths)]  # fmt: skip
    return {
        "key": key, "in": rows, "out": 400 + index % 97, "sum_in": digits[20:36],
        "sum_out": digits[40:56], "drops": [[step, "a_rule", 17 + index % (83 + i)] for i, step in enumerate(STEPS)],
        "domains": {"web": 400 + index % 97}, "text_bytes": 3_000_000 + index * 7919 % 999_983, "unread": [],
        "computed": {step: rows - i * (index % 89) for i, step in enumerate(STEPS)}, "state": state,
        "files": [*written, {"path": decisions, "bytes": 20_000 + index % 991, "sha256": decision}],
        "cost": {"seconds": 20 + index % 1000 / 1000, "cpu_seconds": 19 + index % 997 / 1000,
                 "peak_bytes": (800 << 20) + (index % 9973 << 12)},
    }  # fmt: skip


def _hex(number: int, digits: int) -> str:
    """Digits without a pattern, as fingerprints have."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:digits]


FOLDERS = [_hex(-i, 16) for i in range(1, 12)]  # fingerprints of steps


def run(folder: Path, tasks: int, phases: int, map_phases: int = 0) -> Driver:
    """Runs phases of made-up tasks in a run directory; what is finished there already is only read. Map phases are
    spread evenly among them."""
    (folder / "log").mkdir(exist_ok=True)
    driver = Driver(Storage(str(folder)), MadeUp)
    driver.load_finished_tasks()
    kept: Any = None
    for number in range(phases):
        maps = number * map_phases // phases != (number + 1) * map_phases // phases
        ids = [f"{_hex(i, 24)}.{number:016x}" if maps else f"{i:06d}" for i in range(tasks)]
        began, before = time.process_time(), driver.executed
        specs = LazySequence(tasks, lambda i: i)
        found = driver.run(Phase(f"phase {number}", f"{number:032x}", run_map if maps else run_stage, None, specs, ids))
        kept = found if maps else kept  # as in a run
        del ids, found
        seconds = time.process_time() - began
        print(f"  phase {number}: {driver.executed - before:,} of {tasks:,} tasks run in {seconds:,.1f} CPU seconds, "
              f"peak {peak() / 2**20:,.0f} MiB", flush=True)  # fmt: skip
    driver.close()
    del kept
    return driver


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def exchanges() -> None:
    print(f"{'producers x consumers':>24} {'merge tasks':>12} {'opens':>14} {'opens a task':>13}")
    for tasks in (64, 512, 4096, 16_384, 100_000, 1_000_000):
        plan = exchange.plan_merge(tasks, tasks)
        groups, ranges = (len(plan.groups) - 1, len(plan.ranges) - 1) if plan else (0, 0)
        opens = ranges * tasks + groups * tasks if plan else tasks * tasks
        print(f"{tasks:>11,} x {tasks:>10,} {groups * ranges:>12,} {opens:>14,} {opens / tasks:>13.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--phases", type=int, default=10)
    parser.add_argument("--map-phases", type=int, default=3, help="how many of them are of map tasks")
    options = parser.parse_args()
    exchanges()
    with tempfile.TemporaryDirectory(prefix="gristmill-scale-") as name:
        before, began = peak(), time.process_time()
        driver = run(Path(name), options.tasks, options.phases, options.map_phases)
        done = time.process_time() - began
        memory, stored = peak() - before, sum(p.stat().st_size for p in (Path(name) / "cache" / "phases").iterdir())
        log = os.path.getsize(Path(name) / "log" / "events.jsonl")
        began = time.process_time()
        again = run(Path(name), options.tasks, options.phases, options.map_phases)
        resumed = time.process_time() - began
    print(f"\n{options.tasks:,} tasks in each of {options.phases} phases: {driver.executed:,} completions")
    print(f"  {driver.executed / done:,.0f} completions a CPU second")
    print(f"  {memory / options.tasks:,.0f} bytes of memory a task ({memory / 2**20:,.0f} MiB above the start)")
    print(f"  {stored / driver.executed:,.0f} bytes of manifest a task and phase, {log / driver.executed:,.0f} of log")
    print(f"  resumed in {resumed:,.1f} CPU seconds, {again.executed} tasks run again")


if __name__ == "__main__":
    main()
