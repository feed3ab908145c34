"""A bug in a user's step: what it hits is left out by name, comes back when the step changes, or stops the run."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curation.engine.execution.executors import Inline, Outcome, RunFailed
from tests.curation.engine import runs

STEP = """
from dataclasses import dataclass
import pyarrow as pa
from curation.document import with_column
from curation.step import MapStep


def measure(text):
    {line}
    return len(text)


@dataclass(frozen=True)
class Size(MapStep):
    name: str = "size"

    @property
    def signals(self):
        return pa.schema([("chars", pa.int64())])

    def __call__(self, batch):
        sizes = pa.array([measure(t) for t in batch.column("text").to_pylist()], pa.int64())
        return with_column(batch, self.name, pa.StructArray.from_arrays([sizes], fields=list(self.signals)))


@dataclass(frozen=True)
class Upper(MapStep):
    name: str = "upper"
    ending: str = ""
    rewrites = True

    @property
    def signals(self):
        return pa.schema([("done", pa.bool_())])

    def __call__(self, batch):
        texts = pa.array([t + self.ending for t in batch.column("text").to_pylist()], pa.large_string())
        batch = with_column(batch, "text", texts)
        done = pa.array([True] * batch.num_rows)
        return with_column(batch, self.name, pa.StructArray.from_arrays([done], fields=list(self.signals)))
"""
FINE, BUG = "pass", "1 / 0"
LINE = STEP.splitlines().index("    {line}") + 1


def some_fail(word: str) -> str:
    return f"assert {word!r} not in text"


def write(folder: Path, line: str, **changes: Any) -> dict[str, Any]:
    (folder / "steps.py").write_text(STEP.replace("{line}", line))
    tree = runs.text_pipeline(folder, steps=[{"./steps.py:Size": {}}], engine={"task_bytes": 4096})
    return tree | changes


def documents(folder: Path, n: int, odd: Sequence[int] = (), file: str = "a.jsonl") -> None:
    rows = [{"text": f"document {i} of the mill {'odd' if i in odd else 'plain'}", "url": f"u{i}"} for i in range(n)]
    runs.write_jsonl(folder / "texts" / file, rows)


def listed(folder: Path) -> list[dict[str, Any]]:
    path = folder / "run" / "poison.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_bug_that_hits_everything_stops_the_run_with_its_traceback(tmp_path: Path) -> None:
    documents(tmp_path, 400)
    with pytest.raises(RunFailed) as failure:
        runs.curate(tmp_path, write(tmp_path, "1 / 0 / 1"))
    said = str(failure.value)
    assert f"always with ZeroDivisionError at {tmp_path}/steps.py:{LINE}" in said
    assert re.search(r"step size fails on \d+ of (the first \d+|400) records of source 'texts'", said)
    assert "Traceback" in said and "1 / 0 / 1" in said and "ZeroDivisionError: division by zero" in said
    assert "a.jsonl, document " in said and len(said.splitlines()) < 30
    assert listed(tmp_path) == []
    done = runs.curate(tmp_path, write(tmp_path, FINE))
    assert (done.exit_code, done.counts["kept"], done.left_out) == (0, 400, [])


def test_what_a_bug_hits_is_named_and_comes_back_when_the_step_is_repaired(tmp_path: Path) -> None:
    odd = range(3, 60, 3)
    documents(tmp_path, 400, odd)
    assert len(odd) == 19
    done = runs.curate(tmp_path, write(tmp_path, some_fail("mill odd")))
    assert (done.status, done.exit_code, done.counts["kept"]) == ("done", 3, 381)
    (item,) = done.left_out
    assert item == {
        "source": "texts", "file": "a.jsonl", "step": "size", "at": f"{tmp_path}/steps.py:{LINE}",
        "reason": "size: AssertionError: ", "records": 19,
    }  # fmt: skip
    assert len(listed(tmp_path)) == 19
    again = runs.curate(tmp_path, write(tmp_path, some_fail("mill odd")))
    assert (again.status, again.exit_code, again.left_out) == ("unchanged", 3, done.left_out)
    repaired = runs.curate(tmp_path, write(tmp_path, FINE))
    assert (repaired.status, repaired.exit_code, repaired.counts["kept"], repaired.left_out) == ("done", 0, 400, [])
    assert listed(tmp_path) == []
    fresh = runs.curate(tmp_path, write(tmp_path, FINE), "fresh")
    assert fresh.counts == repaired.counts | {"computed": fresh.counts["computed"]}
    assert runs.tree_bytes(tmp_path / "run") == runs.tree_bytes(tmp_path / "fresh")


def test_credentials_in_the_message_of_an_error_are_masked(tmp_path: Path) -> None:
    documents(tmp_path, 40, [3])
    bug = "if 'mill odd' in text: raise ValueError('refused by https://me:correct-horse@x.test')"
    (item,) = runs.curate(tmp_path, write(tmp_path, bug)).left_out
    assert item["reason"] == "size: ValueError: refused by https://***@x.test"
    ledger = pq.read_table(tmp_path / "run" / "result" / "ledger").to_pylist()
    assert "x.test" in str(ledger) and "correct-horse" not in str(ledger)
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and b"correct-horse" in p.read_bytes()]


def test_entries_fall_away_when_the_text_before_the_step_changes(tmp_path: Path) -> None:
    documents(tmp_path, 100, [7])
    tree = write(tmp_path, 'assert not text.endswith("odd")')
    tree["steps"].insert(0, {"./steps.py:Upper": {}})
    assert runs.curate(tmp_path, tree).counts["kept"] == 99
    tree["steps"][0] = {"./steps.py:Upper": {"ending": "!"}}
    done = runs.curate(tmp_path, tree)
    assert (done.exit_code, done.counts["kept"], listed(tmp_path)) == (0, 100, [])


def test_entries_of_another_version_fall_away(tmp_path: Path) -> None:
    documents(tmp_path, 100, [7])
    runs.curate(tmp_path, write(tmp_path, some_fail("odd")))
    (entry,) = listed(tmp_path)
    old = {k: entry[k] for k in ("doc_id", "file", "step", "reason")}
    (tmp_path / "run" / "poison.jsonl").write_text(json.dumps(old) + "\n")
    assert runs.curate(tmp_path, write(tmp_path, FINE)).counts["kept"] == 100


def test_entries_fall_away_with_their_file(tmp_path: Path) -> None:
    """Those of a file that changed are found again: they would count for records that are no longer there."""
    documents(tmp_path, 2100, range(0, 2100, 100))
    assert runs.curate(tmp_path, write(tmp_path, some_fail("odd"))).left_out[0]["records"] == 21
    documents(tmp_path, 300, range(100, 118))
    done = runs.curate(tmp_path, write(tmp_path, some_fail("odd")))
    assert (done.exit_code, done.left_out[0]["records"], len(listed(tmp_path))) == (3, 18, 18)


def test_a_bug_behind_a_global_step_is_treated_alike(tmp_path: Path) -> None:
    documents(tmp_path, 100, [7, 12])
    documents(tmp_path, 100, [50], "b.jsonl")
    steps = ["exact_dedup", {"./steps.py:Size": {}}]
    done = runs.curate(tmp_path, write(tmp_path, some_fail("odd"), steps=steps))
    assert (done.exit_code, sum(i["records"] for i in done.left_out)) == (3, 3)
    assert {i["file"] for i in done.left_out} == {"a.jsonl", "b.jsonl"}
    with pytest.raises(RunFailed, match="always with ZeroDivisionError"):
        runs.curate(tmp_path, write(tmp_path, BUG, steps=steps))
    repaired = runs.curate(tmp_path, write(tmp_path, FINE, steps=steps))
    assert (repaired.exit_code, repaired.left_out) == (0, [])
    fresh = runs.curate(tmp_path, write(tmp_path, FINE, steps=steps), "fresh")
    assert repaired.counts["kept"] == fresh.counts["kept"]
    assert runs.tree_bytes(tmp_path / "run") == runs.tree_bytes(tmp_path / "fresh")


def test_the_limit_is_of_each_source(tmp_path: Path) -> None:
    """21 of 2,100 are no more than 1 %; 21 of 400 are more than 20; files of one name in two sources are two files."""
    documents(tmp_path, 2100, range(0, 2100, 100))
    tree = write(tmp_path, some_fail("odd"))
    other = {"name": "other", "read": "text", "root": "other", "path": "*.jsonl"}
    runs.write_jsonl(tmp_path / "other" / "a.jsonl", [{"text": f"odd text {i}"} for i in range(20)])
    tree["sources"].append(other)
    done = runs.curate(tmp_path, tree)
    assert (done.exit_code, [(i["source"], i["records"]) for i in done.left_out]) == (3, [("other", 20), ("texts", 21)])
    documents(tmp_path, 400, range(21))
    with pytest.raises(RunFailed, match="step size fails on 21 of 400 records of source 'texts'"):
        runs.curate(tmp_path, tree)
    with pytest.raises(RunFailed, match="step size fails on 21 of 400 records of source 'texts'"):  # and again
        runs.curate(tmp_path, tree)


class AnyOrder(Inline):
    """Eight tasks in flight; which one is done next is drawn."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.calls: list[Any] = []

    def slots(self) -> int:
        return 4

    def submit(self, *call: Any) -> Any:
        self.calls.append(call)
        return len(self.calls) - 1

    def wait(self, handles: Sequence[Any], seconds: float) -> list[tuple[Any, Outcome]]:
        handle = self.rng.choice(handles)
        return [(handle, super().submit(*self.calls[handle]))]


@pytest.mark.parametrize("line", [BUG, some_fail("odd")])
def test_the_same_stop_in_any_order_of_tasks(tmp_path: Path, line: str) -> None:
    documents(tmp_path, 1200, range(1000, 1030))
    tree = write(tmp_path, line, engine={"task_bytes": 2048})
    said = set()
    for seed in range(4):
        with pytest.raises(RunFailed) as failure:
            runs.curate(tmp_path, tree, f"run{seed}", executor=lambda seed=seed: AnyOrder(seed))
        said.add(str(failure.value))
        assert not (tmp_path / f"run{seed}" / "poison.jsonl").exists()
    assert len(said) == 1, said


def test_what_the_machine_lacks_is_no_fault_of_the_record(tmp_path: Path) -> None:
    """A record left out for want of memory or of a package would be left out on this machine alone."""
    documents(tmp_path, 30)
    for line, said in (
        ('raise MemoryError("too large")', "MemoryError: too large"),
        ("import no_such_package_here", "No module named 'no_such_package_here'"),
    ):
        with pytest.raises(RunFailed, match=said):
            runs.curate(tmp_path, write(tmp_path, line))
        assert listed(tmp_path) == []


def test_the_place_is_in_the_users_code_though_a_library_raises(tmp_path: Path) -> None:
    documents(tmp_path, 30)
    with pytest.raises(RunFailed, match=rf"always with ArrowInvalid at {tmp_path}/steps\.py:{LINE}\."):
        runs.curate(tmp_path, write(tmp_path, 'with_column(pa.record_batch({"a": [1]}), "a", pa.array([1, 2]))'))
    with pytest.raises(RunFailed, match=rf"always with JSONDecodeError at {tmp_path}/steps\.py:{LINE}\."):
        runs.curate(tmp_path, write(tmp_path, '__import__("json").loads(text)'))
