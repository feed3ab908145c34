"""What can end a run from outside: a signal that the machine is taken away, and a hang.

SIGTERM (spot machines, Slurm, Kubernetes) is a wish to stop: the loop saves a checkpoint and ends with exit code 75,
EX_TEMPFAIL of sysexits.h: "run the same command again". A hang (a collective that waits for a dead rank, a stuck file
system) ends with the same code after a report of where every thread stands.
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
from types import FrameType
from typing import Any

RESUME_ME = 75


class Preempted(Exception):
    """Training stopped on a signal, with a checkpoint; the same command goes on from there. Exit code 75."""


class Watch:
    """Whether somebody wishes to stop, and since when nothing has happened."""

    def __init__(self) -> None:
        self.stop = False
        self._last = time.monotonic()

    def alive(self) -> None:
        """Something has happened."""
        self._last = time.monotonic()

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.stop = True

    def _guard(self, limit: float, done: threading.Event) -> None:
        while not done.wait(min(limit / 4, 10.0)):
            quiet = time.monotonic() - self._last
            if quiet > limit:
                rank = os.environ.get("RANK", "0")
                print(f"rank {rank}: nothing happened for {quiet:.0f} s (hang_after: {limit:g})", file=sys.stderr)
                faulthandler.dump_traceback(all_threads=True)
                sys.stderr.flush()
                os._exit(RESUME_ME)


@contextlib.contextmanager
def watch(hang_after: float | None) -> Iterator[Watch]:
    """For the time of a run. Signals are taken in the main thread only: in Ray's workers others handle them."""
    found, done = Watch(), threading.Event()
    main = threading.current_thread() is threading.main_thread()
    before: Any = signal.signal(signal.SIGTERM, found._asked) if main else None
    thread = threading.Thread(target=found._guard, args=(hang_after, done), daemon=True) if hang_after else None
    if thread:
        thread.start()
    try:
        yield found
    finally:
        done.set()
        if thread:
            thread.join()
        if main:
            signal.signal(signal.SIGTERM, before)
