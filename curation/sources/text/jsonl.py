"""Reads JSON Lines: every line is a record, and a bad line becomes a drop with its reason.

Invalid UTF-8 and lone surrogate escapes become U+FFFD, so that a document is not lost for one bad character; a byte
order mark and CR before LF are ignored; blank lines are not records. (pyarrow.json stops at the first bad line and
gives no byte offsets, which provenance needs.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import IO, Any

from curation.sources.batch_builder import SourceRow, position_key, provenance
from curation.sources.compressed_stream import CompressedStream
from curation.sources.decoders import detect_compression
from curation.sources.limits import DropLimit
from curation.sources.text.field_mapping import FieldMapping
from curation.step import InputSplit, RecordError, UnreadableFile

MAX_LINE = 1 << 28  # 256 MiB: a longer line becomes a drop and is never held in memory
MAX_DEPTH = 200  # levels of JSON; datasets have five
_TOO_DEEP = "nested too deep"


def read_rows(file: IO[bytes], piece: InputSplit, fields: FieldMapping) -> Iterator[SourceRow]:
    """Rows of a file, or of a byte range of an uncompressed one: a line belongs to the range of its first byte."""
    stream = _open(file, piece, piece.start or 0)
    stop = piece.size if piece.stop is None else piece.stop
    number = -1
    drops = DropLimit(piece.path, stop)
    while True:
        number += stream.skip_blank_lines()
        stream.discard_consumed()
        at = stream.position
        if not stream.compressed and at >= stop:
            return
        problem = ""
        if stream.line_size(MAX_LINE) > MAX_LINE:
            problem, line = f"line longer than {MAX_LINE} bytes", b""
            while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
                stream.discard_consumed()
        else:
            line = stream.readline(MAX_LINE)
        if stream.damage and not problem and not line.endswith(b"\n"):
            yield row_for_damage(stream, piece, fields, "jsonl", at, number + 1)
            return
        if not line and not problem:
            return
        number += 1
        if not problem and not (line := line.removeprefix(b"\xef\xbb\xbf") if at == 0 else line).strip():
            continue
        # A line inside compressed data is located by its number, not by bytes.
        spot = (None, None, number) if stream.compressed else (at, stream.position - at, None)
        where = provenance(piece.path, "jsonl", *spot)
        try:
            if problem:
                raise RecordError(problem)
            row = fields.to_row(parse_line(line), where, position_key(at), len(line))
        except RecordError as error:
            row = fields.unreadable_row(where, position_key(at), str(error))
        yield row
        if row.drop and row.drop[0] == "unreadable":
            drops.count(
                stream.position - (piece.start or 0), stream.stored_position if stream.compressed else stream.position
            )


def read_original(file: IO[bytes], where: Mapping[str, Any]) -> bytes:
    """A line as stored, without its line end."""
    if where["offset"] is not None:
        file.seek(where["offset"])
        return file.read(where["length"]).rstrip(b"\r\n")
    stream = CompressedStream(file)
    for _ in range(where["row"]):
        stream.readline(MAX_LINE)
        stream.discard_consumed()
    return stream.readline(MAX_LINE).rstrip(b"\r\n")


def split_file(file: IO[bytes], piece: InputSplit, target: int) -> list[InputSplit]:
    """Splits an uncompressed file into byte ranges of about `target` bytes; a compressed one is a single split."""
    if detect_compression(file.read(8)) or piece.size < 2 * target:
        return [piece]
    count = max(1, piece.size // target)
    bounds = [piece.size * i // count for i in range(count + 1)]
    return [InputSplit(piece.path, piece.size, piece.version, a, b) for a, b in pairwise(bounds)]


def _open(file: IO[bytes], piece: InputSplit, start: int) -> CompressedStream:
    """A stream at the first line that begins at or after `start`. It reads past the range, to the end of its last
    line."""
    head = file.read(4)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UnreadableFile(piece.path, "in UTF-16; JSON Lines are UTF-8", 0, piece.size)
    if not start:
        return CompressedStream(file)
    stream = CompressedStream(file, start=start - 1, base=start - 1)
    while (line := stream.readline(1 << 20)) and not line.endswith(b"\n"):
        stream.discard_consumed()  # the middle of a line that began in an earlier range
    return stream


def row_for_damage(
    stream: CompressedStream, piece: InputSplit, fields: FieldMapping, kind: str, at: int, number: int
) -> SourceRow:
    """A row for a record cut off by the end of a truncated file. Raises UnreadableFile for other damage: it may hide
    many."""
    damage = stream.damage
    assert damage is not None
    if not damage.truncated:
        raise UnreadableFile(piece.path, damage.reason, damage.offset, piece.size - damage.offset)
    return fields.unreadable_row(provenance(piece.path, kind, None, None, number), f"lost@{at}", damage.reason)


def parse_line(line: bytes) -> dict[str, Any]:
    """Parses one line as a JSON object. Raises RecordError.

    The depth is limited here: json itself goes as deep as the stack happens to allow, and what becomes of a record must
    not depend on who calls."""
    try:
        value = json.loads(line.decode("utf-8", "replace"), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        raise RecordError(_TOO_DEEP if deep else f"no JSON: {error}") from error
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise RecordError(_TOO_DEEP)
    if not isinstance(value, dict):
        raise RecordError(f"no JSON object but {type(value).__name__}")
    return value


def _depth(value: Any) -> int:
    """Levels of lists and objects."""
    level, depth = [value], 0
    while level := [v for v in level if isinstance(v, (dict, list))]:
        depth += 1
        level = [v for part in level for v in (part.values() if isinstance(part, dict) else part)]
    return depth
