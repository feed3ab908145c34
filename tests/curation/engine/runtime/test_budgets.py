"""What a run opens, requests and fetches, counted: budgets that hold on any machine. Each prints its figure (`-s`).

A cluster of a hundred nodes breaks where a count grows with the square of tasks, with documents in the driver, or with
the block size of a file system; small runs show all three.

Covers: curation/engine/shuffle/byte_ranges.py
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import storage
from curation.engine.execution.executors import Inline
from curation.engine.shuffle import exchange, partition_files
from curation.sources.text.text import TextReader
from curation.step import InputSplit
from curation.storage import Storage
from tests.curation.engine import runs, tiny
from tests.curation.engine.runtime.test_s3 import bucket, server

__all__ = ["bucket", "server"]  # fixtures

# -- opens -------------------------------------------------------------------------------------------------------------

_watched: list[tuple[str, Counter[str]]] = []  # (directory, opens by folder below it)


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], str):
        for root, count in _watched:
            if arguments[0].startswith(root):
                count["/".join(Path(arguments[0][len(root) :]).parts[:2])] += 1


sys.addaudithook(_on_event)  # once a process: it cannot be removed


@pytest.fixture
def opens() -> Iterator[Callable[[Path], Counter[str]]]:
    """Starts counting the opens of files below a directory, by all code of this process."""

    def watch(folder: Path) -> Counter[str]:
        count: Counter[str] = Counter()
        _watched.append((f"{folder}{os.sep}", count))
        return count

    yield watch
    _watched.clear()


WORDS = ("mill", "stone", "grain", "wheel", "water", "flour", "sack", "rye", "wheat", "oat", "bran", "river", "wind")
STEPS: list[Any] = [
    "exact_dedup",
    {"line_dedup": {"span": 1}},
    {"minhash_dedup": {"num_bands": 4, "rows_per_band": 4}},
]


def corpus(folder: Path, tasks: int) -> None:
    """Files of two documents and a task each, some of them duplicates of others."""
    rng = random.Random(tasks)
    for i in range(tasks):
        texts = [" ".join(rng.choice(WORDS) for _ in range(110)) for _ in range(2)]
        if i % 5 == 0:
            texts[0] = "the same words in many places " * 19 + f"{i % 2}"
        rows = [{"text": t, "url": f"http://e.org/{i}/{k}"} for k, t in enumerate(texts)]
        runs.write_jsonl(folder / "texts" / f"{i:05d}.jsonl", rows)


def pipeline(folder: Path, **more: Any) -> dict[str, Any]:
    shape = {"steps": STEPS, "engine": {"task_bytes": 1 << 10}, "tokenizer": {"train": {"vocab": 300}}}
    return runs.text_pipeline(folder, **(shape | more))


def test_opens_of_a_run_grow_with_its_tasks(
    tmp_path: Path, opens: Callable[[Path], Counter[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All opens below the run's directory, for twice the tasks; exchanges are merged from 64 pairs on, in fours."""
    monkeypatch.setattr(exchange, "DIRECT_PAIRS", 1 << 6)
    monkeypatch.setattr(exchange, "FANS", ((1 << 62, 4),))
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    totals = []
    for tasks in (10, 20):
        folder = tmp_path / str(tasks)
        corpus(folder, tasks)
        count = opens(folder / "run")
        made = runs.curate(folder, pipeline(folder))
        assert made.status == "done" and made.counts["read"]["records"] == 2 * tasks
        totals.append(count.total())
        print(
            f"{tasks} tasks: {count.total():,} opens, {count.total() / tasks:.0f} a task: {dict(count.most_common(4))}"
        )
        assert count.total() < 300 * tasks
    assert totals[1] <= 2.2 * totals[0]


# -- input -------------------------------------------------------------------------------------------------------------


class Apart(Inline):
    """Knows when a task runs: all else that this process does is the driver's."""

    def __init__(self) -> None:
        self.in_task = False

    def submit(self, function: Any, shared: Any, spec: Any, commit: str | None, memory: int) -> Any:
        self.in_task = True
        try:
            return super().submit(function, shared, spec, commit, memory)
        finally:
            self.in_task = False


def large_files(folder: Path) -> None:
    """JSON Lines and Parquet that are cut, and small files that are not."""
    rng = random.Random(3)
    rows = [{"text": " ".join(rng.choice(WORDS) for _ in range(40)), "url": f"http://e.org/{i}"} for i in range(60)]
    for name in ("a", "b"):
        runs.write_jsonl(folder / f"{name}.jsonl", [r | {"url": f"{r['url']}/{name}"} for r in rows])
    pq.write_table(pa.Table.from_pylist(rows), folder / "c.parquet", row_group_size=10)
    runs.write_jsonl(folder / "d.jsonl", rows[:2])


def test_the_driver_reads_no_input(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing is all it does: a phase of tasks cuts the files, on a disk and on an object store."""
    large_files(tmp_path / "texts")
    fs, inner = storage.filesystem(f"{bucket}/texts")
    fs.put(str(tmp_path / "texts"), inner, recursive=True)
    opened: dict[bool, list[str]] = {False: [], True: []}
    open_input = storage.open_input
    apart = Apart()

    def watched(root: str, path: str, **more: Any) -> Any:
        opened[apart.in_task].append(path)
        return open_input(root, path, **more)

    monkeypatch.setattr(storage, "open_input", watched)
    trees = []
    for root in (str(tmp_path / "texts"), f"{bucket}/texts"):
        source = {"name": "texts", "domain": "web", "read": "text", "root": root, "path": "*"}
        tree = runs.text_pipeline(tmp_path, sources=[source], steps=[], engine={"task_bytes": 2048})
        to = f"run{len(trees)}"
        runs.curate(tmp_path, tree, to, executor=lambda: apart)
        trees.append(runs.tree_bytes(tmp_path / to))
        print(f"opened by the driver: {len(opened[False])}, by tasks: {len(opened[True])}")
        assert opened[False] == [] and set(opened[True]) == {"a.jsonl", "b.jsonl", "c.parquet", "d.jsonl"}
        assert len(opened[True]) > 10 * len(trees), "files were cut"
    assert trees[0] == trees[1]


def test_cutting_a_file_fetches_a_few_bytes_of_it(bucket: str, requests: list[tuple[str, int]], tmp_path: Path) -> None:
    store = Storage(bucket)
    store.write_bytes("a.jsonl", b'{"text": "' + b"x" * 8_000_000 + b'"}\n')
    table = pa.table({"text": [os.urandom(1000) for _ in range(8_000)]})
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=1000, compression="none")
    store.write_bytes("b.parquet", (tmp_path / "b.parquet").read_bytes())
    requests.clear()
    for name in ("a.jsonl", "b.parquet"):
        splits = TextReader().split(InputSplit(name, store.size(name), ""), bucket, 2 << 20)
        assert len(splits) >= 3
    fetched = sum(size for _, size in requests)
    print(f"{fetched:,} bytes of 16 MB in {len(requests)} requests")
    assert fetched < 80_000


# -- changes without effect --------------------------------------------------------------------------------------------


def test_rule_edits_without_effect_run_no_task_of_a_later_phase(tmp_path: Path) -> None:
    tiny.write_input(tmp_path / "in", files=3)
    file = tiny.write_pipeline(tmp_path)
    rule = "words.count >= quantile(words.count, 0.2)"
    first = tiny.run(file, tmp_path / "run")
    tree, text = tiny.tree(tmp_path / "run"), file.read_text()
    before = {p for p in (tmp_path / "run" / "cache").rglob("*") if p.is_file()}
    for edit in range(5):
        file.write_text(text.replace(rule, f"{rule} AND words.count > {edit - 3}"))
        again = tiny.run(file, tmp_path / "run")
        print(f"edit {edit + 1}: {again.executed} of {first.executed} tasks, those that apply the rule")
        assert (again.status, again.executed, again.computed) == ("done", 3, {})
        assert tiny.tree(tmp_path / "run") == tree
    made = {p.parent.name for p in (tmp_path / "run" / "cache").rglob("*") if p.is_file() and p not in before}
    assert made == {"phases"}, "nothing but manifests was added"
    file.write_text(text.replace("0.2)", "0.5)"))  # and one that has an effect
    assert tiny.run(file, tmp_path / "run").executed > 3
    tiny.run(file, tmp_path / "fresh")
    assert tiny.tree(tmp_path / "run") == tiny.tree(tmp_path / "fresh") != tree


# -- what the driver keeps, and how often text is read -----------------------------------------------------------------


def test_the_driver_keeps_nothing_a_document(tmp_path: Path) -> None:
    """Manifests of two corpora in as many tasks, one of ten times the documents in small shards: buckets of shards grow
    with documents, and what is counted by bucket is in files."""
    kept: list[tuple[int, int, int]] = []
    for documents in (60, 600):
        folder = tmp_path / str(documents)
        tiny.write_input(folder / "in", files=2, documents=documents)
        file = tiny.write_pipeline(folder)
        file.write_text(file.read_text().replace("task_bytes: 2048", "task_bytes: 1048576"))
        tiny.run(file, folder / "run")
        # a shard is a task; the others are as many whatever the documents
        phases = [p for p in tiny.phases(folder / "run") if p.name != "shards: shards"]
        manifests = [json.dumps(m) for p in phases for m in p.tasks.values()]
        kept.append((2 * documents, len(manifests), sum(map(len, manifests))))
    (few, tasks, small), (many, same, large) = kept
    print(f"{few} and {many:,} documents, {tasks} tasks: {small:,} and {large:,} bytes: "
          f"{(large - small) / (many - few):.2f} a document, {large / tasks:,.0f} a task")  # fmt: skip
    assert tasks == same and large - small < 0.5 * (many - few), "more than the digits of larger counts"
    assert large <= 1000 * tasks


@pytest.mark.parametrize(("sample_bytes", "most"), [(600, 4.5), (64 << 20, 5.0)])
def test_how_often_text_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample_bytes: int, most: float
) -> None:
    """By exact, line and near deduplication and the tokenizer together, in numbers of the corpus. The tokenizer's
    sample is a document of it, and all of it: four times, and the row groups with documents of the sample."""
    corpus(tmp_path, 4)
    read = runs.count_text_reads(monkeypatch)
    tokenizer = {"train": {"vocab": 300, "sample_bytes": sample_bytes}}
    made = runs.curate(tmp_path, pipeline(tmp_path, tokenizer=tokenizer))
    times = read[0] / made.counts["read"]["records"]
    print(f"text is read {times:.2f} times with a sample of {made.counts['tokenizer']['sample_bytes']:,} bytes")
    # spans of lines; cut, edit and signatures; tokens; documents; and the sample
    assert 4 <= times <= most


# -- partition files ---------------------------------------------------------------------------------------------------

SCHEMA = pa.schema([("to", pa.uint32()), ("n", pa.int64()), ("text", pa.binary(300))])


def partitioned(storage: Storage, path: str, rows: int, partitions: int) -> int:
    """Writes a partition file of random rows; returns the bytes of its batches."""
    rng = np.random.default_rng(rows)
    writer = partition_files.PartitionWriter(storage, path, SCHEMA)
    columns = [rng.integers(0, partitions, rows).astype(np.uint32), np.arange(rows), pa.array([b"x" * 300] * rows)]
    writer.add(pa.RecordBatch.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)],
                                          schema=SCHEMA))  # fmt: skip
    writer.close()
    return sum(length for *_, length in index(storage, path))


def index(storage: Storage, path: str) -> list[tuple[int, int]]:
    with partition_files.ByteRanges(storage) as ranges:
        (head,) = partition_files._read_heads(ranges, [path], None)
    return [(e[0], e[2]) for e in head.entries.tolist()]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(method, bytes of the answer's object) of every request to S3."""
    s3fs = pytest.importorskip("s3fs")
    made: list[tuple[str, int]] = []
    call = s3fs.S3FileSystem._call_s3

    async def counted(self: Any, method: str, *args: Any, **more: Any) -> Any:
        answer = await call(self, method, *args, **more)
        made.append((method, answer.get("ContentLength", 0) if method == "get_object" else 0))
        return answer

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    return made


def test_a_consumer_fetches_its_partition_and_hardly_more(bucket: str, requests: list[tuple[str, int]]) -> None:
    store, consumers = Storage(f"{bucket}/run"), 32
    needed = partitioned(store, "a.part", 38_000, consumers)
    assert needed > 11_000_000
    requests.clear()
    rows = sum(b.num_rows for c in range(consumers) for b in partition_files.read(store, ["a.part"], [c]))
    assert rows == 38_000
    fetched = sum(size for _, size in requests)
    print(f"{fetched / needed:.3f} x the bytes needed, {len(requests) / consumers:.2f} requests a consumer")
    assert fetched <= 1.15 * needed and len(requests) <= 3 * consumers
    assert {method for method, _ in requests} == {"get_object"}


def test_a_writer_of_many_buckets_reads_each_file_once(bucket: str, requests: list[tuple[str, int]]) -> None:
    """1,000 buckets of 10 shards from 3 producers: an index is not read again for each bucket."""
    store, files = Storage(f"{bucket}/run"), [f"{i}.part" for i in range(3)]
    needed = sum(partitioned(store, f, 9_000, 1000) for f in files)
    requests.clear()
    rows = 0
    for shard in range(10):
        buckets = range(100 * shard, 100 * shard + 100)
        rows += sum(b.num_rows for b in partition_files.read(store, files, buckets, by_file=True))
    assert rows == 27_000
    fetched = sum(size for _, size in requests)
    print(f"{fetched / needed:.3f} x the bytes needed, {len(requests) / 30:.2f} requests a (shard x producer)")
    assert fetched <= 1.15 * needed and len(requests) <= 3 * 30


def test_on_a_disk_a_consumer_opens_each_file_once(tmp_path: Path, opens: Callable[[Path], Counter[str]]) -> None:
    store, files = Storage(str(tmp_path)), [f"{i}.part" for i in range(200)]
    for file in files:
        partitioned(store, file, 50, 8)
    count = opens(tmp_path)
    assert sum(b.num_rows for b in partition_files.read(store, files, [3])) > 0
    assert count.total() == 200
    assert sum(b.num_rows for b in partition_files.read(store, files[:100], range(8))) == 5000
    assert count.total() == 300
