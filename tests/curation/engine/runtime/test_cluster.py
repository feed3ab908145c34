"""Failures on a cluster: a node dies, a record kills its worker, memory runs out, packages differ.

Covers: curation/engine/execution/driver.py, curation/engine/execution/progress.py
Covers: curation/engine/execution/executors.py, curation/engine/execution/poison_list.py
Covers: curation/engine/execution/fatal_record.py
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from curation.core.errors import UserError
from curation.engine.execution import driver
from curation.engine.execution.driver import MAX_DEATHS, MEMORY_GROWTH
from curation.engine.execution.executors import TASK_MEMORY, Inline, Outcome, RunFailed, WorkerDiffers
from curation.engine.execution.progress import Silent
from curation.engine.planning import fingerprints
from curation.engine.planning.map_spec import MapSpec
from tests.curation.engine import tiny
from tests.ray_cluster import start_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core, the head among them; each test adds the third."""
    ray = pytest.importorskip("ray")
    before = os.environ.get("RAY_TMPDIR")
    folder = tempfile.mkdtemp(prefix="gm-")
    os.environ["RAY_TMPDIR"] = folder
    made, _ = start_cluster({"num_cpus": 1}, {"num_cpus": 1})
    try:  # the tests add the third node: one that dies, one that differs
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        os.environ.pop("RAY_TMPDIR")
        if before is not None:
            os.environ["RAY_TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def _when(condition: Callable[[], bool], action: Callable[[], Any]) -> threading.Thread:
    """Does something beside the run as soon as a condition holds."""

    def wait() -> None:
        while not condition():
            time.sleep(0.05)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:1])
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def test_a_node_dies_while_it_works(cluster: Any, tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in", files=9)
    file = tiny.write_pipeline(tmp_path, pause=0.4)
    expected = tiny.run(file, tmp_path / "inline")
    run_dir, doomed = tmp_path / "run", cluster.add_node(num_cpus=1)

    def at_work() -> bool:
        raylet = psutil.Process(doomed.all_processes["raylet"][0].process.pid)
        return any(_name(child) == "ray::execute" for child in raylet.children())

    killer = _when(at_work, lambda: cluster.remove_node(doomed, allow_graceful=False))
    result = tiny.run(file, run_dir, executor="ray", address=cluster.address)
    killer.join(60)
    assert not killer.is_alive()
    failed = [e for e in tiny.events(run_dir) if e["event"] == "failed"]
    assert failed, "the node had no task in hand when it died"
    assert (result.status, result.counts) == ("done", expected.counts)
    assert tiny.tree(run_dir) == tiny.tree(tmp_path / "inline")
    assert tiny.restarted(run_dir) == []


def test_nodes_with_other_packages_or_cpu_features_are_left_out_and_named_once(cluster: Any, tmp_path: Path) -> None:
    """One has the metadata of another xxhash on its path, numpy of the other uses fewer CPU features."""
    tiny.write_input(tmp_path / "in", files=9)
    file = tiny.write_pipeline(tmp_path, pause=0.4)
    expected = tiny.run(file, tmp_path / "inline")
    other = tmp_path / "site" / "xxhash-99.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: xxhash\nVersion: 99.1\n")
    nodes = []
    for name, value in (("PYTHONPATH", f"{other.parent}{os.pathsep}"), ("NPY_DISABLE_CPU_FEATURES", "X86_V3")):
        before = os.environ.get(name, "")
        os.environ[name] = value + before
        try:
            nodes.append(cluster.add_node(num_cpus=1))
        finally:
            os.environ[name] = before
    notes = Notes()
    try:
        result = tiny.run(file, tmp_path / "run", executor="ray", address=cluster.address, progress=notes)
    finally:
        for node in nodes:
            cluster.remove_node(node)
    assert (result.status, result.counts) == ("done", expected.counts)
    assert tiny.tree(tmp_path / "run") == tiny.tree(tmp_path / "inline")
    assert all("the run continues without it" in line for line in notes.lines)
    odd = 1 + ("X86_V3" in fingerprints.machine()["cpu"])
    assert len(notes.lines) == odd and sum("'xxhash': '99.1'" in line for line in notes.lines) == 1, notes.lines


class Notes(Silent):
    """Keeps what the run said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, message: str) -> None:
        self.lines.append(message)


# -- bad records -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor", "bad"), [("inline", {"a5": "raises", "b3": "raises"}), ("ray", {"a5": "raises", "b3": "dies"})]
)
def test_a_record_that_breaks_a_step_is_found_and_left_out(tmp_path: Path, executor: str, bad: dict[str, str]) -> None:
    tiny.write_input(tmp_path / "in", documents=8, bad=bad)
    file = tiny.write_pipeline(tmp_path)
    options = {"executor": executor, "workers": 1} if executor == "ray" else {"executor": executor}
    result = tiny.run(file, tmp_path / "run", **options)
    assert result.status == "done"
    assert result.counts["read"]["records"] == 16
    assert {"step": "read", "rule": "poison", "dropped": 2} in result.counts["steps"]

    lines = [json.loads(line) for line in (tmp_path / "run" / "poison.jsonl").read_text().splitlines()]
    reasons = {"raises": "words: ValueError: a word it cannot bear", "dies": "its worker dies"}
    found = {(e["file"], e["reason"]) for e in lines}
    assert found == {(f"{name[0]}.jsonl", reasons[word]) for name, word in bad.items()}
    assert len(lines) == 2 and [e["doc_id"] for e in lines] == sorted(e["doc_id"] for e in lines)
    again = tiny.run(file, tmp_path / "run", **options)
    assert (again.status, again.executed) == ("unchanged", 0)

    # a replay that is given the list never runs into them
    (tmp_path / "replay").mkdir()
    shutil.copy(tmp_path / "run" / "poison.jsonl", tmp_path / "replay")
    replay = tiny.run(file, tmp_path / "replay")
    assert replay.counts == result.counts
    assert not [e for e in tiny.events(tmp_path / "replay") if e["event"] == "failed"]
    assert tiny.tree(tmp_path / "replay") == tiny.tree(tmp_path / "run")


def test_a_poison_list_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in", documents=8, bad={"a5": "raises"})
    file = tiny.write_pipeline(tmp_path)
    tiny.run(file, tmp_path / "run")
    list_ = tmp_path / "run" / "poison.jsonl"
    before, tree = list_.read_bytes(), tiny.tree(tmp_path / "run")
    list_.write_bytes(before + b'{"doc_id": "12')
    with pytest.raises(
        UserError, match=r'poison\.jsonl, line 2: expected an object with doc_id.*found \{"doc_id": "12'
    ):
        tiny.run(file, tmp_path / "run")
    list_.unlink()
    assert tiny.run(file, tmp_path / "run").status == "done"
    assert (list_.read_bytes(), tiny.tree(tmp_path / "run")) == (before, tree)


# -- deaths, through the seam ------------------------------------------------------------------------------------------


class Deadly(Inline):
    """Runs calls in this process, or says how their worker died."""

    def __init__(self, death: Callable[[Any, int], Outcome | None]) -> None:
        self.death = death
        self.asked: list[int] = []

    def submit(self, function: Any, shared: Any, spec: Any, commit: str | None, memory: int) -> Any:
        self.asked.append(memory)
        return self.death(spec, memory) or super().submit(function, shared, spec, commit, memory)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    tiny.write_input(tmp_path / "in", documents=8)
    return tiny.write_pipeline(tmp_path)


def _starved(spec: Any, memory: int) -> Outcome:
    return Outcome(death="OutOfMemoryError: task used too much", memory=True)


def test_out_of_memory_is_retried_with_more_memory(small: Path, tmp_path: Path) -> None:
    need = TASK_MEMORY * MEMORY_GROWTH**2
    mine = Deadly(lambda spec, memory: _starved(spec, memory) if memory < need and _first(spec) else None)
    result = tiny.run(small, tmp_path / "run", executor=lambda: mine)
    assert result.status == "done"
    assert mine.asked[:3] == [TASK_MEMORY, TASK_MEMORY * MEMORY_GROWTH, need]
    assert set(mine.asked[3:]) == {TASK_MEMORY}, "only the task that starved asks for more"
    assert not (tmp_path / "run" / "poison.jsonl").exists(), "no record is to blame"
    assert tiny.run(small, tmp_path / "plain").counts == result.counts
    assert tiny.tree(tmp_path / "run") == tiny.tree(tmp_path / "plain")


def _first(spec: Any) -> bool:
    return spec.index == 0 and getattr(spec, "splits", ()) and spec.probe is None


def test_memory_that_no_record_is_to_blame_for_ends_the_run(small: Path, tmp_path: Path) -> None:
    mine = Deadly(lambda spec, memory: _starved(spec, memory) if _first(spec) else None)
    with pytest.raises(RunFailed, match=r"no single record kills a worker.*engine\.task_bytes"):
        tiny.run(small, tmp_path / "run", executor=lambda: mine)
    assert not (tmp_path / "run" / "poison.jsonl").exists()


def test_a_task_without_records_cannot_be_to_blame(tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in", files=1, documents=8)
    (tmp_path / "in" / "b.jsonl").write_text("\n" * 9000)  # tasks of its own, without a record
    mine = Deadly(lambda spec, memory: Outcome(death="WorkerCrashedError") if _is_b(spec) else None)
    with pytest.raises(RunFailed, match="no single record kills a worker"):
        tiny.run(tiny.write_pipeline(tmp_path), tmp_path / "run", executor=lambda: mine)


def _is_b(spec: Any) -> bool:
    return [p.path for p in getattr(spec, "splits", ())] == ["b.jsonl"] and spec.probe is None


def test_the_search_is_not_misled_by_a_node_that_dies_under_it(small: Path, tmp_path: Path) -> None:
    """Row 5 of the first task kills; while it is looked for, each probe loses its machine and then its worker."""
    flaky = [0]

    def death(spec: Any, memory: int) -> Outcome | None:
        if spec.index or not getattr(spec, "splits", ()) or spec.poison:
            return None
        if spec.probe is None:
            return Outcome(death="WorkerCrashedError")
        lo, hi = spec.probe
        if not spec.dry and lo <= 5 < hi:
            return Outcome(death="WorkerCrashedError")
        flaky[0] += 1
        return [None, Outcome(death="NodeDiedError", node=True), Outcome(death="WorkerCrashedError")][flaky[0] % 3]

    result = tiny.run(small, tmp_path / "run", executor=lambda: Deadly(death))
    assert result.counts["steps"][0] == {"step": "read", "rule": "poison", "dropped": 1}
    (entry,) = map(json.loads, (tmp_path / "run" / "poison.jsonl").read_text().splitlines())
    plain = tiny.run(small, tmp_path / "plain")
    assert plain.counts["read"] == result.counts["read"]
    import pyarrow.parquet as pq

    (ledger,) = (tmp_path / "plain" / "result" / "ledger").iterdir()
    urls = {r["doc_id"].hex(): r["url"] for r in pq.read_table(ledger, columns=["doc_id", "url"]).to_pylist()}
    assert urls[entry["doc_id"]] == "https://x.org/a5"


def test_nodes_may_die_often_under_one_task(small: Path, tmp_path: Path) -> None:
    """A wave of spot nodes says nothing of the task: no record is looked for."""
    deaths = [0]

    def death(spec: Any, memory: int) -> Outcome | None:
        assert getattr(spec, "probe", None) is None
        deaths[0] += 1
        return Outcome(death="NodeDiedError", node=True) if deaths[0] <= 3 * MAX_DEATHS else None

    assert tiny.run(small, tmp_path / "run", executor=lambda: Deadly(death)).status == "done"
    assert deaths[0] > 3 * MAX_DEATHS


def test_a_task_of_a_global_step_whose_worker_dies_every_time_ends_the_run(small: Path, tmp_path: Path) -> None:
    def death(spec: Any, memory: int) -> Outcome | None:
        return Outcome(death="WorkerCrashedError: gone") if type(spec).__name__ == "StageSpec" else None

    with pytest.raises(RunFailed, match=r"the worker died 3 times under one task of phase 'exact_dedup: hash'"):
        tiny.run(small, tmp_path / "run", executor=lambda: Deadly(death))
    assert tiny.run(small, tmp_path / "run").status == "done"


def test_a_cluster_on_which_every_machine_differs_ends_the_run(small: Path, tmp_path: Path) -> None:
    differs = WorkerDiffers("The worker on n1 has other packages or CPU features than the driver: {'cpu': ''}.", "n1")
    with pytest.raises(RunFailed, match=r"The worker on n1 has other packages.*Give all nodes one environment"):
        tiny.run(small, tmp_path / "run", executor=lambda: Deadly(lambda spec, memory: Outcome(error=differs)))


# -- errors that pass --------------------------------------------------------------------------------------------------


class Slowed(Inline):
    """32 slots; the first attempt of every other task of documents meets an object store that asks for a pause."""

    def __init__(self) -> None:
        self.order: list[tuple[int, bool]] = []  # task, whether it failed

    def slots(self) -> int:
        return 32

    def submit(self, function: Any, shared: Any, spec: Any, commit: str | None, memory: int) -> Any:
        reads = isinstance(spec, MapSpec) and bool(spec.splits)
        first = reads and spec.index % 2 == 0 and (spec.index, True) not in self.order
        if reads:
            self.order.append((spec.index, first))
        error = OSError("SlowDown: Please reduce your request rate")
        return Outcome(error=error) if first else super().submit(function, shared, spec, commit, memory)


def test_errors_that_pass_hold_up_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the tasks fail once. Each waited for its pause alone: a second a task, and nothing was submitted."""
    clock, pauses = [0.0], []
    monkeypatch.setattr(driver.time, "monotonic", lambda: clock[0])

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(driver, "_pause", pause)
    tiny.write_input(tmp_path / "in", files=24, documents=8)
    mine = Slowed()
    assert tiny.run(tiny.write_pipeline(tmp_path), tmp_path / "run", executor=lambda: mine).status == "done"
    failed = [i for i, (_, failed) in enumerate(mine.order) if failed]
    tasks = len({index for index, _ in mine.order})
    assert len(failed) == (tasks + 1) // 2 and max(failed) < tasks, "a task was tried again before all were tried"
    print(f"{len(failed)} of {tasks} tasks failed once: {len(pauses)} pause of {sum(pauses):.1f} s")
    assert len(pauses) == 1


class Shuffled(Inline):
    """Four calls in flight; they end in another order than they began."""

    def slots(self) -> int:
        return 4

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        return [(handles[-1], handles[-1])]


def test_the_order_in_which_tasks_end_does_not_show(tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in", files=6, documents=8)
    file = tiny.write_pipeline(tmp_path)
    assert tiny.run(file, tmp_path / "run", executor=Shuffled).counts == tiny.run(file, tmp_path / "plain").counts
    assert tiny.tree(tmp_path / "run") == tiny.tree(tmp_path / "plain")
