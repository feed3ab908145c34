"""Limits how much one input file may cost: decompressed bytes, and records that are no documents.

Work is linear in the bytes of a file as expanded, so a compressed file must not expand without end: 48 bytes of bzip2
hold a megabyte of newlines. The numbers are far from real data: the files of the test data expand 2 to 12 times, gzip
cannot exceed 1,032 times, and dumps of whole sites reach 20. A megabyte of `1` lines has 500,000 records; a record of
real data that is no document (a WARC request, a broken line) has hundreds of bytes.
"""

from __future__ import annotations

from curation.step import UnreadableFile

MAX_EXPANSION = 1000  # decompressed bytes a stored byte
MIN_EXPANDED = 1 << 24  # 16 MiB: what any file may expand to, however small it is
MAX_EXPANDED = 1 << 36  # 64 GiB, unless a file stays below NORMAL_EXPANSION: English Wikipedia's dump has 95 GB
NORMAL_EXPANSION = 32
EXPANDS_TOO_FAR = (
    f"expands to more than {MAX_EXPANSION:,} times its stored size, as no real file does; the rest is not read"
)
FREE_DROPS, BYTES_A_DROP = 2_000, 64
FREE_SCANS, SCANS_A_BYTE = 1 << 26, 4


def max_expanded(stored: int) -> int:
    """How many bytes a compressed file of `stored` bytes may expand to."""
    return max(MIN_EXPANDED, NORMAL_EXPANSION * stored, min(MAX_EXPANSION * stored, MAX_EXPANDED))


class DropLimit:
    """Counts records without a document. Raises UnreadableFile where there are more than any real file has."""

    def __init__(self, path: str, stored: int) -> None:
        self._path, self._stored, self._drops = path, stored, 0

    def count(self, position: int, offset: int) -> None:
        """Counts one, after `position` bytes of content; what follows is unread from the stored `offset` on."""
        self._drops += 1
        if self._drops > FREE_DROPS + position // BYTES_A_DROP:
            reason = (
                f"{self._drops:,} records without a document in {position:,} bytes, more than one in {BYTES_A_DROP} "
                f"bytes; the rest is not read"
            )
            raise UnreadableFile(self._path, reason, offset, max(0, self._stored - offset))


class ScanLimit:
    """Counts bytes that were searched in vain for the end of a record: of quotes or brackets that never close, each
    may be searched for to the end of the file. Raises UnreadableFile where they exceed the file several times."""

    def __init__(self, path: str, stored: int) -> None:
        self._path, self._stored, self._scanned = path, stored, 0

    def count(self, scanned: int, position: int, offset: int) -> None:
        """As `DropLimit.count`, for `scanned` bytes."""
        self._scanned += scanned
        if self._scanned > FREE_SCANS + SCANS_A_BYTE * position:
            reason = "many records whose quotes or brackets do not close; the rest is not read"
            raise UnreadableFile(self._path, reason, offset, max(0, self._stored - offset))
