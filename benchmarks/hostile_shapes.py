"""Hostile input in one table: files and texts that are cheap to make and were, or could be, dear to read.

Each shape is a function of a size in bytes *as expanded* and goes to one reader or one step. The tests count the work
of each at three sizes (tests/curation/test_hostile_input.py); benchmarks/hostile.py measures seconds a megabyte.
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


def _parquet_columns(size: int) -> bytes:
    out = io.BytesIO()
    columns = {"text": ["a text"], **{f"c{i}": [i] for i in range(size // 64)}}
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _parquet_groups(size: int) -> bytes:
    out = io.BytesIO()
    rows = max(1, size // 64)
    pq.write_table(pa.table({"text": ["a text of a few words, again and again, and once more, then end"] * rows}), out,
                   row_group_size=1)  # fmt: skip
    return out.getvalue()


def _arrow(size: int, batch_rows: int) -> bytes:
    out = io.BytesIO()
    table = pa.table({"text": ["a text of a few words, again and again, and once more, then end"] * (size // 64)})
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


# -- files ------------------------------------------------------------------------------------------------------------

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

# -- pages ------------------------------------------------------------------------------------------------------------

_PAGES: dict[str, Callable[[int], str]] = {
    "<noframes> repeated": repeated("<noframes>"),
    "<noframes without an end": repeated("<noframes "),
    "<noframes> with text, repeated": repeated("<noframes>a</noframe>"),
    "many attributes in one tag": repeated(" a{i}=1", "<p", ">text"),
    "many classes on one tag": repeated("a{i} ", '<p class="', '">text'),
    "many tags of 100 attributes": repeated("<p " + " ".join(f"a{i}=b" for i in range(100)) + ">x"),
    "<a><div> repeated": repeated("<a><div>"),
    "<a href=x>text repeated": repeated("<a href=x>y"),
    "<b><i> unclosed in paragraphs": repeated("<p><b><i><font color=1>"),
    "</p></b> that nothing opened": repeated("</p></b>"),
    "<font> with its own attribute each": repeated("<font size={i}><p>"),
    "<nobr> repeated": repeated("<nobr>"),
    "<button> repeated": repeated("<button>x"),
    "<form> in tables": repeated("<table><form>"),
    "<table> nested": nested("<table><tr><td>", "</td></tr></table>"),
    "<table> with text outside cells": repeated("<table>x"),
    "<table><a> repeated": repeated("<table><a>x"),
    "<tr> of many cells": repeated("<td>x", "<table><tr>"),
    "<div> nested": nested("<div>", "</div>"),
    "<div> never closed": nested("<div>"),
    "<ul><li> nested": nested("<ul><li>x", "</li></ul>"),
    "<blockquote><p> nested": nested("<blockquote><p>"),
    "<span> nested": nested("<span>"),
    "<svg> nested": nested("<svg><g>"),
    "<math> nested": nested("<math><mrow>"),
    "<template> nested": nested("<template>"),
    "<select><option> repeated": repeated("<select><option>x"),
    "<frameset> repeated": repeated("<frameset><frame>"),
    "<script> without an end": repeated("<script>"),
    "<script><!-- repeated": repeated("<script><!--<script>"),
    "<textarea></textare repeated": repeated("</textare ", "<textarea>"),
    "<title> repeated": repeated("<title>x"),
    "<plaintext> of <": repeated("<", "<plaintext>"),
    "<!-- repeated": repeated("<!--"),
    "<!--> and -- repeated": repeated("<!--> -- "),
    "<![CDATA[ repeated": repeated("<![CDATA["),
    "<!doctype repeated": repeated("<!doctype a ["),
    "< repeated": repeated("<"),
    "& repeated": repeated("&"),
    "&amp repeated": repeated("&amp"),
    "&#0000...": repeated("0", "&#", ";"),
    "<br> repeated": repeated("<br>"),
    "<pre> of newlines": repeated("\n", "<pre>", "x"),
    "<p> of no-break spaces": repeated("&nbsp;", "<p>", "x"),
    "style of display:": repeated("display:", '<p style="', '">x'),
    "style of many display: and blanks": repeated("display: ", '<p style="', '">x'),
    "<h1> repeated": repeated("<h1>x"),
    "<html lang=..> repeated": repeated("<html lang=a>"),
    "<body a=..> repeated": repeated("<body a{i}=1>"),
    "sections of many classes": repeated('<section class="a b c d e f g h content"><p>A text, which has a sentence. Yes.</section>'),
    "one class of share-share-": repeated("share-", '<div class="', '">x</div>'),
    "one class of comment hyphens": repeated("-article-", '<div class="', '">x</div>'),
    "a page of blanks": repeated(" "),
    "a page of tabs and newlines in a paragraph": repeated("\t\n", "<p>a", "b</p>"),
    "a page of one word": repeated("a"),
    "<ruby><rt> repeated": repeated("<ruby>a<rt>b"),
    "<dialog> and <details> nested": nested("<details><dialog>"),
    "<body><template><frameset> mixed": repeated("<template><frameset></template><body>"),
    "<marquee><applet><object> nested": repeated("<marquee><applet><object><p>"),
}  # fmt: skip
_RESILIPARSE = ("many attributes in one tag", "<a><div> repeated", "<div> nested", "<div> never closed", "<table> nested",
                "<b><i> unclosed in paragraphs", "< repeated", "many classes on one tag", "<span> nested")  # fmt: skip
_TRAFILATURA = (
    "<p> of no-break spaces",
    "<br> repeated",
    "a page of one word",
    "<h1> repeated",
    "<a href=x>text repeated",
)
PAGES = [
    *(Shape(name, "extract", make) for name, make in _PAGES.items()),
    *(Shape(name, "extract:resiliparse", _PAGES[name]) for name in _RESILIPARSE),
    *(Shape(name, "extract:trafilatura", _PAGES[name]) for name in _TRAFILATURA),
]

# -- texts ------------------------------------------------------------------------------------------------------------

_PII: dict[str, Callable[[int], str]] = {
    "1.2.3.4 repeated": repeated("1.2.3.4 "),
    "different IPv4 addresses": lambda n: " ".join(f"{i % 223 + 1}.{i // 7 % 256}.{i % 251}.{i % 13}" for i in range(n // 12)),
    "IPv4 addresses a line": lambda n: "\n".join(f"{i % 223 + 1}.{i // 7 % 256}.{i % 251}.{i % 13}" for i in range(n // 12)),
    ": repeated": repeated(":"),
    ":: repeated": repeated("::1 "),
    "hexadecimal and colons": repeated("ab:"),
    "dots and digits in one chunk": repeated("1."),
    "@ repeated": repeated("@"),
    "a@ repeated": repeated("a@"),
    "a.@a. repeated": repeated("a.@a."),
    "a letter, then @": repeated("a", "", "@b.c"),
    "one address of many labels": repeated("a.", "a@"),
    "mail addresses": repeated("user{i}@host{i}.org "),
    "digits": repeated("1"),
    "digits and blanks": repeated("1 "),
    "digits and hyphens": repeated("1-"),
    "13 digits each": lambda n: " ".join(f"{4_000_000_000_000 + i * 7919}" for i in range(n // 14)),
    "16 digits in fours": lambda n: " ".join(f"4{i % 1000:03d} {i * 7 % 10000:04d} {i * 13 % 10000:04d} 0001" for i in range(n // 20)),
    "decimal fractions": lambda n: " ".join(f"{i * 7919 % 100000 / 1000:.3f}" for i in range(n // 7)),
    "telephone numbers": lambda n: "\n".join(f"+1 212 555 {i % 10000:04d}" for i in range(n // 16)),
    "different telephone numbers in one line": lambda n: " ".join(f"(0{i % 89 + 10}) {i * 7919 % 10**7}" for i in range(n // 14)),
    "+ repeated": repeated("+"),
    "( repeated": repeated("("),
    "(1 repeated": repeated("(1"),
    "plus signs and digits": repeated("+1 "),
    "1x1 repeated": repeated("1x1"),
    "ext. 1 repeated": repeated("1234 ext. 1 "),
    "numbers and #": repeated("1234567#1 "),
    "dates": lambda n: " ".join(f"{1900 + i % 120}-{i % 12 + 1:02d}-{i % 28 + 1:02d}" for i in range(n // 11)),
    "full-width digits": repeated("１"),
    "Arabic digits and blanks": repeated("٣٤٥٦ "),
    "IBAN-like": lambda n: " ".join(f"DE{i % 90 + 10} 3704 0044 {i % 10000:04d}" for i in range(n // 20)),
    "GB82 repeated": repeated("GB82"),
    "two letters, two digits": repeated("ab12 "),
    "SSN-like": lambda n: " ".join(f"{i % 800 + 100:03d}-{i % 90 + 10}-{i % 9000 + 1000}" for i in range(n // 12)),
    "123.45.6789 in one chunk": repeated("123.45.6789."),
    "dots and hyphens and digits": repeated("1.-"),
    "sport results": lambda n: " ".join(f"{i % 10}-{i // 3 % 10} ({i % 90 + 10}) {1950 + i % 70}-{i % 90 + 10}" for i in range(n // 22)),
    "hexadecimal dump": lambda n: "\n".join(f"{i * 2654435761 % 2**32:08x}: {i * 40503 % 65536:04x} {i * 31 % 65536:04x}" for i in range(n // 20)),
}  # fmt: skip
_URLS: dict[str, Callable[[int], str]] = {
    "dots": repeated(".", "http://", "/"),
    "labels": repeated("a.", "http://", "org/"),
    "slashes and dots": repeated("/..", "http://a.org"),
    "parameters": repeated("&a{i}=1", "http://a.org/?"),
    "percent signs": repeated("%41", "http://a.org/"),
    "@ signs": repeated("@", "http://"),
    "brackets": repeated("[", "http://"),
    "letters of a banned word": repeated("xx", "http://a.org/"),
}
_TEXTS: dict[str, Callable[[int], str]] = {
    "blanks": repeated(" "),
    "newlines": repeated("\n"),
    "one word": repeated("a"),
    "dots": repeated("."),
    "dots and letters": repeated("a."),
    "e.g.e.g.": repeated("e.g."),
    "host name and brackets": repeated("]", "a.b", ""),
    "brackets around a host name": lambda n: "(" * (n // 2) + "a.bc" + ")" * (n // 2),
    "quotation marks around a host name": lambda n: '"' * (n // 2) + "a.bc!" + "'" * (n // 2),
    "dotted chunk and question marks": repeated("?", "docs.python.org/a", ""),
    "n't n't": repeated("n't"),
    "'s's's": repeated("'s"),
    "hyphens": repeated("a-"),
    "citations": repeated("[1]"),
    "[ and digits": repeated("[1"),
    "[[[[": repeated("["),
    "digits in a bracket": repeated("1", "[", "x."),
    "[edit repeated": repeated("[edi"),
    "javascrip": repeated("javascrip "),
    "Han": repeated("漢"),
    "Thai": repeated("กขคง"),
    "kana": repeated("かカ"),
    "words of one letter": repeated("a b "),
    "a line repeated": repeated("A line of a text, which is repeated.\n"),
    "lines of one letter": repeated("a\n"),
    "paragraph ends": repeated("a\n\n"),
    "carriage returns": repeated("\r"),
    "sentence ends": repeated("a. "),
    "! and ?": repeated("?! "),
    "combining marks": repeated("\u0301", "a"),
    "ﷺ, of 18 letters": repeated("ﷺ"),
    "İ, longer in lower case": repeated("İ"),
    "underscores": repeated("_"),
    "numbers": repeated("{i} "),
    "labels of fastText": repeated("__label__a "),
    "10^6 different words": repeated("w{i} "),
}
_STEPS = {
    "heuristics": tuple(_TEXTS),
    "c4_line_filter": ("blanks", "newlines", "one word", "citations", "[ and digits", "[[[[", "[edit repeated", "digits in a bracket",
                       "javascrip", "lines of one letter", "carriage returns"),
    "language": ("one word", "newlines", "blanks", "Han", "10^6 different words", "labels of fastText"),
    "classifier": ("labels of fastText", "one word"),
    "toxicity": ("one word", "sentence ends", "! and ?", "newlines", "a line repeated", "İ, longer in lower case"),
    "perplexity": ("one word", "newlines", "lines of one letter", "dots", "Han", "10^6 different words"),
    "decontaminate": ("the eval item repeated", "the eval item's words in turn", "one word", "words of one letter"),
    "exact_dedup": ("combining marks", "ﷺ, of 18 letters", "underscores", "İ, longer in lower case"),
    "line_dedup": ("newlines", "lines of one letter", "paragraph ends", "ﷺ, of 18 letters", "a line repeated", "one word"),
    "minhash": ("one word", "words of one letter", "10^6 different words", "Han", "combining marks"),
    "tokenizer": ("one word", "blanks", "newlines", "numbers", "dots", "Han", "underscores", "10^6 different words",
                  "ﷺ, of 18 letters"),
    "rule": ("one word", "blanks", "dots and letters"),
    "clean_text": ("combining marks", "ﷺ, of 18 letters"),
}  # fmt: skip
EVAL_ITEM = "the question of an evaluation set that has thirteen words and then a few more words"
_TEXTS |= {
    "the eval item repeated": repeated(EVAL_ITEM + ". "),
    "the eval item's words in turn": repeated(EVAL_ITEM.rpartition(" ")[0] + " "),
}
TEXTS = [
    *(Shape(name, "pii", make) for name, make in _PII.items()),
    *(Shape(name, "pii:whole", _PII[name]) for name in ("a letter, then @", "1.2.3.4 repeated", "digits", "a@ repeated")),
    *(Shape(name, "pii:scrub", make) for name, make in {
        "percent signs": repeated("%41", "http://a.org/?b="),
        "JSON of numbers": lambda n: json.dumps({"a": list(range(n // 7))}),
        "JSON of equal keys after masking": lambda n: json.dumps({f"u{i}@python.org": 1 for i in range(n // 20)}),
        "backslashes": repeated("\\"),
        "a long run of percent-encoded bytes": repeated("%E2%82"),
    }.items()),
    *(Shape(name, "urls", make) for name, make in _URLS.items()),
    *(Shape(name, "url_dedup", make) for name, make in _URLS.items()),
    *(Shape(name, step, _TEXTS[name]) for step, names in _STEPS.items() for name in names),
]  # fmt: skip

SHAPES = [*FILES, *PAGES, *TEXTS]
assert len({(s.target, s.name) for s in SHAPES}) == len(SHAPES)
