"""The reader `read: text`: JSON Lines, Parquet and Arrow files by suffix; any other file is one document.

A compression suffix is ignored: `a.jsonl.zst` is JSON Lines. The compression itself is detected from the first bytes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

import pyarrow as pa

from curation import document, storage
from curation.sources import charset, jsonl, parquet_arrow
from curation.sources.batch_builder import SourceRow, batch_rows, position_key, provenance
from curation.sources.compressed_stream import CompressedStream
from curation.sources.jsonl import FieldMapping
from curation.sources.warc import detect_binary_type
from curation.step import InputSplit, UnreadableFile

MAX_FILE = 1 << 27  # 128 MiB: a larger text file becomes a drop
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


def format_by_suffix(path: str) -> str:
    """`jsonl`, `parquet`, `arrow` or `text`: the format of a file by its name."""
    return _SUFFIXES.get(posixpath.splitext(document.strip_compression(path))[1].lower(), "text")


def is_html_path(path: str) -> bool:
    """Whether a file's name says that it is HTML."""
    return posixpath.splitext(document.strip_compression(path))[1].lower() in _HTML


@dataclass
class TextReader:
    """Reads text files and tables.

    text, id, url, date  names of the fields or columns; all others go to `meta`. `id` empty: the position is the key
    mime                 text/html: the texts are HTML, for the step `extract`
    format               the format of all files, whatever their suffix; `text`: each file is one document
    """

    text: str = "text"
    id: str = ""
    url: str = "url"
    date: str = "date"
    mime: Literal["text/plain", "text/html"] = "text/plain"
    format: Literal["auto", "jsonl", "parquet", "arrow", "text"] = "auto"

    def packages(self) -> Sequence[str]:
        return ("resiliparse",)  # its detector of encodings

    def may_split(self, piece: InputSplit, target: int) -> bool:
        """Whether `split` may cut a file, by its name and size."""
        smallest = {"jsonl": 2 * target, "parquet": target + 1}.get(self._kind(piece.path))
        return smallest is not None and not self.id and piece.start is None and piece.size >= smallest

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """Splits uncompressed JSON Lines by byte ranges and Parquet by row groups. With `id` a file is a single split:
        whether an id repeats is known only after reading all of it."""
        kind = self._kind(piece.path)
        if not self.may_split(piece, target):
            return [piece]
        with storage.open_input(root, piece.path, read_ahead=False) as file:
            return (
                jsonl.split_file(file, piece, target)
                if kind == "jsonl"
                else parquet_arrow.split_file(file, piece, target)
            )

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `document.READ_BATCH`, one row for each line, row or file. Raises UnreadableFile for a file that
        is not in the format of its suffix, and for the part of a file after damage."""
        return batch_rows(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """The line or file as stored, decompressed; a table's row as JSON."""
        with storage.open_input(root, source["file"]) as file:
            if source["kind"] == "jsonl":
                return jsonl.read_original(file, source)
            if source["kind"] in ("parquet", "arrow"):
                return parquet_arrow.read_original(file, source)
            return CompressedStream(file).read(MAX_FILE)

    def _kind(self, path: str) -> str:
        return format_by_suffix(path) if self.format == "auto" else self.format

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        fields = FieldMapping(collection, piece, self.text, self.id, self.url, self.date, self.mime)
        with storage.open_input(root, piece.path) as file:
            kind = self._kind(piece.path)
            if kind == "jsonl":
                yield from jsonl.read_rows(file, piece, fields)
            elif kind == "parquet":
                yield from parquet_arrow.read_parquet_rows(file, piece, fields)
            elif kind == "arrow":
                yield from parquet_arrow.read_arrow_rows(file, piece, fields)
            else:
                yield self._document(file, piece, collection)

    def _document(self, file: IO[bytes], piece: InputSplit, collection: str) -> SourceRow:
        """Reads a file as one document."""
        row = SourceRow(
            document.doc_id(collection, piece.path, position_key(0)), provenance(piece.path, "text", 0, piece.size)
        )
        row.mime = "text/html" if is_html_path(piece.path) else self.mime
        stream = CompressedStream(file)
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
        elif binary := detect_binary_type(data):
            row.mime = binary
            row.drop = ("mime", binary)
        else:
            decoded = charset.decode(data, html=row.mime == "text/html")
            row.text, row.charset = decoded.text, decoded.charset
        return row
