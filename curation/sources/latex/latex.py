r"""The reader `read: latex`: reads LaTeX submissions, as arXiv has them, and folders of .tex files, as plain text.

A submission (a .tar.gz, a .gz of one file, or one of many in a .tar) is a document: its main file with all it inputs.
Each of its .tex files is a record: those that went in become drops by rule `merged`, whose value is the document. In a
folder a file with \documentclass is a document; files without one are read where it inputs them.

arXiv's bulk data: https://info.arxiv.org/help/bulk_data_s3.html.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from curation import document, storage
from curation.sources.batch_builder import SourceRow, batch_rows, meta_json, provenance
from curation.sources.compressed_stream import CompressedStream
from curation.sources.latex.submission import is_source, main_file, read_document
from curation.step import InputSplit, RecordError, UnreadableFile

MAX_FILE = 1 << 26  # 64 MiB of one file of a submission
MAX_SUBMISSION = 1 << 28  # 256 MiB unpacked: a larger one becomes a drop; arXiv takes submissions of 50 MB
_TEXTS = (".tex", ".ltx", ".latex", ".sty", ".cls", ".tikz", ".def", ".bbl", ".txt", ".pgf", "")
_NESTED = (".gz", ".tgz", ".tar")
_ARXIV = re.compile(r"(?:^|/)((?:[a-z-]+(?:\.[A-Z]{2})?/?)?\d{7}|\d{4}\.\d{4,5})(?:v\d+)?(?=\.|$)")
_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, IndexError, OverflowError)


@dataclass
class _Submission:
    name: str  # in the archive; empty where the file is one submission
    files: Mapping[str, bytes]
    reason: str = ""
    rule: str = "unreadable"


@dataclass
class LatexReader:
    """Reads LaTeX submissions and folders of .tex files. It has no options."""

    def packages(self) -> Sequence[str]:
        return ("resiliparse",)  # its detector of encodings

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """An archive is read by one task."""
        return [piece]

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `document.READ_BATCH`, one row for each .tex file. Raises UnreadableFile for the rest of a broken
        archive of many submissions."""
        return batch_rows(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """A .tex file as stored, unpacked."""
        path = source["file"]
        with storage.open_input(root, path) as file:
            number = 0
            for submission in _submissions(file, InputSplit(path, file.seek(0, 2), ""), root):
                names = [n for n in sorted(submission.files) if is_source(n)] or [""]
                if number <= source["row"] < number + len(names):
                    return submission.files.get(names[source["row"] - number], b"")
                number += len(names)
        raise RecordError(f"{path}: no .tex file {source['row']}")

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        number = 0
        with storage.open_input(root, piece.path) as file:
            for submission in _submissions(file, piece, root):
                rows: dict[str, SourceRow] = {}
                for name in [n for n in sorted(submission.files) if is_source(n)] or [""]:
                    where = provenance(piece.path, "latex", None, None, number)
                    key = f"{submission.name}/{name}"
                    rows[name] = SourceRow(document.doc_id(collection, piece.path, key), where, mime="text/x-tex")
                    number += 1
                _fill_in(rows, submission, piece.path)
                yield from rows.values()


def _fill_in(rows: dict[str, SourceRow], submission: _Submission, path: str) -> None:
    """The document of a submission, and what became of each of its files."""
    files = submission.files
    try:
        if submission.reason:
            raise RecordError(submission.reason)
        main = main_file(files)
        found = read_document(files, main)
    except RecordError as error:
        for row in rows.values():
            row.drop = (submission.rule, str(error))
        return
    book = rows.get(main) or next(iter(rows.values()))
    book.text = found.text
    meta: dict[str, Any] = {"main": main, "inputs": found.inputs}
    if found.title:
        meta["title"] = found.title
    if found.missing:
        meta["missing"] = sorted(set(found.missing))
    if arxiv := _ARXIV.search(submission.name or path):
        meta["arxiv"] = arxiv[1]
        book.url = f"https://arxiv.org/abs/{arxiv[1]}"
    book.meta = meta_json(meta)
    for name, row in rows.items():
        row.bytes = len(files.get(name, b"")) or None
        if name in found.inputs:
            row.drop = ("merged", document.hex_id(book.doc_id))
        elif row is not book:
            row.drop = ("record_type", f"not an input of {main}")


def _submissions(file: IO[bytes], piece: InputSplit, root: str) -> Iterator[_Submission]:
    """The submissions in a file. Raises UnreadableFile."""
    stream = CompressedStream(file)
    head = stream.peek(1024)
    if not _is_tar(head):
        yield _single(stream, piece, root)
        return
    if not stream.compressed:
        file.seek(0)
        yield from _members(file, piece)
        return
    data = stream.read(MAX_SUBMISSION + 1)
    if len(data) > MAX_SUBMISSION or stream.damage:
        reason = stream.damage.reason if stream.damage else f"larger than {MAX_SUBMISSION} bytes when unpacked"
        yield _Submission("", {}, reason)
    else:
        yield from _members(io.BytesIO(data), piece)


def _members(file: IO[bytes], piece: InputSplit) -> Iterator[_Submission]:
    """Submissions in an archive: each of the archives in it, or else the archive itself."""
    files: dict[str, bytes] = {}
    size, nested = 0, False
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                suffix = posixpath.splitext(member.name)[1].lower()
                if not member.isfile() or (suffix not in (*_TEXTS, *_NESTED, ".pdf")):
                    continue
                if suffix == ".pdf":
                    if nested or re.match(r"\d{4}/", member.name):
                        yield _Submission(member.name, {}, "application/pdf", "record_type")
                    continue
                entry = archive.extractfile(member)
                data = entry.read(MAX_FILE + 1) if entry and not member.issparse() else b""
                if suffix in _NESTED:
                    nested = True
                    yield _unpack(member.name, data)
                    continue
                size += len(data)
                if len(data) > MAX_FILE or size > MAX_SUBMISSION:
                    yield _Submission("", {}, f"larger than {MAX_SUBMISSION} bytes when unpacked")
                    return
                files[posixpath.normpath(member.name)] = data
            file.seek(archive.offset)  # tarfile takes a cut between two files for the end
            if file.read(512) != bytes(512):
                raise tarfile.ReadError("the archive is cut off")
    except _ERRORS as error:
        if nested:
            raise UnreadableFile(piece.path, f"tar: {error}", 0, piece.size) from None
        yield _Submission("", files, f"tar: {error}")
        return
    if files or not nested:
        yield _Submission("", files)


def _unpack(name: str, data: bytes) -> _Submission:
    """A submission inside an archive: a .tar.gz, or a .gz of one file."""
    try:
        if data[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
                data = packed.read(MAX_FILE + 1)
    except _ERRORS as error:
        return _Submission(name, {}, f"gzip: {error}")
    if len(data) > MAX_FILE:
        return _Submission(name, {}, f"larger than {MAX_FILE} bytes when unpacked")
    if not _is_tar(data[:1024]):
        return _of_one_file(name, data, "main.tex")
    inner = next(_members(io.BytesIO(data), InputSplit(name, len(data), "")), _Submission(name, {}, "no files"))
    inner.name = name
    return inner


def _of_one_file(name: str, data: bytes, path: str) -> _Submission:
    if data[:5] == b"%PDF-":
        return _Submission(name, {}, "application/pdf", "record_type")
    if not data.strip():
        return _Submission(name, {}, "an empty file")
    return _Submission(name, {path: data})


def _single(stream: CompressedStream, piece: InputSplit, root: str) -> _Submission:
    """A file that is no archive: a .tex file, whose inputs are files below the same root."""
    data = stream.read(MAX_FILE + 1)
    if stream.damage or len(data) > MAX_FILE:
        return _Submission("", {}, stream.damage.reason if stream.damage else f"larger than {MAX_FILE} bytes")
    if b"\x00" in data[:1024]:
        return _Submission("", {}, "no LaTeX: binary data")
    name = document.strip_compression(piece.path)
    name = name if is_source(name) else f"{name}.tex"
    if b"\\documentclass" not in data and b"\\documentstyle" not in data and not stream.compressed:
        reason = "no main file: no \\documentclass; it is read where a main file inputs it"
        return _Submission("", {name: data}, reason, "record_type")
    one = _of_one_file("", data, name)
    return one if stream.compressed else _Submission("", _with_inputs(one, root), one.reason, one.rule)


def _with_inputs(one: _Submission, root: str) -> Mapping[str, bytes]:
    return _Folder(one.files, root)


class _Folder(dict[str, bytes]):
    """The files below a source's root, read when they are asked for."""

    def __init__(self, files: Mapping[str, bytes], root: str) -> None:
        super().__init__(files)
        self._root = root

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (super().__contains__(name) or self._load(name))

    def _load(self, name: str) -> bool:
        if name.startswith(("/", "..")) or posixpath.splitext(name)[1].lower() not in _TEXTS[:-1]:
            return False
        try:
            with storage.open_input(self._root, name) as file:
                self[name] = file.read(MAX_FILE)
        except (OSError, ValueError):
            return False
        return True


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar" or (len(head) >= 512 and _old_checksum(head))


def _old_checksum(head: bytes) -> bool:
    """Whether a header of a tar archive before POSIX is here."""
    field = head[148:156].strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,7}", field):
        return False
    return sum(head[:148]) + 8 * 32 + sum(head[156:512]) == int(field, 8)
