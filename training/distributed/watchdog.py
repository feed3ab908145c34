"""Ends a training run from outside: on SIGTERM with a checkpoint, on a hang with a stack trace.

SIGTERM (spot machines, Slurm, Kubernetes) is a request to stop: the loop saves a checkpoint and ends with exit code 75,
EX_TEMPFAIL of sysexits.h: "run the same command again". A hang (a collective that waits for a dead rank, a file system
that does not answer) ends with the same code, after printing the stack of every thread. torchrun ends with 1 whatever
the code of its ranks, so both also leave the file `preempted` in the run, which the next start removes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_RESUMABLE = 75
MARKER = "preempted"


class Preempted(Exception):
    """Training stopped on a signal and saved a checkpoint; the same command resumes it. Exit code 75."""


class Watchdog:
    """Knows whether SIGTERM has come, and when the run last made progress."""

    def __init__(self, run: Path | None = None) -> None:
        self.stop = False
        self._run = run
        self._last = time.monotonic()

    def mark_preempted(self, reason: str) -> None:
        """Leaves the file that says to a script: run the same command again."""
        if self._run is not None:
            (self._run / MARKER).write_text(f"{reason}; run the same command to resume\n")

    def heartbeat(self) -> None:
        """Called whenever the run makes progress."""
        self._last = time.monotonic()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self.stop = True

    def _end_if_hanging(self, limit: float, done: threading.Event) -> None:
        while not done.wait(min(limit / 4, 10.0)):
            quiet = time.monotonic() - self._last
            if quiet > limit:
                rank = os.environ.get("RANK", "0")
                print(
                    f"rank {rank}: no progress for {quiet:.0f} s (hang_after: {limit:g}); stacks of all threads:",
                    file=sys.stderr,
                )
                faulthandler.dump_traceback(all_threads=True)
                sys.stderr.flush()
                reason = f"no progress for {quiet:.0f} s"  # perhaps of the file system itself: it is not waited for
                writer = threading.Thread(target=self.mark_preempted, args=(reason,), daemon=True)
                writer.start()
                writer.join(10.0)
                os._exit(EXIT_RESUMABLE)


@contextlib.contextmanager
def start_watchdog(hang_after: float | None, run: Path | None = None) -> Iterator[Watchdog]:
    """Watches a run; `hang_after` in seconds. Signals only in the main thread: in Ray's workers Ray handles them."""
    watchdog, done = Watchdog(run), threading.Event()
    main = threading.current_thread() is threading.main_thread()
    before: Any = signal.signal(signal.SIGTERM, watchdog._on_sigterm) if main else None
    thread = (
        threading.Thread(target=watchdog._end_if_hanging, args=(hang_after, done), daemon=True) if hang_after else None
    )
    if thread:
        thread.start()
    try:
        yield watchdog
    finally:
        done.set()
        if thread:
            thread.join()
        if main:
            signal.signal(signal.SIGTERM, before)
