"""Estimates the time that a phase has left, from its finished tasks, the bytes of the others, and the task slots.

A task takes a fixed time plus a time per byte. Both are fitted to the finished tasks (weighted least squares: the error
of a task grows with its size), without the first task of each slot, which also loaded models. The remaining tasks are
then scheduled as they will run: running ones with the time they still need, waiting ones in order on the first free
slot. So one file a hundred times larger than the others counts as one long task, wherever it comes in the order. There
is no estimate before the first task has finished.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence

LONG_TASK = 30.0  # seconds: the first task of a slot counts if longer, since model loading is then a small part
MAX_SCHEDULED = 5000  # waiting tasks scheduled one by one; with more, their sum over the slots is as good


class Estimate:
    """Estimates the time left of one phase. All times are seconds of one clock."""

    def __init__(self, sizes: Sequence[int], total: int | None = None, count: int | None = None) -> None:
        """`sizes`: bytes of the remaining tasks, in the order in which they start. If only the largest are known,
        `total` is the sum over all tasks and `count` their number."""
        count = len(sizes) if count is None else count
        total = sum(sizes) if total is None else total
        self._largest = None if count == len(sizes) else max(sizes)
        if count > len(sizes):
            rest = max(0, total - sum(sizes)) / (count - len(sizes))
            sizes = [*[round(rest)] * (count - len(sizes)), *sizes]
        self.total, self.count = total, count
        self.bytes = 0  # of finished tasks
        self._waiting = list(sizes)[::-1]  # the next one last
        self._slots = 1
        self._open: dict[Hashable, tuple[int, float]] = {}  # submitted tasks: (size, time)
        self._began: dict[Hashable, float] = {}  # running tasks: start time
        self._cold: set[Hashable] = set()  # running tasks that are the first in their slot
        self._first: list[tuple[int, float]] = []  # (size, seconds) of finished first tasks
        self._done: list[tuple[int, float]] = []  # and of all other finished tasks
        self._slots_used = 0

    def start(self, task: Hashable, size: int, slots: int, at: float) -> None:
        """A task was submitted: it runs if a slot is free, else it waits for the next one."""
        self._slots = max(1, slots)
        if task not in self._open and self._waiting:
            self._waiting.pop(0 if size == self._largest else -1)  # the largest is assumed to come last until it comes
        self._open[task] = (size, at)
        self._promote(at)

    def done(self, task: Hashable, size: int, seconds: float | None, at: float) -> None:
        """A task has finished; `seconds`: the time it reports."""
        size, given = self._open.pop(task, (size, at))
        began = self._began.pop(task, given)
        kept = self._first if task in self._cold else self._done
        kept.append((size, max(1e-6, at - began if seconds is None else seconds)))
        self.bytes += size
        self._promote(at)

    def _promote(self, at: float) -> None:
        for task in self._open:
            if len(self._began) >= self._slots:
                break
            if task not in self._began:
                self._began[task] = at
                if self._slots_used < self._slots:
                    self._slots_used += 1
                    self._cold.add(task)

    def running(self, at: float) -> list[tuple[Hashable, float, float | None]]:
        """(task, seconds so far, expected seconds or None) of the running tasks."""
        fit = self._fit()
        return [
            (task, at - began, None if fit is None else fit[0] + fit[1] * self._open[task][0])
            for task, began in self._began.items()
        ]

    def left(self, at: float) -> float | None:
        """Seconds until the phase is done; None before there is an estimate."""
        if not self._open and not self._waiting:
            return 0.0
        fit = self._fit()
        if fit is None:
            return None
        fixed, rate = fit
        ends = []
        for task, began in self._began.items():
            took = at - began
            # one that takes longer than expected is assumed to be nearly done
            ends.append(max(fixed + rate * self._open[task][0] - took, 0.05 * took))
        queue = [size for task, (size, _) in self._open.items() if task not in self._began] + self._waiting[::-1]
        if len(queue) > MAX_SCHEDULED:
            longest = fixed + rate * max(queue)
            even = (sum(ends) + fixed * len(queue) + rate * sum(queue)) / self._slots
            return max(even, longest, *ends) if ends else max(even, longest)
        slots = ends + [0.0] * (self._slots - len(ends))
        heapq.heapify(slots)
        for size in queue:
            heapq.heapreplace(slots, slots[0] + fixed + rate * size)
        return max(slots)

    def _fit(self) -> tuple[float, float] | None:
        """(seconds per task, seconds per byte)."""
        done = self._done + [d for d in self._first if d[1] >= LONG_TASK]
        if not done and not self._waiting:
            done = self._first  # no other tasks will follow
        if not done:
            return None
        seconds, size = sum(t for _, t in done), sum(s for s, _ in done)
        if not size:
            return seconds / len(done), 0.0
        plain = (0.0, seconds / size)
        sizes = [s for s, _ in done if s]
        if len(sizes) < 4 or max(sizes) < 3 * min(sizes):  # sizes too similar to separate the two
            return plain
        # minimise sum (t - a - b s)^2 / s^2: a straight line through (1 / s, t / s)
        x, y = [1 / s for s in sizes], [t / s for s, t in done if s]
        n, mx, my = len(x), sum(x) / len(x), sum(y) / len(y)
        spread = sum((v - mx) ** 2 for v in x)
        fixed = sum((v - mx) * (w - my) for v, w in zip(x, y, strict=True)) / spread if spread else 0.0
        rate = my - fixed * mx
        if fixed <= 0 or rate <= 0:
            return plain
        off = seconds / (
            fixed * n + rate * sum(sizes)
        )  # scaled so that the finished tasks add up to the time they took
        return fixed * off, rate * off
