"""Archives: every record of every awkward file accounted for, the same rows however they are read.

Covers: warc_records.py, http_response.py, curation/sources/compressed_stream.py, curation/sources/batch_builder.py
"""

from __future__ import annotations

import gzip
import io
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sources.warc.warc import WarcReader
from curation.step import InputSplit, UnreadableFile

# What an independent count (warcio where it reads the file, else by hand) and the files' own text say is there.
EDGE = {
    "bad.arc": {"record_type filedesc": 1, "unreadable": 3},
    "clueweb-quirk.warc.gz": {"record_type warcinfo": 1, "document": 29},
    "example-bad-non-chunked.warc.gz": {
        "record_type warcinfo": 2,
        "document": 1,
        "record_type request": 2,
        "record_type revisit": 1,
    },
    "example-bad.warc.gz.bad": {
        "record_type warcinfo": 1,
        "document": 1,
        "record_type request": 2,
        "record_type revisit": 1,
        "http_status 302": 1,
    },
    "example-digest.warc": {"record_type request": 4},
    "example-iana.org-chunked.warc": {"record_type warcinfo": 1, "document": 1, "record_type request": 1},
    "example-resource.warc.gz": {"record_type warcinfo": 2, "document": 1},
    "example-space-in-target-uri.warc.gz": {"record_type warcinfo": 1, "mime image/png": 1},
    "example-space-in-url.arc": {"record_type filedesc": 1, "unreadable": 1},
    "example-trunc.warc": {"record_type warcinfo": 2, "document": 1, "record_type request": 1},
    "example-wget-bad-target-uri.warc.gz": {
        "record_type warcinfo": 1,
        "record_type request": 1,
        "document": 1,
        "record_type metadata": 1,
        "record_type resource: metadata": 2,
    },
    "example-wrong-chunks.warc.gz": {"document": 1, "record_type request": 1},
    "example.arc": {"record_type filedesc": 1, "document": 1},
    "example.arc.gz": {"record_type filedesc": 1, "document": 1},
    "example.warc": {"record_type warcinfo": 2, "document": 1, "record_type request": 2, "record_type revisit": 1},
    "example.warc.gz": {"record_type warcinfo": 2, "document": 1, "record_type request": 2, "record_type revisit": 1},
    "post-test.warc.gz": {"mime application/json": 3, "record_type request": 3},
    "sample-0000.warc.gz": {
        "record_type warcinfo": 1,
        "record_type request": 22,
        "document": 22,
        "record_type metadata": 1,
        "record_type resource: metadata": 2,
    },
    "sample-0001.warc.gz": {
        "record_type warcinfo": 1,
        "record_type request": 15,
        "document": 15,
        "record_type metadata": 1,
        "record_type resource: metadata": 2,
    },
    "warcfile.warc.gz": {
        "record_type warcinfo": 1,
        "record_type request": 17,
        "document": 16,
        "record_type metadata": 16,
    },
    "whirlwind.warc": {
        "record_type warcinfo": 1,
        "record_type request": 1,
        "document": 1,
        "record_type metadata": 1,
    },
    "whirlwind.warc.gz": {
        "record_type warcinfo": 1,
        "record_type request": 1,
        "document": 1,
        "record_type metadata": 1,
    },
    "whirlwind.warc.wat": {"record_type warcinfo": 1, "record_type metadata": 1},
    "whirlwind.warc.wat.gz": {"record_type warcinfo": 1, "record_type metadata": 1},
    "whirlwind.warc.wet": {"record_type warcinfo": 1, "document": 1},
    "whirlwind.warc.wet.gz": {"record_type warcinfo": 1, "document": 1},
}
# Files in which warcio and fastwarc count otherwise, and why.
NOT_WARCIO = {
    "example-bad-non-chunked.warc.gz",  # warcio refuses a gzip member with several records
    "example-bad.warc.gz.bad",
    "example-wrong-chunks.warc.gz",  # ... and stops where a length is wrong
}


def piece(root: Path, name: str) -> InputSplit:
    return InputSplit(name, (root / name).stat().st_size, "")


def rows(root: Path, name: str, size: int = 64, part: InputSplit | None = None) -> list[dict[str, Any]]:
    batches = WarcReader().read(part or piece(root, name), str(root), collection="c", domain="web", rows=size)
    return [row for batch in batches for row in batch.to_pylist()]


def outcome(row: dict[str, Any]) -> str:
    if row["drop"] is None:
        return "document"
    rule, value = row["drop"]["rule"], row["drop"]["value"]
    return rule if rule == "unreadable" else f"{rule} {value}"


def readable(root: Path, name: str) -> tuple[list[dict[str, Any]], UnreadableFile | None]:
    """Rows and the error, if one ended the file."""
    got: list[dict[str, Any]] = []
    try:
        for batch in WarcReader().read(piece(root, name), str(root), collection="c", domain="web", rows=3):
            got += batch.to_pylist()
    except UnreadableFile as error:
        return got, error
    return got, None


def test_the_table_names_every_file(data: Path) -> None:
    assert sorted(EDGE) == sorted(p.name for p in (data / "warc_edge").iterdir())


@pytest.mark.parametrize("name", sorted(EDGE))
def test_edge_file(data: Path, name: str) -> None:
    got = rows(data / "warc_edge", name)
    assert Counter(map(outcome, got)) == EDGE[name]
    assert len({row["doc_id"] for row in got}) == len(got)
    for row in got:
        assert (row["text"] is None) == (row["drop"] is not None)
        original = WarcReader().original(row["source"], str(data / "warc_edge"))
        assert original.startswith((b"WARC/", b"http://", b"filedesc:"))
        if row["url"] and not row["url"].startswith("file:"):
            assert row["url"].encode() in original


@pytest.mark.parametrize("name", sorted(set(EDGE) - NOT_WARCIO))
def test_counts_agree_with_warcio(data: Path, name: str) -> None:
    from warcio.archiveiterator import ArchiveIterator

    with open(data / "warc_edge" / name, "rb") as file:
        count = sum(1 for _ in ArchiveIterator(file))
    assert count == sum(EDGE[name].values())


@pytest.mark.parametrize("number", range(4))
def test_crawl(data: Path, number: int) -> None:
    from fastwarc.warc import ArchiveIterator

    name = f"docs-0{number}.warc.gz"
    got = rows(data / "crawl", name, 1024)
    assert Counter(map(outcome, got)) == {"record_type warcinfo": 1, "record_type request": 1005, "document": 1005}
    with open(data / "crawl" / name, "rb") as file:
        stored = [(r.record_id, r.stream_pos) for r in ArchiveIterator(file, parse_http=False)]
    assert [r["source"]["offset"] for r in got] == [position for _, position in stored]
    ends = [r["source"]["offset"] + r["source"]["length"] for r in got]
    assert ends == [r["source"]["offset"] for r in got[1:]] + [(data / "crawl" / name).stat().st_size]


@pytest.mark.parametrize("size", [1, 7, 1024])
def test_batch_size_does_not_show(data: Path, size: int) -> None:
    for name in ("sample-0000.warc.gz", "example-wrong-chunks.warc.gz"):
        assert rows(data / "warc_edge", name, size) == rows(data / "warc_edge", name, 64)


@pytest.mark.parametrize(
    "name", ["sample-0000.warc.gz", "whirlwind.warc", "example.warc.gz", "example.arc.gz", "example.arc"]
)
def test_index_cuts_exactly(data: Path, name: str) -> None:
    root = data / "warc_edge"
    whole = rows(root, name)
    for target in (1, 1500, 60_000, 10**9):
        parts = WarcReader().index(piece(root, name), str(root), target)
        assert [row for part in parts for row in rows(root, name, part=part)] == whole
        if len(parts) > 1:
            assert parts[0].start == 0 and parts[-1].stop == piece(root, name).size
            assert all(a.stop == b.start for a, b in pairwise(parts))
    assert len(WarcReader().index(piece(root, name), str(root), 1)) > 1


def test_compression_does_not_change_ids(data: Path, tmp_path: Path) -> None:
    import lz4.frame
    import zstandard

    plain = (data / "warc_edge" / "whirlwind.warc").read_bytes()
    cuts = [0, 749, 1375, 76549, len(plain)]
    records = [plain[a:b] for a, b in pairwise(cuts)]
    dictionary = zstandard.train_dictionary(2048, [r[i : i + 400] for r in records for i in range(0, len(r), 400)])
    with_dictionary = b"\x5d\x2a\x4d\x18" + len(dictionary.as_bytes()).to_bytes(4, "little") + dictionary.as_bytes()
    with_dictionary += b"".join(zstandard.ZstdCompressor(dict_data=dictionary).compress(r) for r in records)
    forms = {
        "whirlwind.warc": plain,
        "whirlwind.warc.gz": b"".join(gzip.compress(r) for r in records),
        "whirlwind.warc.zst": b"".join(zstandard.compress(r) for r in records),
        "whirlwind.warc.lz4": b"".join(lz4.frame.compress(r) for r in records),
    }
    (tmp_path / "dict").mkdir()
    (tmp_path / "dict" / "whirlwind.warc.zst").write_bytes(with_dictionary)
    expected = rows(data / "warc_edge", "whirlwind.warc")
    for name, stored in forms.items():
        (tmp_path / name).write_bytes(stored)
        check_same(expected, rows(tmp_path, name))
        for row, record in zip(rows(tmp_path, name), records, strict=True):
            assert WarcReader().original(row["source"], str(tmp_path)).rstrip() == record.rstrip()
    check_same(expected, rows(tmp_path / "dict", "whirlwind.warc.zst"))


def check_same(expected: list[dict[str, Any]], got: list[dict[str, Any]]) -> None:
    assert [{k: v for k, v in r.items() if k != "source"} for r in got] == [
        {k: v for k, v in r.items() if k != "source"} for r in expected
    ]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"not an archive at all", b"\x1f\x8b\x08broken", b"PK\x03\x04"])
def test_no_archive_is_an_incident(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.warc.gz").write_bytes(content)
    with pytest.raises(UnreadableFile) as caught:
        rows(tmp_path, "x.warc.gz")
    assert (caught.value.path, caught.value.offset, caught.value.length) == ("x.warc.gz", 0, len(content))


def make(records: list[tuple[str, bytes]], compress: bool = True) -> tuple[bytes, list[int]]:
    """An archive of text resources by id, and where each begins."""
    out, starts = b"", []
    for key, text in records:
        head = f"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Record-ID: {key}\r\nWARC-Target-URI: http://x/{key}\r\n"
        head += f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n"
        starts.append(len(out))
        record = head.encode() + text + b"\r\n\r\n"
        out += gzip.compress(record, mtime=0) if compress else record
    return out, starts


TEN = [(f"id-{i}", f"text number {i} ".encode() * (i + 1)) for i in range(10)]


def test_repeated_ids_are_counted(tmp_path: Path) -> None:
    names = ["a", "b", "a", "a", "a#2", "a#2", "@0", "id:@0", "a#2#1"]
    stored, _ = make([(name, b"text") for name in names])
    (tmp_path / "x.warc.gz").write_bytes(stored)
    got = rows(tmp_path, "x.warc.gz")
    assert len({r["doc_id"] for r in got}) == len(names)
    parts = WarcReader().index(piece(tmp_path, "x.warc.gz"), str(tmp_path), 1)
    assert len(parts) == len(names)
    assert [r for p in parts for r in rows(tmp_path, "x.warc.gz", part=p)] == got


@pytest.mark.parametrize("compress", [True, False])
def test_truncated_anywhere(tmp_path: Path, compress: bool) -> None:
    """Cut at every byte: never a crash, all earlier records there, the cut one a drop."""
    stored, starts = make(TEN, compress)
    (tmp_path / "x.warc.gz").write_bytes(stored)
    whole = rows(tmp_path, "x.warc.gz")
    bounds = [*starts, len(stored)]
    for cut in range(12, len(stored), 1 if compress else 3):
        (tmp_path / "x.warc.gz").write_bytes(stored[:cut])
        complete = sum(1 for end in bounds[1:] if end <= cut)
        got, error = readable(tmp_path, "x.warc.gz")
        if error:  # cut inside the first few bytes: not recognisable as an archive
            assert complete == 0 and error.length == cut
            continue
        assert got[:complete] == whole[:complete]
        assert len(got) - complete in (0, 1)
        if len(got) > complete:
            tail = got[complete]
            same_text = tail["text"] == whole[complete]["text"]  # all there but the trailing newlines or checksum
            assert same_text or (tail["drop"] or {}).get("rule") == "unreadable"
        else:
            assert cut == bounds[complete] or not stored[bounds[complete] : cut].strip()


def test_resynchronises_after_a_broken_member(tmp_path: Path) -> None:
    stored, starts = make(TEN)
    whole_path = tmp_path / "x.warc.gz"
    whole_path.write_bytes(stored)
    whole = rows(tmp_path, "x.warc.gz")
    for at in range(starts[4], starts[5]):
        damaged = bytearray(stored)
        damaged[at] ^= 0x55
        whole_path.write_bytes(bytes(damaged))
        got, error = readable(tmp_path, "x.warc.gz")
        assert error is None
        assert got[:4] == whole[:4] and got[-5:] == whole[5:]
        assert len(got) == 10
        if got[4] != whole[4]:  # header bytes such as the time may change unnoticed
            assert got[4]["drop"]["rule"] == "unreadable"
            where = got[4]["source"]
            assert (where["offset"], where["length"]) == (starts[4], starts[5] - starts[4])


def test_damage_that_nothing_follows(tmp_path: Path) -> None:
    stored, starts = make(TEN)
    damaged = stored[: starts[9] + 20] + bytes(200)
    (tmp_path / "x.warc.gz").write_bytes(damaged)
    got, error = readable(tmp_path, "x.warc.gz")
    assert len(got) == 9 and error is not None
    assert (error.offset, error.length) == (starts[9], len(damaged) - starts[9])


@pytest.mark.parametrize("claimed", [3, 5000])
def test_wrong_length_ends_at_the_next_record(tmp_path: Path, claimed: int) -> None:
    stored, _ = make([("a", b"first"), ("b", b"the second record"), ("c", b"third")], compress=False)
    stored = stored.replace(b"Content-Length: 17", b"Content-Length: %d" % claimed)
    (tmp_path / "x.warc").write_bytes(stored)
    got = rows(tmp_path, "x.warc")
    assert [r["text"] for r in got] == ["first", "the second record", "third"]
    assert f"says {claimed} bytes and has 17" in got[1]["meta"]


def test_junk_between_records_is_accounted_for(tmp_path: Path) -> None:
    a, b = make([("a", b"first")], False)[0], make([("b", b"second")], False)[0]
    (tmp_path / "x.warc").write_bytes(a + b"WARC/x.y junk\r\nmore junk\r\n\r\n" + b)
    got = rows(tmp_path, "x.warc")
    assert [r["text"] for r in got if r["text"] and "second" in r["text"]] == ["second"]
    assert sum(r["source"]["length"] for r in got) >= len(a.rstrip()) + len(b.rstrip())


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.booleans())
def test_any_damage(tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, compress: bool) -> None:
    """Random bytes overwritten anywhere: rows or an incident, unique ids, and the same at any batch size."""
    random_ = random.Random(seed)
    stored = bytearray(make(TEN, compress)[0])
    for _ in range(count):
        stored[random_.randrange(len(stored))] = random_.randrange(256)
    root = tmp_path_factory.mktemp("damage")
    (root / "x.warc").write_bytes(bytes(stored))
    got, error = readable(root, "x.warc")
    again, error_again = readable(root, "x.warc")
    assert got == again and (error is None) == (error_again is None)
    assert len({r["doc_id"] for r in got}) == len(got)
    covered = sum(r["source"]["length"] or 0 for r in got) + (error.length if error else 0)
    if compress and all(r["source"]["length"] is not None for r in got):
        assert covered == len(stored)
    parts = WarcReader().index(piece(root, "x.warc"), str(root), 300)
    if error is None:
        assert [r for p in parts for r in rows(root, "x.warc", part=p)] == got


def test_bodies(tmp_path: Path) -> None:
    """Encodings of the body undone; what lies about its encoding read as it is."""
    import zlib

    import brotli
    import zstandard

    page = b"<html><body><p>Some text that is long enough to compress, long enough indeed.</p></body></html>"
    chunked = b"10\r\n" + page[:16] + b"\r\n%x;ext=1\r\n" % (len(page) - 16) + page[16:] + b"\r\n0\r\n\r\n"
    bodies = {
        "plain": ("", page, page),
        "gzip": ("Content-Encoding: gzip", gzip.compress(page), page),
        "not gzip": ("Content-Encoding: gzip", page, page),
        "deflate": ("Content-Encoding: deflate", zlib.compress(page), page),
        "raw deflate": ("Content-Encoding: deflate", zlib.compress(page, wbits=-15), page),
        "br": ("Content-Encoding: br", brotli.compress(page), page),
        "not br": ("Content-Encoding: br", page, page),
        "zstd": ("Content-Encoding: zstd", zstandard.compress(page), page),
        "chunked": ("Transfer-Encoding: chunked", chunked, page),
        "not chunked": ("Transfer-Encoding: chunked", page, page),
        "a year": ("Transfer-Encoding: chunked", b"2024\r\nwas the year.\r\n", b"2024\r\nwas the year.\r\n"),
        "a number": (
            "Transfer-Encoding: chunked",
            b"10\r\nsacks of flour, and more\r\n",
            b"10\r\nsacks of flour, and more\r\n",
        ),
        "nought": ("Transfer-Encoding: chunked", b"0\r\nsacks are left\r\n", b"0\r\nsacks are left\r\n"),
        "both": ("Transfer-Encoding: chunked\r\nContent-Encoding: gzip", b"", page),
        "cut gzip": ("Content-Encoding: gzip", gzip.compress(page)[:-8], page),
        "broken gzip": ("Content-Encoding: gzip", gzip.compress(page)[:-8] + b"\0" * 8, None),
        "broken br": ("Content-Encoding: br", b"\xff\xff\xff\xff\x01\x02", None),
        "broken chunk": ("Transfer-Encoding: chunked", b"4\r\nabcd\r\nzz\r\nabc", None),
    }
    packed = gzip.compress(page)
    bodies["both"] = (bodies["both"][0], b"%x\r\n" % len(packed) + packed + b"\r\n0\r\n\r\n", page)
    out = io.BytesIO()
    for name, (header, body, _) in bodies.items():
        block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + header.encode() + b"\r\n\r\n" + body
        if not header:
            block = block.replace(b"\r\n\r\n\r\n", b"\r\n\r\n")
        head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <{name}>\r\nWARC-Target-URI: http://x/\r\n"
        head += f"Content-Type: application/http\r\nContent-Length: {len(block)}\r\n\r\n"
        out.write(head.encode() + block + b"\r\n\r\n")
    (tmp_path / "x.warc").write_bytes(out.getvalue())
    for row, (name, (_, _, expected)) in zip(rows(tmp_path, "x.warc"), bodies.items(), strict=True):
        if expected is None:
            assert outcome(row) == "unreadable", name
        else:
            assert row["text"] == expected.decode(), name
            assert row["read"] == {"mime": "text/html", "charset": "utf-8", "status": 200, "bytes": len(expected)}, name


@pytest.mark.parametrize("compress", [True, False])
def test_records_too_large_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: bool) -> None:
    from curation.sources.warc import warc_records as records

    monkeypatch.setattr(records, "MAX_CONTENT", 1000)
    big = random.Random(1).randbytes(300_000)
    (tmp_path / "x.warc").write_bytes(make([("a", b"first"), ("b", big), ("c", b"third")], compress)[0])
    got = rows(tmp_path, "x.warc")
    assert [r["text"] for r in got] == ["first", None, "third"]
    assert got[1]["drop"] == {"rule": "unreadable", "value": "larger than 1000 bytes"}


def test_bombs_are_drops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curation.sources.warc import http_response

    monkeypatch.setattr(http_response, "MAX_PAYLOAD", 10_000)
    block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(
        bytes(10**7)
    )
    head = f"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http\r\nContent-Length: {len(block)}\r\n\r\n"
    (tmp_path / "x.warc").write_bytes(head.encode() + block + b"\r\n\r\n")
    (row,) = rows(tmp_path, "x.warc")
    assert row["drop"] == {"rule": "unreadable", "value": "larger than 10000 bytes when unpacked"}


def test_on_another_filesystem(data: Path) -> None:
    import fsspec

    name = "sample-0000.warc.gz"
    stored = (data / "warc_edge" / name).read_bytes()
    fsspec.filesystem("memory").pipe(f"/crawl/{name}", stored)
    batches = WarcReader().read(
        InputSplit(name, len(stored), ""), "memory://crawl", collection="c", domain="web", rows=64
    )
    got = [row for batch in batches for row in batch.to_pylist()]
    assert got == rows(data / "warc_edge", name)
    assert WarcReader().original(got[5]["source"], "memory://crawl").startswith(b"WARC/1.0\r\n")


def test_a_large_archive_is_cut_near_the_target(data: Path) -> None:
    root = data / "crawl"
    parts = WarcReader().index(piece(root, "docs-00.warc.gz"), str(root), 2_000_000)
    assert [round((p.stop or 0) - (p.start or 0), -6) for p in parts] == [2_000_000, 2_000_000, 2_000_000, 1_000_000]
    assert sum(len(rows(root, "docs-00.warc.gz", part=p)) for p in parts) == 2011
