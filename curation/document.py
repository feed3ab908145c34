"""Defines the document: one Arrow schema from the first step to the last, and the document id.

A document is a row of `BASE`. Steps add a struct column under their own name and never rename or reuse one. A
document's id is a hash of *where it was found* (collection, path, record key), not of its text, so the same crawl read
twice has the same ids, and two copies of one text have two.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import xxhash

if TYPE_CHECKING:
    import numpy.typing as npt

SOURCE = pa.struct(
    [
        ("file", pa.string()),  # path below the source's root
        ("kind", pa.string()),  # warc, jsonl, parquet, arrow, text, ...
        ("offset", pa.int64()),  # bytes into the file as stored, null where there is a row number
        ("length", pa.int64()),  # bytes of the record as stored
        ("row", pa.int64()),  # row number in Parquet and Arrow
    ]
)

BASE = pa.schema(
    [
        pa.field("doc_id", pa.binary(16), nullable=False),
        pa.field("text", pa.large_string()),
        pa.field("url", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("source", SOURCE),
        pa.field("date", pa.timestamp("s")),
        pa.field("meta", pa.string()),
    ]
)

# What the reader found out about a record before any step ran; in SQL: read.mime, read.status, ...
READ = pa.struct(
    [
        ("mime", pa.string()),  # "text/html", "text/plain", ...: what `text` holds before extraction
        ("charset", pa.string()),  # the charset that `text` was decoded from
        ("status", pa.int64()),  # HTTP status, null outside HTTP
        ("bytes", pa.int64()),  # bytes of the payload, decoded of transfer and content encodings
    ]
)

# A reader's own verdict: null for a document, else the rule (see `READ_RULES`) and the value that decided it. `merged`:
# the record is part of the document with this id.
DROP = pa.struct([("rule", pa.string()), ("value", pa.string())])
READ_RULES = ("unreadable", "record_type", "http_status", "mime", "empty", "merged", "licence")

READ_BATCH = pa.schema([*BASE, pa.field("read", READ), pa.field("drop", DROP)])

_SURROGATES = re.compile("[\ud800-\udfff]")
_MAX_MARKS = 64
_COMPRESSION = (".gz", ".zst", ".zstd", ".bz2", ".xz", ".lz4")


def doc_id(collection: str, path: str, key: str | bytes) -> bytes:
    """xxh3-128 of (collection, path without compression suffix, record key): 16 bytes, shown as hex.

    The parts are joined with NUL, which none of them can contain, so ("a", "bc") and ("ab", "c") differ. The
    compression suffix does not count: recompressing an archive leaves its documents' ids alone.
    """
    h = xxhash.xxh3_128(collection.encode())
    h.update(b"\0")
    h.update(strip_compression(path).encode("utf-8", "surrogateescape"))
    h.update(b"\0")
    h.update(key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key)
    return h.digest()


def string_buffers(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(bytes, n + 1 offsets) of strings as Arrow holds them, without a copy for large_string: text i is
    bytes[offsets[i]:offsets[i + 1]], UTF-8. A null is an empty text."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if texts.null_count:
        texts = texts.fill_null("")
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    n = len(texts)
    if n == 0 or offsets is None:
        return np.zeros(0, np.uint8), np.zeros(n + 1, np.int64)
    ends = np.frombuffer(offsets, np.int64, count=n + 1, offset=8 * texts.offset)
    return (np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)), ends


def text_hashes(texts: pa.Array) -> pa.Array:
    """xxh3-128 of each text's UTF-8, binary(16): the column `text_hash` beside stored texts. Null counts as empty.

    The bytes are hashed where Arrow holds them: decoding and encoding them first takes 6 times as long for 3,000 bytes
    of ASCII, and 20 times for Cyrillic.
    """
    data, offsets = string_buffers(texts)
    view = memoryview(data)  # type: ignore[arg-type,unused-ignore]  # numpy has buffers
    hashes = b"".join([xxhash.xxh3_128_digest(view[a:b]) for a, b in itertools.pairwise(offsets.tolist())])
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(hashes)])


def strip_compression(path: str) -> str:
    """`a/b.warc.gz` -> `a/b.warc`; any other path is returned as it is."""
    for suffix in _COMPRESSION:
        if path.endswith(suffix):
            return path[: -len(suffix)]
    return path


def clean_text(text: str) -> str:
    """The text as every column of text holds it: NFC, lone surrogates replaced by U+FFFD, NULs removed; of more than 64
    marks on one letter, the first 64."""
    if text.isascii():  # already NFC, and the common case for code
        return text.replace("\0", "") if "\0" in text else text
    try:
        text.encode()  # ten times as fast as looking for surrogates, which nearly no text has
    except UnicodeEncodeError:
        text = _SURROGATES.sub("\ufffd", text)
    text = text.replace("\0", "") if "\0" in text else text
    text = _without_long_runs_of_marks(text)
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def _without_long_runs_of_marks(text: str) -> str:
    """Cuts runs of combining marks to 64, because normalizing sorts each run, in quadratic time (200 kB: minutes). No
    orthography puts more than a handful on a letter; Unicode's own limit for streams is 30 (UAX #15, section 13)."""
    if len(text) <= _MAX_MARKS:
        return text
    pair, run = _mark_patterns()
    # a run of more than 64 has two of every 32nd character next to each other
    return run.sub(r"\1", text) if pair.search(text[::32]) else text


@functools.cache
def _mark_patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Two marks; a run of more than 64 of them, the first 64 as a group. Marks are what normalizing may reorder."""
    codes = [code for code in (*range(0x300, 0x20000), *range(0xE0000, 0xE0200)) if unicodedata.combining(chr(code))]
    basic = "".join(chr(code) for code in codes if code < 0x10000)  # a class of these alone is a table look-up
    others = "".join(chr(code) for code in codes if code >= 0x10000)
    mark = f"(?:[{basic}]|(?=[\U00010000-\U000e01ff])[{others}])"
    return re.compile(mark + "{2}"), re.compile(f"({mark}{{{_MAX_MARKS}}}){mark}+")


def hex_id(value: bytes) -> str:
    """A doc_id as people see it: 32 hexadecimal digits."""
    return value.hex()


def with_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """The batch with `column` under `name`: in the place of the column of that name, else appended."""
    index = batch.schema.get_field_index(name)
    field = pa.field(name, column.type)
    if index < 0:
        return batch.append_column(field, column)
    return batch.set_column(index, field, column)
