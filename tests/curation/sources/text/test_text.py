"""JSON Lines, Parquet, Arrow and folders: a row for every record, whatever is wrong with it.

Covers: jsonl.py, parquet_arrow.py, curation/sources/batch_builder.py
"""

from __future__ import annotations

import datetime
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sources.text import parquet_arrow
from curation.sources.text.field_mapping import FieldMapping
from curation.sources.text.text import TextReader
from curation.step import InputSplit, UnreadableFile


def piece(root: Path, name: str) -> InputSplit:
    return InputSplit(name, (root / name).stat().st_size, "")


def rows(
    root: Path, name: str, reader: TextReader | None = None, size: int = 64, part: InputSplit | None = None
) -> list[Any]:
    reader = reader or TextReader()
    batches = reader.read(part or piece(root, name), str(root), collection="c", domain="d", rows=size)
    return [row for batch in batches for row in batch.to_pylist()]


def write(path: Path, *lines: Any) -> None:
    path.write_bytes(b"".join(x if isinstance(x, bytes) else json.dumps(x).encode() + b"\n" for x in lines))


def test_lines_of_every_kind(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        b'\xef\xbb\xbf{"text": "after a byte order mark", "url": "http://x/", "date": "2020-01-02T03:04:05+01:00"'
        b', "n": 1}\r\n',
        b"\n",
        b"{broken\n",
        b'{"text": "lone \\ud800 surrogate and \\u0000 nul"}\n',
        b'{"text": "bad \xff byte"}\n',
        b'{"txet": "misspelt", "id": 3}\n',
        b'{"text": null}\n',
        b'{"text": ["a"]}\n',
        b'{"text": "  "}\n',
        b"[1]\n",
        b"[" * 100_000 + b"\n",
        b'{"text": "n", "x": NaN, "big": 123456789012345678901234567890, "deep": {"b": [1, null, "\\u00e9"]}}\n',
        b'{"text": "cafe\xcc\x81"}\n',
        b'{"text": "no newline at the end"}',
    )
    got = rows(tmp_path, "a.jsonl")
    assert [r["text"] for r in got if not r["drop"]] == [
        "after a byte order mark",
        "lone \ufffd surrogate and  nul",
        "bad \ufffd byte",
        "n",
        "caf\u00e9",
        "no newline at the end",
    ]
    drops = [(r["drop"]["rule"], r["drop"]["value"].partition(":")[0]) for r in got if r["drop"]]
    assert drops == [
        ("unreadable", "no JSON"),
        ("unreadable", "no field 'text'; it has id, txet"),
        ("empty", "null"),
        ("unreadable", "field 'text' is no string but list"),
        ("empty", ""),
        ("unreadable", "no JSON object but list"),
        ("unreadable", "nested too deep"),
    ]
    assert got[0]["date"] == datetime.datetime(2020, 1, 2, 2, 4, 5)
    assert (got[0]["url"], got[0]["meta"]) == ("http://x/", '{"n":1}')
    assert got[-3]["meta"] == '{"big":123456789012345678901234567890,"deep":{"b":[1,null,"é"]},"x":null}'
    stored = (tmp_path / "a.jsonl").read_bytes()
    for row in got:
        where = row["source"]
        line = stored[where["offset"] : where["offset"] + where["length"]]
        assert TextReader().original(where, str(tmp_path)) == line.rstrip(b"\r\n")
    assert len({r["doc_id"] for r in got}) == len(got)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".bz2", ".xz", ".lz4"])
def test_compressed_lines_have_the_same_ids(tmp_path: Path, suffix: str) -> None:
    import bz2
    import lzma

    import lz4.frame
    import zstandard

    plain = b"".join(json.dumps({"text": f"line {i} " * i}).encode() + b"\n" for i in range(1, 40))
    pack = {
        "": bytes,
        ".gz": lambda b: gzip.compress(b[:500]) + gzip.compress(b[500:]),  # members do not end where lines do
        ".zst": zstandard.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".lz4": lz4.frame.compress,
    }[suffix]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(plain))
    got = rows(tmp_path, f"a.jsonl{suffix}")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.jsonl").write_bytes(plain)
    want = rows(tmp_path / "b", "a.jsonl")
    assert [(r["doc_id"], r["text"]) for r in got] == [(r["doc_id"], r["text"]) for r in want]
    assert TextReader().original(got[17]["source"], str(tmp_path)) == plain.splitlines()[17]
    if suffix:
        assert TextReader().split(piece(tmp_path, f"a.jsonl{suffix}"), str(tmp_path), 100) == [
            piece(tmp_path, f"a.jsonl{suffix}")
        ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=30), st.integers(1, 200), st.sampled_from([1, 64, 1024]))
def test_splits_and_batches_do_not_show(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], target: int, size: int
) -> None:
    root = tmp_path_factory.mktemp("split")
    lines = [
        json.dumps({"text": t}, ensure_ascii=i % 2 == 0).encode("utf-8", "surrogatepass") for i, t in enumerate(texts)
    ]
    (root / "a.jsonl").write_bytes(b"\n".join(lines))
    whole = rows(root, "a.jsonl")
    assert len(whole) == len(texts)
    parts = TextReader().split(piece(root, "a.jsonl"), str(root), target)
    assert [r for p in parts for r in rows(root, "a.jsonl", size=size, part=p)] == whole


def test_truncated_compressed_lines(tmp_path: Path) -> None:
    plain = b"".join(json.dumps({"text": f"line {i}"}).encode() + b"\n" for i in range(60))
    stored = gzip.compress(plain)
    (tmp_path / "a.jsonl.gz").write_bytes(stored)
    whole = rows(tmp_path, "a.jsonl.gz")
    for cut in range(20, len(stored)):
        (tmp_path / "a.jsonl.gz").write_bytes(stored[:cut])
        got = rows(tmp_path, "a.jsonl.gz")
        assert got[:-1] == whole[: len(got) - 1]
        assert got[-1]["drop"]["rule"] == "unreadable"


def test_broken_compressed_lines_keep_what_came_before(tmp_path: Path) -> None:
    plain = b"".join(json.dumps({"text": f"line {i * 7919 % 1000}"}).encode() + b"\n" for i in range(3000))
    first = gzip.compress(plain)
    stored = first + gzip.compress(plain)[:200] + bytes(500)
    (tmp_path / "a.jsonl.gz").write_bytes(stored)
    got = []
    with pytest.raises(UnreadableFile) as caught:
        for batch in TextReader().read(
            piece(tmp_path, "a.jsonl.gz"), str(tmp_path), collection="c", domain="d", rows=7
        ):
            got += batch.to_pylist()
    assert len(got) >= 3000
    assert (caught.value.offset, caught.value.length) == (len(first), len(stored) - len(first))


def test_ids(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        {"text": "one", "id": "x"},
        {"text": "two", "id": "x"},
        {"text": "0", "id": 0},
        {"text": "-"},
    )
    got = rows(tmp_path, "a.jsonl", TextReader(id="id"))
    assert len({r["doc_id"] for r in got}) == 4
    assert json.loads(got[0]["meta"]) == {"id": "x"}
    write(tmp_path / "a.jsonl", {"text": "zero", "id": "y"}, {"text": "one", "id": "x"})
    assert rows(tmp_path, "a.jsonl", TextReader(id="id"))[1]["doc_id"] == got[0]["doc_id"]  # wherever it stands
    big = piece(tmp_path, "a.jsonl")
    assert TextReader(id="id").split(big, str(tmp_path), 1) == [big]


def table() -> pa.Table:
    return pa.table(
        {
            "text": pa.array([f"text {i}" if i % 5 else None for i in range(100)]),
            "url": [f"http://x/{i}" for i in range(100)],
            "date": pa.array([datetime.datetime(2024, 1, 1, 12, i % 60) for i in range(100)], pa.timestamp("us")),
            "score": [i / 7 for i in range(100)],
            "tags": [["a", "b"]] * 100,
        }
    )


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=30)
    whole = rows(tmp_path, "a.parquet")
    assert len(whole) == 100 and sum(r["drop"] is not None for r in whole) == 20
    assert [r["source"]["row"] for r in whole] == list(range(100))
    assert whole[1]["date"] == datetime.datetime(2024, 1, 1, 12, 1)
    assert whole[1]["meta"] == '{"score":0.14285714285714285,"tags":["a","b"]}'
    parts = TextReader().split(piece(tmp_path, "a.parquet"), str(tmp_path), 1)
    assert [(p.start, p.stop) for p in parts] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [r for p in parts for r in rows(tmp_path, "a.parquet", size=7, part=p)] == whole
    assert json.loads(TextReader().original(whole[77]["source"], str(tmp_path)))["text"] == "text 77"


def test_parquet_with_a_broken_row_group(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet", row_group_size=30, compression="zstd", use_dictionary=False)
    start = pq.read_metadata(tmp_path / "a.parquet").row_group(1).column(0).data_page_offset
    whole = rows(tmp_path, "a.parquet")
    stored = bytearray((tmp_path / "a.parquet").read_bytes())
    stored[start : start + 60] = b"\xff" * 60
    (tmp_path / "a.parquet").write_bytes(bytes(stored))
    got = rows(tmp_path, "a.parquet")
    assert got[:30] == whole[:30] and got[60:] == whole[60:]
    assert {r["drop"]["rule"] for r in got[30:60]} == {"unreadable"}
    assert [r["doc_id"] for r in got] == [r["doc_id"] for r in whole]


@pytest.mark.parametrize("form", ["file", "stream"])
def test_arrow(tmp_path: Path, form: str) -> None:
    make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with make(tmp_path / "a.arrow", table().schema) as writer:
        writer.write_table(table(), max_chunksize=30)
    got = rows(tmp_path, "a.arrow")
    pq.write_table(table(), tmp_path / "a.parquet")
    assert [r["text"] for r in got] == [r["text"] for r in rows(tmp_path, "a.parquet")]
    assert json.loads(TextReader().original(got[77]["source"], str(tmp_path)))["text"] == "text 77"


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_not_what_the_suffix_says(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"something else entirely, and long enough to hold a footer" * 3)
    with pytest.raises(UnreadableFile):
        rows(tmp_path, name)


def test_a_table_without_the_column_says_what_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(UnreadableFile, match="no column 'text'; it has content"):
        rows(tmp_path, "a.parquet")
    assert rows(tmp_path, "a.parquet", TextReader(text="content"))[0]["text"] == "a"


def test_invalid_utf8_in_a_table(tmp_path: Path) -> None:
    bad = pa.array([b"fine", b"not \xff fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    assert [r["text"] for r in rows(tmp_path, "a.parquet")] == ["fine", "not \ufffd fine"]


def test_folder_files(tmp_path: Path) -> None:
    files = {
        "plain.py": (b"# caf\xc3\xa9\ndef f():\n    return 1\n", "# café\ndef f():\n    return 1\n", "text/plain"),
        "latin.txt": (
            "Größe, naïve, façade: im Süden".encode("latin-1"),
            "Größe, naïve, façade: im Süden",
            "text/plain",
        ),
        "page.html": (b"<p>hello", "<p>hello", "text/html"),
        "packed.md.gz": (gzip.compress(b"# hello"), "# hello", "text/plain"),
        "utf16.txt": ("hello wörld".encode("utf-16"), "hello wörld", "text/plain"),
        "binary.dat": (bytes(range(256)) * 4, None, "application/octet-stream"),
        "empty.txt": (b"", None, "text/plain"),
        "cut.txt.gz": (gzip.compress(b"hello " * 1000)[:-9], None, "text/plain"),
    }
    for name, (content, text, mime) in files.items():
        (tmp_path / name).write_bytes(content)
        (row,) = rows(tmp_path, name)
        assert (row["text"], row["read"]["mime"]) == (text, mime), name
        assert (row["source"]["offset"], row["source"]["length"]) == (0, len(content))
    assert rows(tmp_path, "empty.txt")[0]["drop"] == {"rule": "empty", "value": ""}
    assert TextReader().original(rows(tmp_path, "packed.md.gz")[0]["source"], str(tmp_path)) == b"# hello"


def test_large_texts_make_small_batches(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", *({"text": "x" * 1_750_000} for _ in range(6)))
    sizes = [
        b.num_rows
        for b in TextReader().read(piece(tmp_path, "a.jsonl"), str(tmp_path), collection="c", domain="d", rows=999)
    ]
    assert sizes == [3, 3]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lines_too_long_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    from curation.sources.text import jsonl

    monkeypatch.setattr(jsonl, "MAX_LINE", 1000)
    plain = b'{"text": "a"}\n{"text": "' + b"x" * 5_000_000 + b'"}\n{"text": "b"}\n'
    (tmp_path / f"a.jsonl{suffix}").write_bytes(gzip.compress(plain) if suffix else plain)
    got = rows(tmp_path, f"a.jsonl{suffix}")
    assert [r["text"] for r in got] == ["a", None, "b"]
    assert got[1]["drop"]["value"] == "line longer than 1000 bytes"
    if not suffix:
        assert sum(r["source"]["length"] for r in got) == len(plain)


def test_on_another_filesystem(tmp_path: Path) -> None:
    import fsspec

    write(tmp_path / "a.jsonl", *({"text": f"line {i}"} for i in range(50)))
    pq.write_table(table(), tmp_path / "b.parquet", row_group_size=30)
    memory = fsspec.filesystem("memory")
    for name in ("a.jsonl", "b.parquet"):
        memory.pipe(f"/texts/{name}", (tmp_path / name).read_bytes())
        whole = piece(tmp_path, name)
        want = rows(tmp_path, name)
        parts = TextReader().split(whole, "memory://texts", 200)
        assert len(parts) > 1
        batches = [b for p in parts for b in TextReader().read(p, "memory://texts", collection="c", domain="d", rows=9)]
        assert [row for batch in batches for row in batch.to_pylist()] == want


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(["a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow"]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=8),
)
def test_any_damage(tmp_path_factory: pytest.TempPathFactory, name: str, hits: list[tuple[float, bytes]]) -> None:
    """Bytes overwritten anywhere: rows or an incident, never anything else."""
    root = tmp_path_factory.mktemp("damage")
    lines = b"".join(json.dumps({"text": f"line {i}", "id": i % 7}).encode() + b"\n" for i in range(100))
    if name == "a.parquet":
        pq.write_table(table(), root / name, row_group_size=30)
    elif name == "a.arrow":
        with pa.ipc.new_file(root / name, table().schema) as writer:
            writer.write_table(table(), max_chunksize=30)
    else:
        (root / name).write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    stored = bytearray((root / name).read_bytes())
    # Not the last bytes of a Parquet file: pyarrow ends the process on some damage to a footer.
    end = len(stored) - 3000 if name == "a.parquet" else len(stored)
    for where, what in hits:
        at = int(where * (end - len(what)))
        stored[at : at + len(what)] = what
    (root / name).write_bytes(bytes(stored))
    try:
        got = rows(root, name, TextReader(id="id"))
    except UnreadableFile as error:
        assert error.offset >= 0 and error.offset + error.length <= len(stored)
        return
    assert len({r["doc_id"] for r in got}) == len(got)


class Failing(io.BytesIO):
    """A file whose reads fail from some moment on, as a network's do."""

    error: Exception | None = None

    def read(self, size: int | None = -1) -> bytes:
        if self.error is not None:
            raise self.error
        return super().read(size)


@pytest.mark.parametrize("error", [OSError(5, "I/O error"), ConnectionError("reset"), TimeoutError(), MemoryError()])
def test_a_read_that_fails_is_no_damage_of_the_rows(error: Exception) -> None:
    """The rows of a group would be dropped as unreadable, with exit code 0, for one lost connection."""
    made = io.BytesIO()
    texts = [f"row {i} {zlib.crc32(bytes([i % 256])) * 10**90}" for i in range(1000)]
    pq.write_table(pa.table({"text": texts}), made, row_group_size=100)
    file = Failing(made.getvalue())
    piece = InputSplit("a.parquet", len(made.getvalue()), "")
    fields = FieldMapping("c", piece, "text", "", "url", "date", "text/plain")
    got = parquet_arrow.read_parquet_rows(file, piece, fields)
    assert next(got).text is not None
    file.error = error
    with pytest.raises(type(error)):
        list(got)


def test_memory_that_damage_asks_for_is_damage() -> None:
    parquet_arrow._raise_unless_damage(pa.lib.ArrowMemoryError("malloc of size 281474976710656 failed"))
    parquet_arrow._raise_unless_damage(OSError("Corrupt snappy compressed data."))
    with pytest.raises(MemoryError):
        parquet_arrow._raise_unless_damage(pa.lib.ArrowMemoryError("malloc of size 300000000 failed"))
