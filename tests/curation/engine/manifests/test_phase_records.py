"""Manifests of finished phases: compressed, decoded one by one, freed and read again.

Covers: curation/engine/manifests/phase_records.py, curation/engine/manifests/lazy_sequence.py,
curation/engine/manifests/phase_totals.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale
from curation.core.errors import DamagedFile
from curation.engine.manifests import phase_records
from curation.engine.manifests.lazy_sequence import LazySequence
from curation.engine.manifests.phase_records import InOrder, Manifests, PhaseRecord, Recent
from curation.engine.manifests.phase_totals import PhaseTotals, total_cost
from curation.storage import Storage


def some(first: int, stop: int) -> Manifests:
    made = Manifests()
    for i in range(first, stop):
        made.add(f"{i:04d}", scale.run_map(None, i))
    return made


def test_the_manifest_of_a_map_task_with_nine_steps_takes_less_than_a_kilobyte(tmp_path: Path) -> None:
    store, tasks = Storage(str(tmp_path)), 400
    phase_records.write(store, "a.manifests", PhaseRecord("run_map", "0: read", some(0, tasks)))
    each = store.size("a.manifests") / tasks
    print(f"{each:.0f} bytes a task")
    assert each <= 1000
    found = phase_records.read(store, "a.manifests")
    assert (found.kind, found.name, list(found.tasks)) == ("run_map", "0: read", [f"{i:04d}" for i in range(tasks)])
    assert found.tasks["0007"] == scale.run_map(None, 7) and "0400" not in found.tasks


def test_manifests_of_files_are_freed_and_read_again(tmp_path: Path) -> None:
    store, recent = Storage(str(tmp_path)), Recent(most=25)
    names = [f"{i:04d}" for i in range(40)]
    parts = []
    for at in range(0, 40, 10):
        found = some(at, at + 10)
        where = dict.fromkeys(names, found)
        part = phase_records.merge(store, f"{at}.manifests", "run_map", "0", names[at : at + 10], where, None)
        part.stored(store, f"{at}.manifests", recent)
        parts.append(part)
    assert [len(p._packed) for p in parts] == [0, 0, 10, 10] and [len(p) for p in parts] == [10] * 4
    every = InOrder(names, parts, 10)
    assert [m["key"] for m in every] == [scale.run_map(None, i)["key"] for i in range(40)]
    assert every[-1] == scale.run_map(None, 39) and [m["in"] for m in every[3:5]] == [1003, 1004]
    assert sum(len(p._packed) for p in parts) <= 25
    assert every[25] and every[35]
    (tmp_path / "0.manifests").unlink()
    with pytest.raises(DamagedFile, match=r"0\.manifests"):
        every[0]


def test_a_file_is_written_only_where_it_has_other_manifests(tmp_path: Path) -> None:
    store, found = Storage(str(tmp_path)), some(0, 5)
    where, names = dict.fromkeys(found, found), list(found)
    assert phase_records.merge(store, "a.manifests", "k", "n", names, where, found) is found
    assert not store.exists("a.manifests")
    other = Manifests()
    other.add("0003", {"in": 1, "bytes": "ä\udcff"})  # another dictionary
    merged = phase_records.merge(store, "a.manifests", "k", "n", names, where | {"0003": other}, found)
    assert dict(merged) == dict(phase_records.read(store, "a.manifests").tasks)
    assert merged["0003"] == {"in": 1, "bytes": "ä\udcff"} and merged["0004"] == scale.run_map(None, 4)


def test_files_of_other_versions_are_not_looked_at(tmp_path: Path) -> None:
    store = Storage(str(tmp_path))
    store.write_json(f"{phase_records.FOLDER}/5d41.json", {"kind": "run_map", "name": "0", "tasks": {}})
    assert phase_records.paths(store) == []
    store.write_bytes(phase_records.path("5d41"), b"")
    assert phase_records.paths(store) == [phase_records.path("5d41")]
    for data in (b"", b"0123456789abcdef\n{}\n"):
        store.write_bytes(phase_records.path("5d41"), data)
        with pytest.raises(DamagedFile):
            phase_records.read(store, phase_records.path("5d41"))


def test_items_are_made_when_they_are_asked_for() -> None:
    made: list[int] = []

    def make(i: int) -> int:
        made.append(i)
        return i * i

    items = LazySequence(5, make)
    assert len(items) == 5 and made == []
    assert (items[3], items[-1], items[1:3], list(items)) == (9, 16, [1, 4], [0, 1, 4, 9, 16])
    items[3] = 7
    assert items[3] == 7 and made.count(3) == 2
    with pytest.raises(IndexError):
        items[5]
    with pytest.raises(TypeError):
        items.append(1)


def test_totals_of_map_tasks() -> None:
    totals, found = PhaseTotals(), [scale.run_map(None, i) for i in range(3)]
    for source, manifest in enumerate(found):
        more = {
            "not_judged": {"pii": {"failed": [source, 10]}},
            "drops": [["read", "unreadable", source], ["a", "b", 2]],
        }
        totals.add(manifest | more, source)
    assert (totals.tasks, totals.rows_in, totals.rows_out) == (3, 3003, 1203)
    assert totals.drops == {("read", "unreadable"): 3, ("a", "b"): 6} and totals.unreadable == {0: 0, 1: 1, 2: 2}
    assert (totals.not_judged, totals.judged_of) == ({("pii", "failed"): 3}, {("pii", "failed"): 30})
    assert totals.cost.as_dict() == total_cost(found) and total_cost([{}])["peak_bytes"] == 0
