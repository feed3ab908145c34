"""Partition files: what goes in by partition comes out by partition, in order, whatever the runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.errors import DamagedFile
from curation.engine.execution import run_stages
from curation.engine.shuffle import partition_files
from curation.engine.tasks.stage_task import MergePhase, MergeSpec, run_merge, run_sum
from curation.storage import Storage
from tests.curation.engine import tiny

SCHEMA = pa.schema([("to", pa.uint32()), ("n", pa.int64()), ("text", pa.large_string())])
BATCHES = st.lists(st.lists(st.tuples(st.integers(0, 5), st.text(max_size=5)), max_size=12), max_size=6)


def _write(storage: Storage, path: str, batches: list[list[tuple[int, str]]], start: int) -> list[tuple[int, int, str]]:
    writer = partition_files.PartitionWriter(storage, path, SCHEMA)
    rows = []
    for batch in batches:
        part = [(to, start + len(rows) + i, text) for i, (to, text) in enumerate(batch)]
        columns = list(zip(*part, strict=True)) if part else [[], [], []]
        writer.add(
            pa.RecordBatch.from_arrays(
                [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
            )
        )
        rows += part
    writer.close()
    return rows


@settings(deadline=None, max_examples=40)
@given(BATCHES, BATCHES, st.sampled_from([1, 40, 1 << 25]))
def test_every_row_reaches_its_partition_in_order(tmp_path_factory, one, two, run_bytes) -> None:
    storage = Storage(str(tmp_path_factory.mktemp("x")))
    saved, partition_files.RUN_BYTES = partition_files.RUN_BYTES, run_bytes
    try:
        rows = _write(storage, "a", one, 0) + _write(storage, "b", two, 1000)
    finally:
        partition_files.RUN_BYTES = saved
    partition_files.merge(storage, ["a", "b"], "merged", range(6))
    for partition in range(6):
        expected = [(n, t) for to, n, t in rows if to == partition]
        for files in (["a", "b"], ["merged"]):
            got = [
                r
                for b in partition_files.read(storage, files, [partition])
                for r in b.select(["n", "text"]).to_pylist()
            ]
            assert [(r["n"], r["text"]) for r in got] == expected
    both = [r["n"] for b in partition_files.read(storage, ["a", "b"], [1, 2]) for r in b.to_pylist()]
    assert both == [n for p in (1, 2) for to, n, _ in rows if to == p]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    _write(storage, "a", [[(0, "x")]], 0)
    whole = (tmp_path / "a").read_bytes()
    for damaged in (b"", whole[:-1], whole[:20], whole + b"x"):
        (tmp_path / "a").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"truncated|damaged"):
            list(partition_files.read(storage, ["a"], [0]))


def test_every_changed_byte_is_refused(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    _write(storage, "a", [[(0, "x"), (2, "some text"), (1, "y")], [(2, "more"), (0, "z")]], 0)
    whole = (tmp_path / "a").read_bytes()
    sent = list(partition_files.read_all(storage, "a"))
    silent = 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        (tmp_path / "a").write_bytes(damaged)
        try:
            assert list(partition_files.read_all(storage, "a")) == sent, f"byte {at} is read as another one"
            silent += 1
        except DamagedFile as error:
            assert error.path == "a"
    assert silent == len(partition_files.MAGIC), "the first bytes are the only ones that nobody reads"
    (tmp_path / "a").unlink()
    with pytest.raises(DamagedFile, match="it is missing"):
        list(partition_files.read(storage, ["a"], [0]))


def test_weights_are_summed_by_partition_without_rows(tmp_path: Path) -> None:
    """Over files, over runs of rows, and over files that hold nothing but weights; indexes of several pages."""
    storage, partitions, expected = Storage(str(tmp_path)), 700, np.zeros(700, np.int64)
    rng = np.random.default_rng(3)
    saved, partition_files.RUN_BYTES = partition_files.RUN_BYTES, 20_000
    try:
        for name in ("a", "b"):
            writer = partition_files.PartitionWriter(storage, name, SCHEMA, lambda b: b.column("n").to_numpy())
            for _ in range(3):
                to, n = rng.integers(0, partitions, 900).astype(np.uint32), rng.integers(0, 50, 900)
                np.add.at(expected, to, n)
                columns = [pa.array(to), pa.array(n), pa.array(["x"] * 900, pa.large_string())]
                writer.add(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
            writer.close()
    finally:
        partition_files.RUN_BYTES = saved
    assert (partition_files.read_weights(storage, ["a", "b"], partitions) == expected).all()
    phase = MergePhase(str(tmp_path), "sums")
    made = run_sum(phase, MergeSpec(0, ["a", "b"], range(partitions)))["files"][0]["path"]
    assert (partition_files.read_weights(storage, [made], partitions) == expected).all()
    assert list(partition_files.read_all(storage, made)) == []
    for partition in (0, 63, 64, 350, 699):
        rows = [r["n"] for b in partition_files.read(storage, ["a", "b"], [partition]) for r in b.to_pylist()]
        assert sum(rows) == expected[partition]
    by_file = [
        r for b in partition_files.read(storage, ["a", "b"], range(300, 310), by_file=True) for r in b.to_pylist()
    ]
    assert sum(r["n"] for r in by_file) == expected[300:310].sum()
    merged = run_merge(phase, MergeSpec(1, ["a", "b"], range(300, 310)))["files"][0]["path"]
    assert {b.column("to")[0].as_py() for b in partition_files.read_all(storage, merged)} == {r["to"] for r in by_file}


def test_the_driver_sums_few_files_itself_and_tasks_sum_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same shards, and a phase of summing tasks where there are more files than one reads."""
    trees, names = [], []
    tiny.write_input(tmp_path / "in", files=5)
    file = tiny.write_pipeline(tmp_path)
    for most in (256, 2):
        monkeypatch.setattr(run_stages, "FILES_PER_SUM", most)
        tiny.run(file, tmp_path / str(most))
        trees.append(tiny.tree(tmp_path / str(most)))
        phases = tiny.phases(tmp_path / str(most))
        names.append(sorted(len(p.tasks) for p in phases if p.name == "shards: sum weights"))
    assert trees[0] == trees[1] and names == [[], [2, 3]]
