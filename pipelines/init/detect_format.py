"""Detects the format of a file: its reader, and for tables the fields of text, URL and date.

File names are unreliable: crawls are full of `.txt` files that are JSON Lines and `.gz` files that are not gzip. So the
first bytes decide, and for tables the values of the first records.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation import document, storage
from curation.input_files import InputFile
from pipelines.init.text_forms import (
    TextTable,
    documents_of,
    holds_code,
    holds_latex,
    kind_of_wiki_dump,
    starts_as_gutenberg,
    text_table,
)

HEAD = 1 << 16  # decompressed bytes at the start of a file that are looked at
RECORDS = 100  # records of a table whose values are looked at

_TEXT = ("text", "content", "body", "raw_content", "page_text", "article", "document", "story", "markdown", "passage")
_URL = ("url", "uri", "link", "source_url", "page_url", "permalink", "warc_target_uri", "href")
_DATE = ("date", "timestamp", "crawl_date", "published", "created", "created_at", "published_at", "time", "warc_date")
_ID = ("id", "doc_id", "uuid", "_id", "key", "guid", "document_id")
_CODE = (
    *(".py", ".c", ".h", ".cc", ".cpp", ".hpp", ".java", ".js", ".ts", ".tsx", ".jsx", ".go", ".rs", ".rb", ".php"),
    *(".cs", ".swift", ".kt", ".scala", ".sh", ".sql", ".r", ".jl", ".lua", ".pl", ".hs", ".ml", ".el", ".lisp"),
    *(".clj", ".m", ".f90", ".zig", ".vue", ".css", ".cmake", ".toml"),
)
# The tables of a Stack Exchange dump; without their declaration of XML, too.
_DUMP = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^<>]*\?>\s*)?"
    rb"<(posts|badges|comments|posthistory|postlinks|tags|users|votes)>\s*<row\s"
)
_LINK = re.compile(r"https?://\S+\Z")
_TAGS = re.compile(r"<(?:html|body|div|p|a|span|head|table)[\s>]", re.I)


@dataclass(frozen=True)
class FileFormat:
    """What one source needs to read files: reader, format, mix domain, fields."""

    read: str  # warc, text, gutenberg, epub, latex, code, stackexchange or wikipedia
    form: str  # warc, stackexchange, wikipedia, gutenberg, epub, latex, code, jsonl, json, csv, tsv, parquet, …, text
    domain: str
    html: bool = False
    text: str = "text"
    url: str = "url"
    date: str = "date"
    id: str = ""
    delimiter: str = ""  # of CSV, where it is not the usual one
    columns: tuple[str, ...] = ()  # names made up for a CSV file without a header
    document: str = "file"  # of plain text
    marker: str = ""


def detect_format(root: str, file: InputFile) -> FileFormat | str:
    """The format of a file, or the reason why it cannot be read as text."""
    from curation.sources.code.stack_table import table_has_code
    from curation.sources.compressed_stream import CompressedStream
    from curation.sources.text import json_values
    from curation.sources.warc.warc import detect_binary_type
    from curation.sources.warc.warc_records import archive_format

    if not file.size:
        return "empty"
    suffix = posixpath.splitext(document.strip_compression(file.path))[1].lower()
    try:
        with storage.open_input(root, file.path) as stored:
            first = stored.read(8)
            stored.seek(0)
            if first[:4] == b"PAR1":
                if table_has_code(stored):
                    return FileFormat("code", "code", "code")
                return _table(_parquet_rows(stored), "parquet")
            if first[:6] == b"ARROW1" or first[:4] == b"\xff\xff\xff\xff":
                return _table(_arrow_rows(stored), "arrow")
            stream = CompressedStream(stored)
            head = stream.peek(HEAD)
    except (OSError, ValueError) as error:
        return f"cannot be read ({str(error).partition(chr(10))[0]})"
    if archive_format(head[:1024]):
        return FileFormat("warc", "warc", "web", html=True)
    if not head.strip():
        return "empty"
    if holds_code(head):
        return FileFormat("code", "code", "code")
    if head[:4] == b"PK\x03\x04" and (b"application/epub+zip" in head[:128] or suffix == ".epub"):
        return FileFormat("epub", "epub", "books", html=True)
    if suffix in (".tex", ".ltx", ".latex") or holds_latex(head):
        return FileFormat("latex", "latex", "papers")
    if binary := detect_binary_type(head):
        return binary
    if table := _DUMP.match(head):
        if table[1] != b"posts":
            return "another table than Posts.xml of a Stack Exchange dump"
        return FileFormat("stackexchange", "stackexchange", "stackexchange", html=True)
    if (other := kind_of_wiki_dump(head)) is not None:
        return other or FileFormat("wikipedia", "wikipedia", "wikipedia")
    if head.lstrip().startswith(b"{") and (rows := _json_rows(head)) is not None:
        return _table(rows, "jsonl")
    if (suffix == ".json" or head.lstrip().startswith(b"[{")) and (rows := json_values.first_records(head)):
        return _table(rows[:RECORDS], "json")
    if (found := text_table(head, suffix)) is not None:
        return _of_text_table(found)
    if suffix in (".json", ".csv", ".tsv"):
        return f"{suffix[1:]} without records"
    text = head.decode("utf-8", "replace")
    if suffix in ("", ".txt") and starts_as_gutenberg(text):
        return FileFormat("gutenberg", "gutenberg", "books")
    html = suffix in (".html", ".htm", ".xhtml") or len(_TAGS.findall(text[:4096])) > 3
    if html:
        return FileFormat("text", "text", "web", html=True)
    if suffix in _CODE:
        return FileFormat("code", "code", "code")
    return FileFormat("text", "text", "text", **documents_of(text, file.size))


def _json_rows(head: bytes) -> list[dict[str, Any]] | None:
    """The first records of a JSON Lines file; None for anything else."""
    lines = head.splitlines()
    whole = lines[:-1] if len(head) >= HEAD and len(lines) > 1 else lines
    rows: list[dict[str, Any]] = []
    for line in whole[:RECORDS]:
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError:
                if not rows:
                    return None
                continue
            if isinstance(value, dict):
                rows.append(value)
    return rows or None


def _of_text_table(found: TextTable) -> FileFormat | str:
    form = _table(found.records[:RECORDS], found.form)
    if isinstance(form, str):
        return form
    return dataclasses.replace(form, delimiter=found.delimiter, columns=found.columns)


def _parquet_rows(stored: Any) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(stored).iter_batches(RECORDS):
        return list(batch.to_pylist())
    return []


def _arrow_rows(stored: Any) -> list[dict[str, Any]]:
    try:
        batch = pa.ipc.open_file(stored).get_batch(0)
    except pa.ArrowInvalid:
        stored.seek(0)
        batch = pa.ipc.open_stream(stored).read_next_batch()
    return list(batch.slice(0, RECORDS).to_pylist())


def _table(rows: Sequence[dict[str, Any]], form: str) -> FileFormat | str:
    """The fields of text, URL, date and id in these records."""
    rows = [_flat(row) for row in rows]
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    values = {n: [r[n] for r in rows if r.get(n) is not None] for n in names}
    strings = {n: v for n, v in values.items() if v and all(isinstance(x, str) for x in v)}
    prose = {n: v for n, v in strings.items() if not _is_url(v)}
    text = max(prose, key=lambda n: (_text_score(prose[n]) * (3 if n.lower() in _TEXT else 1), n), default=None)
    if text is None or not _text_score(prose[text]):
        return f"{form} without a text field (fields: {', '.join(names[:8]) or 'none'})"
    urls = [n for n, v in strings.items() if n != text and _is_url(v)]
    dates = [n for n, v in values.items() if n not in (text, *urls) and _is_date(n, v)]
    ids = [n for n, v in values.items() if n.lower() in _ID and len(v) == len(rows) == len({str(x) for x in v})]
    html = sum(len(_TAGS.findall(v[:4096])) > 2 for v in prose[text]) * 2 > len(prose[text])
    return FileFormat(
        *("text", form, "web" if html or urls else "text", html, text),
        url=_best(urls, _URL) or "url",
        date=_best(dates, _DATE) or "date",
        id=_best(ids, _ID),
    )


def _flat(row: Mapping[str, Any], depth: int = 4) -> dict[str, Any]:
    """The record with the fields inside its fields under their paths: `article.body`."""
    flat = dict[str, Any]()
    for name, value in row.items():
        if isinstance(value, dict) and depth:
            flat |= {f"{name}.{inner}": v for inner, v in _flat(value, depth - 1).items()}
        else:
            flat[name] = value
    return flat


def _text_score(values: Sequence[str]) -> float:
    """How much values look like text: the mean length, counting values without spaces as 0."""
    spaced = [len(v) for v in values if any(c.isspace() for c in v.strip()) or not v.isascii()]
    return sum(spaced) / len(values)


def _is_url(values: Sequence[str]) -> bool:
    return sum(bool(_LINK.match(v.strip())) for v in values) * 2 > len(values)


def _is_date(name: str, values: Sequence[Any]) -> bool:
    from curation.sources.batch_builder import parse_date

    if not values or isinstance(values[0], bool):
        return False
    likely = name.lower() in _DATE or "date" in name.lower() or "time" in name.lower()
    if isinstance(values[0], (int, float)) and not likely:
        return False
    return sum(parse_date(v) is not None for v in values) * 2 > len(values)


def _best(names: Sequence[str], known: Sequence[str]) -> str:
    return min(names, key=lambda n: (known.index(n.lower()) if n.lower() in known else len(known), n), default="")
