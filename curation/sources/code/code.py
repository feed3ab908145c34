"""The reader `read: code`: reads repositories of source code, one document a file, with its language and licence.

A repository is a folder, an archive (.tar, .tar.gz and other compressions, .zip), or the rows of a table like The
Stack's. A file's licence is what its own head says (SPDX-License-Identifier, or a usual notice); else that of the
nearest folder above it with a licence file; of a table, what its column of licences says. Every file is a record.

The Stack's columns: https://huggingface.co/datasets/bigcode/the-stack, /bigcode/the-stack-v2.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from curation import document, storage
from curation.core.errors import UserError
from curation.source_code.file_marks import is_data, is_generated, is_minified, is_vendored
from curation.source_code.languages import detect_language
from curation.sources.batch_builder import RecordKeys, SourceRow, batch_rows, meta_json, position_key, provenance
from curation.sources.code.licence_texts import is_licence_file, recognize_notice
from curation.sources.code.repository_archive import archive_format, archived_files
from curation.sources.code.repository_licences import Licences, of_archive, of_folder
from curation.sources.code.spdx import is_allowed, tagged_expression
from curation.sources.code.stack_table import read_table, table_has_code
from curation.sources.compressed_stream import CompressedStream
from curation.sources.text import parquet_arrow
from curation.sources.warc.warc import detect_binary_type
from curation.step import InputSplit, RecordError

_TABLES = (".parquet", ".pq")
_HEAD = 512


@dataclass
class CodeReader:
    """Reads repositories of source code.

    licenses   SPDX identifiers, such as [MIT, Apache-2.0]: files under other licences or none are dropped; empty: all
               files are kept
    languages  names as linguist has them, such as [Python, C++]: files in other languages are dropped; empty: all
    max_bytes  a larger file is dropped (The Stack: 1 MiB)
    """

    licenses: list[str] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    max_bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if not 0 < self.max_bytes <= 1 << 27:
            raise UserError(f"max_bytes is {self.max_bytes}\n  expected 1 to {1 << 27:,}")

    def packages(self) -> Sequence[str]:
        return ()

    def may_split(self, piece: InputSplit, target: int) -> bool:
        """Whether `split` may cut a file: only tables are cut."""
        return piece.start is None and piece.size > target and piece.path.lower().endswith(_TABLES)

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """Splits Parquet by row groups; an archive is read by one task."""
        if not self.may_split(piece, target):
            return [piece]
        with storage.open_input(root, piece.path, read_ahead=False) as file:
            return parquet_arrow.split_file(file, piece, target)

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `document.READ_BATCH`, one row for each file of a repository or row of a table. Raises
        UnreadableFile for the rest of a damaged archive."""
        return batch_rows(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """A file as stored, unpacked; a table's row as JSON."""
        path = source["file"]
        with storage.open_input(root, path) as file:
            if source["kind"] == "parquet":
                return parquet_arrow.read_original(file, source)
            if source["row"] is None:
                return CompressedStream(file).read(self.max_bytes)
            for number, entry in enumerate(archived_files(file, path, file.seek(0, 2))):
                if number == source["row"]:
                    return entry.read(self.max_bytes)
        raise RecordError(f"{path}: no file {source['row']}")

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        with storage.open_input(root, piece.path) as file:
            if piece.path.lower().endswith(_TABLES) and table_has_code(file):
                for row, found in read_table(file, piece, collection):
                    if row.drop is None:
                        self._judge(row, row.text or "", found)
                    yield row
                return
            stream = CompressedStream(file)
            kind = archive_format(stream.peek(_HEAD))
            repository, licences = of_folder(root, piece.path)
            inside = repository is not None and "/" in piece.path
            if kind and not inside:
                yield from self._archive(file, piece, collection)
                return
            row = SourceRow(
                document.doc_id(collection, piece.path, position_key(0)), provenance(piece.path, "code", 0, piece.size)
            )
            path = document.strip_compression(piece.path)
            name = repository or path.partition("/")[0] if "/" in path else posixpath.basename(root.rstrip("/"))
            found = {"repository": name, "path": path}
            row.meta = meta_json(found)
            if kind:
                row.drop = ("record_type", "an archive inside a repository")
            else:
                data = stream.read(self.max_bytes + 1)
                row.bytes = len(data)
                if stream.damage:
                    row.drop = ("unreadable", stream.damage.reason)
                else:
                    self._fill_in(row, data, found, licences)
            yield row

    def _archive(self, file: IO[bytes], piece: InputSplit, collection: str) -> Iterator[SourceRow]:
        """The files of an archive, which is read twice: the licence files may come last."""
        licences = of_archive(archived_files(file, piece.path, piece.size))
        stem = posixpath.basename(document.strip_compression(piece.path))
        repository = stem.removesuffix(".tgz").removesuffix(".tar").removesuffix(".zip").removesuffix(".whl")
        keys = RecordKeys()
        for number, entry in enumerate(archived_files(file, piece.path, piece.size)):
            row = SourceRow(
                document.doc_id(collection, piece.path, keys.unique(entry.path)),
                provenance(piece.path, "code", None, None, number),
            )
            found = {"repository": repository, "path": entry.path.removeprefix("./")}
            row.meta = meta_json(found)
            if entry.kind:
                row.drop = ("record_type", entry.kind)
            elif entry.size > self.max_bytes:
                row.drop = ("unreadable", f"larger than {self.max_bytes} bytes")
            else:
                try:
                    data = entry.read(self.max_bytes)
                except RecordError as error:
                    row.drop = ("unreadable", str(error))
                else:
                    row.bytes = len(data)
                    self._fill_in(row, data, found, licences)
            yield row

    def _fill_in(self, row: SourceRow, data: bytes, found: dict[str, Any], licences: Licences) -> None:
        """The text of a file, or the reason why it has none."""
        if len(data) > self.max_bytes:
            row.drop, row.bytes = ("unreadable", f"larger than {self.max_bytes} bytes"), None
        elif is_licence_file(found["path"]):
            row.drop = ("record_type", "a licence")
        elif binary := detect_binary_type(data):
            row.drop = ("mime", binary)
        else:
            try:
                text = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                row.drop = ("unreadable", f"not in UTF-8: {error.reason} at byte {error.start}")
                return
            licence = licences.of(found["path"])
            self._judge(row, text, found | {"licence": licence, "licence_from": "repository" if licence else None})

    def _judge(self, row: SourceRow, text: str, found: dict[str, Any]) -> None:
        """The language, licence and marks of a file, and whether the reader's options drop it."""
        path = found["path"]
        if own := tagged_expression(text) or recognize_notice(text):
            found |= {"licence": own, "licence_from": "file"}
        language = found.get("language") or detect_language(path, text)
        found["language"] = language or None
        found["vendored"] = bool(found.get("vendored")) or is_vendored(path)
        found["generated"] = bool(found.get("generated")) or is_generated(path, text)
        found["minified"], found["data"] = is_minified(path, language, text), is_data(language, text)
        row.text, row.charset, row.mime, row.meta = text, "utf-8", "text/plain", meta_json(found)
        licence = found.get("licence")
        if not text or text.isspace():
            row.drop = ("empty", "")
        elif not language:
            row.drop = ("record_type", "no known language")
        elif self.languages and language not in self.languages:
            row.drop = ("record_type", language)
        elif self.licenses and not (licence and is_allowed(licence, self.licenses)):
            row.drop = ("licence", licence or "none found")
