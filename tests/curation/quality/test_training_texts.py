"""Texts to train from: every kind of file gives the same texts; what is broken is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from curation.core.errors import UserError
from curation.quality.training_texts import expand_paths, read_texts

TEXTS = ["one", "", "zwei\u2028drei", "🙂"]


def write(folder: Path) -> None:
    plain = "".join(t + "\n" for t in TEXTS).encode()
    rows = "".join(json.dumps({"id": i, "text": t}) + "\n\n" for i, t in enumerate(TEXTS)).encode()
    (folder / "a.txt").write_bytes(plain)
    (folder / "b.txt.gz").write_bytes(gzip.compress(plain))
    (folder / "c.jsonl").write_bytes(rows)
    # two frames one after the other, as parallel writers leave them
    (folder / "d.jsonl.zst").write_bytes(zstandard.compress(rows[:30]) + zstandard.compress(rows[30:]))
    pq.write_table(pa.table({"text": [*TEXTS, None]}), folder / "e.parquet")


def test_every_kind_of_file(tmp_path: Path) -> None:
    write(tmp_path)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert [list(read_texts([str(tmp_path / name)])) for name in names] == [TEXTS] * 5
    assert list(read_texts([str(tmp_path)])) == list(read_texts([str(tmp_path / "*")])) == TEXTS * 5
    assert expand_paths([str(tmp_path / "c*"), str(tmp_path / "a.txt")]) == [
        str(tmp_path / "c.jsonl"),
        str(tmp_path / "a.txt"),
    ]


def test_remote_files() -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe("/samples/a.txt", b"one\ntwo\r\n")
    try:
        assert expand_paths(["memory://samples/*"]) == ["memory:///samples/a.txt"]
        assert list(read_texts(["memory://samples"])) == ["one", "two"]
    finally:
        fs.rm("/samples", recursive=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": 3}\n', "line 2: field 'text' is int, expected a string"),
        ("x.jsonl", b"[1]\n", "line 1: expected a JSON object with the field 'text'"),
        ("x.jsonl", b"{]\n", "line 1: expected a JSON object"),
        ("x.txt.gz", b"no gzip", "cannot be read as .txt"),
        ("x.txt.gz", gzip.compress(b"a" * 10_000, mtime=0)[:-9], "cannot be read as .txt"),
        ("x.jsonl.zst", b"no zstd", "cannot be read as .jsonl"),
        ("x.parquet", b"no parquet", "cannot be read as Parquet"),
    ],
    ids=["number", "list", "syntax", "not-gzip", "cut-gzip", "not-zstd", "not-parquet"],
)
def test_what_is_broken_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as raised:
        list(read_texts([str(tmp_path / name)]))
    assert message in str(raised.value) and str(tmp_path / name) in str(raised.value)


def test_a_missing_column_and_a_missing_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"], "n": [1]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="no column 'text'; it has body, n"):
        list(read_texts([str(tmp_path / "x.parquet")]))
    with pytest.raises(UserError, match="no such file"):
        list(read_texts([str(tmp_path / "y*")]))
