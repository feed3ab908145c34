"""Reads the decompressed bytes of a file and keeps track of where in the file they are stored.

Archives are chains of small compressed *members* (gzip members, zstd or lz4 frames), so that one record can be fetched
by the offset and length of its member. A `CompressedStream` hides the chain: callers read one run of bytes and ask
where members start. Damage is not an exception here: the stream ends early and says in `damage` where and why, so that
the caller can keep the records before it and `resync` at the next member.

The compression is detected from the first bytes, never from the name: crawls are full of `.warc.gz` that are not gzip.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

GZIP, ZSTD, LZ4 = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
_MAGIC = {GZIP: "gzip", ZSTD: "zstd", LZ4: "lz4", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}
_ZSTD_DICTIONARY_FRAME = b"\x5d\x2a\x4d\x18"  # the skippable frame that holds the dictionary of a .warc.zst file
_CHUNK = 1 << 16
_ZSTD_CHUNK = 1 << 13  # a zstd block can expand 4 bytes to 128 KiB: 8 KiB in are at most 256 MiB out
_PROBE_BYTES = 512  # decompressed bytes that decide whether a member starts here


def detect_compression(first: bytes) -> str:
    """`gzip`, `zstd`, `lz4`, `bz2`, `xz`, or `` for plain bytes, by a file's first bytes (8 are enough)."""
    for magic, name in _MAGIC.items():
        if first.startswith(magic):
            return name
    return "zstd" if _is_skippable_frame(first) else ""


def _is_skippable_frame(first: bytes) -> bool:
    """Whether a frame of application data starts here, which zstd and lz4 readers skip (RFC 8878, section 3.1.2)."""
    return len(first) >= 4 and 0x50 <= first[0] <= 0x5F and first[1:4] == b"\x2a\x4d\x18"


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

    `position` counts decompressed bytes from `base`. `seek_back` can return to any position since the last
    `discard_consumed`.
    """

    def __init__(self, file: IO[bytes], *, start: int = 0, stop: int | None = None, base: int = 0) -> None:
        self._file = file
        self.stop = file.seek(0, 2) if stop is None else stop
        file.seek(0)
        self._compression = detect_compression(file.read(8))
        self._new_decoder = self._decoder_factory()
        self._buffer = bytearray()
        self._base = base  # position of the buffer's first byte
        self._cursor = 0  # index into the buffer of the next byte
        self._file_position = start  # file offset of the first byte not yet given to a decoder
        self._undecoded = b""  # read from the file, not yet given to a decoder (starts at _file_position)
        self._decoder: Any = None
        self._member_bytes_out = 0  # decompressed bytes of the current member so far
        self.member_starts: list[MemberStart] = [] if self._compression else [MemberStart(base, start)]
        self._damage: Damage | None = None
        self.ended = start >= self.stop

    @property
    def compressed(self) -> bool:
        return bool(self._compression)

    @property
    def position(self) -> int:
        return self._base + self._cursor

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
        for mark in self.member_starts:
            if first <= mark.position <= last:
                return mark.offset
        if (
            self.ended
            and (not self._damage or self._damage.truncated)
            and first <= self._base + len(self._buffer) <= last
        ):
            return self.stop
        return None

    def last_member_start(self, first: int, last: int) -> MemberStart | None:
        """The last member that starts between two positions (both included)."""
        return next((m for m in reversed(self.member_starts) if first <= m.position <= last), None)

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, without consuming them."""
        while len(self._buffer) - self._cursor < size and self._decompress_more():
            pass
        return bytes(self._buffer[self._cursor : self._cursor + size])

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

    def seek_back(self, position: int) -> None:
        """Goes back to a position not before the last `discard_consumed`."""
        assert self._base <= position <= self._base + len(self._buffer)
        self._cursor = position - self._base

    def discard_consumed(self) -> None:
        """Frees the buffer before the current position."""
        del self._buffer[: self._cursor]
        self._base += self._cursor
        self._cursor = 0
        if self._compression:
            last = max((i for i, m in enumerate(self.member_starts) if m.position < self._base), default=0)
            del self.member_starts[:last]

    def readline(self, limit: int) -> bytes:
        """Up to and including the next line feed, at most `limit` bytes."""
        searched = 0
        while True:
            found = self._buffer.find(b"\n", self._cursor + searched, self._cursor + limit)
            if found >= 0:
                return self.read(found + 1 - self._cursor)
            searched = len(self._buffer) - self._cursor
            if searched >= limit or not self._decompress_more():
                return self.read(limit)

    def resync(self, plausible: Callable[[bytes], bool]) -> int | None:
        """After damage: continues at the next member whose first bytes are `plausible`. Returns its file offset, or
        None where there is no such member. Bytes in between are lost; positions continue as if they did not exist."""
        assert self._damage is not None
        magic = {"gzip": GZIP, "zstd": ZSTD, "lz4": LZ4}.get(self._compression)
        at = self._damage.offset + 1
        while magic and (at := self._find_magic(magic, at)) >= 0:
            if plausible(self._decompress_prefix(at)):
                self._cursor = len(self._buffer)
                self.discard_consumed()
                self._damage, self.ended = None, False
                self._decoder, self._undecoded, self._file_position = None, b"", at
                return at
            at += 1
        return None

    def _find_magic(self, magic: bytes, start: int) -> int:
        """File offset of the next occurrence of `magic` in [start, stop), or -1."""
        tail = b""
        self._file.seek(start)
        while start < self.stop:
            chunk = self._file.read(min(1 << 20, self.stop - start))
            if not chunk:
                break
            found = (tail + chunk).find(magic)
            if found >= 0:
                return start - len(tail) + found
            start += len(chunk)
            tail = (tail + chunk)[-(len(magic) - 1) :]
        return -1

    def _decompress_prefix(self, at: int) -> bytes:
        """The first decompressed bytes of what may be a member, up to an error if there is one."""
        self._file.seek(at)
        decoder, out = self._new_decoder(), b""
        while len(out) < _PROBE_BYTES and not decoder.eof and at < self.stop:
            chunk = self._file.read(64)
            at += len(chunk)
            try:
                out += decoder.decompress(chunk)
            except self._decoder_errors:
                break
        return out

    def _decompress_more(self) -> bool:
        """Decompresses a little more into the buffer. False at the end."""
        if self.ended:
            return False
        if not self._undecoded:
            self._file.seek(self._file_position)
            size = _ZSTD_CHUNK if self._compression == "zstd" else _CHUNK
            self._undecoded = self._file.read(min(size, self.stop - self._file_position))
        if not self._undecoded:
            return self._end_stream(None if self._decoder is None else "the compressed data ends early", truncated=True)
        if not self._compression:
            self._buffer += self._undecoded
            self._file_position += len(self._undecoded)
            self._undecoded = b""
            return True
        if self._decoder is None and not self._begin_member():
            return not self.ended
        return self._decompress()

    def _begin_member(self) -> bool:
        if len(self._undecoded) < 8:  # the header may continue in the next chunk
            self._file.seek(self._file_position)
            self._undecoded = self._file.read(min(_CHUNK, self.stop - self._file_position))
        if self._compression in ("zstd", "lz4") and _is_skippable_frame(self._undecoded):
            self._file_position += 8 + int.from_bytes(self._undecoded[4:8], "little")
            self._undecoded = b""
            return False
        if detect_compression(self._undecoded) != self._compression:
            padding = self._undecoded.strip(b"\0") == b""  # tape blocks and some writers pad with zeros
            if padding:
                self._file_position += len(self._undecoded)
                self._undecoded = b""
                return False
            short = len(self._undecoded) < 8
            self.member_starts.append(MemberStart(self._base + len(self._buffer), self._file_position))
            self._member_bytes_out = 0
            return self._end_stream(f"no {self._compression} member begins here", truncated=short)
        self._decoder = self._new_decoder()
        self._member_bytes_out = 0
        self._member_start = self._file_position
        self.member_starts.append(MemberStart(self._base + len(self._buffer), self._file_position))
        return True

    def _decompress(self) -> bool:
        given = self._undecoded
        try:
            out = self._decoder.decompress(given)
        except self._decoder_errors as error:
            self._buffer += self._recover_broken_chunk()
            return self._end_stream(f"{self._compression}: {error}", truncated=False)
        self._buffer += out
        self._member_bytes_out += len(out)
        rest = (self._decoder.unused_data or b"") if self._decoder.eof else b""
        self._file_position += len(given) - len(rest)
        self._undecoded = rest
        if self._decoder.eof:
            self._decoder = None
        return True

    def _recover_broken_chunk(self) -> bytes:
        """What can still be decompressed of the broken chunk. A decoder that fails does not return what it had made of
        the chunk, and where chunks begin depends on where reading began; so the member is decoded again and its last
        chunk fed byte by byte, which gives the same bytes for any start."""
        decoder, out, skip = self._new_decoder(), bytearray(), self._member_bytes_out
        at = self._member_start
        self._file.seek(at)
        while at < self._file_position:
            chunk = self._file.read(min(_ZSTD_CHUNK, self._file_position - at))
            at += len(chunk)
            made = decoder.decompress(chunk)
            out += made[skip:]
            skip = max(0, skip - len(made))
        for i in range(len(self._undecoded)):
            try:
                made = decoder.decompress(self._undecoded[i : i + 1])
            except self._decoder_errors:
                break
            out += made[skip:]
            skip = max(0, skip - len(made))
        return bytes(out)

    def _end_stream(self, reason: str | None, *, truncated: bool) -> bool:
        self.ended = True
        if reason is not None:
            at = self.member_starts[-1].offset if self.member_starts else self._file_position
            self._damage = Damage(reason, at, truncated)
        return False

    def _decoder_factory(self) -> Callable[[], Any]:
        self._decoder_errors: tuple[type[Exception], ...] = (zlib.error, OSError, ValueError, EOFError)
        if self._compression == "gzip":
            return lambda: zlib.decompressobj(31)
        if self._compression == "bz2":
            return bz2.BZ2Decompressor
        if self._compression == "xz":
            self._decoder_errors = (lzma.LZMAError,)
            return lzma.LZMADecompressor
        if self._compression == "lz4":
            import lz4.frame

            self._decoder_errors = (RuntimeError, EOFError)
            return lz4.frame.LZ4FrameDecompressor  # type: ignore[no-any-return]
        if self._compression == "zstd":
            import zstandard

            self._decoder_errors = (zstandard.ZstdError,)
            dictionary = self._zstd_dictionary()
            return lambda: zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << 31).decompressobj()
        return lambda: None

    def _zstd_dictionary(self) -> Any:
        """The dictionary that a .warc.zst file holds in a skippable frame before its first record, plain or compressed
        itself (IIPC, Zstandard Compression for WARC Files 1.0)."""
        import zstandard

        self._file.seek(0)
        head = self._file.read(8)
        if not head.startswith(_ZSTD_DICTIONARY_FRAME):
            return None
        data = self._file.read(int.from_bytes(head[4:8], "little"))
        if data.startswith(ZSTD):
            try:
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            except zstandard.ZstdError:
                return None  # every member will then fail and name the missing dictionary
        return zstandard.ZstdCompressionDict(data)
