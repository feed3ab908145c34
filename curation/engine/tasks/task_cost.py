"""Measures what a task costs: wall-clock and CPU seconds, and peak memory.

A worker runs many tasks, and the system's figure for peak memory (`ru_maxrss`) is of the process since it started: a
task of a few bytes would show the peak of the largest one before it. Linux can start that count anew (proc(5),
clear_refs); where it cannot be, there is no figure.
"""

from __future__ import annotations

import time
from typing import Any


class TaskCost:
    """The cost of a task since this was made."""

    def __init__(self) -> None:
        self._started, self._cpu = time.monotonic(), time.process_time()
        self._counts_memory = _restart_peak()

    def so_far(self) -> dict[str, Any]:
        """seconds, cpu_seconds, and peak_bytes: the largest resident size of the process, its models included. None
        where the system has no figure for the task alone."""
        return {
            "seconds": round(time.monotonic() - self._started, 3),
            "cpu_seconds": round(time.process_time() - self._cpu, 3),
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
