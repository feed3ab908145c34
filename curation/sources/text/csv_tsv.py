"""Reads CSV and TSV files: every row below the header is a record, and a bad row becomes a drop with its reason.

Rows are those of RFC 4180: a field in quotes may hold delimiters, line ends and doubled quotes. Real files break the
rules, and one stray quote must not take the rest of the file with it. So a row that these rules do not fit (text after
a closing quote, more fields than the header) is taken as one line: with quotes inside its fields, else with its quotes
as they are, else it is a drop. (Python's csv gives no byte offsets, and reads on to the next quote wherever it is.)
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

from curation.sources import charset
from curation.sources.batch_builder import SourceRow, meta_json, position_key, provenance
from curation.sources.compressed_stream import CompressedStream
from curation.sources.limits import DropLimit, ScanLimit
from curation.sources.text.field_mapping import FieldMapping
from curation.sources.text.jsonl import row_for_damage
from curation.step import InputSplit, RecordError, UnreadableFile

MAX_ROW = 1 << 28  # 256 MiB: a longer row becomes a drop and is never held in memory
_HEAD = 1 << 16  # bytes that the charset of a file that is not UTF-8 is found from
_NO_LINE_END = re.compile(rb"[^\r\n]")


@dataclass
class _Row:
    position: int  # in the decompressed file
    size: int
    values: list[bytes]
    problem: str = ""
    in_vain: int = 0  # bytes below its line that it seemed to have


@dataclass(frozen=True)
class Dialect:
    """`delimiter`: between fields. `names`: of the columns; empty: the first row has them."""

    delimiter: bytes
    names: Sequence[str] = ()


@dataclass
class _Table:
    """An open file, at a row."""

    stream: CompressedStream
    delimiter: bytes
    names: Sequence[str]
    charset: str | None  # of bytes that are no UTF-8

    def record(self, row: _Row) -> dict[str, str]:
        return dict(zip(self.names, (_decode(value, self.charset) for value in row.values), strict=True))

    def rows(self, piece: InputSplit, stop: int | None) -> Iterator[_Row]:
        """The rows that begin before `stop`."""
        stream = self.stream
        begin, in_vain = stream.position, ScanLimit(piece.path, piece.size)
        while True:
            stream.skip_bytes(_NO_LINE_END)
            stream.discard_consumed()
            if (stop is not None and stream.position >= stop) or not stream.fill(1):
                return
            row = _next_row(stream, self.delimiter, len(self.names))
            yield row
            in_vain.count(row.in_vain, stream.position - begin, _stored_position(stream))


def read_rows(file: IO[bytes], piece: InputSplit, fields: FieldMapping, dialect: Dialect) -> Iterator[SourceRow]:
    """Rows of a file, or of a range that `index_file` made. Raises UnreadableFile for a file without a text column."""
    table = _open(file, piece, dialect)
    if reason := fields.missing_text(table.names):
        raise UnreadableFile(piece.path, reason, 0, piece.size)
    stream, number = table.stream, -1
    start, drops = stream.position, DropLimit(piece.path, piece.size)
    for number, found in enumerate(table.rows(piece, _stop(table, piece))):
        if stream.damage and stream.compressed:
            yield row_for_damage(stream, piece, fields, "csv", found.position, number)
            return
        # A row inside compressed data is located by its number, not by bytes.
        spot = (None, None, number) if stream.compressed else (found.position, found.size, None)
        where, key = provenance(piece.path, "csv", *spot), position_key(found.position)
        if found.problem:
            yield fields.unreadable_row(where, key, found.problem)
            drops.count(found.position + found.size - start, _stored_position(stream))
        else:
            yield fields.to_row(table.record(found), where, key, found.size)
    if stream.damage:
        yield row_for_damage(stream, piece, fields, "csv", stream.position, number + 1)


def first_rows(head: bytes, delimiter: str) -> list[list[str]]:
    """The rows that the beginning of a file holds in full, the header too; [] where their fields differ in number."""
    end = head.rfind(b"\n") + 1 or len(head)
    piece = InputSplit("", end, "")
    try:
        table = _open(io.BytesIO(head[:end]), piece, Dialect(delimiter.encode()))
    except UnreadableFile:
        return []
    rows = list(table.rows(piece, end))
    bad = sum(bool(row.problem) for row in rows[:-1])  # the last may be cut off
    if bad * 20 > len(rows):
        return []
    return [list(table.names), *(list(table.record(row).values()) for row in rows if not row.problem)]


def index_file(file: IO[bytes], piece: InputSplit, target: int, dialect: Dialect) -> list[InputSplit]:
    """Splits an uncompressed file into ranges of about `target` bytes that begin at rows. Reads all of it: whether a
    line end is inside quotes is known only from the start of its row."""
    table = _open(file, piece, dialect)
    if table.stream.compressed:
        return [piece]
    bounds = [0]
    for row in table.rows(piece, piece.size):
        if row.position - bounds[-1] >= target:
            bounds.append(row.position)
    bounds.append(piece.size)
    return [InputSplit(piece.path, piece.size, piece.version, a, b) for a, b in pairwise(bounds)]


def read_original(file: IO[bytes], where: Mapping[str, object], dialect: Dialect) -> bytes:
    """A row as JSON."""
    offset, number = where["offset"], where["row"]
    whole = InputSplit(str(where["file"]), file.seek(0, 2), "", offset if isinstance(offset, int) else None)
    table = _open(file, whole, dialect)
    for i, row in enumerate(table.rows(whole, None)):
        if number is None or i == number:
            if row.problem:
                raise RecordError(f"{where['file']}: {row.problem}")
            return (meta_json(table.record(row)) or "{}").encode()
    raise RecordError(f"{where['file']}: no such row")


def _open(file: IO[bytes], piece: InputSplit, dialect: Dialect) -> _Table:
    stream = CompressedStream(file)
    head = stream.peek(_HEAD)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableFile(
            piece.path, "in UTF-16; tables are read in UTF-8 or a charset of single bytes", 0, piece.size
        )
    stream.read(3 if head.startswith(b"\xef\xbb\xbf") else 0)
    found = charset.decode(head, html=False).charset
    table = _Table(stream, dialect.delimiter, dialect.names, None if found == "utf-8" else found)
    if not dialect.names:
        first = next(table.rows(piece, None), None)
        if first is None:
            return table
        table.names = [_decode(name, table.charset).strip() for name in first.values]
        if first.problem or len(set(table.names)) < len(table.names):
            reason = first.problem or "two columns of the header have the same name"
            raise UnreadableFile(piece.path, f"no header: {reason}", 0, piece.size)
    if piece.start:
        table.stream = CompressedStream(file, start=piece.start, base=piece.start)
    return table


def _stop(table: _Table, piece: InputSplit) -> int | None:
    return None if table.stream.compressed else piece.size if piece.stop is None else piece.stop


def _stored_position(stream: CompressedStream) -> int:
    return stream.stored_position if stream.compressed else stream.position


def _next_row(stream: CompressedStream, delimiter: bytes, width: int) -> _Row:
    """The row that begins here. `width`: of the header; 0: any."""
    at = stream.position
    if stream.line_size(MAX_ROW) > MAX_ROW:
        while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
            stream.discard_consumed()
        return _Row(at, stream.position - at, [], f"line longer than {MAX_ROW} bytes")
    line = stream.readline(MAX_ROW)
    end = stream.position
    literal = line.rstrip(b"\r\n").split(delimiter)
    values, problem = literal, ""
    if b'"' in line:
        values, problem = _quoted_values(stream, line, delimiter, width)
        # In TSV a field that holds the delimiter is rarer than a stray quote.
        ambiguous = delimiter == b"\t" and stream.position > end and len(literal) == width
        if problem or ambiguous or (width and len(values) != width):
            in_vain = stream.position - end
            stream.seek(end)
            wanted = width or len(literal)
            readings = [_values_with_inner_quotes(line, delimiter), *([] if _is_cut(literal, delimiter) else [literal])]
            fitting = next((found for found in readings if len(found) == wanted), None)
            problem = "" if fitting else problem or _miscount(len(values), width)
            return _Row(at, end - at, fitting or [], problem, in_vain)
    elif width and len(values) != width:
        problem = _miscount(len(values), width)
    return _Row(at, stream.position - at, values, problem)


def _miscount(found: int, width: int) -> str:
    return f"{found} field{'' if found == 1 else 's'}, and the header has {width}"


def _quoted_values(stream: CompressedStream, line: bytes, delimiter: bytes, width: int) -> tuple[list[bytes], str]:
    """The values of a row that begins with this line, and why it is none. Reads further lines while a field in quotes
    goes on, and stops at the first field too many."""
    values: list[bytes] = []
    at, size = 0, len(line)
    while True:
        if width and len(values) == width:
            return values, f"more than {width} fields"
        if line[at : at + 1] != b'"':
            end = line.find(delimiter, at)
            if end < 0:
                return [*values, line[at:].rstrip(b"\r\n")], ""
            values.append(line[at:end])
            at = end + 1
            continue
        parts: list[bytes] = []
        at += 1
        while True:
            end = line.find(b'"', at)
            if end < 0:
                parts.append(line[at:])
                line, at = stream.readline(MAX_ROW), 0
                size += len(line)
                if not line or size > MAX_ROW:
                    return values, "a field in quotes does not end"
            elif line[end + 1 : end + 2] == b'"':
                parts.append(line[at : end + 1])
                at = end + 2
            else:
                parts.append(line[at:end])
                break
        values.append(b"".join(parts))
        at = end + 1
        if line[at:] in (b"", b"\n", b"\r\n"):
            return values, ""
        if line[at : at + 1] != delimiter:
            return values, "text after a closing quote"
        at += 1


def _values_with_inner_quotes(line: bytes, delimiter: bytes) -> list[bytes]:
    """The values of a row of one line whose fields may hold quotes that are not doubled: a field in quotes ends at a
    quote before a delimiter or the end of the line."""
    rest, values = line.rstrip(b"\r\n"), list[bytes]()
    while True:
        if rest.startswith(b'"'):
            end = rest.find(b'"' + delimiter, 1)
            if end < 0 and len(rest) > 1 and rest.endswith(b'"'):
                return [*values, rest[1:-1].replace(b'""', b'"')]
            if end > 0:
                values.append(rest[1:end].replace(b'""', b'"'))
                rest = rest[end + 2 :]
                continue
        value, more, rest = rest.partition(delimiter)
        values.append(value)
        if not more:
            return values


def _is_cut(literal: list[bytes], delimiter: bytes) -> bool:
    """Whether one of these fields begins with a quote and another ends with one: of CSV, parts of one in quotes."""
    opens = next((i for i, value in enumerate(literal) if value[:1] == b'"' and value[-1:] != b'"'), None)
    return delimiter != b"\t" and opens is not None and any(value[-1:] == b'"' for value in literal[opens + 1 :])


def _decode(value: bytes, declared: str | None) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return charset.decode(value, declared, html=False).text
