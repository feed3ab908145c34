"""The time left: within 20 % after the first tenth, whatever one file is a hundred times as large as the others."""

from __future__ import annotations

import gzip
import heapq
import json
import random
from pathlib import Path
from typing import Any

import pytest

from pipelines.monitor.eta import Estimate

MB = 1_000_000


def simulate(
    sizes: list[int], slots: int, fixed: float, seed: int, startup: float = 2.0
) -> tuple[float, list[tuple[float, float | None]]]:
    """Tasks of a phase as the driver gives them out: (when it ends, [(time, what the estimate says is left)]).

    A task takes `fixed` seconds and a second a MB, times a noise of 15 % at 1 MB that averages out over larger ones;
    the first of each slot takes `startup` more, to load models.
    """
    rng = random.Random(seed)
    took = [(fixed + s / MB) * rng.lognormvariate(0, 0.15 * min(1.0, (MB / s) ** 0.5)) for s in sizes]
    estimate, now, given, started = Estimate(sizes), 0.0, 0, 0
    queue: list[int] = []
    running: list[tuple[float, int, float]] = []
    said: list[tuple[float, float | None]] = []

    def fill() -> None:
        nonlocal given, started
        while given < len(sizes) and len(queue) + len(running) < (2 * slots if slots > 1 else 1):
            estimate.start(given, sizes[given], slots, now)
            queue.append(given)
            given += 1
        while queue and len(running) < slots:
            task = queue.pop(0)
            seconds = took[task] + (startup if started < slots else 0.0)
            started += 1
            heapq.heappush(running, (now + seconds, task, seconds))

    fill()
    while running:
        end, task, seconds = running[0]
        said += [(at, estimate.left(at)) for at in (now + (end - now) * k / 4 for k in range(4))]
        now = end
        heapq.heappop(running)
        estimate.done(task, sizes[task], seconds, now)
        fill()
        said.append((now, estimate.left(now)))
    return now, said


@pytest.mark.parametrize("place", [0, 100, 200])
@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize("fixed", [0.0, 0.3])
def test_one_file_a_hundred_times_the_others(place, slots, fixed):
    for seed in range(3):
        rng = random.Random(seed + 100)
        sizes = [int(MB * rng.lognormvariate(0, 0.6)) for _ in range(200)]
        sizes.insert(place, 100 * sum(sizes) // len(sizes))
        total, said = simulate(sizes, slots, fixed, seed)
        later = [(at, left) for at, left in said if at >= total / 10]
        wrong = [(at, left) for at, left in later if left is not None and abs(at + left - total) > 0.2 * total]
        assert not wrong, (seed, total, wrong[:3])
        unknown = [at for at, left in later if left is None]
        # on one slot with the large file first, nothing is done before it is: then nothing is said
        assert not unknown or (slots == 1 and place == 0)
        assert said[-1][1] == 0.0


def test_bytes_over_time_alone_would_be_wrong():
    """What the estimate is for: with the large file last, the tasks that are done say nothing of that one."""
    sizes = [MB] * 200 + [100 * MB]
    total, said = simulate(sizes, 8, 0.0, 0)
    at, left = next((at, left) for at, left in said if at >= 25)
    naive = at * 100 / 200  # 200 MB done in 25 s by eight slots, 100 MB to go
    assert abs(at + naive - total) > 0.5 * total and left is not None and abs(at + left - total) < 0.2 * total


def test_before_anything_is_done_nothing_is_said():
    estimate = Estimate([5, 5, 5])
    estimate.start("a", 5, 1, 0.0)
    assert estimate.left(3.0) is None
    estimate.done("a", 5, 9.0, 9.0)  # and loaded models: it says too much
    estimate.start("b", 5, 1, 9.0)
    assert estimate.left(10.0) is None
    estimate.done("b", 5, 4.0, 13.0)
    assert estimate.left(13.0) == pytest.approx(4.0)
    assert Estimate([]).left(0.0) == 0.0


def test_of_very_many_tasks_the_sum_and_the_largest_do():
    estimate = Estimate([100 * MB], 1100 * MB, 1001)
    for i in range(8):
        estimate.start(i, MB, 4, i // 4 * 1.0)
    for i in range(8):
        estimate.done(i, MB, 1.0, 1.0 + i // 4)
    assert estimate.left(2.0) == pytest.approx(992 / 4 + 100)  # it may come last
    estimate.start(8, 100 * MB, 4, 2.0)
    assert estimate.left(2.0) == pytest.approx((992 + 100) / 4, rel=0.05)


def test_a_phase_without_sizes_goes_by_tasks():
    estimate = Estimate([1] * 10)
    for i in range(5):
        estimate.start(i, 1, 1, 2.0 * i)
        estimate.done(i, 1, 2.0, 2.0 * i + 2)
    assert estimate.left(10.0) == pytest.approx(10.0)


MEASURE = """
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from curation.document import with_column
from curation.step import MapStep


@dataclass
class Measure(MapStep):
    name: str = "measure"

    @property
    def signals(self):
        return pa.schema([("bytes", pa.int64())])

    def __call__(self, batch):
        bytes_ = pc.binary_length(batch.column("text")).cast(pa.int64())
        return with_column(batch, self.name, pa.StructArray.from_arrays([bytes_], fields=list(self.signals)))
"""


def test_a_real_run_of_skewed_files(tmp_path: Path) -> None:
    """The engine at work on 60 files and one of a hundred times their size. The clock is counted: a task takes three
    seconds a MB of text, whatever the machine; what the engine says of its tasks, and when, is its own."""
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.execution.progress import Silent
    from curation.engine.runtime.run import curate

    words = [f"word{i}" for i in range(500)]
    rng = random.Random(3)
    for i in range(61):
        documents = 1000 if i == 20 else 10
        rows = [{"text": " ".join(rng.choices(words, k=500))} for _ in range(documents)]
        with gzip.open(tmp_path / f"{i:02d}.jsonl.gz", "wt") as f:  # which is not cut: each file is a task
            f.writelines(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "measure.py").write_text(MEASURE)
    (tmp_path / "p.yaml").write_text(
        "name: skewed\nsources: [{name: web, read: text, path: '*.jsonl.gz'}]\n"
        "steps: ['measure.py:Measure']\nengine: {task_bytes: 1024}\n"
    )

    class Clock(Silent):
        """What the estimate says at each start and end of the first phase's tasks."""

        def __init__(self) -> None:
            self.said: list[tuple[float, float | None]] = []
            self.estimate: Any = None
            self.now, self.first = 0.0, False

        def phase(self, name, tasks, done, sizes):
            self.first = name.startswith("0:")
            if self.first:
                self.estimate = Estimate(sizes)

        def start(self, task, size, slots):
            if self.first:
                self.estimate.start(task, size, slots, self.now)

        def task(self, manifest, size):
            if self.first:
                took = manifest["text_bytes"] * 3e-6
                self.now += took
                self.estimate.done(manifest["index"], size, took, self.now)
                self.said.append((self.now, self.estimate.left(self.now)))

    clock = Clock()
    pipeline = load_pipeline(str(tmp_path / "p.yaml"))
    curate(pipeline, str(tmp_path / "run"), executor="inline", progress=clock)
    later = [(at, left) for at, left in clock.said if at > 0.1 * clock.now]
    errors = [abs(at + left - clock.now) / clock.now for at, left in later if left is not None]
    assert len(errors) >= len(later) - 1 and max(errors) < 0.2
