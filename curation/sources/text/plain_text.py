"""Reads plain text files: the whole file is a document, or each line, or each part between blank lines or markers.

Files that are read in parts have no limit of size: uncompressed ones are split at the end of a delimiter, wherever one
is found near the wanted place.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

from curation import document
from curation.sources import charset
from curation.sources.batch_builder import SourceRow, position_key, provenance
from curation.sources.compressed_stream import CompressedStream
from curation.sources.limits import DropLimit
from curation.sources.warc.warc import detect_binary_type
from curation.step import InputSplit, RecordError, UnreadableFile

MAX_DOCUMENT = 1 << 27  # 128 MiB: a larger document becomes a drop
_HEAD = 1 << 16  # bytes that the charset of a file that is not UTF-8 is found from
_WINDOW = 1 << 16
_LINE_ENDS = b"\r\n"
_HTML = (".html", ".htm", ".xhtml")


def is_html_path(path: str) -> bool:
    """Whether a file's name says that it is HTML."""
    return posixpath.splitext(document.strip_compression(path))[1].lower() in _HTML


@dataclass(frozen=True)
class Delimiter:
    """What ends a document. `width`: bytes that one match may have."""

    pattern: re.Pattern[bytes]
    width: int
    splits: bool = True  # whether it can be found from anywhere in a file


LINE = Delimiter(re.compile(rb"\n"), 1)
# More than 4 KiB of white space in one line are no blank line: a search has to look so far ahead.
BLANK_LINES = Delimiter(re.compile(rb"\n[ \t\r\v\f]{0,4096}+\n"), 4098)


def marker(text: str) -> Delimiter:
    """Documents end at this text. One that overlaps itself (`====`) is found only from the start of a file."""
    data = text.encode()
    overlaps = any(data.startswith(data[i:]) for i in range(1, len(data)))
    return Delimiter(re.compile(re.escape(data)), len(data), not overlaps)


def read_document(file: IO[bytes], piece: InputSplit, collection: str, mime: str) -> SourceRow:
    """Reads a file as one document."""
    row = SourceRow(
        document.doc_id(collection, piece.path, position_key(0)), provenance(piece.path, "text", 0, piece.size)
    )
    row.mime = "text/html" if is_html_path(piece.path) else mime
    stream = CompressedStream(file)
    data = stream.read(MAX_DOCUMENT + 1)
    if stream.damage and not stream.damage.truncated and not data:
        raise UnreadableFile(piece.path, stream.damage.reason, 0, piece.size)
    row.bytes = len(data)
    if stream.damage:
        row.drop = ("unreadable", stream.damage.reason)
    elif len(data) > MAX_DOCUMENT:
        row.drop, row.bytes = ("unreadable", f"larger than {MAX_DOCUMENT} bytes"), None
    else:
        _fill_in(row, data, None)
    return row


def read_parts(
    file: IO[bytes], piece: InputSplit, collection: str, mime: str, delimiter: Delimiter
) -> Iterator[SourceRow]:
    """The documents of a file, or of a range that `split_file` made."""
    declared = _declared_charset(file, piece)
    stream, number = CompressedStream(file, start=piece.start or 0, base=piece.start or 0), -1
    stop, begin = piece.size if piece.stop is None else piece.stop, stream.position
    drops = DropLimit(piece.path, piece.size)
    for number, (at, size, data) in enumerate(_parts(stream, stop, delimiter)):
        if stream.damage and stream.compressed:
            yield _row_for_damage(stream, piece, collection, at, number)
            return
        # A part inside compressed data is located by its number, not by bytes.
        spot = (None, None, number) if stream.compressed else (at, size, None)
        row = SourceRow(
            document.doc_id(collection, piece.path, position_key(at)), provenance(piece.path, "text", *spot)
        )
        row.mime = mime
        if data is None:
            row.drop = ("unreadable", f"larger than {MAX_DOCUMENT} bytes")
        else:
            row.bytes = len(data)
            _fill_in(row, data, declared)
        yield row
        if row.drop:
            stored = stream.stored_position if stream.compressed else stream.position
            drops.count(stream.position - begin, stored)
    if stream.damage:
        yield _row_for_damage(stream, piece, collection, stream.position, number + 1)


def split_file(file: IO[bytes], piece: InputSplit, target: int, delimiter: Delimiter) -> list[InputSplit]:
    """Splits an uncompressed file at delimiters into ranges of about `target` bytes. Reads 64 KiB at each."""
    if not delimiter.splits or piece.size < 2 * target or CompressedStream(file).compressed:
        return [piece]
    bounds, count = [0], max(1, piece.size // target)
    for i in range(1, count):
        near = piece.size * i // count
        if near <= bounds[-1]:
            continue
        file.seek(near)
        if found := delimiter.pattern.search(file.read(_WINDOW)):
            bounds.append(near + found.end())
    if bounds[-1] < piece.size:
        bounds.append(piece.size)
    return [InputSplit(piece.path, piece.size, piece.version, a, b) for a, b in pairwise(bounds)]


def read_original(file: IO[bytes], where: Mapping[str, object], delimiter: Delimiter | None) -> bytes:
    """A document as stored, decompressed."""
    stream = CompressedStream(file)
    offset, length, number = where["offset"], where["length"], where["row"]
    if delimiter is None or (stream.compressed and number is None):
        return stream.read(MAX_DOCUMENT)
    if isinstance(offset, int) and isinstance(length, int):
        file.seek(offset)
        return file.read(min(length, MAX_DOCUMENT))
    for i, (_, _, data) in enumerate(_parts(stream, 0, delimiter)):
        if i == number:
            return data or b""
    raise RecordError(f"{where['file']}: no document {number}")


def _parts(stream: CompressedStream, stop: int, delimiter: Delimiter) -> Iterator[tuple[int, int, bytes | None]]:
    """(position, bytes, content) of the documents that begin before `stop`; of compressed data, of all. Content is
    None where it is too large. What has only white space is no document."""
    while True:
        stream.skip_blank_lines()
        stream.discard_consumed()
        at = stream.position
        if (not stream.compressed and at >= stop) or not stream.fill(1):
            return
        size, whole = _find_end(stream, delimiter)
        if size < 0:
            _skip_document(stream, delimiter)
            yield at, stream.position - at, None
            continue
        data = stream.read(size).rstrip(_LINE_ENDS)
        stream.read(whole - size)
        if data and not data.isspace():
            yield at, len(data), data.removeprefix(b"\xef\xbb\xbf") if at == 0 else data


def _find_end(stream: CompressedStream, delimiter: Delimiter) -> tuple[int, int]:
    """(bytes of the document that begins here, bytes with its delimiter); (-1, -1) for more than MAX_DOCUMENT."""
    start, window = 0, _WINDOW
    while True:
        have = stream.fill(window)
        if found := stream.search(delimiter.pattern, start, have):
            return found
        if have < window:
            return have, have
        if have > MAX_DOCUMENT:
            return -1, -1
        start, window = max(0, have - delimiter.width + 1), 2 * window


def _skip_document(stream: CompressedStream, delimiter: Delimiter) -> None:
    while have := stream.fill(_WINDOW):
        if found := stream.search(delimiter.pattern, 0, have):
            stream.read(found[1])
            return
        stream.read(have if have < _WINDOW else have - delimiter.width + 1)
        stream.discard_consumed()


def _declared_charset(file: IO[bytes], piece: InputSplit) -> str | None:
    """The charset of a file's bytes that are no UTF-8, by its beginning; None if that is UTF-8. Raises
    UnreadableFile."""
    head = CompressedStream(file).peek(_HEAD)
    found = charset.decode(head, html=False).charset
    if found.startswith("utf-16"):
        raise UnreadableFile(piece.path, "in UTF-16; only whole files are read in it", 0, piece.size)
    return None if found == "utf-8" else found


def _fill_in(row: SourceRow, data: bytes, declared: str | None) -> None:
    """The text that the bytes hold, or the reason why they hold none."""
    if not data.strip():
        row.drop = ("empty", "")
    elif binary := detect_binary_type(data):
        row.mime = binary
        row.drop = ("mime", binary)
    else:
        decoded = charset.decode(data, declared, html=row.mime == "text/html")
        row.text, row.charset = decoded.text, decoded.charset


def _row_for_damage(stream: CompressedStream, piece: InputSplit, collection: str, at: int, number: int) -> SourceRow:
    """A row for a document cut off by the end of a truncated file. Raises UnreadableFile for other damage: it may hide
    many."""
    damage = stream.damage
    assert damage is not None
    if not damage.truncated:
        raise UnreadableFile(piece.path, damage.reason, damage.offset, piece.size - damage.offset)
    row = SourceRow(
        document.doc_id(collection, piece.path, f"lost@{at}"), provenance(piece.path, "text", None, None, number)
    )
    row.drop = ("unreadable", damage.reason)
    return row
