r"""The reader `read: latex`: reads LaTeX submissions, as arXiv has them, and folders of .tex files, as plain text.

A submission (a .tar.gz, a .gz of one file, or one of many in a .tar) is a document: its main file with all it inputs.
Each of its .tex files is a record: those that went in become drops by rule `merged`, whose value is the document. An
archive inside a submission is a drop too: it is not unpacked. In a folder a file with \documentclass is a document;
files without one are read where it inputs them.

arXiv's bulk data: https://info.arxiv.org/help/bulk_data_s3.html.
"""

from __future__ import annotations

import errno
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
from curation.input_files import is_housekeeping
from curation.sources.batch_builder import SourceRow, batch_rows, meta_json, provenance
from curation.sources.compressed_stream import CompressedStream
from curation.sources.latex.submission import is_source, main_file, read_document
from curation.sources.machine_errors import raise_machine_error
from curation.step import InputSplit, RecordError, UnreadableFile

MAX_FILE = 1 << 26  # 64 MiB of one file of a submission
MAX_SUBMISSION = 1 << 28  # 256 MiB unpacked: a larger one becomes a drop; arXiv takes submissions of 50 MB
_TEXTS = (".tex", ".ltx", ".latex", ".sty", ".cls", ".tikz", ".def", ".bbl", ".txt", ".pgf", "")
_NESTED = (".gz", ".tgz", ".tar")
_CUT_OFF = "tar: the archive is cut off"
# What opening a name that is no file raises; any other error is the machine's.
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)
_PACKED = (".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".lz4", ".pdf")
_ARXIV = re.compile(r"(?:^|/)((?:[a-z-]+(?:\.[A-Z]{2})?/?)?\d{7}|\d{4}\.\d{4,5})(?:v\d+)?(?=\.|$)")
# tarfile takes a header after a header of a long name by recursion, so a chain of them is a RecursionError.
_ERRORS = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError, IndexError, OverflowError, RecursionError)


@dataclass
class _Submission:
    name: str  # in the archive; empty where the file is one submission
    files: Mapping[str, bytes]
    reason: str = ""
    rule: str = "unreadable"
    archives: Sequence[str] = ()  # inside the submission; not unpacked

    def records(self) -> list[str]:
        """What is accounted for, in order: .tex files, or one without a name where there are none; archives."""
        return [*(sorted(n for n in self.files if is_source(n)) or [""]), *self.archives]


@dataclass
class LatexReader:
    """Reads LaTeX submissions and folders of .tex files. It has no options."""

    def packages(self) -> Sequence[str]:
        return ("resiliparse",)  # its detector of encodings

    def reads_beside(self, path: str) -> Sequence[str]:
        """Endings of the files that a .tex file in a folder may input. An archive has all that it needs."""
        return () if path.lower().endswith(_PACKED) else _TEXTS[:-1]

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
                names = submission.records()
                if number <= source["row"] < number + len(names):
                    name = names[source["row"] - number]
                    if name in submission.archives:
                        raise RecordError(f"{path}: {name} is an archive inside a submission, which is not unpacked")
                    return submission.files.get(name, b"")
                number += len(names)
        raise RecordError(f"{path}: no .tex file {source['row']}")

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        number = 0
        with storage.open_input(root, piece.path) as file:
            for submission in _submissions(file, piece, root):
                rows: dict[str, SourceRow] = {}
                for name in submission.records():
                    where = provenance(piece.path, "latex", None, None, number)
                    key = f"{submission.name}/{name}"
                    rows[name] = SourceRow(document.doc_id(collection, piece.path, key), where, mime="text/x-tex")
                    number += 1
                _fill_in(dict(rows), submission, piece.path)
                yield from rows.values()


def _fill_in(rows: dict[str, SourceRow], submission: _Submission, path: str) -> None:
    """The document of a submission, and what became of each of its files."""
    files = submission.files
    for name in submission.archives:
        rows.pop(name).drop = ("record_type", "an archive inside a submission")
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
    """Submissions in an archive: the archive itself if it has LaTeX sources, or else each of the archives in it and
    the files beside them."""
    members, damage = _headers(file)
    many = any(_suffix(m) in _NESTED or _is_pdf_of_many(m) for m in members)
    if not many or any(is_source(m.name) for m in members):
        yield _of_members("", file, members, damage)
        return
    for member in members:
        if _suffix(member) == ".pdf":
            yield _Submission(member.name, {}, "application/pdf", "record_type")
        elif _suffix(member) in _NESTED:
            data = _content(file, member)
            if data is None:
                damage = damage or _CUT_OFF
                break
            yield _unpack(member.name, data)
    if damage:
        raise UnreadableFile(piece.path, damage, 0, piece.size)
    beside = _of_members("", file, [m for m in members if _suffix(m) not in _NESTED], "")
    if beside.files or beside.reason:
        yield beside


def _headers(file: IO[bytes]) -> tuple[list[tarfile.TarInfo], str]:
    """The files of an archive, and what ended it early (empty for a sound one)."""
    members: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            offset = 0
            for member in archive:
                # A negative size leads tarfile back to headers that it has read, without end (CVE-2025-8194).
                if member.size < 0 or archive.offset <= offset:
                    raise tarfile.ReadError("a member of negative size")
                offset = archive.offset
                if member.isfile():
                    members.append(member)
            file.seek(archive.offset)  # tarfile takes a cut between two files for the end
            if file.read(512) != bytes(512):
                return members, _CUT_OFF
    except _ERRORS as error:
        raise_machine_error(error)
        return members, f"tar: {error}"
    return members, ""


def _content(file: IO[bytes], member: tarfile.TarInfo) -> bytes | None:
    """The bytes of a file of an archive, at most one more than a file may have; None where the archive is cut off."""
    if member.issparse():
        return b""
    file.seek(member.offset_data)
    data = file.read(min(member.size, MAX_FILE + 1))
    return data if len(data) == min(member.size, MAX_FILE + 1) else None


def _of_members(name: str, file: IO[bytes], members: Sequence[tarfile.TarInfo], damage: str) -> _Submission:
    """The files of one archive as a submission."""
    files: dict[str, bytes] = {}
    size = 0
    archives = {posixpath.normpath(m.name) for m in members if _suffix(m) in _NESTED}
    for member in members:
        if _suffix(member) not in _TEXTS:
            continue
        data = _content(file, member)
        if data is None:
            damage = damage or _CUT_OFF
            break
        size += len(data)
        if len(data) > MAX_FILE or size > MAX_SUBMISSION:
            return _Submission(name, {}, f"larger than {MAX_SUBMISSION} bytes when unpacked")
        files[posixpath.normpath(member.name)] = data
    return _Submission(name, files, damage, archives=sorted(archives))


def _suffix(member: tarfile.TarInfo) -> str:
    return posixpath.splitext(member.name)[1].lower()


def _is_pdf_of_many(member: tarfile.TarInfo) -> bool:
    return _suffix(member) == ".pdf" and re.match(r"\d{4}/", member.name) is not None


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
    file = io.BytesIO(data)
    return _of_members(name, file, *_headers(file))


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
        if any(is_housekeeping(part) for part in name.split("/")):
            return False  # `reads_beside` does not find it either
        try:
            with storage.open_input(self._root, name) as file:
                data = file.read(MAX_FILE + 1)
        except PermissionError as error:
            raise RecordError(f"{name}, which it inputs, cannot be read: {error.strerror}") from None
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_FILE:
                raise
            return False
        if len(data) > MAX_FILE:
            raise RecordError(f"{name}, which it inputs, is larger than {MAX_FILE} bytes")
        self[name] = data
        return True


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar" or (len(head) >= 512 and _old_checksum(head))


def _old_checksum(head: bytes) -> bool:
    """Whether a header of a tar archive before POSIX is here."""
    field = head[148:156].strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,7}", field):
        return False
    return sum(head[:148]) + 8 * 32 + sum(head[156:512]) == int(field, 8)
