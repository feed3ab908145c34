"""Hostile files, and what all hostile shapes are made of: cheap to make, and dear to read without limits.

Each shape is a function of a size in bytes *as expanded* and goes to one reader or one step; those of pages and texts
are in hostile_shapes.py, with the list of all.
"""

# ruff: noqa: E501 (a table: a shape is a line)
from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WARC = b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"


@dataclass(frozen=True)
class Shape:
    """One kind of hostile input. `target`: the name of a file, whose reader reads it, or `step` or `step:option`."""

    name: str
    target: str
    make: Callable[[int], Any]  # bytes of a file as stored, or a text, of this size when expanded


def repeated(unit: str, before: str = "", after: str = "") -> Callable[[int], str]:
    """A text that repeats `unit`; `{i}` in it is the number of the repetition."""

    def make(size: int) -> str:
        if "{i}" not in unit:
            return before + unit * max(1, size // len(unit.encode())) + after
        parts, total, i = [], 0, 0
        while total < size:
            parts.append(unit.replace("{i}", str(i)))
            total += len(parts[-1])
            i += 1
        return before + "".join(parts) + after

    return make


def nested(opening: str, closing: str = "") -> Callable[[int], str]:
    """Opening tags, then a word, then the closing tags."""

    def make(size: int) -> str:
        levels = size // (len(opening) + len(closing))
        return opening * levels + "word" + closing * levels

    return make


def _response(body: bytes, headers: bytes = b"Content-Type: text/html\r\n") -> bytes:
    block = b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + body
    return WARC % (b"application/http", len(block)) + block + b"\r\n\r\n"


def _lines(line: bytes) -> Callable[[int], bytes]:
    return lambda size: line * max(1, size // len(line))


def _squeezed(compress: Callable[[bytes], bytes], make: Callable[[int], bytes]) -> Callable[[int], bytes]:
    return lambda size: compress(make(size))


def _members(piece: bytes, compress: Callable[[bytes], bytes]) -> Callable[[int], bytes]:
    """Very many tiny members. A member without content still costs its own bytes, so those are counted."""
    one = compress(piece)
    return lambda size: one * max(1, size // max(len(piece), len(one)))


def _zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=3).compress(data)


def _lz4(data: bytes) -> bytes:
    import lz4.frame

    return bytes(lz4.frame.compress(data))


def _chunked(size: int) -> bytes:
    return b"1\r\nx\r\n" * (size // 6) + b"0\r\n\r\n"


def _parquet(size: int, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["x" * size]}), out, **options)
    return out.getvalue()


def _parquet_rows(size: int) -> bytes:
    """One dictionary value for very many rows: 1 MB of text is a few hundred bytes."""
    out = io.BytesIO()
    pq.write_table(pa.table({"text": ["word " * 20] * max(1, size // 100)}), out, compression="zstd")
    return out.getvalue()


# Columns, row groups and batches cost bytes of their own as stored: those are counted.
_COLUMN_BYTES, _GROUP_BYTES, _BATCH_BYTES = 290, 460, 256


def _parquet_columns(size: int) -> bytes:
    out = io.BytesIO()
    columns = {"text": ["a text"], **{f"c{i}": [i] for i in range(size // _COLUMN_BYTES)}}
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _parquet_groups(size: int) -> bytes:
    out = io.BytesIO()
    rows = max(1, size // _GROUP_BYTES)
    pq.write_table(pa.table({"text": ["a text of a few words, again and again, and once more, then end"] * rows}), out,
                   row_group_size=1)  # fmt: skip
    return out.getvalue()


def _arrow(size: int, batch_rows: int) -> bytes:
    out = io.BytesIO()
    table = pa.table(
        {"text": ["a text of a few words, again and again, and once more, then end"] * (size // _BATCH_BYTES)}
    )
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return out.getvalue()


def _arrow_zstd(size: int) -> bytes:
    out = io.BytesIO()
    table = pa.table({"text": ["x" * size]})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return out.getvalue()


def _json_text(text: str) -> bytes:
    return json.dumps({"text": text}).encode() + b"\n"


def _warc_header_fields(size: int) -> bytes:
    fields = b"".join(b"X-Field-%d: a\r\n" % i for i in range(size // 16))
    return b"WARC/1.0\r\nWARC-Type: response\r\n" + fields + b"Content-Length: 2\r\n\r\nab\r\n\r\n"


def _folded_header(size: int) -> bytes:
    head = b"WARC/1.0\r\nWARC-Type: response\r\nX: a\r\n" + b" b\r\n" * (size // 4)
    return head + b"Content-Length: 2\r\n\r\nab\r\n\r\n"


FILES = [
    Shape("gzip WARC of blanks", "a.warc.gz", _squeezed(gzip.compress, lambda n: b"WARC/1.0\r\n" + b"\n" * n)),
    Shape("WARC, blanks between records", "a.warc.gz", _squeezed(
        gzip.compress, lambda n: _response(b"a page of text") + b"\r\n" * (n // 2) + _response(b"another"))),
    Shape("WARC that starts with blanks", "a.warc", lambda n: b" " * 900 + _response(b"page") + b"\0" * n),
    Shape("WARC, one-byte gzip members", "a.warc.gz", lambda n: gzip.compress(_response(b"page"), mtime=0)
          + gzip.compress(b"\n", mtime=0) * (n // 21)),
    Shape("WARC, empty gzip members", "a.warc.gz", lambda n: gzip.compress(_response(b"page"), mtime=0)
          + gzip.compress(b"", mtime=0) * (n // 20)),
    Shape("WARC, gzip members cut off", "a.warc.gz", lambda n: gzip.compress(_response(b"page"), mtime=0)
          + b"\x1f\x8b\x08\0\0\0\0\0\0\3\xff" * (n // 11)),
    Shape("WARC, absurd Content-Length", "a.warc.gz", _squeezed(
        gzip.compress, lambda n: WARC % (b"text/html", 10**15 - 1) + b"x" * n)),
    Shape("WARC, Content-Length too small, blanks follow", "a.warc", lambda n:
          WARC % (b"text/html", 1) + b"x" + b"\n" * n + _response(b"page")),
    Shape("WARC, Content-Length missing", "a.warc", lambda n: b"WARC/1.0\r\nWARC-Type: response\r\n\r\n" + b"x\n" * (n // 2)),
    Shape("WARC, every record's length wrong", "a.warc", lambda n: (WARC % (b"text/plain", 1) + b"a text of a few words\r\n") * (n // 160)),
    Shape("WARC, every record claims 100 MB", "a.warc", lambda n: (WARC % (b"text/plain", 10**8) + b"a text\r\n") * (n // 130)),
    Shape("WARC, every record claims 100 MB, in members", "a.warc.gz", lambda n: gzip.compress(
        WARC % (b"text/plain", 10**8) + b"a text\r\n", mtime=0) * (n // 130)),
    Shape("WARC, first lines only", "a.warc", lambda n: b"WARC/1.0\r\n" * (n // 10)),
    Shape("WARC, half a record line repeated", "a.warc", lambda n: _response(b"page") + b"\nWARC/1.0 x" * (n // 11)),
    Shape("WARC, header that does not end", "a.warc", lambda n: b"WARC/1.0\r\n" + b"A: b\r\n" * (n // 6)),
    Shape("WARC, header of many fields", "a.warc", _warc_header_fields),
    Shape("WARC, header folded over many lines", "a.warc", _folded_header),
    Shape("WARC of tiny records", "a.warc.gz", _squeezed(
        gzip.compress, lambda n: (b"WARC/1.0\r\nContent-Length: 0\r\n\r\n\r\n\r\n") * (n // 35))),
    Shape("WARC, one repeated record id", "a.warc", lambda n: (
        b"WARC/1.0\r\nWARC-Record-ID: <a>\r\nContent-Length: 0\r\n\r\n\r\n\r\n") * (n // 58)),
    Shape("ARC, a line that is almost a record", "a.arc", lambda n: b"filedesc://a 0.0.0.0 20200101000000 text/plain 0\n\n"
          + b"http:" + b"a 1.1.1.1 20200101 " * (n // 19)),
    Shape("ARC, one URL of spaces", "a.arc", lambda n: b"filedesc://a 0.0.0.0 20200101000000 text/plain 0\n\n"
          + b"\n".join([b"http://" + b" " * 60000] * max(1, n // 60000))),
    Shape("HTTP body in one-byte chunks", "a.warc", lambda n: _response(
        _chunked(n), b"Content-Type: text/html\r\nTransfer-Encoding: chunked\r\n")),
    Shape("HTTP body, gzip bomb", "a.warc", lambda n: _response(
        gzip.compress(b"x" * n), b"Content-Type: text/html\r\nContent-Encoding: gzip\r\n")),
    Shape("HTTP body, tiny gzip members", "a.warc", lambda n: _response(
        gzip.compress(b"x", mtime=0) * (n // 21), b"Content-Type: text/html\r\nContent-Encoding: gzip\r\n")),
    Shape("HTTP body, many content encodings", "a.warc", lambda n: _response(
        gzip.compress(b"x" * n), b"Content-Type: text/html\r\nContent-Encoding: " + b"gzip, " * min(n // 6, 10_000) + b"\r\n")),
    Shape("HTTP body, brotli bomb", "a.warc", lambda n: _response(
        pa.Codec("brotli").compress(b"x" * n, asbytes=True), b"Content-Type: text/html\r\nContent-Encoding: br\r\n")),
    Shape("HTTP header without an end", "a.warc", lambda n: _response(b"", b"A: b\r\n" * (n // 6))),
    Shape("page of charset declarations", "a.warc", lambda n: _response(b"<meta charset=x-none>" * (n // 21))),
    Shape("page of <meta, charset= and blanks", "a.warc", lambda n: _response((b"<meta " * 300 + b"charset=" + b" " * 2200) * max(1, n // 4000))),
    Shape("page of <meta without an end", "a.warc", lambda n: _response(b"<meta " * (n // 6))),
    Shape("page of comments before <html", "a.warc", lambda n: _response(b"<!-- --> " * (n // 9) + b"x", b"")),
    Shape("page of comments cut off, no media type", "a.warc", lambda n: _response(b"<!--" * (n // 4), b"")),
    Shape("page of bytes no charset has", "a.warc", lambda n: _response(b"\x81\xfe\xff " * (n // 4))),
    Shape("page of ISO-2022-JP escapes", "a.warc", lambda n: _response(
        b"\x1b$B\x1b(B" * (n // 6), b"Content-Type: text/html; charset=iso-2022-jp\r\n")),
    Shape("page of combining marks", "a.warc", lambda n: _response("a\u0301\u0323".encode() * (n // 5))),
    Shape("one letter under very many marks", "a.txt", lambda n: b"a" + "\u0323\u0301".encode() * (n // 4)),
    Shape("JSONL of newlines, bz2", "a.jsonl.bz2", _squeezed(bz2.compress, _lines(b"\n"))),
    Shape("JSONL of newlines, gzip", "a.jsonl.gz", _squeezed(gzip.compress, _lines(b"\n"))),
    Shape("JSONL of newlines, xz", "a.jsonl.xz", _squeezed(lzma.compress, _lines(b"\n"))),
    Shape("JSONL of newlines, zstd", "a.jsonl.zst", _squeezed(_zstd, _lines(b"\n"))),
    Shape("JSONL of newlines, lz4", "a.jsonl.lz4", _squeezed(_lz4, _lines(b"\n"))),
    Shape("JSONL of blanks and newlines", "a.jsonl.gz", _squeezed(gzip.compress, _lines(b" \n"))),
    Shape("JSONL of {}", "a.jsonl.bz2", _squeezed(bz2.compress, _lines(b"{}\n"))),
    Shape("JSONL of 1", "a.jsonl", _lines(b"1\n")),
    Shape("one long line, bz2", "a.jsonl.bz2", _squeezed(bz2.compress, _lines(b"x"))),
    Shape("one long line, xz", "a.jsonl.xz", _squeezed(lzma.compress, _lines(b"x"))),
    Shape("one long line, zstd", "a.jsonl.zst", _squeezed(_zstd, _lines(b"x"))),
    Shape("one long line, lz4", "a.jsonl.lz4", _squeezed(_lz4, _lines(b"x"))),
    Shape("text file of blanks, xz", "a.txt.xz", _squeezed(lzma.compress, _lines(b" "))),
    Shape("JSON nested in one line", "a.jsonl", lambda n: b'{"text":"a","x":' + b"[" * (n // 2) + b"]" * (n // 2) + b"}\n"),
    Shape("JSON of empty lists, nested a little", "a.jsonl", lambda n: b'{"text":"a","x":' + b"[" * 900 + b"[]" + b",[]" * (n // 3) + b"]" * 900 + b"}\n"),
    Shape("JSON, one enormous number", "a.jsonl", lambda n: b'{"text":"a","x":' + b"9" * n + b"}\n"),
    Shape("JSON, numbers of 4,000 digits", "a.jsonl", lambda n: (b'{"text":"a","x":' + b"9" * 4000 + b"}\n") * max(1, n // 4020)),
    Shape("JSON, one number of many decimals", "a.jsonl", lambda n: b'{"text":"a","x":0.' + b"9" * n + b"}\n"),
    Shape("JSON of escapes", "a.jsonl", lambda n: b'{"text":"' + b"\\ud800" * (n // 6) + b'"}\n'),
    Shape("JSON of many keys", "a.jsonl", lambda n: json.dumps({"text": "a", **{f"k{i}": 0 for i in range(n // 12)}}).encode()),
    Shape("JSON, one key many times", "a.jsonl", lambda n: b'{"text":"a"' + b',"k":0' * (n // 6) + b"}\n"),
    Shape("JSON, a date of digits", "a.jsonl", lambda n: b'{"text":"a","date":"' + b"2" * n + b'"}\n'),
    Shape("JSON, a date and blanks", "a.jsonl", lambda n: b'{"text":"a","date":"2020-01-01T00:00:00.1' + b" " * n + b'x"}\n'),
    Shape("Parquet, one text of one letter", "a.parquet", lambda n: _parquet(n, compression="zstd")),
    Shape("Parquet, one dictionary value in all rows", "a.parquet", _parquet_rows),
    Shape("Parquet of many columns", "a.parquet", _parquet_columns),
    Shape("Parquet of row groups of one row", "a.parquet", _parquet_groups),
    Shape("Arrow of batches of one row", "a.arrow", lambda n: _arrow(n, 1)),
    Shape("Arrow stream, compressed", "a.arrow", _arrow_zstd),
]  # fmt: skip
