"""JSON Lines as documents: one line, one record, whatever is wrong with it.

A line that is no JSON object, or has no text, is a drop that says so, and the next line is read. Invalid UTF-8 and lone
surrogate escapes become U+FFFD, so that a document is not lost for one bad character; a byte order mark and CR before
LF are passed over; blank lines are no records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Any

from curation import record
from curation.read.rows import Keys, Row, meta_json, parse_date, source
from curation.read.stream import Stream, compression
from curation.step import Piece, RecordError, UnreadableFile

MAX_LINE = 1 << 28  # 256 MiB: a longer line is a drop, and never in memory
_FIELDS_SHOWN = 8


@dataclass(frozen=True)
class Columns:
    """Which field or column is what. `id` empty: the place in the file is the key."""

    text: str
    id: str
    url: str
    date: str


def rows(file: IO[bytes], piece: Piece, collection: str, columns: Columns, html: bool) -> Iterator[Row]:
    """The rows of a file or of a byte range of a plain one: a line belongs to the range that its first byte is in."""
    start = piece.start or 0
    stream = _open(file, piece, start)
    stop = piece.size if piece.stop is None else piece.stop
    keys, number = Keys((piece.extra or {}).get("seen")), -1
    while True:
        stream.release()
        at = stream.position
        if not stream.compressed and at >= stop:
            return
        line = stream.readline(MAX_LINE)
        if stream.damage and not line.endswith(b"\n"):
            yield from _damaged(stream, piece, collection, at, number + 1)
            return
        if not line:
            return
        number += 1
        problem = "" if len(line) < MAX_LINE or line.endswith(b"\n") else f"line longer than {MAX_LINE} bytes"
        while problem and not line.endswith(b"\n") and line:
            line = stream.readline(1 << 20)
            stream.release()
        if at == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not problem and not line.strip():
            continue
        where = _where(stream, piece, at, number)
        yield _row(line, problem, where, str(at), collection, piece.path, columns, keys, html)


def original(file: IO[bytes], where: Mapping[str, Any]) -> bytes:
    """A line as stored, without its end."""
    if where["offset"] is not None:
        file.seek(where["offset"])
        return file.read(where["length"]).rstrip(b"\r\n")
    stream = Stream(file)
    for _ in range(where["row"]):
        stream.readline(MAX_LINE)
        stream.release()
    return stream.readline(MAX_LINE).rstrip(b"\r\n")


def cut(file: IO[bytes], piece: Piece, target: int) -> list[Piece]:
    """Byte ranges of about `target` bytes of a plain file; the file whole if it is compressed."""
    if compression(file.read(8)) or piece.size < 2 * target:
        return [piece]
    count = max(1, piece.size // target)
    bounds = [piece.size * i // count for i in range(count + 1)]
    return [Piece(piece.path, piece.size, piece.version, a, b) for a, b in pairwise(bounds)]


def _open(file: IO[bytes], piece: Piece, start: int) -> Stream:
    """A stream at the first line that begins at or after `start`. It may read past the range: the last line does."""
    head = file.read(4)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableFile(piece.path, "in UTF-16; JSON Lines are UTF-8", 0, piece.size)
    if not start:
        return Stream(file)
    stream = Stream(file, start=start - 1, base=start - 1)
    while (line := stream.readline(1 << 20)) and not line.endswith(b"\n"):
        stream.release()  # the middle of a line that began in an earlier range
    return stream


def _where(stream: Stream, piece: Piece, at: int, number: int) -> dict[str, Any]:
    if stream.compressed:  # a line inside compressed data has a number, and no bytes of its own
        return source(piece.path, "jsonl", None, None, number)
    return source(piece.path, "jsonl", at, stream.position - at)


def _damaged(stream: Stream, piece: Piece, collection: str, at: int, number: int) -> Iterator[Row]:
    """The end of a broken compressed file: a line cut off by the end is a record; behind an error there may be many."""
    damage = stream.damage
    assert damage is not None
    if not damage.truncated:
        raise UnreadableFile(piece.path, damage.reason, damage.stored, piece.size - damage.stored)
    where = source(piece.path, "jsonl", None, None, number)
    yield Row(record.doc_id(collection, piece.path, f"lost@{at}"), where, drop=("unreadable", damage.reason))


def _row(
    line: bytes,
    problem: str,
    where: dict[str, Any],
    place: str,
    collection: str,
    path: str,
    columns: Columns,
    keys: Keys,
    html: bool,
) -> Row:
    try:
        if problem:
            raise RecordError(problem)
        value = parse(line)
    except RecordError as error:
        return Row(record.doc_id(collection, path, place), where, drop=("unreadable", str(error)))
    return from_fields(value, where, place, collection, path, columns, keys, html, len(line))


def from_fields(
    value: dict[str, Any],
    where: dict[str, Any],
    place: str,
    collection: str,
    path: str,
    columns: Columns,
    keys: Keys,
    html: bool,
    size: int | None,
) -> Row:
    """A row from the fields of one record, whatever format they came in. `place` is its key where it has no id."""
    key = value.pop(columns.id, None) if columns.id else None
    row = Row(record.doc_id(collection, path, place if key in (None, "") else keys.unique(_key(key))), where)
    if key not in (None, ""):
        value = {columns.id: key, **value}  # the id is not said anywhere else
    row.mime, row.charset, row.bytes = "text/html" if html else "text/plain", "utf-8", size
    url = value.pop(columns.url, None) if columns.url else None
    row.url = url if isinstance(url, str) else None
    if columns.date and (date := parse_date(value.get(columns.date))):
        row.date = date
        del value[columns.date]
    missing = columns.text not in value
    text = value.pop(columns.text, None)
    if missing:
        names = ", ".join(sorted(map(str, value))[:_FIELDS_SHOWN])
        row.drop = ("unreadable", f"no field {columns.text!r}; it has {names or 'none'}")
    elif text is None:
        row.drop = ("empty", "null")
    elif not isinstance(text, str):
        row.drop = ("unreadable", f"field {columns.text!r} is no string but {type(text).__name__}")
    else:
        row.text = text
    row.meta = meta_json(value)
    return row


def _key(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def parse(line: bytes) -> dict[str, Any]:
    """One JSON object. Raises RecordError."""
    try:
        value = json.loads(line.decode("utf-8", "replace"), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise RecordError(
            f"no JSON: {error}" if not isinstance(error, RecursionError) else "nested too deep"
        ) from error
    if not isinstance(value, dict):
        raise RecordError(f"no JSON object but {type(value).__name__}")
    return value
