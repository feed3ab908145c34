"""Shows the progress of a curation run: a live bar for each phase on a terminal, else a line every 30 seconds.

The driver calls `phase`, `start`, `task` and `note` from its own thread and never waits for them. Rates are of stored
bytes, because those are known before a task runs; eta.py estimates the time left.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.text import Text

from pipelines.monitor.eta import Estimate
from pipelines.number_format import format_duration

LINE_EVERY = 30.0  # seconds between lines where there is no live bar


class ProgressDisplay:
    """Implements the driver's progress protocol; a context manager that removes the live bar at the end."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self.live = console.is_terminal and not quiet
        self._bars: Progress | None = None
        self._bar: Any = None
        self._name = ""
        self._tasks = self._done = self._bytes = self._read = self._kept = 0
        self._estimate = Estimate(())
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        if self.live:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[status]}", markup=False),
            )
            self._bars = Progress(*columns, console=self.console)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()
        if self._bars is not None:
            self._bars.stop()

    def phase(self, name: str, tasks: int, done: int, sizes: Sequence[int]) -> None:
        """A phase begins: `done` of its tasks were finished earlier, the others have these sizes in bytes."""
        self._finish()
        self._name, self._tasks, self._done = name, tasks, done
        self._bytes, self._read, self._kept = 0, 0, 0
        self._estimate = Estimate(sizes)
        self._started = self._last_line = time.monotonic()
        if self._bars is not None and done < tasks:
            self._bar = self._bars.add_task(name, total=tasks, completed=done, status=self._status())

    def start(self, task: int, size: int, slots: int) -> None:
        """A task was submitted."""
        self._estimate.start(task, size, slots, time.monotonic())

    def task(self, manifest: dict[str, Any], size: int) -> None:
        """A task was committed; `manifest` is its manifest."""
        now = time.monotonic()
        self._done += 1
        self._bytes += size
        self._read += int(manifest.get("in", 0))
        self._kept += int(manifest.get("out", 0))
        self._estimate.done(manifest.get("index"), size, manifest.get("cost", {}).get("seconds"), now)
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=self._done, status=self._status())
        elif not self.quiet and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self.console.print(f"{self._name}: {self._status()}", highlight=False)

    def note(self, message: str) -> None:
        """Prints a message on its own line."""
        self.console.print(message, style="yellow", highlight=False, markup=False)

    def _status(self) -> str:
        seconds = max(1e-3, time.monotonic() - self._started)
        parts = [f"{self._done}/{self._tasks} tasks"]
        if self._bytes > self._tasks:  # sizes are bytes; a phase without sizes gives each task a size of 1
            parts.append(f"{self._bytes / 1e6 / seconds:.1f} MB/s")
        if self._read:
            parts.append(f"{self._read:,} documents, {self._kept / self._read:.0%} kept")
        left = self._estimate.left(time.monotonic())
        if left:
            parts.append(f"{format_duration(left)} left")
        return " · ".join(parts)

    def _finish(self) -> None:
        if self._bars is not None and self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None
        seconds = time.monotonic() - self._started
        # a shuffle has many small phases: those under a second get no line
        if self._name and self._bytes and not self.quiet and (self._read or seconds >= 1):
            self.console.print(
                Text.assemble(("✓", "green"), f" {self._name}: {self._status()} in {format_duration(seconds)}"),
                highlight=False,
            )
        self._name, self._bytes = "", 0
