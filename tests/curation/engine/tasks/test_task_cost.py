"""Peak memory is of the task, not of the largest task that its worker has run."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.engine.manifests.phase_totals import total_cost
from curation.engine.tasks import task_cost
from curation.engine.tasks.task_cost import TaskCost, part
from tests.curation.engine import runs, tiny

MIB = 1 << 20


def supported() -> bool:
    return TaskCost().so_far()["peak_bytes"] is not None


@pytest.mark.skipif(not supported(), reason="this system cannot restart the count of peak memory")
def test_a_small_task_behind_a_large_one_shows_its_own_peak() -> None:
    large = TaskCost()
    block = np.ones(400 * MIB, np.uint8)
    assert int(block[-1]) == 1
    del block
    small = TaskCost()
    assert large.so_far()["peak_bytes"] is not None
    peak = small.so_far()["peak_bytes"]
    again = TaskCost()
    block = np.ones(100 * MIB, np.uint8)
    del block
    assert again.so_far()["peak_bytes"] > peak + 50 * MIB
    assert TaskCost().so_far()["peak_bytes"] < peak + 50 * MIB


@pytest.mark.skipif(not supported(), reason="this system cannot restart the count of peak memory")
def test_phases_of_a_run_do_not_inherit_a_peak(tmp_path: Path) -> None:
    block = np.ones(600 * MIB, np.uint8)
    del block
    tiny.write_input(tmp_path / "in")
    tiny.run(tiny.write_pipeline(tmp_path), tmp_path / "run")
    done = [e for e in tiny.events(tmp_path / "run") if e["event"] == "done" and "peak_bytes" in e]
    assert len(done) > 10 and TaskCost().so_far()["peak_bytes"] + 300 * MIB > max(e["peak_bytes"] for e in done)


def test_no_figure_where_the_system_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.open

    def forbidden(path: Any, *more: Any, **options: Any) -> Any:
        if str(path) == "/proc/self/clear_refs":
            raise PermissionError("not here")
        return real(path, *more, **options)

    monkeypatch.setattr(builtins, "open", forbidden)
    cost = TaskCost().so_far()
    assert cost["peak_bytes"] is None
    assert total_cost([{"cost": cost}])["peak_bytes"] == 0
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", [{"text": "a page"}])
    assert runs.curate(tmp_path, runs.text_pipeline(tmp_path, steps=[])).status == "done"


def test_parts_do_not_count_the_parts_inside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 7.0, 8.0, 20.0])  # start, outer, inner, end of inner, end of outer, so far
    monkeypatch.setattr(task_cost.time, "process_time", lambda: next(clock))
    cost = TaskCost()
    with part("outer"), part("inner"):
        pass
    found = cost.so_far()
    assert found["parts"] == {"inner": 4.0, "outer": 3.0} and found["cpu_seconds"] == 20.0


def test_every_second_of_a_run_is_of_one_part(tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in")
    tiny.run(tiny.write_pipeline(tmp_path), tmp_path / "run")
    done = [e for e in tiny.events(tmp_path / "run") if e["event"] == "done" and "parts" in e]
    assert done and all(sum(e["parts"].values()) <= e["cpu_seconds"] + 0.01 for e in done)
    assert {"read", "rules", "write"} <= {name for e in done for name in e["parts"]}
