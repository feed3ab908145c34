"""A run that dies at any moment and is started again ends with the result of an uninterrupted one, redoing nothing.

In one process first, at every boundary that storage and engine name (`storage.failpoint`): once as an exception, so
that clean-up code runs, once as the disk that a kill would leave, half-written files and all. Then real kills of
drivers and Ray workers over a real crawl.

Covers: curation/engine/execution/disk_space.py, lock.py
Covers: curation/engine/results/publish.py
"""

from __future__ import annotations

import dataclasses
import errno
import gc
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from curation import storage
from curation.core.errors import UserError
from curation.engine.execution.executors import RunFailed
from curation.engine.runtime.run import curate
from curation.storage import Storage
from tests.conftest import HANG
from tests.curation.engine import tiny

ROOT = Path(__file__).resolve().parents[4]


class Dead(BaseException):
    """What the fail-point raises: nothing in the engine may catch it."""


@pytest.fixture(autouse=True)
def _no_hook() -> Iterator[None]:
    yield
    storage.set_failpoint(None)


@pytest.fixture(scope="module")
def fast() -> Iterator[Path]:
    """A folder in memory where there is one: a run syncs a hundred files, and what is tested here is order."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gristmill-test-", dir=base) as folder:
        yield Path(folder)


class Whole:
    """An uninterrupted run: its tree, its tasks, its boundaries, and the directory as it was at some of them."""

    def __init__(self, folder: Path) -> None:
        tiny.write_input(folder / "in")
        self.folder, self.file = folder, tiny.write_pipeline(folder)
        self.boundaries: list[str] = []
        storage.set_failpoint(self.boundaries.append)
        result = tiny.run(self.file, folder / "whole")
        storage.set_failpoint(None)
        assert result.status == "done"
        self.counts, self.executed = result.counts, result.executed
        self.tree = tiny.tree(folder / "whole")
        self.tasks = tiny.committed(folder / "whole")

    def resumes(self, run_dir: Path, where: str) -> None:
        """Runs again and checks: the same tree, the same counts, and only what was not committed was run."""
        had = tiny.committed(run_dir) if run_dir.exists() else set()
        assert had <= self.tasks
        result = tiny.run(self.file, run_dir)
        assert tiny.tree(run_dir) == self.tree, where
        assert result.counts == self.counts, where
        assert result.executed == self.executed - len(had), where
        assert tiny.restarted(run_dir) == [], where
        assert tiny.committed(run_dir) == self.tasks, where
        left = [p for p in run_dir.rglob("*") if p.name.endswith(".tmp") or p.name in ("result.old", "result.new")]
        assert left == [], where


@pytest.fixture(scope="module")
def whole(fast: Path) -> Whole:
    return Whole(fast)


def test_the_run_has_a_boundary_of_every_kind(whole: Whole) -> None:
    kinds = {b.split(" ")[0] for b in whole.boundaries}
    assert {"create", "fsync", "rename", "created", "link", "remove", "phase", "map", "stage", "published"} <= kinds
    assert len(whole.boundaries) > 400
    assert whole.executed == len(whole.tasks) == 35


def _exceptions(whole: Whole, every: int) -> int:
    points = range(0, len(whole.boundaries), every)
    for k in points:
        run_dir = whole.folder / "crashed"
        seen = [0]

        def hook(name: str, k: int = k, seen: list[int] = seen) -> None:
            seen[0] += 1
            if seen[0] > k:
                raise Dead(name)

        storage.set_failpoint(hook)
        with pytest.raises(Dead):
            tiny.run(whole.file, run_dir)
        storage.set_failpoint(None)
        whole.resumes(run_dir, f"boundary {k}: {whole.boundaries[k]}")
        shutil.rmtree(run_dir)
    return len(points)


def _kills(whole: Whole, every: int) -> int:
    """All states at which a kill could leave the disk; neighbours that do not differ on disk are one."""
    states: list[tuple[str, Path]] = []
    last: list[str] = [""]
    number = [0]

    def hook(name: str) -> None:
        now = _listing(whole.folder / "killed")
        if now != last[0]:
            number[0] += 1
            last[0] = now
            if number[0] % every == 0:
                states.append((name, whole.folder / f"state-{number[0]}"))
                if (whole.folder / "killed").exists():
                    tiny.copy_as_killed(whole.folder / "killed", states[-1][1])

    storage.set_failpoint(hook)
    tiny.run(whole.file, whole.folder / "killed")
    storage.set_failpoint(None)
    shutil.rmtree(whole.folder / "killed")
    for name, state in states:
        whole.resumes(state, f"killed at: {name}")
        shutil.rmtree(state)
    return len(states)


def _listing(folder: Path) -> str:
    return "\n".join(
        f"{p.relative_to(folder)} {p.stat().st_size if p.is_file() else ''}"
        for p in sorted(folder.rglob("*"))
        if p.suffix != ".tmp"
    ) + str(sum(p.suffix == ".tmp" for p in folder.rglob("*")))


def test_an_exception_at_every_29th_boundary_is_survived(whole: Whole) -> None:
    assert _exceptions(whole, 29) >= 15


def test_a_kill_at_every_5th_state_of_the_disk_is_survived(whole: Whole) -> None:
    assert _kills(whole, 5) >= 40


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_an_exception_at_every_boundary_is_survived(whole: Whole) -> None:
    assert _exceptions(whole, 1) == len(whole.boundaries)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_kill_at_every_state_of_the_disk_is_survived(whole: Whole) -> None:
    assert _kills(whole, 1) >= 200


# -- what a disk leaves ------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(whole: Whole, fast: Path) -> Iterator[Path]:
    """A copy of a whole run that can be damaged."""
    run_dir = fast / "damaged"
    shutil.copytree(whole.folder / "whole", run_dir)
    yield run_dir
    shutil.rmtree(run_dir)


def _open_again(run_dir: Path) -> None:
    store = Storage(str(run_dir))
    store.write_json("run.json", store.read_json("run.json") | {"done": None})


@pytest.mark.parametrize("kept", [0.0, 0.6])
def test_a_truncated_manifest_of_a_phase_runs_its_tasks_again(whole: Whole, finished: Path, kept: float) -> None:
    _open_again(finished)
    files = sorted((finished / "cache" / "phases").iterdir())
    for file in files[::5]:
        data = file.read_bytes()
        file.write_bytes(data[: int(len(data) * kept)])
    lost = sum(1 for phase, _ in whole.tasks if phase in {f.stem for f in files[::5]})
    result = tiny.run(whole.file, finished)
    assert 0 < result.executed == lost
    # a task of the map phase that runs again finds its signals, and computes none
    assert tiny.tree(finished) == whole.tree and result.counts | {"computed": 0} == whole.counts | {"computed": 0}


def test_a_truncated_manifest_of_a_task_runs_it_again(whole: Whole, fast: Path) -> None:
    run_dir = fast / "torn"

    def hook(name: str) -> None:
        if name.startswith("create cache/phases"):
            raise Dead(name)

    storage.set_failpoint(hook)
    with pytest.raises(Dead):
        tiny.run(whole.file, run_dir)
    storage.set_failpoint(None)
    manifests = sorted((run_dir / "cache" / "tasks").glob("*/*.json"))
    assert len(manifests) == 2
    manifests[0].write_bytes(manifests[0].read_bytes()[:-40])
    notes = Notes()
    result = tiny.run(whole.file, run_dir, progress=notes)
    assert result.executed == whole.executed - 1
    assert tiny.tree(run_dir) == whole.tree
    assert any("is damaged (" in line and line.endswith("its tasks run again") for line in notes.said), notes.said
    shutil.rmtree(run_dir)


@pytest.mark.parametrize("left", [b"", b'{\n "counts": {\n  "read"'])
def test_a_truncated_run_json_is_written_anew(whole: Whole, finished: Path, left: bytes) -> None:
    (finished / "run.json").write_bytes(left)
    result = tiny.run(whole.file, finished)
    assert (result.executed, result.counts, tiny.tree(finished)) == (0, whole.counts, whole.tree)
    assert tiny.run(whole.file, finished).status == "unchanged"


def test_leftovers_of_killed_writers_are_neither_read_nor_kept(whole: Whole, finished: Path) -> None:
    _open_again(finished)
    folders = [p for p in finished.rglob("*") if p.is_dir()]
    for folder in folders:
        (folder / "some.json.0123456789ab.tmp").write_bytes(b"{")
    (finished / "result.new" / "ledger").mkdir(parents=True)
    (finished / "result.new" / "ledger" / "old.parquet").write_bytes(b"half")
    (finished / "result.old").mkdir()
    result = tiny.run(whole.file, finished)
    assert (result.executed, tiny.tree(finished)) == (0, whole.tree)
    assert not list(finished.rglob("*.tmp")) and not list(finished.glob("result.*"))


def test_a_cache_that_was_being_removed_is_removed_by_the_next_run(whole: Whole, fast: Path) -> None:
    """`retention: none` removes the cache when all is done; a kill in between leaves a finished run with a cache."""
    run_dir, pipeline = fast / "lean", dataclasses.replace(tiny.load(whole.file), retention="none")

    def hook(name: str) -> None:
        if name == "remove cache":
            raise Dead(name)

    storage.set_failpoint(hook)
    with pytest.raises(Dead):
        curate(pipeline, str(run_dir), executor="inline")
    storage.set_failpoint(None)
    assert (run_dir / "cache").exists()
    assert curate(pipeline, str(run_dir), executor="inline").status == "unchanged"
    assert not (run_dir / "cache").exists()
    assert curate(pipeline, str(run_dir), executor="inline").status == "unchanged"
    shutil.rmtree(run_dir)


def test_crashes_one_after_another_still_come_to_the_end(whole: Whole, fast: Path) -> None:
    """Each attempt dies after a seeded number of boundaries; a task has at most 30, so attempts get somewhere."""
    run_dir, rng, attempts = fast / "unlucky", random.Random(17), 0
    while True:
        fuse = [rng.randrange(20, 90)]

        def hook(name: str, fuse: list[int] = fuse) -> None:
            fuse[0] -= 1
            if fuse[0] < 0:
                raise Dead(name)

        storage.set_failpoint(hook)
        attempts += 1
        try:
            tiny.run(whole.file, run_dir)
            break
        except Dead:
            assert attempts < 40
    storage.set_failpoint(None)
    assert attempts > 5
    assert tiny.tree(run_dir) == whole.tree
    assert tiny.restarted(run_dir) == []
    shutil.rmtree(run_dir)


class Notes:
    """A progress display that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def phase(self, name: str, tasks: int, done: int, sizes: Sequence[int]) -> None: ...

    def start(self, task: int, size: int, slots: int) -> None: ...

    def task(self, manifest: dict[str, Any], size: int) -> None: ...

    def note(self, message: str) -> None:
        self.said.append(message)


# -- no space left -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        "fsync cache/docs", "fsync cache/tasks", "create cache/phases", "fsync cache/stages", "create cache/out",
        "link result.new", "create result.new", "create pipeline.yaml", "fsync run.json",
    ],
)  # fmt: skip
def test_a_full_disk_is_said_and_the_run_goes_on_later(whole: Whole, fast: Path, where: str) -> None:
    """In tasks and in the driver, whose own small files need space too."""
    run_dir = fast / "full"

    def hook(name: str) -> None:
        if name.startswith(where):
            raise OSError(errno.ENOSPC, "No space left on device")

    storage.set_failpoint(hook)
    with pytest.raises(RunFailed) as failure:
        tiny.run(whole.file, run_dir)
    storage.set_failpoint(None)
    for said in ("the disk is full", str(run_dir), "free some space", "run the same command again"):
        assert said in str(failure.value)
    whole.resumes(run_dir, where)
    shutil.rmtree(run_dir)


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_a_disk_that_really_is_full(whole: Whole, tmp_path: Path, executor: str) -> None:
    """A file system of 192 KiB, then one of 8 MiB: here the system call itself fails, in the middle of a file."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        with pytest.raises(RunFailed, match="the disk is full"):
            tiny.run(whole.file, disk / "run", executor=executor, workers=1)
        had = tiny.committed(disk / "run")
        assert 0 < len(had) < len(whole.tasks)
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        whole.resumes(disk / "run", "after making room")
    finally:
        gc.collect()  # the error holds the frames of the task that failed, and with them the files that it had open
        subprocess.run(["umount", str(disk)], check=True)


# -- two drivers -------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from curation import storage
from tests.curation.engine import tiny
from pathlib import Path
def hook(name):
    if name.startswith("phase 0"):
        print("held", flush=True)
        sys.stdin.read()
storage.set_failpoint(hook)
print(tiny.run(Path(sys.argv[1]), sys.argv[2]).status)
"""


def test_the_second_driver_is_told_who_the_first_is(whole: Whole, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(whole.file), str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
    )  # fmt: skip
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(UserError) as refused:
            tiny.run(whole.file, run_dir)
        for said in (f"another driver is working in {run_dir}", f"process {first.pid}", "--run"):
            assert said in str(refused.value)
        out, _ = first.communicate("", timeout=HANG)
        assert out == "done\n"
    finally:
        first.kill()
        first.wait()
    assert tiny.tree(run_dir) == whole.tree
    assert tiny.run(whole.file, run_dir).status == "unchanged"


def test_a_killed_driver_leaves_no_lock(whole: Whole, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(whole.file), str(run_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
    )  # fmt: skip
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    first.kill()
    first.communicate()
    whole.resumes(run_dir, "killed while it held the lock")
