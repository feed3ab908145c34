"""Reads the decompressed bytes of a file and keeps track of where in the file they are stored.

Archives are chains of small compressed *members* (gzip members, zstd or lz4 frames), so that one record can be fetched
by the offset and length of its member. A `CompressedStream` hides the chain: callers read one run of bytes and ask
where members start. Damage is not an exception here: the stream ends early and says in `damage` where and why, so that
the caller can keep the records before it and `resync` at the next member.

A file gives at most what limits.py says, however far it would expand; see decoders.py for the compressions.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import IO, Any

from curation.sources import decoders, limits

_CHUNK = 1 << 16
_PROBE_BYTES = 512  # decompressed bytes that decide whether a member starts here
_POSITION = attrgetter("position")
_BLANK = re.compile(rb"[^ \t\n\r\v\f]")  # finds what is not blank


@dataclass(frozen=True)
class Damage:
    """Why a stream ended before its file did. `offset`: where in the file the broken member starts."""

    reason: str
    offset: int
    truncated: bool  # the file is cut off; the bytes before the cut are sound


@dataclass(frozen=True)
class MemberStart:
    """Where a member starts: at `position` of the decompressed bytes and at `offset` of the file."""

    position: int
    offset: int


class CompressedStream:
    """Reads decompressed bytes from `start` (a member's first byte) up to `stop` of a seekable binary file.

    `position` counts decompressed bytes from `base`. `seek` can return to any position since the last
    `discard_consumed`. `expanded`: bytes that earlier streams of a compressed file gave, which its limit counts too.
    """

    def __init__(
        self, file: IO[bytes], *, start: int = 0, stop: int | None = None, base: int = 0, expanded: int = 0
    ) -> None:
        self._file = file
        size = file.seek(0, 2)
        self.stop = size if stop is None else stop
        self._max_position = limits.max_expanded(size) - expanded
        file.seek(0)
        self._codec = decoders.open_codec(file)
        self._buffer = bytearray()
        self._base = base  # position of the buffer's first byte
        self._cursor = 0  # index into the buffer of the next byte
        self._file_position = start  # file offset of the first byte not yet given to a decoder
        self._undecoded = memoryview(b"")  # read from the file, not yet given to a decoder (starts at _file_position)
        self._pending = False  # the decoder has more to give without further data
        self._decoder: Any = None
        self._member_bytes_out = 0  # decompressed bytes of the current member so far
        self.member_starts: list[MemberStart] = [] if self._codec else [MemberStart(base, start)]
        self._damage: Damage | None = None
        self.ended = start >= self.stop

    @property
    def compressed(self) -> bool:
        return self._codec is not None

    @property
    def position(self) -> int:
        return self._base + self._cursor

    @property
    def decompressed(self) -> int:
        """The position up to which bytes have been decompressed."""
        return self._base + len(self._buffer)

    @property
    def stored_position(self) -> int:
        """Offset in the file of the first byte that no decoder has seen."""
        return self._file_position

    @property
    def damage(self) -> Damage | None:
        """Why the stream ended, once all that could be decompressed has been read; None at a sound end."""
        return self._damage if self._cursor == len(self._buffer) else None

    def clear_damage(self) -> None:
        """Treats a damaged end as a sound one, after the caller has accounted for the loss."""
        self._damage = None

    def file_offset(self, position: int) -> int:
        """File offset of a position in a plain file."""
        return self.member_starts[0].offset + position - self.member_starts[0].position

    def member_start_between(self, first: int, last: int) -> int | None:
        """File offset of the member that starts between two positions (both included), or None; the end of the stream
        counts as a start."""
        index = bisect_left(self.member_starts, first, key=_POSITION)
        if index < len(self.member_starts) and self.member_starts[index].position <= last:
            return self.member_starts[index].offset
        if (
            self.ended
            and (not self._damage or self._damage.truncated)
            and first <= self._base + len(self._buffer) <= last
        ):
            return self.stop
        return None

    def last_member_start(self, first: int, last: int) -> MemberStart | None:
        """The last member that starts between two positions (both included)."""
        index = bisect_right(self.member_starts, last, key=_POSITION) - 1
        return self.member_starts[index] if index >= 0 and self.member_starts[index].position >= first else None

    def first_member_start(self, after: int) -> int | None:
        """The position of the first member that starts after a position, as far as the stream has been decompressed."""
        index = bisect_right(self.member_starts, after, key=_POSITION)
        return self.member_starts[index].position if index < len(self.member_starts) else None

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, without consuming them."""
        self.fill(size)
        return bytes(memoryview(self._buffer)[self._cursor : self._cursor + size])

    def fill(self, size: int) -> int:
        """Decompresses until `size` bytes follow the current position; returns how many do, fewer at the end."""
        while len(self._buffer) - self._cursor < size and self._decompress_more():
            pass
        return min(size, len(self._buffer) - self._cursor)

    def search(self, pattern: re.Pattern[bytes], start: int, size: int) -> tuple[int, int] | None:
        """Where a pattern first matches in the next bytes from `start` up to `size`: start and end, counted from the
        current position."""
        self.fill(size)
        match = pattern.search(self._buffer, self._cursor + start, min(len(self._buffer), self._cursor + size))
        return (match.start() - self._cursor, match.end() - self._cursor) if match else None

    def read(self, size: int) -> bytes:
        data = self.peek(size)
        self._cursor += len(data)
        return data

    def skip(self, size: int) -> int:
        """Skips up to `size` bytes without keeping them; returns how many there were."""
        done = 0
        while done < size:
            step = len(self.peek(min(size - done, _CHUNK)))
            if not step:
                break
            self._cursor += step
            done += step
            self.discard_consumed()
        return done

    def skip_bytes(self, others: re.Pattern[bytes], *, within_member: bool = False) -> None:
        """Skips bytes up to the first that `others` matches; `within_member`: not beyond the start of a member."""
        while self.fill(1):
            stop = len(self._buffer)
            if within_member:
                if self.last_member_start(self.position, self.position):
                    break
                following = self.first_member_start(self.position)
                stop = stop if following is None else min(stop, following - self._base)
            found = others.search(self._buffer, self._cursor, stop)
            self._cursor = found.start() if found else stop
            if found:
                break
            self.discard_consumed()

    def skip_blank_lines(self) -> int:
        """Skips lines of nothing but white space, from the start of a line on; returns how many there were."""
        lines = 0
        while self.fill(1):
            found = _BLANK.search(self._buffer, self._cursor)
            stop = found.start() if found else len(self._buffer)
            end = self._buffer.rfind(b"\n", self._cursor, stop) + 1
            if not end:
                break
            lines += self._buffer.count(b"\n", self._cursor, end)
            self._cursor = end
            self.discard_consumed()
            if found:
                break
        return lines

    def seek(self, position: int) -> None:
        """Goes to a position between the last `discard_consumed` and the end of what has been decompressed."""
        assert self._base <= position <= self._base + len(self._buffer)
        self._cursor = position - self._base

    def discard_consumed(self) -> None:
        """Frees the buffer before the current position."""
        del self._buffer[: self._cursor]
        self._base += self._cursor
        self._cursor = 0
        if self._codec:
            last = bisect_left(self.member_starts, self._base, key=_POSITION) - 1
            if last > len(self.member_starts) // 2:  # seldom, so that many members cost no more than a few
                del self.member_starts[:last]

    def readline(self, limit: int) -> bytes:
        """Up to and including the next line feed, at most `limit` bytes."""
        return self.read(min(self.line_size(limit), limit))

    def line_size(self, limit: int) -> int:
        """Bytes up to and including the next line feed, or up to the end; limit + 1 if they are more than `limit`."""
        searched = 0
        while True:
            found = self._buffer.find(b"\n", self._cursor + searched, self._cursor + limit)
            if found >= 0:
                return found + 1 - self._cursor
            searched = len(self._buffer) - self._cursor
            if searched > limit:
                return limit + 1
            if not self._decompress_more():
                return searched

    def resync(self, plausible: Callable[[bytes], bool]) -> int | None:
        """After damage: continues at the next member whose first bytes are `plausible`. Returns its file offset, or
        None where there is no such member. Bytes in between are lost; positions continue as if they did not exist."""
        assert self._damage is not None
        if self._codec is None or not self._codec.magic or self.decompressed >= self._max_position:
            return None
        for at in self._occurrences(self._codec.magic, self._damage.offset + 1):
            if plausible(self._decompress_prefix(at)):
                self._cursor = len(self._buffer)
                self.discard_consumed()
                self._damage, self.ended = None, False
                self._decoder, self._pending = None, False
                self._undecoded, self._file_position = memoryview(b""), at
                return at
        return None

    def _occurrences(self, magic: bytes, start: int) -> Iterator[int]:
        """File offsets of `magic` in [start, stop)."""
        tail = b""
        while start < self.stop:
            self._file.seek(start)
            chunk = self._file.read(min(1 << 20, self.stop - start))
            if not chunk:
                break
            data, begin = tail + chunk, start - len(tail)
            found = data.find(magic)
            while found >= 0:
                yield begin + found
                found = data.find(magic, found + 1)
            start += len(chunk)
            tail = data[-(len(magic) - 1) :]

    def _decompress_prefix(self, at: int) -> bytes:
        """The first decompressed bytes of what may be a member, up to an error if there is one."""
        assert self._codec
        self._file.seek(at)
        decoder, out = self._codec.new(), b""
        while len(out) < _PROBE_BYTES and not decoder.eof and at < self.stop:
            chunk = self._file.read(64)
            at += len(chunk)
            try:
                out += self._codec.decode(decoder, chunk, _PROBE_BYTES)
            except self._codec.errors:
                break
        return out

    def _decompress_more(self) -> bool:
        """Decompresses a little more into the buffer. False at the end."""
        if self.ended:
            return False
        if not self._undecoded and not self._pending:
            self._read_chunk()
            if not self._undecoded:
                return self._end_stream(
                    None if self._decoder is None else "the compressed data ends early", truncated=True
                )
        if self._codec is None:
            self._buffer += self._undecoded
            self._file_position += len(self._undecoded)
            self._undecoded = memoryview(b"")
            return True
        if self._decoder is None and not self._begin_member():
            return not self.ended
        return self._decompress()

    def _read_chunk(self) -> None:
        self._file.seek(self._file_position)
        self._undecoded = memoryview(self._file.read(min(_CHUNK, self.stop - self._file_position)))

    def _begin_member(self) -> bool:
        if len(self._undecoded) < 8:  # the header may continue in the next chunk
            self._read_chunk()
        assert self._codec
        head = bytes(self._undecoded[:8])
        if self._codec.name in ("zstd", "lz4") and decoders.is_skippable_frame(head):
            self._file_position += 8 + int.from_bytes(head[4:8], "little")
            self._undecoded = memoryview(b"")
            return False
        if decoders.detect_compression(head) != self._codec.name:
            if not bytes(self._undecoded).strip(b"\0"):  # tape blocks and some writers pad with zeros
                self._file_position += len(self._undecoded)
                self._undecoded = memoryview(b"")
                return False
            self._begin_at(self._file_position)
            self._member_bytes_out = 0
            return self._end_stream(f"no {self._codec.name} member begins here", truncated=len(head) < 8)
        self._decoder = self._codec.new()
        self._member_bytes_out = 0
        self._member_start = self._file_position
        self._begin_at(self._file_position)
        return True

    def _begin_at(self, offset: int) -> None:
        """Notes that a member starts here. Of empty ones one after the other only the first and the last count."""
        mark, known = MemberStart(self._base + len(self._buffer), offset), self.member_starts
        if len(known) > 1 and known[-1].position == known[-2].position == mark.position:
            known[-1] = mark
        else:
            known.append(mark)

    def _decompress(self) -> bool:
        assert self._codec
        codec, given = self._codec, self._undecoded[: decoders.GIVEN]
        try:
            out = codec.decode(self._decoder, given)
        except codec.errors as error:
            self._buffer += self._recover_broken_member()
            return not self._expands_too_far() and self._end_stream(f"{codec.name}: {error}", truncated=False)
        self._buffer += out
        self._member_bytes_out += len(out)
        eof = self._decoder.eof
        rest = (self._decoder.unused_data or b"") if eof else codec.given_back(self._decoder)
        used = len(given) - len(rest)  # negative where the decoder had kept it
        self._file_position += used
        self._undecoded = self._undecoded[used:] if used >= 0 else memoryview(rest)
        self._pending = not eof and codec.has_more(self._decoder, out)
        if eof:
            self._decoder = None
        return not self._expands_too_far()

    def _expands_too_far(self) -> bool:
        if self.decompressed > self._max_position:
            self.ended, self._damage = True, Damage(limits.EXPANDS_TOO_FAR, self._file_position, truncated=False)
        return self.ended

    def _recover_broken_member(self) -> bytes:
        """What can still be decompressed of a broken member beyond what was. A decoder that fails does not return what
        it had made of its data, and which data that is depends on where reading began; so the member is decoded again
        in pieces that count from its start, and the piece that fails once more, byte by byte."""
        assert self._codec
        sound = 0
        for size in (decoders.GIVEN, 1):
            decoder, out, skip, at = self._codec.new(), bytearray(), self._member_bytes_out, self._member_start
            try:
                while at < self.stop:
                    self._file.seek(at)
                    step = decoders.GIVEN if at < self._member_start + sound else size
                    chunk = self._file.read(min(step, self.stop - at))
                    for made in self._codec.decode_all(decoder, chunk):
                        out += made[skip:]
                        skip = max(0, skip - len(made))
                    at += len(chunk)
            except self._codec.errors:
                sound = at - self._member_start
        return bytes(out)

    def _end_stream(self, reason: str | None, *, truncated: bool) -> bool:
        self.ended = True
        if reason is not None:
            at = self.member_starts[-1].offset if self.member_starts else self._file_position
            self._damage = Damage(reason, at, truncated)
        return False
