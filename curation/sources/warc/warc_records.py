"""Splits a WARC or ARC archive into its records, exactly, and also where the archive is damaged.

fastwarc is faster, but it skips bytes that it cannot parse without saying so, stops for good at a broken member, and
does not read ARC; to account for every record we need our own parser. (It takes under a tenth of the time that reading
and extracting a page takes.) The rules: a record is as long as its header says if a record, a member or the end of the
file follows. If not, its length is damaged: it extends to where the next record really begins, and `note` says so.
Bytes that belong to no record become a record with a `problem`.

Formats: ISO 28500 (WARC 1.1), also WARC/0.x; the Internet Archive's ARC 1 and 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from curation.sources.compressed_stream import CompressedStream, Damage
from curation.sources.warc.http_response import parse_headers

MAX_CONTENT = 1 << 27  # 128 MiB: no page is larger; a larger record becomes a drop and is never held in memory
_MAX_HEADER = 1 << 20
_MAX_LINE = 1 << 16
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_WARC_LINE = re.compile(rb"WARC/\d\.\d{1,9}[ \t]*\r?\n")
_ARC_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]{0,63}:")
_ARC_ADDRESS, _ARC_DATE = re.compile(rb"[0-9A-Fa-f.:]+"), re.compile(rb"\d{8,18}")
_NEXT_WARC = re.compile(rb"(?:\r?\n)(?=WARC/\d\.\d{1,9}[ \t]*\r?\n)")
_NEXT_ARC = re.compile(rb"\n(?=[a-z][A-Za-z0-9+.\-]{0,63}:[^\r\n]{1,8192}\n)")  # perhaps: see `_is_arc_line`
_BLANK_BYTES = b"\r\n\t \0"
_NOT_BLANK = re.compile(rb"[^\r\n\t \0]")


@dataclass
class Record:
    """One record of an archive. `problem`: why it cannot be used; `note`: what was damaged but could be repaired."""

    format: str  # warc or arc
    position: int  # decompressed offset, the same however the file is compressed
    offset: int  # in the file as stored: the member, or the record itself in a plain file
    length: int | None  # as stored; null where several records share a member
    row: int | None  # then: its number, counted from that member's start
    type: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    header_bytes: bytes = b""
    content: bytes = b""
    problem: str = ""
    note: str = ""
    lost: bool = False  # True for a part of the file in which no record could be read


def archive_format(first: bytes) -> str:
    """`warc`, `arc` or `` for anything else, by the first decompressed bytes."""
    first = first.lstrip(_BLANK_BYTES)
    if first.startswith(b"WARC/"):
        return "warc"
    return "arc" if first.startswith(b"filedesc:") or _is_arc_line(first) else ""


def _is_arc_line(data: bytes) -> bool:
    """Whether the first line of `data` is the header of an ARC record: a URL (which may hold spaces), an address, a
    date, a media type, perhaps more, and a length. Split at spaces rather than matched by one pattern, which would try
    every space of a long line against every other."""
    line, newline, _ = data.partition(b"\n")
    line = line.removesuffix(b"\r")
    if not newline or b"\r" in line or not _ARC_SCHEME.match(line):
        return False
    parts = line.split(b" ")
    return bool(parts[-1]) and any(
        parts[i + 2] and _ARC_DATE.fullmatch(parts[i + 1]) and _ARC_ADDRESS.fullmatch(parts[i])
        for i in range(1, len(parts) - 3)
    )


def read_records(stream: CompressedStream, format: str) -> Iterator[Record]:
    """Yields all records of an archive in stored order.

    After the last one, `stream.damage` is set if the rest of the file could not be read; a truncated record at the end
    is yielded (with its problem) and does not set it.
    """
    framing = _RecordReader(stream, format)
    while True:
        record = framing.next_record()
        if record is not None:
            yield record
        elif stream.damage is None:
            return
        else:
            lost = framing.recover_after_damage(stream.damage)
            if lost is not None:
                yield lost
            if stream.ended:
                return


class _RecordReader:
    """Reads a stream record by record."""

    def __init__(self, stream: CompressedStream, format: str) -> None:
        self.stream, self.format = stream, format
        self.member_offset, self.records_since_member = stream.member_starts[0].offset if stream.member_starts else 0, 0
        self.current: Record | None = None  # the record being read
        self._no_header_end_before = 0  # up to this position no header ends, as an earlier record's search has shown

    def next_record(self) -> Record | None:
        """The next record; None where the stream ends or breaks (then `current` is the record that broke)."""
        stream = self.stream
        self.current = None
        before = stream.position
        stream.skip_bytes(_NOT_BLANK)
        stream.discard_consumed()
        if not stream.fill(1):
            return None
        start = stream.position
        record = self.current = self._start_record(before, start)
        known = self._read_warc_header(record) if self.format == "warc" else self._read_arc_header(record)
        if stream.damage:
            return None
        if known is None:
            self._extend_to_next_record(record, start, 0)
        elif known > MAX_CONTENT and not self._beyond_file(known):
            record.problem = f"larger than {MAX_CONTENT} bytes"
            record.content = stream.peek(1 << 16)
            if self._skip_content(known):
                stream.discard_consumed()
            elif stream.ended and not stream.fill(1):
                return None if stream.damage else self._mark_truncated(record, known)
        else:
            body = stream.position
            have = stream.fill(min(known, MAX_CONTENT + 1))
            stream.seek(body + have)
            if stream.damage:
                return None
            if have < known or not self._record_follows(stream.position):
                self._extend_to_next_record(record, body, known)
            else:  # copied only now: a record may say that it has 100 MB and be followed by another after ten bytes
                stream.seek(body)
                record.content = stream.read(known)
            if stream.damage:
                return None
        return self._finish_record(record)

    def recover_after_damage(self, damage: Damage) -> Record | None:
        """After damage: a record with a problem for the bytes up to the next readable member; None where no such member
        follows and `stream.damage` covers the rest."""
        stream, start, opened = self.stream, damage.offset, self.current
        if damage.truncated:
            following: int | None = stream.stop
            stream.clear_damage()
        else:
            following = stream.resync(lambda first: archive_format(first) == self.format)
        if following is None:
            return None
        lost = Record(self.format, stream.position, start, following - start, None, problem=damage.reason, lost=True)
        if opened and opened.offset == start:
            lost.row = opened.row
        return lost

    def _start_record(self, before: int, start: int) -> Record:
        """A record that begins here, after blank lines from `before` on. `_finish_record` completes its location, when
        its end is known."""
        mark = self.stream.last_member_start(before, start)
        if not self.stream.compressed:
            return Record(self.format, start, self.stream.file_offset(start), None, None)
        if mark:
            self.member_offset, self.records_since_member = mark.offset, 0
        else:
            self.records_since_member += 1
        return Record(self.format, start, self.member_offset, None, self.records_since_member or None)

    def _finish_record(self, record: Record) -> Record | None:
        stream, end = self.stream, self.stream.position
        if not stream.compressed:
            record.length = stream.file_offset(end) - record.offset
            return record
        stream.skip_bytes(_NOT_BLANK, within_member=True)
        if stream.damage and stream.damage.offset == record.offset:
            if not stream.damage.truncated:
                return None  # for example, the member's checksum is wrong
            record.note = record.note or "complete, but the compressed data ends early"
            stream.clear_damage()
        member_end = stream.member_start_between(end, stream.position)
        if member_end is not None and not record.row:
            record.length = member_end - record.offset
        elif record.row is None:
            record.row = 0
        return record

    def _read_warc_header(self, record: Record) -> int | None:
        """Reads the header block; returns the content's length, or None with `problem` set."""
        stream = self.stream
        if not _WARC_LINE.match(stream.peek(1024)):
            record.problem = "bytes that belong to no record"
            return None
        size, start = 4096, max(0, self._no_header_end_before - stream.position - 3)
        while not (end := stream.search(_HEADER_END, start, size)) and stream.fill(size) == size < _MAX_HEADER:
            start, size = max(start, size - 3), 2 * size
        if not end:
            self._no_header_end_before = stream.position + stream.fill(size)
            record.problem = "the record's header does not end"
            return None
        record.header_bytes = stream.read(end[1])
        record.fields = parse_headers(record.header_bytes.partition(b"\n")[2])
        record.type = record.fields.get("warc-type", "").lower()
        return self._parse_length(record, record.fields.get("content-length", ""))

    def _read_arc_header(self, record: Record) -> int | None:
        line = self.stream.peek(min(_MAX_LINE, self.stream.line_size(_MAX_LINE))).partition(b"\n")[0] + b"\n"
        if not _is_arc_line(line):
            record.problem = "bytes that belong to no record"
            return None
        record.header_bytes = self.stream.read(len(line))
        # The URL may hold spaces: take the others from the right. ARC 2 has four more between type and length.
        parts = line.decode("utf-8", "replace").split()
        date = next(i for i in range(len(parts) - 2, 0, -1) if parts[i].isdigit() and 8 <= len(parts[i]) <= 18)
        record.fields = {
            "url": " ".join(parts[: date - 1]),
            "ip": parts[date - 1],
            "date": parts[date],
            "type": parts[date + 1],
        }
        record.type = "filedesc" if line.startswith(b"filedesc:") else "response"
        return self._parse_length(record, parts[-1])

    def _parse_length(self, record: Record, value: str) -> int | None:
        if value.isascii() and value.isdigit() and len(value) < 16:
            return int(value)
        record.problem = f"no usable length: {value!r}" if value else "no length"
        return None

    def _record_follows(self, position: int) -> bool:
        """Whether a record, a member or the end comes next, after blank lines. Does not move the stream."""
        stream = self.stream
        for size in (4, 64, 1 << 16):
            ahead = stream.peek(size + 64)
            rest = ahead.lstrip(_BLANK_BYTES)
            if rest or len(ahead) < size + 64:
                break
        after = position + len(ahead) - len(rest)
        if not rest or stream.member_start_between(position, after) is not None:
            return True
        blank = len(ahead) - len(rest)
        line = stream.peek(blank + min(_MAX_LINE, 1024 if self.format == "warc" else _MAX_LINE))[blank:]
        if self.format == "warc" and line.startswith(b"WARC/") and b"\n" not in line:
            line = stream.peek(_MAX_LINE)[blank:]
        if b"\n" not in line and len(line) < _MAX_LINE // 2:  # cut off by the end of the file: does it start like one?
            return line.startswith(b"WARC/"[: len(line)]) if self.format == "warc" else True
        return bool(_WARC_LINE.match(line)) if self.format == "warc" else _is_arc_line(line)

    def _beyond_file(self, known: int) -> bool:
        """Whether a record of a plain file says that it is longer than the rest of the file."""
        stream = self.stream
        return not stream.compressed and stream.file_offset(stream.position) + known > stream.stop

    def _skip_content(self, known: int) -> bool:
        """Skips the content of a record; False where the stream ends before, or a member with the next record begins:
        then the record says that it is longer than it is, and nothing after it may be lost."""
        stream = self.stream
        while known:
            have = stream.fill(min(known, 1 << 16))
            if not have:
                return False
            member = stream.first_member_start(stream.position)
            inside = member is not None and member < stream.position + have
            step = member - stream.position if inside and member is not None else have
            stream.skip(step)
            known -= step
            if inside and archive_format(stream.peek(1024)) == self.format:
                return False
        return True

    def _next_record_start(self, start: int, size: int) -> int | None:
        """Where in the next `size` bytes, from `start` on, a line begins that starts a record."""
        if self.format == "warc":
            found = self.stream.search(_NEXT_WARC, start, size)
            return found[0] if found else None
        while found := self.stream.search(_NEXT_ARC, start, size):
            line = self.stream.peek(found[1] + 9000)[found[1] :]
            if _is_arc_line(line):
                return found[0]
            start = found[1]
        return None

    def _extend_to_next_record(self, record: Record, body: int, claimed: int) -> None:
        """Extends the record to where the next one begins: at a line that starts a record, at a member, or at the
        end."""
        stream = self.stream
        stream.seek(body)
        searched, size, most = 0, 1 << 12, -(-(MAX_CONTENT + 1) >> 16) << 16
        while True:
            have = stream.fill(size)
            start, member = self._next_record_start(searched, have), stream.first_member_start(body)
            cuts = [start] if start is not None else []
            cuts += [member - body] if member is not None and member <= body + have else []
            if cuts:
                self._set_mended_content(record, stream.read(min(cuts)), claimed, at_end=False)
                return
            if have < size:
                content = stream.read(have)
                if not stream.damage:
                    self._set_mended_content(record, content, claimed, at_end=True)
                return
            if size >= most:
                record.problem = record.problem or f"larger than {MAX_CONTENT} bytes"
                stream.seek(body + have)
                return
            # Searched from a line's length before: it may have begun there.
            searched, size = max(0, have - 2 * _MAX_LINE), min(2 * size, most)

    def _set_mended_content(self, record: Record, content: bytes, claimed: int, *, at_end: bool) -> None:
        content = content.rstrip(b"\r\n") if len(content) > claimed or not at_end else content
        record.content = content
        if record.problem:
            return
        if at_end and len(content) < claimed:
            self._mark_truncated(record, claimed)
        else:
            record.note = f"says {claimed} bytes and has {len(content)}"

    def _mark_truncated(self, record: Record, claimed: int) -> Record:
        record.problem = f"the file ends before the {claimed} bytes of this record do"
        return record
