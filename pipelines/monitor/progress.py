"""What a run shows while it works: a live bar a phase on a terminal, else a plain line every 30 seconds.

The driver calls `phase`, `start`, `task` and `note` from its own thread; nothing here is ever waited for. Rates are of
stored bytes, because that is what a task's size is known by before it runs; the time left is eta.py's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from pipelines.monitor.eta import Estimate

EVERY = 30.0  # seconds between plain lines


class Display:
    """Implements the driver's progress protocol; a context manager, because a live bar has to be taken down."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self.live = console.is_terminal and not quiet
        self._bars: Progress | None = None
        self._bar: Any = None
        self._name = ""
        self._tasks = self._done = self._bytes = self._read = self._kept = 0
        self._estimate = Estimate(())
        self._started = self._spoken = time.monotonic()

    def __enter__(self) -> Display:
        if self.live:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[said]}"),
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
        """A phase begins: `done` of its tasks were finished by an earlier run, the others have these sizes."""
        self._finish()
        self._name, self._tasks, self._done = name, tasks, done
        self._bytes, self._read, self._kept = 0, 0, 0
        self._estimate = Estimate(sizes)
        self._started = self._spoken = time.monotonic()
        if self._bars is not None and done < tasks:
            self._bar = self._bars.add_task(name, total=tasks, completed=done, said=self._said())

    def start(self, task: int, size: int, slots: int) -> None:
        """A task was given out."""
        self._estimate.start(task, size, slots, time.monotonic())

    def task(self, manifest: dict[str, Any], size: int) -> None:
        """A task was committed."""
        now = time.monotonic()
        self._done += 1
        self._bytes += size
        self._read += int(manifest.get("in", 0))
        self._kept += int(manifest.get("out", 0))
        self._estimate.done(manifest.get("index"), size, manifest.get("cost", {}).get("seconds"), now)
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=self._done, said=self._said())
        elif not self.quiet and now - self._spoken >= EVERY:
            self._spoken = now
            self.console.print(f"{self._name}: {self._said()}", highlight=False)

    def note(self, message: str) -> None:
        """Something worth a line of its own."""
        self.console.print(message, style="yellow", highlight=False, markup=False)

    def _said(self) -> str:
        seconds = max(1e-3, time.monotonic() - self._started)
        said = [f"{self._done}/{self._tasks} tasks"]
        if self._bytes > self._tasks:  # sizes are bytes, not the 1 that a phase without sizes gives each task
            said.append(f"{self._bytes / 1e6 / seconds:.1f} MB/s")
        if self._read:
            said.append(f"{self._read:,} documents, {self._kept / self._read:.0%} kept")
        left = self._estimate.left(time.monotonic())
        if left:
            said.append(f"{duration(left)} left")
        return " · ".join(said)

    def _finish(self) -> None:
        if self._bars is not None and self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None
        seconds = time.monotonic() - self._started
        # a shuffle has many small phases: those of a moment are not worth a line
        if self._name and self._bytes and not self.quiet and (self._read or seconds >= 1):
            self.console.print(f"[green]✓[/] {self._name}: {self._said()} in {duration(seconds)}", highlight=False)
        self._name, self._bytes = "", 0


def duration(seconds: float) -> str:
    """Seconds as people say them: 4.2 s, 3 min 10 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Bytes in decimal units: 4.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
