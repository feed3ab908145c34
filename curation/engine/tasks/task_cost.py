"""Measures what a task costs: wall-clock seconds, CPU seconds by part of the work, and peak memory.

A worker runs many tasks, and the system's figure for peak memory (`ru_maxrss`) is of the process since it started: a
task of a few bytes would show the peak of the largest one before it. Linux can start that count anew (proc(5),
clear_refs); where it cannot be, there is no figure.

The counters of parts are always on: two readings of a clock for each part of a chunk, some microseconds where a chunk
takes some hundred milliseconds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any


class _Counters(threading.local):
    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.open: list[str] = []  # parts that have begun, outermost first
        self.since = 0.0


_counters = _Counters()


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """Counts the CPU seconds of a block as those of a part of the work, without those of parts inside it."""
    mine, now = _counters, time.process_time()
    if mine.open:
        mine.seconds[mine.open[-1]] += now - mine.since
    mine.open.append(name)
    mine.since = now
    try:
        yield
    finally:
        now = time.process_time()
        mine.seconds[mine.open.pop()] += now - mine.since
        mine.since = now


class TaskCost:
    """The cost of a task since this was made."""

    def __init__(self) -> None:
        self._started, self._cpu = time.monotonic(), time.process_time()
        self._counts_memory = _restart_peak()
        _counters.seconds.clear()

    def so_far(self) -> dict[str, Any]:
        """seconds, cpu_seconds, those of them by part, and peak_bytes: the largest resident size of the process, its
        models included. None where the system has no figure for the task alone."""
        return {
            "seconds": round(time.monotonic() - self._started, 3),
            "cpu_seconds": round(time.process_time() - self._cpu, 3),
            "parts": {name: round(s, 3) for name, s in sorted(_counters.seconds.items()) if s >= 0.0005},
            "peak_bytes": _peak() if self._counts_memory else None,
        }


def _restart_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as f:
            f.write("5")
    except OSError:  # not Linux, or a sandbox that forbids it
        return False
    return True


def _peak() -> int | None:
    with open("/proc/self/status", encoding="ascii", errors="replace") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
