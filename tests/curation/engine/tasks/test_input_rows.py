"""What a chunk costs does not multiply with files: small batches are joined, large ones stay bounded by bytes."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.config import rules
from curation.engine.tasks import input_rows
from tests.curation.engine import runs

WORDS = "Small files of few records come in great numbers, and each of them is read like any other file."


def write_files(folder: Path, files: int, each: int, text: str = WORDS) -> None:
    for f in range(files):
        rows = [{"text": f"{text} {f} {i}", "url": f"http://example.org/{f}/{i}"} for i in range(each)]
        runs.write_jsonl(folder / "texts" / f"{f:04d}.jsonl", rows)


def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, bytes) of each batch that rules are asked about from now on."""
    seen: list[tuple[int, int]] = []
    decide = rules.Decider.decide

    def counted(decider: rules.Decider, batch: pa.RecordBatch) -> object:
        seen.append((batch.num_rows, batch.column("text").nbytes))
        return decide(decider, batch)

    monkeypatch.setattr(rules.Decider, "decide", counted)
    return seen


@pytest.fixture
def cheap_step() -> list[dict[str, object]]:
    return [{"language": {}, "keep": {"odd": "length(text) % 2 = 1 OR url LIKE '%1' OR language.score > 2"}}]


def test_small_files_are_judged_together_and_results_are_those_of_single_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheap_step: list[dict[str, object]]
) -> None:
    write_files(tmp_path, 150, 2)
    (tmp_path / "texts" / "0077.jsonl").write_text('{"text": "whole"}\n{"text": \n', encoding="utf-8")
    tree = runs.text_pipeline(tmp_path, steps=cheap_step, engine={"task_bytes": 1 << 20})
    seen = judged(monkeypatch)
    runs.curate(tmp_path, tree)
    assert len(seen) <= 2 and sum(rows for rows, _ in seen) == 299  # the line that is no record is dropped when read
    documents = pa.concat_tables([pq.read_table(p) for p in (tmp_path / "run/result/documents").rglob("*.parquet")])
    for source, url in zip(documents["source"].to_pylist(), documents["url"].to_pylist(), strict=True):
        assert url is None or int(source["file"].removesuffix(".jsonl")[-4:]) == int(url.split("/")[3])
    for name, rows in (("single", 1), ("seven", 7)):
        runs.curate(tmp_path, tree | {"engine": {"task_bytes": 1 << 12, "batch_rows": rows}}, name)
        assert runs.tree_bytes(tmp_path / name) == runs.tree_bytes(tmp_path / "run")


def test_chunks_are_bounded_by_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheap_step: list[dict[str, object]]
) -> None:
    write_files(tmp_path, 30, 1, "Words of a large record. " * 12_000)  # 300 kB each
    seen = judged(monkeypatch)
    runs.curate(tmp_path, runs.text_pipeline(tmp_path, steps=cheap_step, engine={"task_bytes": 64 << 20}))
    assert sum(rows for rows, _ in seen) == 30
    assert all(size <= input_rows.MAX_CHUNK_BYTES for _, size in seen)
    assert all(size >= input_rows.CHUNK_BYTES for _, size in seen[:-1])


def test_a_decider_is_made_once_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cheap_step: list[dict[str, object]]
) -> None:
    made, init = [0], rules.Decider.__init__

    def counted(decider: rules.Decider, *more: object) -> None:
        made[0] += 1
        init(decider, *more)  # type: ignore[arg-type]

    rules._decider.cache_clear()
    monkeypatch.setattr(rules.Decider, "__init__", counted)
    write_files(tmp_path, 40, 2)
    runs.curate(tmp_path, runs.text_pipeline(tmp_path, steps=cheap_step, engine={"task_bytes": 1 << 10}))
    assert made == [1]
