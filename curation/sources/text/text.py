"""The reader `read: text`: JSON Lines, JSON, CSV, TSV, Parquet and Arrow files by suffix; any other file is plain text.

A compression suffix is ignored: `a.jsonl.zst` is JSON Lines. The compression itself is detected from the first bytes.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import pyarrow as pa

from curation import document, storage
from curation.core.errors import UserError
from curation.sources.batch_builder import SourceRow, batch_rows
from curation.sources.compressed_stream import CompressedStream
from curation.sources.text import csv_tsv, json_values, jsonl, parquet_arrow, plain_text
from curation.sources.text.field_mapping import FieldMapping
from curation.step import InputSplit

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_HEAD = 1 << 16  # bytes that show whether a .json file holds JSON Lines


def format_by_suffix(path: str) -> str:
    """`jsonl`, `json`, `csv`, `tsv`, `parquet`, `arrow` or `text`: the format of a file by its name. A .json file may
    hold JSON Lines too: its first line shows it."""
    return _SUFFIXES.get(posixpath.splitext(document.strip_compression(path))[1].lower(), "text")


@dataclass
class TextReader:
    """Reads text files and tables.

    text       name of the field or column of the text, or a list of names, whose texts are joined; `a.b` is the field
               `b` inside `a`
    join       what stands between joined texts
    id, url, date  names of fields; `id` empty: the position is the key
    meta       names of the other fields to keep; null: all of them
    mime       text/html: the texts are HTML, for the step `extract`
    format     the format of all files, whatever their suffix; `text`: plain text
    delimiter  of CSV and TSV: the character between fields; empty: a comma, or a tab in TSV
    columns    of CSV and TSV: names of the columns, for files whose first row is no header
    document   of plain text: what a document is: a whole file, a line, or what stands between blank lines
    marker     of plain text: documents are what stands between occurrences of this text, such as <|endoftext|>
    """

    text: str | list[str] = "text"
    join: str = "\n\n"
    id: str = ""
    url: str = "url"
    date: str = "date"
    meta: list[str] | None = None
    mime: Literal["text/plain", "text/html"] = "text/plain"
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "arrow", "text"] = "auto"
    delimiter: str = ""
    columns: list[str] = field(default_factory=list)
    document: Literal["file", "line", "blank_lines"] = "file"
    marker: str = ""

    def __post_init__(self) -> None:
        if not self.text:
            raise UserError("text names no field\n  expected the name of a field, or a list of names")
        if len(self.delimiter.encode()) > 1 or self.delimiter in ("\n", "\r", '"'):
            raise UserError(f"delimiter is {self.delimiter!r}\n  expected one ASCII character, such as ; or \\t")
        if self.marker and self.document != "file":
            raise UserError(f"marker and document: {self.document} say two things\n  give one of them")

    def packages(self) -> Sequence[str]:
        return ("resiliparse",)  # its detector of encodings

    def may_split(self, piece: InputSplit, target: int) -> bool:
        """Whether `split` may cut a file, by its name and size."""
        by_name, delimiter = self._by_name(piece.path), self._document_delimiter()
        whole = by_name in ("csv", "tsv", "arrow") or (delimiter is None if by_name == "text" else bool(self.id))
        enough = piece.size > target if by_name == "parquet" else piece.size >= 2 * target
        return enough and not whole and piece.start is None

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """Splits uncompressed JSON Lines and text of several documents by byte ranges and Parquet by row groups. With
        `id` a file is a single split: whether an id repeats is known only after reading all of it."""
        delimiter = self._document_delimiter()
        if not self.may_split(piece, target):
            return [piece]
        with storage.open_input(root, piece.path, read_ahead=False) as file:
            kind = self._kind(file, piece.path)
            if kind == "jsonl":
                return jsonl.split_file(file, piece, target)
            if kind == "parquet":
                return parquet_arrow.split_file(file, piece, target)
            if kind == "text" and delimiter is not None:
                return plain_text.split_file(file, piece, target, delimiter)
        return [piece]

    def needs_index(self, path: str) -> bool:
        """Whether ranges of a file are known only to `index`."""
        return not self.id and self._by_name(path) in ("json", "csv", "tsv")

    def index(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """Splits what `split` cannot, JSON arrays and CSV, after reading the whole file."""
        with storage.open_input(root, piece.path) as file:
            kind = self._kind(file, piece.path)
            if kind == "json":
                return json_values.index_file(file, piece, target)
            if kind in ("csv", "tsv"):
                return csv_tsv.index_file(file, piece, target, self._dialect(kind))
        return self.split(piece, root, target)

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `document.READ_BATCH`, one row for each line, row or file. Raises UnreadableFile for a file that
        is not in the format of its suffix, and for the part of a file after damage."""
        return batch_rows(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """The record or file as stored, decompressed; a table's row as JSON."""
        with storage.open_input(root, source["file"]) as file:
            kind = source["kind"]
            if kind == "jsonl":
                return jsonl.read_original(file, source)
            if kind == "json":
                return json_values.read_original(file, source)
            if kind == "csv":
                return csv_tsv.read_original(file, source, self._dialect(self._by_name(source["file"])))
            if kind in ("parquet", "arrow"):
                return parquet_arrow.read_original(file, source)
            return plain_text.read_original(file, source, self._document_delimiter())

    def _by_name(self, path: str) -> str:
        return format_by_suffix(path) if self.format == "auto" else self.format

    def _kind(self, file: IO[bytes], path: str) -> str:
        """The format of a file. Whether a .json file is JSON Lines is said by its first line."""
        kind = self._by_name(path)
        if kind == "json" and self.format == "auto" and json_values.is_json_lines(CompressedStream(file).peek(_HEAD)):
            kind = "jsonl"
        file.seek(0)
        return kind

    def _dialect(self, kind: str) -> csv_tsv.Dialect:
        default = "\t" if kind == "tsv" else ","
        return csv_tsv.Dialect((self.delimiter or default).encode(), tuple(self.columns))

    def _document_delimiter(self) -> plain_text.Delimiter | None:
        """What ends a document of plain text; None where a file is one."""
        if self.marker:
            return plain_text.marker(self.marker)
        return {"line": plain_text.LINE, "blank_lines": plain_text.BLANK_LINES}.get(self.document)

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        fields = FieldMapping(
            collection, piece, self.text, self.id, self.url, self.date, self.mime, self.join, self.meta
        )
        with storage.open_input(root, piece.path) as file:
            kind = self._kind(file, piece.path)
            delimiter = self._document_delimiter()
            if kind == "jsonl":
                yield from jsonl.read_rows(file, piece, fields)
            elif kind == "json":
                yield from json_values.read_rows(file, piece, fields)
            elif kind in ("csv", "tsv"):
                yield from csv_tsv.read_rows(file, piece, fields, self._dialect(kind))
            elif kind == "parquet":
                yield from parquet_arrow.read_parquet_rows(file, piece, fields)
            elif kind == "arrow":
                yield from parquet_arrow.read_arrow_rows(file, piece, fields)
            elif delimiter is not None:
                yield from plain_text.read_parts(file, piece, collection, self.mime, delimiter)
            else:
                yield plain_text.read_document(file, piece, collection, self.mime)
