"""Reads JSON files that hold an array of objects, or objects that each span several lines.

The text of such a file has no mark by which a record could be found from the middle, so a scan for quotes and brackets
finds where each value ends, and `json` parses it. A value that does not parse is a drop that ends where its brackets
close, or, if they do not, before the next `}, {`. Large files are split at values that `index_file` finds.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Any

from curation.sources.batch_builder import SourceRow, position_key, provenance
from curation.sources.compressed_stream import CompressedStream
from curation.sources.limits import DropLimit, ScanLimit
from curation.sources.text.field_mapping import FieldMapping
from curation.sources.text.jsonl import parse_line, row_for_damage
from curation.step import InputSplit, RecordError, UnreadableFile

MAX_VALUE = 1 << 28  # 256 MiB: a longer value becomes a drop and is never held in memory
_MIN_WINDOW, _WINDOW = 1 << 10, 1 << 16
_MAX_BLANKS = 64  # between a value and its comma
_OVERLAP = 256  # bytes that `_NEXT` may span
_HEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[?")
_BETWEEN = re.compile(rb"[^\s,\]]")  # finds what is not between two values
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{}]', re.S)  # a string, a bracket, or a quote without its end
_SCALAR_END = re.compile(rb"[\s,\[\]{}]")
_CLOSING = {b"{": b"}", b"[": b"]"}
_AFTER = re.compile(rb"\s*(?:[,\]{]|\Z)")
_NEXT = re.compile(rb"\}\s{0,99}+,\s{0,99}+(?=\{)")


@dataclass
class _Value:
    position: int  # in the decompressed file
    size: int
    data: bytes  # empty where there is a problem
    problem: str = ""


def is_json_lines(head: bytes) -> bool:
    """Whether a file that starts like this holds a JSON object a line: its first line is one."""
    line = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    if not line.startswith(b"{"):
        return not line.startswith(b"[")
    try:
        parse_line(line)
    except RecordError:
        return line.rstrip() != b"{" and line.rstrip().endswith(b"}")
    return True


def read_rows(file: IO[bytes], piece: InputSplit, fields: FieldMapping) -> Iterator[SourceRow]:
    """Rows of a file, or of a range that `index_file` made."""
    stream = _open(file, piece)
    start, stop = piece.start or 0, piece.size if piece.stop is None else piece.stop
    drops, number = DropLimit(piece.path, piece.size), 0
    for number, value in enumerate(_values(stream, piece, stop)):
        # A value inside compressed data is located by its number, not by bytes.
        spot = (None, None, number) if stream.compressed else (value.position, value.size, None)
        where = provenance(piece.path, "json", *spot)
        if stream.damage and value.problem:
            yield row_for_damage(stream, piece, fields, "json", value.position, number)
            return
        key = position_key(value.position)
        try:
            if value.problem:
                raise RecordError(value.problem)
            row = fields.to_row(parse_line(value.data), where, key, value.size)
        except RecordError as error:
            row = fields.unreadable_row(where, key, str(error))
        yield row
        if row.drop and row.drop[0] == "unreadable":
            drops.count(value.position + value.size - start, _stored_position(stream))
    if stream.damage:
        yield row_for_damage(stream, piece, fields, "json", stream.position, number + 1)


def first_records(head: bytes) -> list[dict[str, Any]]:
    """The objects that the beginning of a file holds in full."""
    piece = InputSplit("", len(head), "")
    records = list[dict[str, Any]]()
    with contextlib.suppress(RecordError, UnreadableFile):  # the last is cut off
        for value in _values(_open(io.BytesIO(head), piece), piece, len(head)):
            records.append(parse_line(value.data))
    return records


def index_file(file: IO[bytes], piece: InputSplit, target: int) -> list[InputSplit]:
    """Splits an uncompressed file into ranges of about `target` bytes that begin at values. Reads all of it."""
    stream = _open(file, piece)
    if stream.compressed:
        return [piece]
    bounds = [0]
    for value in _values(stream, piece, piece.size):
        if value.position - bounds[-1] >= target:
            bounds.append(value.position)
    bounds.append(piece.size)
    return [InputSplit(piece.path, piece.size, piece.version, a, b) for a, b in pairwise(bounds)]


def read_original(file: IO[bytes], where: Mapping[str, Any]) -> bytes:
    """A value as stored."""
    if where["offset"] is not None:
        file.seek(where["offset"])
        return file.read(where["length"])
    whole = InputSplit(where["file"], file.seek(0, 2), "")
    for number, value in enumerate(_values(_open(file, whole), whole, whole.size)):
        if number == where["row"]:
            return value.data
    raise RecordError(f"{where['file']}: no value {where['row']}")


def _open(file: IO[bytes], piece: InputSplit) -> CompressedStream:
    start = piece.start or 0
    stream = CompressedStream(file, start=start, base=start)
    head = stream.peek(4)
    if not start and head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableFile(piece.path, "in UTF-16; JSON is read in UTF-8", 0, piece.size)
    if not start and (found := _HEAD.match(stream.peek(_WINDOW))):
        stream.read(found.end())
    return stream


def _stored_position(stream: CompressedStream) -> int:
    return stream.stored_position if stream.compressed else stream.position


def _values(stream: CompressedStream, piece: InputSplit, stop: int) -> Iterator[_Value]:
    """The values that begin before `stop`; of compressed data, all."""
    begin, in_vain, window = stream.position, ScanLimit(piece.path, piece.size), _MIN_WINDOW
    while True:
        stream.skip_bytes(_BETWEEN)
        stream.discard_consumed()
        at = stream.position
        if (not stream.compressed and at >= stop) or not stream.fill(1):
            return
        size, scanned = _value_size(stream, window)
        if size and (_AFTER.match(stream.peek(size + _MAX_BLANKS), size) or _is_json(stream.peek(size))):
            yield _Value(at, size, stream.read(size))
            window = min(_WINDOW, max(_MIN_WINDOW, 2 * size))
            continue
        window = _MIN_WINDOW
        problem = "no JSON: no comma after the value" if size else "no JSON: its brackets or quotes do not close"
        if scanned >= MAX_VALUE:
            problem = f"longer than {MAX_VALUE} bytes"
        yield _Value(at, _skip_to_next(stream), b"", problem)
        in_vain.count(scanned, stream.position - begin, _stored_position(stream))


def _value_size(stream: CompressedStream, window: int) -> tuple[int, int]:
    """(bytes up to the end of the value that begins here, bytes looked at). No size: it does not end, or not within
    MAX_VALUE bytes. `window`: bytes to look at first."""
    at, closing = 0, bytearray()  # the brackets that close those that are open
    while True:
        data = stream.peek(window)
        if data[0] not in b'{["':
            end = _SCALAR_END.search(data, 1)
            return (end.start() if end else len(data)), len(data)
        for token in _TOKEN.finditer(data, at):
            kind = token[0]
            at = token.start()
            if kind == b'"':  # its end is not in the data yet
                break
            at = token.end()
            if kind in _CLOSING:
                closing += _CLOSING[kind]
            elif kind in (b"}", b"]") and closing.pop() != kind[0]:
                return 0, at
            if not closing:
                return at, at
        else:
            at = len(data)
        if len(data) < window or window >= MAX_VALUE:
            return 0, len(data)
        window = min(2 * window, MAX_VALUE)


def _is_json(data: bytes) -> bool:
    try:
        parse_line(data)
    except RecordError:
        return False
    return True


def _skip_to_next(stream: CompressedStream) -> int:
    """Skips a value that cannot be read, up to the next `}, {`; returns its bytes."""
    begin = stream.position
    stream.read(1)
    while have := stream.fill(_WINDOW):
        if found := stream.search(_NEXT, 0, have):
            stream.read(found[1])
            break
        stream.read(have if have < _WINDOW else have - _OVERLAP)
        stream.discard_consumed()
    return stream.position - begin
