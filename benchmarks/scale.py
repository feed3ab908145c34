"""What a driver needs for runs of very many tasks: its memory, its completions a second, how long it takes to resume.

    python -m benchmarks.scale [--tasks 1000000] [--phases 10]

The driver is the real one, on a local disk; the executor runs nothing and returns manifests as tasks of a stage make
them. So the figures are those of the driver's own work: submitting, logging, merging manifests, reading them again.
The exchanges between two stages are planned for growing numbers of tasks, and their opens and merge tasks counted.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.engine.execution.driver import Driver, Phase
from curation.engine.execution.executors import Outcome
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
        return spec

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        return [(h, Outcome(value=manifest(h))) for h in handles]

    def leave_out(self, node: str) -> bool:
        return True

    def close(self) -> None:
        return None


def manifest(index: int) -> dict[str, Any]:
    """A manifest as a task of a stage returns it."""
    path = f"cache/stages/5d41402abc4b2a76b9719d911017c592/{index:06d}.part"
    return {
        "index": index, "files": [{"path": path, "bytes": 1 << 24, "sha256": f"{index:064x}"}], "rows": 30_000,
        "counters": {}, "shown": 1024, "cost": {"seconds": 21.1, "cpu_seconds": 20.4, "peak_bytes": 900 << 20},
    }  # fmt: skip


def stage(phase: Any, spec: Any) -> dict[str, Any]:
    raise NotImplementedError("nothing runs here")


def run(folder: Path, tasks: int, phases: int) -> Driver:
    """Runs phases of made-up tasks in a run directory; what is finished there already is only read."""
    (folder / "log").mkdir(exist_ok=True)
    driver = Driver(Storage(str(folder)), MadeUp)
    driver.load_finished_tasks()
    for number in range(phases):
        ids = [f"{i:06d}" for i in range(tasks)]
        driver.run(Phase(f"phase {number}", f"{number:032x}", stage, None, list(range(tasks)), ids))
    driver.close()
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
    options = parser.parse_args()
    exchanges()
    with tempfile.TemporaryDirectory(prefix="gristmill-scale-") as name:
        before, began = peak(), time.process_time()
        driver = run(Path(name), options.tasks, options.phases)
        done = time.process_time() - began
        memory, stored = peak() - before, sum(p.stat().st_size for p in (Path(name) / "cache" / "phases").iterdir())
        log = os.path.getsize(Path(name) / "log" / "events.jsonl")
        began = time.process_time()
        again = run(Path(name), options.tasks, options.phases)
        resumed = time.process_time() - began
    print(f"\n{options.tasks:,} tasks in each of {options.phases} phases: {driver.executed:,} completions")
    print(f"  {driver.executed / done:,.0f} completions a CPU second")
    print(f"  {memory / options.tasks:,.0f} bytes of memory a task ({memory / 2**20:,.0f} MiB above the start)")
    print(f"  {stored / driver.executed:,.0f} bytes of manifest a task and phase, {log / driver.executed:,.0f} of log")
    print(f"  resumed in {resumed:,.1f} CPU seconds, {again.executed} tasks run again")


if __name__ == "__main__":
    main()
