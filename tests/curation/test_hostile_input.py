"""Hostile files, pages and texts: work grows with the bytes as expanded, and what goes beyond a limit is named.

The shapes are those of benchmarks/hostile_shapes.py. Work is counted as calls (Python's and C's), never timed.

Covers: sources/limits.py, sources/decoders.py, extract/hostile_pages.py, extract/hostile_page_kernel.py
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.hostile_documents import DOCUMENTS
from benchmarks.hostile_shapes import SHAPES
from benchmarks.hostile_targets import load, prepare
from curation import document
from curation.extract import hostile_pages
from curation.extract.extract import extract
from curation.safety.pii.pii import Pii
from curation.sources import limits
from curation.sources.latex import macros
from curation.sources.text.text import TextReader
from curation.sources.warc.warc import WarcReader
from curation.step import InputSplit, UnreadableFile

SIZES = (4_000, 8_000, 16_000)


def calls(run: Callable[[], Any]) -> int:
    """How many calls of functions, in Python and in C, `run` makes."""
    count = 0

    def counted(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def read(folder: Path, name: str, data: bytes) -> tuple[list[dict[str, Any]], str]:
    """The rows of a file, and why the rest of it is unread."""
    (folder / name).write_bytes(data)
    reader: Any = WarcReader() if "arc" in name else TextReader()
    rows: list[dict[str, Any]] = []
    try:
        for batch in reader.read(InputSplit(name, len(data), ""), str(folder), collection="c", domain="d", rows=256):
            rows += batch.to_pylist()
    except UnreadableFile as error:
        return rows, error.reason
    return rows, ""


def test_there_are_enough_shapes() -> None:
    assert len(SHAPES) >= 60
    assert len({s.target.partition(":")[0] for s in SHAPES}) >= 20


@pytest.mark.parametrize("target", sorted({s.target for s in SHAPES}))
def test_work_grows_with_the_input(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macros, "FREE_USES", 500)  # which any source has, however short
    sizes = SIZES if target not in {s.target for s in DOCUMENTS} else tuple(size // 4 for size in SIZES)
    load(target)
    wrong = []
    # What is imported or compiled on first use; the states of PII's automata are built when they are first met.
    first = sizes[2] if target.startswith("pii") else 1_000
    for shape in (s for s in SHAPES if s.target == target):
        prepare(shape, first, tmp_path)()
        counts = [calls(prepare(shape, size, tmp_path)) for size in sizes]
        if counts[2] - counts[1] > 3 * max(0, counts[1] - counts[0]) + 8 * sizes[2]:  # a few calls a byte are no growth
            wrong.append((shape.name, counts))
    assert not wrong


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.warc.gz", gzip.compress(b"WARC/1.0\r\nContent-Length: 0\r\n\r\n" + b"\n" * 100_000)),
        ("a.jsonl.bz2", bz2.compress(b"\n" * 100_000)),
        ("a.jsonl.xz", lzma.compress(b" \n" * 50_000)),
    ],
)
def test_blanks_are_skipped_at_once(name: str, data: bytes, tmp_path: Path) -> None:
    read(tmp_path, name, data)
    assert calls(lambda: read(tmp_path, name, data)) < 20_000


@pytest.mark.parametrize(("suffix", "compress"), [("bz2", bz2.compress), ("xz", lzma.compress), ("gz", gzip.compress)])
def test_a_long_line_is_decompressed_in_parts(
    suffix: str, compress: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.sources.text.jsonl.MAX_LINE", 1 << 20)
    monkeypatch.setattr(limits, "MIN_EXPANDED", 1 << 30)
    data = compress(b"x" * (64 << 20))
    read(tmp_path, f"a.jsonl.{suffix}", data)
    tracemalloc.start()
    rows, unread = read(tmp_path, f"a.jsonl.{suffix}", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [r["drop"]["rule"] for r in rows] == ["unreadable"] and not unread
    assert peak < 24 << 20  # xz has a dictionary of 8 MiB


def test_a_file_that_expands_too_far_is_unread_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIN_EXPANDED", 1 << 20)
    line = json.dumps({"text": "a line of text"}).encode() + b"\n"
    rows, unread = read(tmp_path, "a.jsonl.bz2", bz2.compress(line + b"\n" * (8 << 20) + line))
    assert [r["text"] for r in rows] == ["a line of text"] and unread == limits.EXPANDS_TOO_FAR
    rows, unread = read(
        tmp_path, "a.warc.gz", bz2.compress(b"WARC/1.0\r\nContent-Length: 1\r\n\r\nx" + b"\n" * (8 << 20))
    )
    assert len(rows) == 1 and unread == limits.EXPANDS_TOO_FAR


def test_how_far_a_file_may_expand() -> None:
    assert limits.max_expanded(48) == 16 << 20
    assert limits.max_expanded(10**6) == 10**9
    assert limits.max_expanded(10**9) == 64 << 30
    assert limits.max_expanded(22 * 10**9) > 95 * 10**9  # the dump of English Wikipedia, in one file


def test_many_records_that_are_no_documents_end_a_file(tmp_path: Path) -> None:
    rows, unread = read(tmp_path, "a.jsonl.gz", gzip.compress(b"{}\n" * 50_000))
    assert limits.FREE_DROPS <= len(rows) < 3_000 and "without a document" in unread
    rows, unread = read(tmp_path, "a.warc", b"WARC/1.0\r\n" * 50_000)
    assert limits.FREE_DROPS <= len(rows) < 20_000 and "without a document" in unread


def test_rows_that_take_no_bytes(tmp_path: Path) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": pa.nulls(1 << 20, pa.string())}), out)
    rows, unread = read(tmp_path, "a.parquet", out.getvalue())
    assert not rows and "1,048,576 rows" in unread


def test_one_value_of_a_dictionary_in_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.sources.text.parquet_arrow._BYTES_AT_ONCE", 1 << 20)
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 60, pa.int32()), pa.array(["x" * (5 << 20)]))
    out = io.BytesIO()
    pq.write_table(pa.table({"text": values}), out, compression="zstd", dictionary_pagesize_limit=1 << 30)
    rows, unread = read(tmp_path, "a.parquet", out.getvalue())
    assert not rows and unread == limits.EXPANDS_TOO_FAR  # 300 MB in a kilobyte


@pytest.mark.parametrize("depth", [150, 480, 900])
def test_what_nested_json_becomes_does_not_depend_on_the_stack(depth: int, tmp_path: Path) -> None:
    data = b'{"text": "a", "x": ' + b"[" * depth + b"]" * depth + b"}\n"
    rows, _ = read(tmp_path, "a.jsonl", data)
    assert [r["drop"] and r["drop"]["value"] for r in rows] == [None if depth == 150 else "nested too deep"]


def test_a_record_that_says_it_is_longer_than_its_file_takes_no_other_with_it(tmp_path: Path) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\na page"
    head = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n"
    bad, good = head % 10**15 + b"cut\r\n\r\n", head % len(page) + page + b"\r\n\r\n"
    for name, data in (("a.warc", bad + good), ("a.warc.gz", gzip.compress(bad) + gzip.compress(good))):
        rows, unread = read(tmp_path, name, data)
        assert [r["text"] for r in rows] == [None, "a page"] and not unread


def test_marks_beyond_64_on_one_letter_are_cut() -> None:
    assert document.clean_text("a" + "\u0323" * 200 + "b") == document.clean_text("a" + "\u0323" * 64 + "b")
    assert len(document.clean_text("\u0323\u0301" * 20_000)) == 64


def test_attributes_beyond_1024_are_cut_and_no_text_is() -> None:
    page = (
        "<p>before<p" + "".join(f" a{i}='>'" for i in range(3_000)) + ">inside<!-- <b " + "c " * 3_000 + "-->after</p>"
    )
    limited, problem = hostile_pages.limit_page(page)
    assert not problem and len(limited) < len(page) and limited.count("='>'") == hostile_pages.MAX_ATTRIBUTES
    assert extract(page).text.split() == ["before", "insideafter"]
    assert hostile_pages.limit_page("<p class='a b'>text</p>") == ("<p class='a b'>text</p>", "")


def test_formatting_that_is_never_closed_is_a_drop_with_its_reason() -> None:
    page = "".join(f"<font size={i}><p>x" for i in range(3_000))
    assert "never closed" in extract(page).problem and not extract(page).text
    assert extract("<b><font color=red>" + "<p>A paragraph of text." * 3_000).text.count("paragraph") == 3_000


def test_noframes_that_does_not_end() -> None:
    assert extract("<noframes>" * 20_000).text == ""
    assert extract("<frameset><frame></frameset><NOFRAMES><p>All the text there is.</p></noframes>").text


def test_cells_among_very_many_take_few_calls() -> None:
    page = "<table><tr>" + "<td>x" * 4_000
    extract(page)
    assert calls(lambda: extract(page)) < 30 * 4_000


def test_findings_among_very_many_are_no_objects() -> None:
    """Masked or spared: a call each would be 100,000 a megabyte."""
    step = Pii(decisions="presidio")
    step.open()
    for value in ("1.2.3.4 ", "10.0.0.1 ", "223-45-6789 ", "+1 212 555 0147\n"):
        batch = pa.RecordBatch.from_pydict({"text": pa.array([value * 2_000], pa.large_string())})
        row = step(batch).to_pylist()[0]
        assert row["pii"]["total"] + row["pii"]["spared"] == 2_000 and row["pii"]["phone_number"] in (0, 2_000)
        assert calls(lambda batch=batch: step(batch)) < 1_000  # half a call a finding


def test_masked_keys_of_json_stay_different() -> None:
    scrubbed = Pii().scrub(pa.array([json.dumps({f"u{i}@python.org": i for i in range(300)})], pa.string()))[0].as_py()
    keys = list(json.loads(scrubbed))
    assert keys[:3] == ["<EMAIL_ADDRESS>", "<EMAIL_ADDRESS>'", "<EMAIL_ADDRESS>'2"] and len(set(keys)) == 300


def test_no_pattern_of_presidio_has_a_time_limit() -> None:
    from presidio_analyzer import pattern_recognizer

    from curation.safety.pii import presidio_engine

    presidio_engine.analyzer_engine("en")
    assert pattern_recognizer.REGEX_TIMEOUT_SECONDS is None
