"""The decompressed bytes of a stored file, which know where they are stored.

Archives are chains of small compressed *members* (gzip members, zstd or lz4 frames), so that one record can be fetched
by the offset and length of its member. A `Stream` hides the chain: callers see one run of bytes, and ask it where
members begin. Damage is not an exception here: the stream ends early and says in `damage` where and why, so that
whoever frames records can keep what came before and `resync` at the next member.

The compression is told by the first bytes, never by the name: crawls are full of `.warc.gz` that are not gzip.
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
_DICTIONARY = b"\x5d\x2a\x4d\x18"  # the skippable frame that holds a .warc.zst file's dictionary
_CHUNK = 1 << 16
_ZSTD_CHUNK = 1 << 13  # a zstd block can make 128 KiB of 4 bytes: 8 KiB in are at most 256 MiB out
_PROBE = 512  # decompressed bytes looked at to believe that a member begins here


def compression(first: bytes) -> str:
    """`gzip`, `zstd`, `lz4`, `bz2`, `xz`, or `` for plain bytes, from a file's first bytes (8 are enough)."""
    for magic, name in _MAGIC.items():
        if first.startswith(magic):
            return name
    return "zstd" if _is_skippable(first) else ""


def _is_skippable(first: bytes) -> bool:
    """Frames of application data that zstd and lz4 readers pass over (RFC 8878, section 3.1.2)."""
    return len(first) >= 4 and 0x50 <= first[0] <= 0x5F and first[1:4] == b"\x2a\x4d\x18"


@dataclass(frozen=True)
class Damage:
    """Why a stream ended before its file did. `stored` is where the broken member begins."""

    reason: str
    stored: int
    truncated: bool  # the file just stops; nothing that is there is wrong


@dataclass(frozen=True)
class Mark:
    """A member begins: at `position` of the decompressed bytes, at `stored` of the file."""

    position: int
    stored: int


class Stream:
    """Reads decompressed bytes from `start` (a member's first byte) up to `stop` of a seekable binary file.

    `position` counts decompressed bytes from `base`. What was read since the last `release` can be gone back to.
    """

    def __init__(self, file: IO[bytes], *, start: int = 0, stop: int | None = None, base: int = 0) -> None:
        self._file = file
        self.stop = file.seek(0, 2) if stop is None else stop
        file.seek(0)
        self._codec = compression(file.read(8))
        self._make = self._decoder_factory()
        self._buffer = bytearray()
        self._base = base  # position of the buffer's first byte
        self._at = 0  # index into the buffer of the next byte
        self._stored = start  # file offset of the first byte not yet given to a decoder
        self._pending = b""  # read from the file, not yet given to a decoder (starts at _stored)
        self._decoder: Any = None
        self._produced = 0  # bytes the current member has given so far
        self.marks: list[Mark] = [] if self._codec else [Mark(base, start)]
        self._damage: Damage | None = None
        self.ended = start >= self.stop

    @property
    def compressed(self) -> bool:
        return bool(self._codec)

    @property
    def position(self) -> int:
        return self._base + self._at

    @property
    def damage(self) -> Damage | None:
        """Why there is no more, once everything that could be decompressed has been read; None at a sound end."""
        return self._damage if self._at == len(self._buffer) else None

    def forgive(self) -> None:
        """Takes a damaged end for a sound one: what it cost has been accounted for."""
        self._damage = None

    def stored_at(self, position: int) -> int:
        """File offset of a position in a plain file."""
        return self.marks[0].stored + position - self.marks[0].position

    def begins(self, first: int, last: int) -> int | None:
        """Where in the file the member is stored that begins between two positions (both included), if one does;
        the end of the stream counts as a beginning."""
        for mark in self.marks:
            if first <= mark.position <= last:
                return mark.stored
        if (
            self.ended
            and (not self._damage or self._damage.truncated)
            and first <= self._base + len(self._buffer) <= last
        ):
            return self.stop
        return None

    def last_mark(self, first: int, last: int) -> Mark | None:
        """The last member that begins between two positions (both included)."""
        return next((m for m in reversed(self.marks) if first <= m.position <= last), None)

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end, without moving on."""
        while len(self._buffer) - self._at < size and self._fill():
            pass
        return bytes(self._buffer[self._at : self._at + size])

    def read(self, size: int) -> bytes:
        data = self.peek(size)
        self._at += len(data)
        return data

    def skip(self, size: int) -> int:
        """Moves on by up to `size` bytes without keeping them; how many there were."""
        done = 0
        while done < size:
            step = len(self.peek(min(size - done, _CHUNK)))
            if not step:
                break
            self._at += step
            done += step
            self.release()
        return done

    def back_to(self, position: int) -> None:
        """Goes back to a position not before the last `release`."""
        assert self._base <= position <= self._base + len(self._buffer)
        self._at = position - self._base

    def release(self) -> None:
        """Forgets everything before the current position."""
        del self._buffer[: self._at]
        self._base += self._at
        self._at = 0
        if self._codec:
            last = max((i for i, m in enumerate(self.marks) if m.position < self._base), default=0)
            del self.marks[:last]

    def readline(self, limit: int) -> bytes:
        """Up to and including the next line feed, at most `limit` bytes."""
        searched = 0
        while True:
            found = self._buffer.find(b"\n", self._at + searched, self._at + limit)
            if found >= 0:
                return self.read(found + 1 - self._at)
            searched = len(self._buffer) - self._at
            if searched >= limit or not self._fill():
                return self.read(limit)

    def resync(self, plausible: Callable[[bytes], bool]) -> int | None:
        """After damage: continues at the next member whose first bytes are `plausible`. Returns where it is stored, or
        None where the file has no such member. Bytes in between are lost; positions go on as if they did not exist."""
        assert self._damage is not None
        magic = {"gzip": GZIP, "zstd": ZSTD, "lz4": LZ4}.get(self._codec)
        at = self._damage.stored + 1
        while magic and (at := self._find(magic, at)) >= 0:
            if plausible(self._probe(at)):
                self._at = len(self._buffer)
                self.release()
                self._damage, self.ended = None, False
                self._decoder, self._pending, self._stored = None, b"", at
                return at
            at += 1
        return None

    def _find(self, magic: bytes, start: int) -> int:
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

    def _probe(self, at: int) -> bytes:
        """The first decompressed bytes of what may be a member; what comes before an error counts."""
        self._file.seek(at)
        decoder, out = self._make(), b""
        while len(out) < _PROBE and not decoder.eof and at < self.stop:
            chunk = self._file.read(64)
            at += len(chunk)
            try:
                out += decoder.decompress(chunk)
            except self._errors:
                break
        return out

    def _fill(self) -> bool:
        """Decompresses a little more into the buffer. False at the end."""
        if self.ended:
            return False
        if not self._pending:
            self._file.seek(self._stored)
            size = _ZSTD_CHUNK if self._codec == "zstd" else _CHUNK
            self._pending = self._file.read(min(size, self.stop - self._stored))
        if not self._pending:
            return self._end(None if self._decoder is None else "the compressed data ends early", truncated=True)
        if not self._codec:
            self._buffer += self._pending
            self._stored += len(self._pending)
            self._pending = b""
            return True
        if self._decoder is None and not self._begin_member():
            return not self.ended
        return self._decompress()

    def _begin_member(self) -> bool:
        if len(self._pending) < 8:  # a header at the edge of a chunk
            self._file.seek(self._stored)
            self._pending = self._file.read(min(_CHUNK, self.stop - self._stored))
        if self._codec in ("zstd", "lz4") and _is_skippable(self._pending):
            self._stored += 8 + int.from_bytes(self._pending[4:8], "little")
            self._pending = b""
            return False
        if compression(self._pending) != self._codec:
            padding = self._pending.strip(b"\0") == b""  # tape blocks and some writers pad with zeros
            if padding:
                self._stored += len(self._pending)
                self._pending = b""
                return False
            short = len(self._pending) < 8
            self.marks.append(Mark(self._base + len(self._buffer), self._stored))
            self._produced = 0
            return self._end(f"no {self._codec} member begins here", truncated=short)
        self._decoder = self._make()
        self._produced = 0
        self._member = self._stored
        self.marks.append(Mark(self._base + len(self._buffer), self._stored))
        return True

    def _decompress(self) -> bool:
        given = self._pending
        try:
            out = self._decoder.decompress(given)
        except self._errors as error:
            self._buffer += self._salvage()
            return self._end(f"{self._codec}: {error}", truncated=False)
        self._buffer += out
        self._produced += len(out)
        rest = (self._decoder.unused_data or b"") if self._decoder.eof else b""
        self._stored += len(given) - len(rest)
        self._pending = rest
        if self._decoder.eof:
            self._decoder = None
        return True

    def _salvage(self) -> bytes:
        """What the broken chunk still gives. A decoder that fails keeps what it had made of that chunk to itself, and
        how the file falls into chunks depends on where reading began; so the member is decoded again and the last
        chunk fed byte by byte, which gives the same bytes wherever one came from."""
        decoder, out, skip = self._make(), bytearray(), self._produced
        at = self._member
        self._file.seek(at)
        while at < self._stored:
            chunk = self._file.read(min(_ZSTD_CHUNK, self._stored - at))
            at += len(chunk)
            made = decoder.decompress(chunk)
            out += made[skip:]
            skip = max(0, skip - len(made))
        for i in range(len(self._pending)):
            try:
                made = decoder.decompress(self._pending[i : i + 1])
            except self._errors:
                break
            out += made[skip:]
            skip = max(0, skip - len(made))
        return bytes(out)

    def _end(self, reason: str | None, *, truncated: bool) -> bool:
        self.ended = True
        if reason is not None:
            at = self.marks[-1].stored if self.marks else self._stored
            self._damage = Damage(reason, at, truncated)
        return False

    def _decoder_factory(self) -> Callable[[], Any]:
        self._errors: tuple[type[Exception], ...] = (zlib.error, OSError, ValueError, EOFError)
        if self._codec == "gzip":
            return lambda: zlib.decompressobj(31)
        if self._codec == "bz2":
            return bz2.BZ2Decompressor
        if self._codec == "xz":
            self._errors = (lzma.LZMAError,)
            return lzma.LZMADecompressor
        if self._codec == "lz4":
            import lz4.frame

            self._errors = (RuntimeError, EOFError)
            return lz4.frame.LZ4FrameDecompressor  # type: ignore[no-any-return]
        if self._codec == "zstd":
            import zstandard

            self._errors = (zstandard.ZstdError,)
            dictionary = self._zstd_dictionary()
            return lambda: zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << 31).decompressobj()
        return lambda: None

    def _zstd_dictionary(self) -> Any:
        """The dictionary that a .warc.zst file carries in a skippable frame before its first record, plain or itself
        compressed (the IIPC's Zstandard Compression for WARC Files 1.0)."""
        import zstandard

        self._file.seek(0)
        head = self._file.read(8)
        if not head.startswith(_DICTIONARY):
            return None
        data = self._file.read(int.from_bytes(head[4:8], "little"))
        if data.startswith(ZSTD):
            try:
                data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
            except zstandard.ZstdError:
                return None  # every member will then say that it needs a dictionary
        return zstandard.ZstdCompressionDict(data)
