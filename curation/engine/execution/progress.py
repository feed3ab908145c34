"""Defines what receives a run's progress: a display, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Progress(Protocol):
    """Receives a run's progress, to display it. All methods are called from the driver's thread.

    phase   a phase begins: its tasks, how many are done, and the sizes of the others in the order in which they start
    start   a task (its number) was given to one of `slots` slots, or waits for one
    task    a task is committed
    note    a line for the user
    """

    def phase(self, name: str, tasks: int, done: int, sizes: Sequence[int]) -> None: ...
    def start(self, task: int, size: int, slots: int) -> None: ...
    def task(self, manifest: dict[str, Any], size: int) -> None: ...
    def note(self, message: str) -> None: ...


class Silent:
    """Displays nothing."""

    def phase(self, name: str, tasks: int, done: int, sizes: Sequence[int]) -> None:
        return None

    def start(self, task: int, size: int, slots: int) -> None:
        return None

    def task(self, manifest: dict[str, Any], size: int) -> None:
        return None

    def note(self, message: str) -> None:
        return None
