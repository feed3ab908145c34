"""The reader `read: gutenberg`: reads plain text books of Project Gutenberg without licence, credits and notes.

A book stands between a START and an END line; before about 2004 between the end of the "small print" and a line
"End of Project Gutenberg's ...". A file that lacks one of them is a drop: what would be left is licence text, or a book
that was cut off. Forms: https://www.gutenberg.org/policy/license.html and the files of its collection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation import storage
from curation.sources.batch_builder import SourceRow, batch_rows, meta_json
from curation.sources.text import plain_text
from curation.step import InputSplit

_START = re.compile(
    r"^[ \t]{0,9}\*{3}[ \t]?START OF (?:THE|THIS) PROJECT GUTENBERG[^\n]{0,999}(?:\n[^\n*]{1,200}){0,3}?\*{3}[ \t]*$"
    r"|^[^\n]{0,20}\*END[ *]{1,3}THE SMALL PRINT[^\n]*$",
    re.M | re.I,
)
_END = re.compile(
    r"^[ \t]{0,9}\*{3}[ \t]?END OF (?:THE|THIS) PROJECT GUTENBERG"
    r"|^[ \t]{0,9}End of (?:the |this )?Project Gutenberg(?:'s|’s| e-?book| e-?text)\b",
    re.M | re.I,
)
_FIELD = re.compile(
    r"^(Title|Author|Translator|Editor|Illustrator|Language|Release Date):[ \t]*(\S[^\n]{0,500})$", re.M | re.I
)
_NOTE = r"Transcriber[’'`]?s?[’'`]? (?:end )?notes?"
_CREDIT = re.compile(
    rf"(?:This e-?(?:text|book) was )?(?:produced|prepared|transcribed|scanned|digitized) (?:by|from)\b"
    rf"|e-?text (?:was )?(?:prepared|produced|transcribed|scanned) by\b|HTML version by\b|{_NOTE}\b",
    re.I,
)
_CREDITS = 6  # paragraphs after the START line that may be credits
_BRACKETED_NOTE = re.compile(rf"^[ \t]*\[[ \t]*{_NOTE}\b[^\[\]]{{0,20000}}\][ \t]*$\n?", re.M | re.I)
_NOTES_HEADING = re.compile(rf"^[ \t]*[\[*_=+|]{{0,5}}{_NOTE}[ \t.:*_=+|]*$", re.M | re.I)
_NOTES_AT_END = 0.8  # a heading of notes beyond this share of the book: the rest is notes
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")


@dataclass
class GutenbergReader:
    """Reads plain text books of Project Gutenberg. It has no options."""

    def packages(self) -> Sequence[str]:
        return ("resiliparse",)  # its detector of encodings

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """A book is a document."""
        return [piece]

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """A batch of `document.READ_BATCH` with one row."""
        return batch_rows(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """The file, decompressed."""
        with storage.open_input(root, source["file"]) as file:
            return plain_text.read_original(file, source, None)

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        with storage.open_input(root, piece.path) as file:
            row = plain_text.read_document(file, piece, collection, "text/plain")
        if row.text is not None:
            book, reason = book_text(row.text.replace("\r\n", "\n"))
            row.meta = meta_json(book.fields)
            row.text, row.drop = (None, ("unreadable", reason)) if reason else (book.text, None)
        yield row


@dataclass(frozen=True)
class Book:
    """A book without its frame, and what its header says of it."""

    text: str
    fields: dict[str, str]


def book_text(text: str) -> tuple[Book, str]:
    """The book in a file, and why it cannot be separated from its frame."""
    start = _START.search(text)
    header = text[: start.start()] if start else text[:10_000]
    fields = {m[1].lower().replace(" ", "_"): m[2].strip() for m in reversed(list(_FIELD.finditer(header)))}
    if start is None:
        return Book("", fields), "no START line of Project Gutenberg, so the book cannot be separated from its licence"
    end = next(_END.finditer(text, start.end()), None)
    if end is None:
        return Book("", fields), "no END line of Project Gutenberg: the book is cut off"
    if _START.search(text, start.end(), end.start()):
        return Book("", fields), "a second START line before the END line: several books in one file, or a broken one"
    body = _without_credits(_BRACKETED_NOTE.sub("", text[start.end() : end.start()]))
    for heading in _NOTES_HEADING.finditer(body, int(_NOTES_AT_END * len(body))):
        body = body[: heading.start()]
        break
    return Book(body.strip(), fields), ""


def _without_credits(body: str) -> str:
    """The text without the credits and notes among its first paragraphs."""
    kept, rest = list[str](), body.lstrip()
    for _ in range(_CREDITS):
        found = _PARAGRAPH.search(rest)
        if found is None:
            break
        paragraph = rest[: found.start()]
        if not _CREDIT.match(paragraph.lstrip("[*_ \t")):
            kept.append(rest[: found.end()])
        rest = rest[found.end() :]
    return "".join(kept) + rest
