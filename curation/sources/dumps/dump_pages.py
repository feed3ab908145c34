"""Finds the pages in an XML dump of MediaWiki, in any part of it, whatever is broken.

In a dump each `<` of a text is written `&lt;`, so `<page>` and `</page>` are always tags: a page is found without
reading what is before it, and one that is not closed ends where the next begins. Published dumps are many bzip2
streams of 100 pages each, and every stream begins with ten bytes that nothing else has; ranges begin there, so they
need no index. A page belongs to the range that it begins in.

Format: https://www.mediawiki.org/wiki/Help:Export; streams: https://en.wikipedia.org/wiki/Wikipedia:Database_download.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import IO

from curation.sources.compressed_stream import CompressedStream, MemberStart
from curation.sources.limits import EXPANDS_TOO_FAR
from curation.step import InputSplit, UnreadableFile

MAX_PAGE = 1 << 26  # 64 MiB: a longer page becomes a drop; MediaWiki itself refuses texts of more than 2 MiB
_TOO_LONG = f"longer than {MAX_PAGE} bytes"
_CUT = "cut off"
_WINDOW = 1 << 16
_STREAM = re.compile(rb"BZh[1-9]1AY&SY")  # the header of a bzip2 stream and of its first block
# Text outside of pages that belongs to the frame of a dump; what else is there was a page once.
# Atomic: where something else follows many <siteinfo>, no longer one is tried for each.
_FRAME = re.compile(
    r"\s*+(?:<\?xml[^<>]*+(?<=\?)>\s*+)?+(?>(?:</?mediawiki\b[^<>]*+>|(?><siteinfo>.*?</siteinfo>))\s*+)*+\Z", re.S
)


@dataclass(frozen=True)
class Encoding:
    """How a dump is encoded: UTF-8, or UTF-16 by its byte order mark."""

    name: str
    page: bytes
    begin: re.Pattern[bytes]
    edge: re.Pattern[bytes]  # where a page begins or ends


@dataclass
class RawPage:
    """A page as stored, or a place where one was. `reason`: why it has no `data`."""

    position: int  # in the decompressed bytes since the range began
    size: int
    data: bytes
    reason: str
    member: int  # offset in the file of the compressed stream that it begins in
    member_position: int
    row: int | None  # how many pages begin before it in that stream; None: no page
    lost: int = 0  # stored bytes that cannot be decompressed


def encoding(head: bytes) -> Encoding:
    """The encoding of a dump, by its first bytes."""
    name = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(head[:2], "utf-8")
    page, end = "<page>".encode(name), "</page>".encode(name)
    return Encoding(name, page, re.compile(re.escape(page)), re.compile(re.escape(page) + b"|" + re.escape(end)))


def split_file(file: IO[bytes], piece: InputSplit, target: int) -> list[InputSplit]:
    """Splits a dump into ranges of about `target` bytes: at pages of a plain one, at streams of one in bzip2."""
    stream = CompressedStream(file)
    head = stream.peek(8)
    file.seek(0)
    pattern = _STREAM if file.read(3) == b"BZh" else encoding(head).begin
    if piece.size < 2 * target or (stream.compressed and pattern is not _STREAM):
        return [piece]
    bounds, count = [0], piece.size // target
    for i in range(1, count):
        near = piece.size * i // count
        if (
            near > bounds[-1]
            and (found := find_in_file(file, pattern, near, piece.size * (i + 1) // count)) is not None
        ):
            bounds.append(found)
    return [InputSplit(piece.path, piece.size, piece.version, a, b) for a, b in pairwise([*bounds, piece.size])]


def find_in_file(file: IO[bytes], pattern: re.Pattern[bytes], start: int, stop: int) -> int | None:
    """Where a pattern first begins in [start, stop)."""
    while start < stop:
        file.seek(start)
        data = file.read(min(_WINDOW, stop - start) + 16)
        found = pattern.search(data)
        if found and start + found.start() < stop:
            return start + found.start()
        if len(data) <= 16:
            return None
        start += len(data) - 16
    return None


def read_pages(file: IO[bytes], piece: InputSplit, code: Encoding) -> Iterator[RawPage]:
    """The pages of a range, and a place with a reason for whatever is no page. Raises UnreadableFile for damage that
    no further stream follows, and for a file that expands too far, whose streams count together."""
    expanded = 0
    start, stop = piece.start or 0, piece.size if piece.stop is None else piece.stop
    while True:
        base = 0 if start and _is_stream(file, start) else start
        stream = CompressedStream(file, start=start, base=base, expanded=expanded)
        yield from _pages(stream, stop, code, leading=start == 0)
        if stream.damage is None or not stream.compressed:
            return
        damage, too_far = stream.damage, stream.damage.reason == EXPANDS_TOO_FAR
        offset = _member(stream).offset if too_far else damage.offset  # a decoder may hold the rest of the file
        if offset >= stop:
            return  # of the range that it is in
        if too_far:
            raise UnreadableFile(piece.path, damage.reason, offset, stop - offset)
        expanded += stream.decompressed - base
        following = None if damage.truncated else find_in_file(file, _STREAM, damage.offset + 1, piece.size)
        end = piece.size if following is None else following
        if following is None and not damage.truncated:
            raise UnreadableFile(piece.path, damage.reason, damage.offset, end - damage.offset)
        yield RawPage(0, 0, b"", damage.reason, damage.offset, 0, None, end - damage.offset)
        if end >= stop or following is None:
            return
        start = following


def _is_stream(file: IO[bytes], start: int) -> bool:
    file.seek(start)
    return _STREAM.match(file.read(16)) is not None


def _pages(stream: CompressedStream, stop: int, code: Encoding, leading: bool) -> Iterator[RawPage]:
    """The pages that begin before the stored offset `stop`. `leading`: whether what stands before the first page is
    looked at; in a range it belongs to the one before."""
    last, row, first = -1, 0, True  # the last stream, and its pages so far
    while True:
        begin, member = stream.position, _member(stream)
        gap, found = _skip_to_page(stream, code)
        if (leading or not first) and not _FRAME.match(gap.decode(code.name, "replace").lstrip("\ufeff")):
            reason = "text outside of <page>" if found or not stream.damage else f"cut off: {stream.damage.reason}"
            yield RawPage(begin, stream.position - begin, b"", reason, member.offset, begin - member.position, None)
        first = False
        at, member = stream.position, _member(stream)
        if not found or (member.offset if stream.compressed else at) >= stop:
            return
        last, row = member.offset, row + 1 if member.offset == last else 0
        size, reason = _page_size(stream, code)
        data = stream.read(size) if size <= MAX_PAGE else b""
        if size > MAX_PAGE:
            size = _skip_page(stream, code)
        elif reason == _CUT and stream.damage:
            reason = f"{_CUT}: {stream.damage.reason}"
        place = member.offset if stream.compressed else 0
        yield RawPage(at, size, b"" if reason else data, reason, place, at - member.position, row)
        stream.discard_consumed()


def _member(stream: CompressedStream) -> MemberStart:
    """The compressed stream that the current position is in; of a plain file, the file."""
    known = stream.last_member_start(0, stream.position) if stream.compressed else None
    return known or MemberStart(0, 0)


def _skip_to_page(stream: CompressedStream, code: Encoding) -> tuple[bytes, bool]:
    """Goes to the next page; the bytes before it (the first 64 KiB of them) and whether there is one."""
    gap = bytearray()
    while True:
        have = stream.fill(_WINDOW)
        found = stream.search(code.begin, 0, have)
        step = found[0] if found else have if have < _WINDOW else have - len(code.page)
        data = stream.read(step)
        gap += data[: max(0, _WINDOW - len(gap))]
        if found or have < _WINDOW:
            return bytes(gap), found is not None
        stream.discard_consumed()


def _page_size(stream: CompressedStream, code: Encoding) -> tuple[int, str]:
    """Bytes of the page that begins here, and why it is none. More than MAX_PAGE: it is too long."""
    start, window = len(code.page), _WINDOW
    while True:
        have = stream.fill(window)
        if found := stream.search(code.edge, start, have):
            if found[1] - found[0] == len(code.page):
                return found[0], "not closed before the next page begins"
            return found[1], "" if found[1] <= MAX_PAGE else _TOO_LONG
        if have > MAX_PAGE:
            return have, _TOO_LONG
        if have < window:
            return have, _CUT
        start, window = max(start, have - 16), 2 * window


def _skip_page(stream: CompressedStream, code: Encoding) -> int:
    """Skips a page that is too long; returns its bytes."""
    begin = stream.position
    stream.skip(len(code.page))
    while have := stream.fill(_WINDOW):
        if found := stream.search(code.edge, 0, have):
            stream.skip(found[0] if found[1] - found[0] == len(code.page) else found[1])
            break
        stream.skip(have if have < _WINDOW else have - 16)
    return stream.position - begin
