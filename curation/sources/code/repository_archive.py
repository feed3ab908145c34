"""Reads the files of a repository's archive, tar (compressed or not) or zip, one after another and within limits.

A tar is read as a stream, so that one of any size needs memory for one file; a header costs 512 bytes of it, so records
are bounded by its bytes. What it may expand to is bounded by compressed_stream.py, of a zip by the same limit. Nothing
is written to disk, so a path that leads outside does no harm. Long names (GNU, pax) are read up to 64 KiB, in a loop:
tarfile reads a chain of them by recursion.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from curation.sources import limits
from curation.sources.compressed_stream import CompressedStream
from curation.sources.machine_errors import ZIP_ERRORS, raise_machine_error
from curation.step import RecordError, UnreadableFile

_BLOCK = 512
_MAX_NAME = 1 << 16
_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_FILES, _FOLDER = (b"0", b"\0", b"7"), b"5"
_KINDS = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file"}
_CUT_OFF = "tar: the archive is cut off"


@dataclass(frozen=True)
class ArchivedFile:
    """A file in an archive, folders left out. `read(limit)`: its bytes, at most one more than `limit`; only valid until
    the next file is asked for; raises RecordError. `kind`: what else it is, such as a link."""

    path: str
    size: int
    read: Callable[[int], bytes]
    kind: str = ""


def archive_format(head: bytes) -> str:
    """`zip` or `tar` by a file's first (decompressed) 512 bytes; empty for what is no archive."""
    if head[:4] in (_ZIP, _EMPTY_ZIP):
        return "zip"
    return "tar" if len(head) >= _BLOCK and _checksum(head[:_BLOCK]) else ""


def archived_files(file: IO[bytes], path: str, size: int) -> Iterator[ArchivedFile]:
    """The files of an archive in its order. Raises UnreadableFile for what follows damage."""
    file.seek(0)
    if archive_format(file.read(_BLOCK)) == "zip":
        return _zipped(file, path, size)
    file.seek(0)
    return _tarred(CompressedStream(file), path, size)


def _zipped(file: IO[bytes], path: str, size: int) -> Iterator[ArchivedFile]:
    try:
        archive = zipfile.ZipFile(file)
    except ZIP_ERRORS as error:
        raise_machine_error(error)
        raise UnreadableFile(path, f"zip: {error}", 0, size) from None
    left = limits.max_expanded(size)

    def reader(info: zipfile.ZipInfo) -> Callable[[int], bytes]:
        def read(limit: int) -> bytes:
            nonlocal left
            if info.flag_bits & 1:
                raise RecordError("encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise RecordError("compressed by another method than deflate")
            try:
                with archive.open(info) as entry:
                    data = entry.read(min(limit, left) + 1)
            except ZIP_ERRORS as error:
                raise_machine_error(error)
                raise RecordError(f"zip: {error}") from None
            left -= len(data)
            if left < 0:
                raise UnreadableFile(path, limits.EXPANDS_TOO_FAR, info.header_offset, size - info.header_offset)
            return data

        return read

    for info in archive.infolist():
        if not info.is_dir():
            is_link = (info.external_attr >> 16) & 0o170000 == 0o120000
            yield ArchivedFile(info.filename, info.file_size, reader(info), "a link" if is_link else "")


def _tarred(stream: CompressedStream, path: str, size: int) -> Iterator[ArchivedFile]:
    name: str | None = None  # of the next file, from a header of its own
    length: int | None = None
    while True:
        stream.discard_consumed()
        header = stream.read(_BLOCK)
        if not header.strip(b"\0") and len(header) == _BLOCK:
            return
        if len(header) < _BLOCK:
            raise _unread(stream, path, size, _CUT_OFF)
        if not _checksum(header):
            raise _unread(stream, path, size, "tar: no header where one is expected")
        kind = header[156:157]
        stored = _number(header[124:136])
        if stored is None:
            raise _unread(stream, path, size, "tar: a member without a size")
        if kind in (b"L", b"K", b"x", b"g"):
            data = stream.read(min(stored, _MAX_NAME))
            if stream.skip(_padded(stored) - len(data)) < _padded(stored) - len(data):
                raise _unread(stream, path, size, _CUT_OFF)
            if stored <= _MAX_NAME and kind == b"L":
                name = data.partition(b"\0")[0].decode("utf-8", "replace")
            elif stored <= _MAX_NAME and kind == b"x":
                name, length = _pax(data, name, length)
            continue
        if kind == b"S":  # its map of holes may continue in blocks of its own
            more = header[482:483] == b"\1"
            while more:
                block = stream.read(_BLOCK)
                more = block[504:505] == b"\1"
        if length is not None:
            stored = length
        begin = stream.position
        if kind != _FOLDER or stored:
            found = name if name is not None else _name(header)
            is_file = kind in _FILES and not found.endswith("/")
            if is_file or kind not in (*_FILES, _FOLDER):
                yield ArchivedFile(
                    found, stored, _bounded(stream, stored), "" if is_file else _KINDS.get(kind, "no file")
                )
        name, length = None, None
        left = _padded(stored) - (stream.position - begin)
        if stream.skip(left) < left:
            raise _unread(stream, path, size, _CUT_OFF)


def _bounded(stream: CompressedStream, size: int) -> Callable[[int], bytes]:
    def read(limit: int) -> bytes:
        wanted = min(size, limit + 1)
        data = stream.read(wanted)
        if len(data) < wanted:
            raise RecordError(stream.damage.reason if stream.damage else _CUT_OFF)
        return data

    return read


def _unread(stream: CompressedStream, path: str, size: int, reason: str) -> UnreadableFile:
    at = min(size, stream.stored_position if stream.compressed else stream.position)
    return UnreadableFile(path, stream.damage.reason if stream.damage else reason, at, size - at)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


def _number(field: bytes) -> int | None:
    """A number of a header: octal digits, or bytes after a first one of 0x80; None for what is none."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if all(48 <= digit < 56 for digit in digits) else None


def _checksum(header: bytes) -> bool:
    """Whether a block is a header: its bytes, with blanks in the place of the checksum, add up to it."""
    said = _number(header[148:156])
    return bool(said) and said == sum(header[:148]) + 8 * 32 + sum(header[156:_BLOCK])


def _pax(data: bytes, name: str | None, length: int | None) -> tuple[str | None, int | None]:
    """Name and size that a pax header has for the next file: records `LENGTH key=value` and a line feed."""
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 20)
        digits = data[at:blank] if blank > 0 else b""
        if not digits.isdigit() or int(digits) <= len(digits) + 1:
            break
        key, _, value = data[blank + 1 : at + int(digits) - 1].partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "replace")
        elif key == b"size" and value.isdigit() and len(value) < 20:
            length = int(value)
        at += int(digits)
    return name, length
