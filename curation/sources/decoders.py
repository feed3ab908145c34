"""Opens decoders of gzip, bzip2, xz, zstd and lz4 that give a bounded amount of data at a time.

The compression is detected from the first bytes, never from the name: crawls are full of `.warc.gz` that are not gzip.
A decoder is given 2 KiB and asked for at most 1 MiB at a time, however far a few bytes expand.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

_GZIP, _ZSTD, _LZ4 = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"
_MAGIC = {_GZIP: "gzip", _ZSTD: "zstd", _LZ4: "lz4", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}
_ZSTD_DICTIONARY_FRAME = b"\x5d\x2a\x4d\x18"  # the skippable frame that holds the dictionary of a .warc.zst file
GIVEN = 1 << 11  # bytes given to a decoder at once: of zstd, which has no max_length, that is at most 64 MiB of output
_OUT = 1 << 20  # bytes taken from a decoder at once
_XZ_MEMORY = 1 << 30  # bytes of a decoder; `xz -9` needs 65 MiB, and a header can ask for 4 GiB
_MAX_DICTIONARY = 1 << 26


def detect_compression(first: bytes) -> str:
    """`gzip`, `zstd`, `lz4`, `bz2`, `xz`, or `` for plain bytes, by a file's first bytes (8 are enough)."""
    for magic, name in _MAGIC.items():
        if first.startswith(magic):
            return name
    return "zstd" if is_skippable_frame(first) else ""


def is_skippable_frame(first: bytes) -> bool:
    """Whether a frame of application data starts here, which zstd and lz4 readers skip (RFC 8878, section 3.1.2)."""
    return len(first) >= 4 and 0x50 <= first[0] <= 0x5F and first[1:4] == b"\x2a\x4d\x18"


@dataclass(frozen=True)
class Codec:
    """One compression. `magic`: what each member begins with, if members can be found by it after damage."""

    name: str
    new: Callable[[], Any]  # a decoder of one member
    errors: tuple[type[Exception], ...]
    magic: bytes = b""

    def decode(self, decoder: Any, data: Any, size: int = _OUT) -> bytes:
        """Up to `size` decompressed bytes. (zstandard has no such limit.)"""
        return bytes(decoder.decompress(data) if self.name == "zstd" else decoder.decompress(data, size))

    def given_back(self, decoder: Any) -> bytes:
        """What it did not need yet of the data: zlib returns it, the others keep it."""
        return bytes(decoder.unconsumed_tail) if self.name == "gzip" else b""

    def has_more(self, decoder: Any, out: bytes) -> bool:
        """Whether it has more to give without further data, after it gave `out`."""
        return len(out) >= _OUT if self.name == "gzip" else not getattr(decoder, "needs_input", True)

    def decode_all(self, decoder: Any, data: bytes) -> Iterator[bytes]:
        """All that `data` expands to, up to the end of the member."""
        more = True
        while more:
            out = self.decode(decoder, data)
            yield out
            data = b"" if decoder.eof else self.given_back(decoder)
            more = not decoder.eof and (bool(data) or self.has_more(decoder, out))


def open_codec(file: IO[bytes]) -> Codec | None:
    """The codec of a file; None for one that is not compressed."""
    file.seek(0)
    name = detect_compression(file.read(8))
    errors: tuple[type[Exception], ...] = (zlib.error, OSError, ValueError, EOFError)
    if name == "gzip":
        return Codec(name, lambda: zlib.decompressobj(31), errors, _GZIP)
    if name == "bz2":
        return Codec(name, bz2.BZ2Decompressor, errors)
    if name == "xz":
        return Codec(name, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), (lzma.LZMAError,))
    if name == "lz4":
        import lz4.frame

        return Codec(name, lz4.frame.LZ4FrameDecompressor, (RuntimeError, EOFError), _LZ4)
    if name == "zstd":
        import zstandard

        dictionary = _zstd_dictionary(file)
        new = lambda: zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << 31).decompressobj()  # noqa: E731
        return Codec(name, new, (zstandard.ZstdError,), _ZSTD)
    return None


def _zstd_dictionary(file: IO[bytes]) -> Any:
    """The dictionary that a .warc.zst file holds in a skippable frame before its first record, plain or compressed
    itself (IIPC, Zstandard Compression for WARC Files 1.0)."""
    import zstandard

    file.seek(0)
    head = file.read(8)
    if not head.startswith(_ZSTD_DICTIONARY_FRAME):
        return None
    data = file.read(min(int.from_bytes(head[4:8], "little"), _MAX_DICTIONARY))
    if data.startswith(_ZSTD):
        try:
            data = zstandard.ZstdDecompressor().stream_reader(data).read(_MAX_DICTIONARY + 1)
        except zstandard.ZstdError:
            return None  # every member will then fail and name the missing dictionary
    return zstandard.ZstdCompressionDict(data) if len(data) <= _MAX_DICTIONARY else None
