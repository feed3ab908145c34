"""How long a phase will still take, from the tasks that are done: by bytes, over the slots that tasks run in.

A task takes a fixed time and a time for each of its bytes. Both are fitted to the tasks done so far (weighted least
squares: a task's error grows with its size), without the first of each slot, which loaded models too. What is left is
then laid out as it will run: the running tasks with what they still need, the waiting ones in their order on whichever
slot is free first. So one file a hundred times as large as the others counts as the one long task that it is, at
whatever place it comes. Before there is a task to go by nothing is known, and nothing is said.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence

LOADING = 30.0  # seconds from which on a first task says something: the loading of models is a small part of it
LAID_OUT = 5000  # waiting tasks laid out one by one; of more, their sum over the slots is as good


class Estimate:
    """The time that a phase has left. All times are seconds of one clock, whichever."""

    def __init__(self, sizes: Sequence[int], total: int | None = None, count: int | None = None) -> None:
        """`sizes`: of the tasks that are left, in the order in which they start. Of very many only the largest may be
        known: then `total` is their sum, and `count` how many they are."""
        count = len(sizes) if count is None else count
        total = sum(sizes) if total is None else total
        self._largest = None if count == len(sizes) else max(sizes)
        if count > len(sizes):
            rest = max(0, total - sum(sizes)) / (count - len(sizes))
            sizes = [*[round(rest)] * (count - len(sizes)), *sizes]
        self.total, self.count = total, count
        self.bytes = 0  # of tasks that are done
        self._waiting = list(sizes)[::-1]  # the next one last
        self._slots = 1
        self._open: dict[Hashable, tuple[int, float]] = {}  # submitted: size, when
        self._began: dict[Hashable, float] = {}  # running: since when
        self._cold: set[Hashable] = set()  # running, the first in their slots
        self._first: list[tuple[int, float]] = []  # size, seconds of those that are done
        self._done: list[tuple[int, float]] = []  # and of all others
        self._slots_used = 0

    def start(self, task: Hashable, size: int, slots: int, at: float) -> None:
        """A task was given out: it runs if a slot is free, else it is next."""
        self._slots = max(1, slots)
        if task not in self._open and self._waiting:
            self._waiting.pop(0 if size == self._largest else -1)  # the largest is taken to come last until it comes
        self._open[task] = (size, at)
        self._promote(at)

    def done(self, task: Hashable, size: int, seconds: float | None, at: float) -> None:
        """A task is done; `seconds`: what it says that it took."""
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
        """(task, seconds so far, seconds that it should take; None: nothing to go by) of the tasks in slots."""
        fit = self._fit()
        return [
            (task, at - began, None if fit is None else fit[0] + fit[1] * self._open[task][0])
            for task, began in self._began.items()
        ]

    def left(self, at: float) -> float | None:
        """Seconds until the phase is done; None before there is something to go by."""
        if not self._open and not self._waiting:
            return 0.0
        fit = self._fit()
        if fit is None:
            return None
        fixed, rate = fit
        ends = []
        for task, began in self._began.items():
            took = at - began
            # one that is over its time is taken to be nearly done
            ends.append(max(fixed + rate * self._open[task][0] - took, 0.05 * took))
        queue = [size for task, (size, _) in self._open.items() if task not in self._began] + self._waiting[::-1]
        if len(queue) > LAID_OUT:
            longest = fixed + rate * max(queue)
            even = (sum(ends) + fixed * len(queue) + rate * sum(queue)) / self._slots
            return max(even, longest, *ends) if ends else max(even, longest)
        slots = ends + [0.0] * (self._slots - len(ends))
        heapq.heapify(slots)
        for size in queue:
            heapq.heapreplace(slots, slots[0] + fixed + rate * size)
        return max(slots)

    def _fit(self) -> tuple[float, float] | None:
        """Seconds a task and seconds a byte."""
        done = self._done + [d for d in self._first if d[1] >= LOADING]
        if not done and not self._waiting:
            done = self._first  # there will be no better ones
        if not done:
            return None
        seconds, size = sum(t for _, t in done), sum(s for s, _ in done)
        if not size:
            return seconds / len(done), 0.0
        plain = (0.0, seconds / size)
        sizes = [s for s, _ in done if s]
        if len(sizes) < 4 or max(sizes) < 3 * min(sizes):  # too alike to tell the two apart
            return plain
        # minimise sum (t - a - b s)^2 / s^2: a straight line through (1 / s, t / s)
        x, y = [1 / s for s in sizes], [t / s for s, t in done if s]
        n, mx, my = len(x), sum(x) / len(x), sum(y) / len(y)
        spread = sum((v - mx) ** 2 for v in x)
        fixed = sum((v - mx) * (w - my) for v, w in zip(x, y, strict=True)) / spread if spread else 0.0
        rate = my - fixed * mx
        if fixed <= 0 or rate <= 0:
            return plain
        off = seconds / (fixed * n + rate * sum(sizes))  # what is done took what it took
        return fixed * off, rate * off
