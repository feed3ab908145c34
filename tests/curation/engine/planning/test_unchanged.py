"""The same command again does nothing; changed input is noticed, and only its tasks run again.

Covers: split_input.py, fingerprints.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from curation.engine.results import explain
from tests.conftest import HANG, ROOT
from tests.curation.engine import runs

TEXT = "The brook turns the mill, and the miller sings of page {} while it rains."


class Watch:
    """Which tasks ran, by phase."""

    def __init__(self) -> None:
        self.ran: dict[str, int] = {}
        self.name = ""

    def phase(self, name: str, tasks: int, done: int, sizes: Sequence[int]) -> None:
        self.name = name

    def start(self, task: int, size: int, slots: int) -> None:
        return None

    def task(self, manifest: dict[str, Any], size: int) -> None:
        self.ran[self.name] = self.ran.get(self.name, 0) + 1

    def note(self, message: str) -> None:
        return None


def pages(folder: Path, files: int, each: int = 20) -> None:
    """Files of some 2,400 bytes, so that at 2 KiB a task each is a task of its own."""
    for i in range(files):
        rows = [{"text": TEXT.format(f"{i:03d}{k:03d}"), "url": f"http://e.org/{i}/{k}"} for k in range(each)]
        runs.write_jsonl(folder / "texts" / f"{i:03d}.jsonl", rows)


def small(folder: Path, **more: Any) -> dict[str, Any]:
    steps = [{"language": {}}, "exact_dedup"]
    return runs.text_pipeline(folder, steps=steps, engine={"task_bytes": 1 << 11}, **more)


def test_the_same_again_does_nothing_and_starts_nothing(tmp_path: Path) -> None:
    """In a process of its own, as a user has it: without Ray, models or compiled kernels."""
    pages(tmp_path, 2)
    runs.curate(tmp_path, small(tmp_path))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    code = (
        "import sys\n"
        "from curation.config.load_pipeline import load_pipeline; from curation.engine.runtime import run\n"
        "made = load_pipeline(sys.argv[1])\n"
        "result = run.curate(made, sys.argv[2])\n"
        "heavy = [m for m in ('ray', 'fasttext', 'numba', 'torch', 'tokenizers') if m in sys.modules]\n"
        "print(result.status, result.executed, result.exit_code, heavy)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pipeline.yaml"), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, timeout=HANG,
    )  # fmt: skip
    assert ended.stdout.strip() == "unchanged 0 0 []"
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()} == before


def check_against_fresh(folder: Path, tree: dict[str, Any], name: str) -> None:
    runs.curate(folder, tree, name)
    assert runs.tree_bytes(folder / "run") == runs.tree_bytes(folder / name)


def test_a_changed_file_is_noticed_and_only_its_task_runs_again(tmp_path: Path) -> None:
    pages(tmp_path, 8)
    tree = small(tmp_path)
    first = Watch()
    runs.curate(tmp_path, tree, progress=first)
    assert first.ran["0: read, language"] == 8

    same_size = tmp_path / "texts" / "003.jsonl"
    stat = same_size.stat()
    same_size.write_text(same_size.read_text().replace("003007", "999999"))
    assert same_size.stat().st_size == stat.st_size
    os.utime(same_size, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    watch = Watch()
    again = runs.curate(tmp_path, tree, progress=watch)
    assert (again.status, watch.ran["0: read, language"], again.computed) == ("done", 1, {"language": 20})
    check_against_fresh(tmp_path, tree, "fresh-1")

    with (tmp_path / "texts" / "005.jsonl").open("a") as f:
        f.write(json.dumps({"text": TEXT.format("more"), "url": "http://e.org/more"}) + "\n")
    watch = Watch()
    again = runs.curate(tmp_path, tree, progress=watch)
    assert (watch.ran["0: read, language"], again.computed) == (1, {"language": 21})
    check_against_fresh(tmp_path, tree, "fresh-2")
    assert explain.explain(str(tmp_path / "run"), "http://e.org/more")["outcome"] == {"kept": True}


def test_files_come_and_go(tmp_path: Path) -> None:
    pages(tmp_path, 6)
    tree = small(tmp_path)
    runs.curate(tmp_path, tree)
    started = runs.tree_bytes(tmp_path / "run")
    runs.write_jsonl(tmp_path / "texts" / "001a.jsonl", [{"text": TEXT.format(f"new {k}")} for k in range(30)])
    added = runs.curate(tmp_path, tree)
    assert (added.status, added.computed, added.counts["read"]["records"]) == ("done", {"language": 30}, 150)
    check_against_fresh(tmp_path, tree, "fresh")
    (tmp_path / "texts" / "001a.jsonl").unlink()
    taken = runs.curate(tmp_path, tree)
    assert (taken.status, taken.computed, taken.counts["read"]["records"]) == ("done", {}, 120)
    assert runs.tree_bytes(tmp_path / "run") == started


def test_small_files_that_come_and_go_leave_the_tasks_of_others_alone(tmp_path: Path) -> None:
    """Small files share tasks: one more must not deal all files behind it anew."""
    for i in range(120):
        runs.write_jsonl(tmp_path / "texts" / f"{i:04d}.jsonl", [{"text": TEXT.format(i)}])
    tree = small(tmp_path)
    watch = Watch()
    runs.curate(tmp_path, tree, progress=watch)
    tasks = watch.ran["0: read, language"]
    assert 3 <= tasks <= 16  # 120 files of about 95 bytes, 2 KiB a task
    runs.write_jsonl(tmp_path / "texts" / "0003a.jsonl", [{"text": TEXT.format("new")}])
    watch = Watch()
    again = runs.curate(tmp_path, tree, progress=watch)
    assert watch.ran["0: read, language"] <= 2
    assert again.computed["language"] < 120
    check_against_fresh(tmp_path, tree, "fresh")


def test_limit_and_sample_are_runs_of_their_own(tmp_path: Path) -> None:
    pages(tmp_path, 4)
    tree = small(tmp_path)
    whole = runs.curate(tmp_path, tree, "whole")
    limited = runs.curate(tmp_path, tree, limit=8)
    assert (limited.status, limited.counts["read"]["records"]) == ("done", 8)
    assert runs.curate(tmp_path, tree, limit=8).status == "unchanged"
    sampled = runs.curate(tmp_path, tree, sample=0.25)
    assert sampled.status == "done"
    left = sampled.counts["read"]["records"] - sum(
        d["dropped"] for d in sampled.counts["steps"] if (d["step"], d["rule"]) == ("read", "sample")
    )
    assert 8 <= left <= 34  # of 80, a quarter expected
    larger = runs.curate(tmp_path, tree, sample=0.5)
    assert larger.computed["language"] < whole.counts["kept"] - left + 1  # the smaller sample is part of the larger
    full = runs.curate(tmp_path, tree)
    assert (full.status, full.counts["read"]["records"]) == ("done", 80)
    assert runs.tree_bytes(tmp_path / "run") == runs.tree_bytes(tmp_path / "whole")
    assert runs.curate(tmp_path, tree).status == "unchanged"


def test_a_file_that_could_not_be_read_is_read_once_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions show in no mtime and no size. (Patched: whoever runs the tests may be root, who may read all.)"""
    pages(tmp_path, 3)
    tree = small(tmp_path)
    with monkeypatch.context() as patch:
        access, opened = os.access, storage.open_input

        def refuse(root: str, path: str) -> Any:
            if path == "001.jsonl":
                raise PermissionError(13, "Permission denied", path)
            return opened(root, path)

        patch.setattr(os, "access", lambda path, mode: "001.jsonl" not in str(path) and access(path, mode))
        patch.setattr(storage, "open_input", refuse)
        shut = runs.curate(tmp_path, tree, allow_missing=True)
    assert (shut.status, shut.exit_code, shut.counts["read"]["records"]) == ("quarantined", 3, 40)
    assert [(u["path"], u["reason"]) for u in shut.quarantined] == [("001.jsonl", "PermissionError")]
    again = runs.curate(tmp_path, tree, allow_missing=True)
    assert (again.status, again.exit_code, again.computed) == ("done", 0, {"language": 20})
    check_against_fresh(tmp_path, tree, "fresh")


@pytest.mark.parametrize("tasks", [200, pytest.param(10_000, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)])])
def test_tasks_done_are_seen_to_be_done_without_reading_what_they_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # making the run is not what is measured
    for i in range(tasks):
        runs.write_jsonl(tmp_path / "texts" / f"{i % 100:02d}" / f"{i:05d}.jsonl", [{"text": f"{i} " + "m" * 1100}])
    tree = runs.text_pipeline(tmp_path, steps=[{"language": {}}], engine={"task_bytes": 1 << 10})
    made = Watch()
    runs.curate(tmp_path, tree, progress=made)
    assert made.ran["0: read, language"] == tasks
    opened: list[str] = []
    open_ = storage.Storage.open
    monkeypatch.setattr(storage.Storage, "open", lambda store, path: opened.append(path) or open_(store, path))
    monkeypatch.setattr(storage, "open_input", None)  # what is never called
    again = runs.curate(tmp_path, tree, executor="ray")
    assert (again.status, again.executed, set(opened)) == ("unchanged", 0, {"run.json"})
    assert len(opened) <= 4
