"""The reader `read: stackexchange`: reads Posts.xml of a data dump; a question with its answers is a document.

A dump has one post a line, in the order of their ids, so the answers to a question are anywhere below it. A task reads
its file twice for the ids of questions and the places of their answers, then makes the documents of its range. That is
why a file has at most eight ranges: each of them costs two passes. Answers become drops by rule `merged`, whose value
is the document that they went into. Texts are HTML, for the step `extract`.

Schema of the dump: https://meta.stackexchange.com/questions/2677. Licences by date:
https://stackoverflow.com/help/licensing.
"""

from __future__ import annotations

import html
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa

from curation import document, storage
from curation.sources import charset
from curation.sources.batch_builder import SourceRow, batch_rows, meta_json, parse_date, position_key, provenance
from curation.sources.compressed_stream import CompressedStream
from curation.sources.limits import DropLimit
from curation.sources.text import plain_text
from curation.step import InputSplit, RecordError, UnreadableFile

MAX_ROW = (
    1 << 26
)  # 64 MiB: a longer line becomes a drop and is never held in memory; a post has at most 30,000 characters
MAX_RANGES = 8
# Of a compressed file the answers are held in memory: nothing can be found again in it.
MAX_EXPANDED = 1 << 30
_ROW = re.compile(rb'\s*<row((?:\s+[A-Za-z]\w*="[^"<]*+")++)\s*/>\s*')
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_FRAME = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^<>]*\?>\s*)?(?:</?posts>)?\s*")
_HEAD = 4096
_TYPES = {
    "3": "wiki", "4": "tag wiki excerpt", "5": "tag wiki", "6": "moderator nomination", "7": "wiki placeholder",
    "8": "privilege wiki",
}  # fmt: skip
_LICENCES = (("2011-04-08", "CC BY-SA 2.5"), ("2018-05-02", "CC BY-SA 3.0"), ("9999", "CC BY-SA 4.0"))

Post = dict[str, str]  # attributes of a row by name


@dataclass
class _Line:
    position: int  # in the decompressed file
    size: int
    data: bytes  # empty where it is too long


@dataclass
class _Threads:
    """What must be known of the rest of a file to make the documents of a range."""

    questions: np.ndarray[Any, Any]  # sorted ids of all questions
    repeated: set[int]  # ids of several posts
    answers: dict[int, list[tuple[int, int, int, int]]]  # question in the range: (-score, id, position, size)
    lines: dict[int, bytes]  # of a compressed file: answers by their position

    def has_question(self, number: int) -> bool:
        at = int(np.searchsorted(self.questions, number))
        return at < len(self.questions) and int(self.questions[at]) == number


@dataclass
class StackExchangeReader:
    """Reads Posts.xml of a Stack Exchange data dump, plain or compressed.

    site  host of the site, such as coffee.stackexchange.com, from which URLs are made
    """

    site: str = ""

    def packages(self) -> Sequence[str]:
        return ("resiliparse",)  # its detector of encodings

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """Splits an uncompressed file at lines, into at most eight ranges."""
        target = max(target, -(-piece.size // MAX_RANGES))
        if piece.size < 2 * target:
            return [piece]
        with storage.open_input(root, piece.path) as file:
            return plain_text.split_file(file, piece, target, plain_text.LINE)

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `document.READ_BATCH`, one row for each post. Raises UnreadableFile for a file that is no
        Posts.xml."""
        return batch_rows(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """The line of a post as stored."""
        with storage.open_input(root, source["file"]) as file:
            if source["offset"] is not None:
                file.seek(source["offset"])
                return file.read(source["length"])
            for number, line in enumerate(_lines(CompressedStream(file), None)):
                if number == source["row"]:
                    return line.data
        raise RecordError(f"{source['file']}: no line {source['row']}")

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        with storage.open_input(root, piece.path) as file, storage.open_input(root, piece.path) as beside:
            head = CompressedStream(file).peek(_HEAD)
            if b"<row" not in head and b"<posts" not in head:
                reason = "no Posts.xml of Stack Exchange: no <posts> and no <row at its beginning"
                raise UnreadableFile(piece.path, reason, 0, piece.size)
            threads = _threads(file, piece)
            stream = _open(file, piece)
            begin, drops, cut, number = stream.position, DropLimit(piece.path, piece.size), False, -1
            for number, line in enumerate(_lines(stream, _stop(stream, piece))):
                if _FRAME.fullmatch(line.data) and line.data:
                    continue
                cut = stream.damage is not None and not line.data.endswith(b"\n")
                spot = (None, None, number) if stream.compressed else (line.position, line.size, None)
                where = provenance(piece.path, "stackexchange", *spot)
                try:
                    if cut:
                        raise RecordError("cut off")
                    row = self._post(line, where, piece, collection, threads, beside)
                except RecordError as error:
                    key = position_key(line.position)
                    row = SourceRow(document.doc_id(collection, piece.path, key), where)
                    row.drop = ("unreadable", str(error))
                yield row
                if row.drop and row.drop[0] == "unreadable":
                    stored = stream.stored_position if stream.compressed else stream.position
                    drops.count(stream.position - begin, stored)
            if stream.damage and not stream.damage.truncated:
                at = stream.damage.offset
                raise UnreadableFile(piece.path, stream.damage.reason, at, piece.size - at)
            if stream.damage and not cut:  # between two lines: the posts after it are lost all the same
                row = SourceRow(
                    document.doc_id(collection, piece.path, f"lost@{stream.position}"),
                    provenance(piece.path, "stackexchange", None, None, number + 1),
                )
                row.drop = ("unreadable", stream.damage.reason)
                yield row

    def _post(
        self, line: _Line, where: dict[str, Any], piece: InputSplit, collection: str, threads: _Threads, file: IO[bytes]
    ) -> SourceRow:
        """The row of one post. Raises RecordError."""
        post = _parse(line.data) if line.data else None
        if post is None:
            raise RecordError("no post: no <row .../>" if line.data else f"line longer than {MAX_ROW} bytes")
        number = _number(post, "Id")
        if number in threads.repeated:
            raise RecordError(f"several posts have the Id {number}")
        row = SourceRow(document.doc_id(collection, piece.path, str(number)), where, bytes=line.size, charset="utf-8")
        row.date, row.mime = parse_date(post.get("CreationDate")), "text/html"
        kind = post.get("PostTypeId", "")
        if kind == "2":
            parent = _number(post, "ParentId")
            row.drop = ("record_type", "answer without its question")
            if threads.has_question(parent):
                row.drop = ("merged", document.hex_id(document.doc_id(collection, piece.path, str(parent))))
        elif kind != "1":
            row.drop = ("record_type", _TYPES.get(kind, f"post type {kind or 'none'}"))
        else:
            answers = list(_answers(threads, number, file))
            row.text = _page(post, answers)
            row.url = f"https://{self.site}/questions/{number}" if self.site else None
            row.meta = meta_json(_meta(post, answers))
        return row


def _open(file: IO[bytes], piece: InputSplit) -> CompressedStream:
    return CompressedStream(file, start=piece.start or 0, base=piece.start or 0)


def _stop(stream: CompressedStream, piece: InputSplit) -> int | None:
    return None if stream.compressed or piece.stop is None else piece.stop


def _lines(stream: CompressedStream, stop: int | None) -> Iterator[_Line]:
    """The lines that begin before `stop`, without blank ones."""
    while True:
        stream.skip_blank_lines()
        stream.discard_consumed()
        at = stream.position
        if (stop is not None and at >= stop) or not stream.fill(1):
            return
        if stream.line_size(MAX_ROW) <= MAX_ROW:
            line = stream.readline(MAX_ROW)
            yield _Line(at, len(line), line)
            continue
        while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
            stream.discard_consumed()
        yield _Line(at, stream.position - at, b"")


def _threads(file: IO[bytes], piece: InputSplit) -> _Threads:
    """Two passes over the file: for the ids of posts, then for the answers to the questions of the range."""
    ids, questions, inside = array("q"), array("q"), set[int]()
    stream = CompressedStream(file)
    start, stop = piece.start or 0, _stop(stream, piece)
    for line, post in _posts(stream):
        ids.append(int(post["Id"]))
        if post.get("PostTypeId") == "1":
            questions.append(ids[-1])
            if start <= line.position and (stop is None or line.position < stop):
                inside.add(ids[-1])
        if stream.compressed and stream.position > MAX_EXPANDED:
            reason = f"expands to more than {MAX_EXPANDED} bytes; unpack it, then it is read in ranges"
            raise UnreadableFile(piece.path, reason, 0, piece.size)
    every = np.sort(np.frombuffer(ids, np.int64)) if ids else np.zeros(0, np.int64)
    repeated = set(every[1:][every[1:] == every[:-1]].tolist())
    found = _Threads(np.array([q for q in sorted(questions) if q not in repeated], np.int64), repeated, {}, {})
    stream = CompressedStream(file)
    for line, post in _posts(stream):
        parent = post.get("ParentId", "")
        if post.get("PostTypeId") != "2" or not _is_number(parent) or int(parent) not in inside:
            continue
        if int(post["Id"]) in repeated or int(parent) in repeated:
            continue
        entry = (-_score(post), int(post["Id"]), line.position, line.size)
        found.answers.setdefault(int(parent), []).append(entry)
        if stream.compressed:
            found.lines[line.position] = line.data
    return found


def _posts(stream: CompressedStream) -> Iterator[tuple[_Line, Post]]:
    """The lines that are posts with an id. One that is cut off is none."""
    for line in _lines(stream, None):
        post = _parse(line.data)
        if post is not None and _is_number(post.get("Id", "")):
            yield line, post


def _answers(threads: _Threads, question: int, file: IO[bytes]) -> Iterator[Post]:
    """The answers by score, then by id."""
    for _, _, position, size in sorted(threads.answers.get(question, [])):
        line = threads.lines.get(position)
        if line is None:
            file.seek(position)
            line = file.read(size)
        if post := _parse(line):
            yield post


def _parse(line: bytes) -> Post | None:
    row = _ROW.fullmatch(line)
    if row is None:
        return None
    text = charset.decode(row[1], html=False).text if not row[1].isascii() else row[1].decode()
    return {name: html.unescape(value) for name, value in _ATTRIBUTE.findall(text)}


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) < 18


def _number(post: Post, name: str) -> int:
    value = post.get(name, "")
    if not _is_number(value):
        raise RecordError(f"no number in {name}" if name in post else f"no {name}")
    return int(value)


def _score(post: Post) -> int:
    value = post.get("Score", "")
    return int(value) if _is_number(value.removeprefix("-")) else 0


def _page(question: Post, answers: Sequence[Post]) -> str:
    """The question and its answers as one page."""
    title = html.escape(question.get("Title", ""))
    bodies = [question.get("Body", ""), *(f"<h2>Answer</h2>\n{a.get('Body', '')}" for a in answers)]
    if not title and not any(
        body.strip() for body in (question.get("Body", ""), *(a.get("Body", "") for a in answers))
    ):
        return ""
    head = f"<!DOCTYPE html><html><head><title>{title}</title></head>"
    return f"{head}<body><article><h1>{title}</h1>\n" + "\n<h2>Answer</h2>\n".join(bodies) + "</article></body></html>"


def _meta(question: Post, answers: Sequence[Post]) -> dict[str, Any]:
    accepted = question.get("AcceptedAnswerId", "")
    meta: dict[str, Any] = {
        "id": question["Id"],
        "title": question.get("Title", ""),
        "score": _score(question),
        "tags": [tag for tag in re.split(r"[<>|]+", question.get("Tags", "")) if tag],
        "answers": [{"id": a["Id"], "score": _score(a), "accepted": a["Id"] == accepted} for a in answers],
        "licence": sorted({_licence(post) for post in (question, *answers)}),
    }
    return meta


def _licence(post: Post) -> str:
    date = post.get("CreationDate", "")
    return post.get("ContentLicense") or next(name for before, name in _LICENCES if date < before)
