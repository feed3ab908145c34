"""Builds Arrow batches from the records that readers produce: row type, record keys, dates, metadata.

A batch ends after the requested number of rows or 4 MiB of text, whichever comes first; rows do not depend on it.
"""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import xxhash

from curation import document

BATCH_BYTES = 1 << 22
MAX_REASON_CHARS = 4096  # long: personal data in it is scrubbed later, and half a value would not be recognized
MAX_DATE_CHARS = 64
_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?(?:[.,]\d+)?)?\s*(Z|[+-]\d\d:?\d\d)?\s*$", re.I
)
_REPEAT = re.compile(r"#\d+\Z")
_COMPACT = re.compile(r"\d{8}(?:\d{4,10})?$")


@dataclass
class SourceRow:
    """One record as a reader parsed it. `drop` is (rule, value) for a record that is not a document."""

    doc_id: bytes
    source: dict[str, Any]
    text: str | None = None
    url: str | None = None
    date: datetime.datetime | None = None
    meta: str | None = None
    mime: str | None = None
    charset: str | None = None
    status: int | None = None
    bytes: int | None = None
    drop: tuple[str, str] | None = None

    def finalize(self) -> SourceRow:
        """Cleans the text and the URL; a row without text gets a drop reason. Returns itself."""
        if self.drop is None:
            self.text = document.clean_text(self.text or "")
            if not self.text or self.text.isspace():
                self.drop = ("empty", "")
        if self.drop is not None:
            self.text = None
            self.drop = (self.drop[0], clean_string(self.drop[1])[:MAX_REASON_CHARS])
        self.url = clean_string(self.url) if self.url else None
        return self


class RecordKeys:
    """Makes record keys unique within a file: the second `x` is `x#2`. `seen` holds the counts of earlier splits.

    No two records share a key whatever their ids are: an id that looks like a repeat (`x#2`) always gets a count
    (`x#2#1`), one that looks like a position (`@5`, see `position_key`) a prefix (`id:@5`).
    """

    def __init__(self, seen: Mapping[str, int] | None = None) -> None:
        self.counts = dict(seen or {})

    def unique(self, key: str) -> str:
        mark = hash_key(key)
        count = self.counts[mark] = self.counts.get(mark, 0) + 1
        marked = f"id:{key}" if key.startswith(("@", "lost@", "id:")) else key
        return marked if count == 1 and not _REPEAT.search(key) else f"{marked}#{count}"


def hash_key(key: str) -> str:
    """Hash of a record key, by which repeats are counted: counts are stored, and a key may be any text of a crawl."""
    return xxhash.xxh3_128_hexdigest(key.encode("utf-8", "surrogateescape"))


def position_key(number: int) -> str:
    """The key of a record without an id: its decompressed offset, or its row."""
    return f"@{number}"


def clean_string(value: str) -> str:
    """A short string (URL, reason) as valid UTF-8: see `document.clean_text`."""
    return document.clean_text(value)


def provenance(file: str, kind: str, offset: int | None, length: int | None, row: int | None = None) -> dict[str, Any]:
    """Where a record is stored: the struct `document.SOURCE`."""
    return {"file": file, "kind": kind, "offset": offset, "length": length, "row": row}


def meta_json(fields: Mapping[str, Any]) -> str | None:
    """Canonical JSON of a record's other fields; None for none."""
    if not fields:
        return None
    return clean_string(json.dumps(_plain(fields), sort_keys=True, ensure_ascii=False, separators=(",", ":")))


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: no NaN or dates, and of bytes (an image) only those that are text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def parse_date(value: Any) -> datetime.datetime | None:
    """A date in UTC without zone from ISO 8601 text, ARC's digits, seconds since 1970 or a datetime; else None."""
    try:
        if isinstance(value, datetime.datetime):
            return _utc(value)
        if isinstance(value, datetime.date):
            return datetime.datetime(value.year, value.month, value.day)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            # larger numbers (past the year 5138) are milliseconds
            seconds = value / 1000 if abs(value) > 1e11 else value
            return datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=int(seconds))
        if not isinstance(value, str):
            return None
        value = value.strip() if len(value) <= MAX_DATE_CHARS else ""
        if _COMPACT.match(value):
            digits = value[:14].ljust(14, "0")
            return datetime.datetime.strptime(digits, "%Y%m%d%H%M%S")
        match = _DATE.match(value)
        if not match:
            return None
        y, mo, d, h, mi, s, zone = match.groups()
        when = datetime.datetime(int(y), int(mo), int(d), int(h or 0), int(mi or 0), min(int(s or 0), 59))
        if zone and zone.upper() != "Z":
            sign = -1 if zone[0] == "+" else 1
            when += sign * datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        return when
    except (ValueError, OverflowError):
        return None


def _utc(value: datetime.datetime) -> datetime.datetime:
    if value.tzinfo is not None:
        value = value.astimezone(datetime.UTC).replace(tzinfo=None)
    return value.replace(microsecond=0)


def batch_rows(rows: Iterator[SourceRow], domain: str, size: int) -> Iterator[pa.RecordBatch]:
    """Groups rows into batches of `document.READ_BATCH`. Rows before an error of `rows` are yielded before it is
    raised."""
    pending: list[SourceRow] = []
    weight = 0
    try:
        for row in rows:
            pending.append(row.finalize())
            weight += len(row.text or "") + len(row.meta or "")
            if len(pending) >= size or weight >= BATCH_BYTES:
                yield _record_batch(pending, domain)
                pending, weight = [], 0
    except Exception:
        if pending:
            yield _record_batch(pending, domain)
        raise
    if pending:
        yield _record_batch(pending, domain)


def _record_batch(rows: list[SourceRow], domain: str) -> pa.RecordBatch:
    read = [{"mime": r.mime, "charset": r.charset, "status": r.status, "bytes": r.bytes} for r in rows]
    drop = [None if r.drop is None else {"rule": r.drop[0], "value": r.drop[1]} for r in rows]
    columns: list[list[Any]] = [
        [r.doc_id for r in rows],
        [r.text for r in rows],
        [r.url for r in rows],
        [domain] * len(rows),
        [r.source for r in rows],
        [r.date for r in rows],
        [r.meta for r in rows],
        read,
        drop,
    ]
    fields = document.READ_BATCH
    arrays = [pa.array(values, type=f.type) for values, f in zip(columns, fields, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=fields)
