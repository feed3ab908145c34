"""The driver with very many tasks, which an executor makes up: what it opens and stores, and that it resumes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks import scale

_opened: list[str] = []
_root: list[str] = []


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _root and str(arguments[0]).startswith(_root[0]):
        _opened.append(str(arguments[0]))


sys.addaudithook(_on_event)  # once a process: it cannot be removed


def test_the_drivers_files_are_a_few_whatever_the_tasks(tmp_path: Path) -> None:
    _root.append(str(tmp_path))
    try:
        made = scale.run(tmp_path, 5000, 2)
        files = sorted((tmp_path / "cache" / "phases").iterdir())
        stored = sum(f.stat().st_size for f in files) / made.executed
        print(
            f"{made.executed:,} tasks: {len(_opened)} opens, {len(files)} files of manifests, {stored:.0f} bytes a task"
        )
        assert made.executed == 10_000 and len(files) == 4 and stored <= 1000
        assert len(_opened) < 60
        _opened.clear()
        assert scale.run(tmp_path, 5000, 2).executed == 0
        assert len(_opened) < 30
        files[0].unlink()  # one of the two files of a phase: its tasks alone run again
        assert scale.run(tmp_path, 5000, 2).executed == 5000 - 4096
    finally:
        _root.clear()
