"""`read: text`: everything that is no archive. JSON Lines, Parquet, Arrow by suffix; any other file is one document.

The suffix is looked at without that of a compression: `a.jsonl.zst` is JSON Lines. The compression itself is told by
the file's first bytes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

import pyarrow as pa

from curation import document, storage
from curation.sources import charset, jsonl, parquet_arrow
from curation.sources.batch_builder import Row, batches, place, source
from curation.sources.compressed_stream import Stream
from curation.sources.jsonl import Fields
from curation.sources.warc import binary_type
from curation.step import InputSplit, UnreadableFile

MAX_FILE = 1 << 27  # 128 MiB: a larger text file is no document
_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_HTML = (".html", ".htm", ".xhtml")


def by_suffix(path: str) -> str:
    """`jsonl`, `parquet`, `arrow` or `text`: what a file is by its name."""
    return _SUFFIXES.get(posixpath.splitext(document.strip_compression(path))[1].lower(), "text")


def is_html(path: str) -> bool:
    """Whether a file's name says that it is a page."""
    return posixpath.splitext(document.strip_compression(path))[1].lower() in _HTML


@dataclass
class Text:
    """Options of `read: text`. `text`, `id`, `url`, `date` name the fields or columns; every other goes to `meta`.
    `id` empty: a record's place is its key. `mime` text/html: the texts are HTML, for `extract` to look at. `format`:
    what the files are, whatever their suffix says; `text` makes each of them one document."""

    text: str = "text"
    id: str = ""
    url: str = "url"
    date: str = "date"
    mime: Literal["text/plain", "text/html"] = "text/plain"
    format: Literal["auto", "jsonl", "parquet", "arrow", "text"] = "auto"

    def packages(self) -> Sequence[str]:
        return ("resiliparse",)  # its detector of encodings

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """Plain JSON Lines by byte ranges, Parquet by row groups. Whole where `id` is set: whether an id repeats is
        known only to who has read the whole file."""
        kind = self._kind(piece.path)
        if self.id or kind not in ("jsonl", "parquet") or piece.start is not None:
            return [piece]
        with storage.open_input(root, piece.path) as file:
            return jsonl.cut(file, piece, target) if kind == "jsonl" else parquet_arrow.cut(file, piece, target)

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `record.READ_BATCH`, one row for each line, row or file. Raises UnreadableFile for a file that is
        not what its suffix says, and for what lies behind damage."""
        return batches(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """The line or file as stored, decompressed; a table's row as JSON."""
        with storage.open_input(root, source["file"]) as file:
            if source["kind"] == "jsonl":
                return jsonl.original(file, source)
            if source["kind"] in ("parquet", "arrow"):
                return parquet_arrow.original(file, source)
            return Stream(file).read(MAX_FILE)

    def _kind(self, path: str) -> str:
        return by_suffix(path) if self.format == "auto" else self.format

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[Row]:
        fields = Fields(collection, piece, self.text, self.id, self.url, self.date, self.mime)
        with storage.open_input(root, piece.path) as file:
            kind = self._kind(piece.path)
            if kind == "jsonl":
                yield from jsonl.rows(file, piece, fields)
            elif kind == "parquet":
                yield from parquet_arrow.parquet_rows(file, piece, fields)
            elif kind == "arrow":
                yield from parquet_arrow.arrow_rows(file, piece, fields)
            else:
                yield self._document(file, piece, collection)

    def _document(self, file: IO[bytes], piece: InputSplit, collection: str) -> Row:
        """One file as one document."""
        row = Row(document.doc_id(collection, piece.path, place(0)), source(piece.path, "text", 0, piece.size))
        row.mime = "text/html" if is_html(piece.path) else self.mime
        stream = Stream(file)
        data = stream.read(MAX_FILE + 1)
        if stream.damage and not stream.damage.truncated and not data:
            raise UnreadableFile(piece.path, stream.damage.reason, 0, piece.size)
        row.bytes = len(data)
        if stream.damage:
            row.drop = ("unreadable", stream.damage.reason)
        elif len(data) > MAX_FILE:
            row.drop, row.bytes = ("unreadable", f"larger than {MAX_FILE} bytes"), None
        elif not data.strip():
            row.drop = ("empty", "")
        elif binary := binary_type(data):
            row.mime = binary
            row.drop = ("mime", binary)
        else:
            decoded = charset.decode(data, html=row.mime == "text/html")
            row.text, row.charset = decoded.text, decoded.charset
        return row
