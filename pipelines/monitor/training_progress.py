"""Shows the progress of a training run: a live bar on a terminal, else a line every 20 seconds, and every event."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from pipelines.lookup.training_run import describe_event
from pipelines.monitor.terminal_view import efficiency_line
from pipelines.number_format import format_duration

LINE_EVERY = 20.0  # seconds between lines where there is no live bar


class TrainingProgress:
    """Prints the entries of a training's log as they come; given to `train` as `report`.

    `with TrainingProgress(console, steps) as progress: train(..., report=progress)`.
    """

    def __init__(self, console: Console, steps: int) -> None:
        self.console, self.steps = console, steps
        self._last_line = time.monotonic()
        self._speed: dict[str, Any] = {}
        self._bar: Progress | None = None
        self.notes: set[str] = set()  # already printed

    def __enter__(self) -> TrainingProgress:
        if self.console.is_terminal and not self.console.quiet:
            self._bar = Progress(BarColumn(12), TextColumn("{task.description}"), console=self.console, transient=True)
            self._bar.add_task("", total=self.steps)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, entry: dict[str, Any]) -> None:
        """Shows one entry of the training's log."""
        if entry["kind"] == "note":
            self.notes.add(entry["note"])
            self.console.print(entry["note"], style="yellow", highlight=False, markup=False)
        elif entry["kind"] == "speed":
            self._speed = entry
        elif entry["kind"] == "event":
            self.console.print(describe_event(entry), style="yellow", highlight=False, markup=False)
        elif entry["kind"] == "validation":
            domains = ", ".join(f"{d} {s['loss']:.3f}" for d, s in entry["domains"].items())
            self.console.print(f"step {entry['step']}/{self.steps}: validation loss {domains}", highlight=False)
        elif entry["kind"] == "train" and self._bar is not None:
            line = f"{entry['step']:,}/{self.steps:,}, {self._status(entry, brief=True)}"
            self._bar.update(self._bar.task_ids[0], completed=entry["step"], description=line)
        elif entry["kind"] == "train" and self._speed and time.monotonic() - self._last_line > LINE_EVERY:
            self._last_line = time.monotonic()
            line = f"step {entry['step']}/{self.steps}: {self._status(entry)}"
            self.console.print(line, style="dim", highlight=False)

    def _status(self, entry: dict[str, Any], *, brief: bool = False) -> str:
        """Loss, speed and time left; unless `brief` also memory, and both compared with the plan."""
        parts = ["loss " + ("not finite" if entry["loss"] is None else f"{entry['loss']:.3f}")]
        if self._speed:
            left = (self.steps - entry["step"]) * self._speed["seconds"]
            known = "mfu" in self._speed  # where the device has a data sheet
            each = "" if known else f"{self._speed['seconds']:.2g} s a step"
            mfu = f"MFU {self._speed['mfu']:.1%}" if known else ""
            parts += [f"{self._speed['tokens_per_s']:,.0f} tokens/s", each]
            parts.append(mfu if brief else efficiency_line(self._speed))
            parts.append(f"{format_duration(left)} left")
        return ", ".join(p for p in parts if p)
