"""Parses an archived HTTP response: status, headers, and the body decoded of transfer and content encodings.

Archives keep what the server sent, and headers can be wrong: `chunked` bodies that are not, `gzip` bodies that were
decompressed before they were archived. So an encoding is undone only where the bytes confirm it. A body that ends early
is read as far as it goes, with a note; one that is wrong inside is unreadable. (http.client does neither: it raises.)
"""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass

from curation.step import RecordError

MAX_PAYLOAD = 1 << 27  # 128 MiB decoded: a decompression bomb becomes a drop and cannot exhaust a worker's memory
MAX_CODINGS = 8  # servers use one or two; a gzip stream that expands to itself would be unpacked without end
_STATUS_LINE = re.compile(rb"(?:HTTP/\d(?:\.\d)?|ICY)[ \t]+(\d{3})")
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_PRINTABLE = re.compile(rb"[\t\n\r\x20-\x7e]{16}|[\t\n\r\x20-\x7e]*$")
_GIVEN = 1 << 14  # given to a decoder at once: what it gives back is copied
_CHUNK_SIZE = re.compile(rb"\s*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


@dataclass
class Response:
    """`headers` have lower-case names; the first of a repeated one counts. `note`: what was damaged, else empty."""

    status: int
    headers: dict[str, str]
    body: bytes
    note: str = ""


def parse_headers(block: bytes) -> dict[str, str]:
    """`Name: value` lines, folded ones joined, names in lower case, the first of a repeated name."""
    fields: dict[str, list[str]] = {}
    name = ""
    for line in block.replace(b"\r\n", b"\n").split(b"\n"):
        if line[:1] in (b" ", b"\t"):
            if name:
                fields[name].append(_decode_header(line.strip()))
            continue
        key, colon, value = line.partition(b":")
        name = _decode_header(key.strip()).lower() if colon else ""
        if name in fields:
            name = ""  # and its folded lines
        if name:
            fields[name] = [_decode_header(value.strip())]
    return {name: " ".join(parts) for name, parts in fields.items()}


def _decode_header(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse_response(block: bytes) -> Response:
    """Parses a record's block; the body comes decoded of transfer and content encodings. Raises RecordError."""
    status = _STATUS_LINE.match(block)
    if not status:
        raise RecordError("no HTTP status line")
    end = _HEADER_END.search(block)
    head, body = (block[: end.start()], block[end.end() :]) if end else (block, b"")
    headers = parse_headers(head.partition(b"\n")[2])
    notes = []
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body, note = unchunk(body)
        notes.append(note)
    codings = [c.strip().lower() for c in headers.get("content-encoding", "").split(",")]
    if len(codings) > MAX_CODINGS:
        raise RecordError(f"{len(codings)} content encodings, one over the other; the limit is {MAX_CODINGS}")
    for coding in reversed(codings):
        body, note = decompress(body, coding)
        notes.append(note)
    return Response(int(status[1]), headers, body, "; ".join(n for n in notes if n))


def unchunk(body: bytes) -> tuple[bytes, str]:
    """(body without the chunked transfer encoding of RFC 9112, section 7.1, a note). A body that is not chunked stays:
    also plain text whose first line only looks like the size of a chunk (a year, a number in a list)."""
    parts: list[bytes] = []
    at = 0
    while match := _CHUNK_SIZE.match(body, at):
        size = int(match[1], 16)
        if size == 0:
            plain = not parts and body[match.end() :].strip()
            return (body, "") if plain else (b"".join(parts), "")
        part = body[match.end() : match.end() + size]
        parts.append(part)
        at = match.end() + size
        if len(part) < size:
            return (
                (body, "") if len(parts) == 1 and _reads_as_text(part) else (b"".join(parts), "chunked body ends early")
            )
    if not parts:
        return body, ""  # not chunked, whatever the header says
    if body[at:].strip():
        if len(parts) == 1 and not body.startswith((b"\r", b"\n"), at) and _reads_as_text(parts[0]):
            return body, ""
        raise RecordError("chunked body: no chunk size where one must be")
    return b"".join(parts), "chunked body ends early"


def _reads_as_text(part: bytes) -> bool:
    """Whether bytes are neither markup, which follows a chunk's size at once, nor compressed: then a line before them
    that looks like a size may be text too."""
    return not part.lstrip().startswith((b"<", b"\xef\xbb\xbf")) and _PRINTABLE.match(part) is not None


def decompress(body: bytes, coding: str) -> tuple[bytes, str]:
    """(body without one content coding, a note). A coding that is unknown or that the bytes contradict changes
    nothing."""
    if coding in ("gzip", "x-gzip"):
        return _inflate(body, 31) if body.startswith(b"\x1f\x8b") else (body, "")
    if coding == "deflate":
        if len(body) >= 2 and (body[0] & 0x0F) == 8 and (body[0] << 8 | body[1]) % 31 == 0:
            return _inflate(body, 15)
        try:
            return _inflate(body, -15)  # raw deflate, as some servers understood the RFC
        except RecordError:
            return body, ""
    if coding == "zstd":
        return _unzstd(body) if body.startswith(b"\x28\xb5\x2f\xfd") else (body, "")
    return _unbrotli(body) if coding == "br" else (body, "")


def _inflate(body: bytes, wbits: int) -> tuple[bytes, str]:
    out, at = bytearray(), 0
    decoder = zlib.decompressobj(wbits)
    while at < len(body):
        given = body[at : at + _GIVEN]
        try:
            out += decoder.decompress(given, MAX_PAYLOAD + 1 - len(out))
        except zlib.error as error:
            raise RecordError(f"content encoding: {error}") from error
        if len(out) > MAX_PAYLOAD:
            raise RecordError(f"larger than {MAX_PAYLOAD} bytes when unpacked")
        at += len(given)
        if decoder.eof:
            at -= len(decoder.unused_data)
            if body[at : at + 2] != b"\x1f\x8b":  # anything else after the end is ignored, as browsers do
                return bytes(out), ""
            decoder = zlib.decompressobj(wbits)
    return bytes(out), "" if at == len(body) and decoder.eof else "compressed body ends early"


def _unzstd(body: bytes) -> tuple[bytes, str]:
    import zstandard

    out = bytearray()
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body, read_across_frames=True)
        while piece := reader.read(1 << 20):
            out += piece
            if len(out) > MAX_PAYLOAD:
                raise RecordError(f"larger than {MAX_PAYLOAD} bytes when unpacked")
    except zstandard.ZstdError as error:
        raise RecordError(f"content encoding: {error}") from error
    return bytes(out), ""


def _unbrotli(body: bytes) -> tuple[bytes, str]:
    """Brotli has no magic number, so a body that is not Brotli but starts like text counts as already decompressed."""
    import pyarrow as pa

    out = bytearray()
    try:
        reader = pa.CompressedInputStream(pa.PythonFile(io.BytesIO(body), "r"), "brotli")
        while piece := reader.read(1 << 16):
            out += piece
            if len(out) > MAX_PAYLOAD:
                raise RecordError(f"larger than {MAX_PAYLOAD} bytes when unpacked")
    except OSError as error:
        if out or not _PRINTABLE.match(body):
            raise RecordError(f"content encoding: {error}") from error
        return body, ""
    return bytes(out), ""
