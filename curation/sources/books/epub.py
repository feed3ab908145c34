"""The reader `read: epub`: reads EPUB books; the chapters of a book in reading order are a document.

A book becomes one HTML page for the step `extract`, which leaves out the readings of ruby and writes formulas in MathML
as TeX. Each chapter is a record: the first has the document, the others become drops by rule `merged`, whose value is
the document that they went into. A book longer than what `extract` reads of a page is continued in another document.

Format: https://www.w3.org/TR/epub-33/.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curation import document, storage
from curation.sources import charset
from curation.sources.batch_builder import SourceRow, batch_rows, meta_json, parse_date, position_key, provenance
from curation.sources.books.epub_archive import MAX_CHAPTER, Archive, is_text
from curation.step import InputSplit, RecordError

MAX_PAGE = 12 << 20  # characters after which a book is continued in another document; `extract` reads 16 Mi of a page
_BODY = re.compile(r"<body\b[^<>]*+>", re.I)
# `<div/>` and `<a id="x"/>` are elements in XHTML and open tags in HTML.
_EMPTY_ELEMENT = re.compile(
    r"<(?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)\b)([A-Za-z][\w.-]*+)((?:\s[^<>]*)?)/>"
)
_PREFIX = re.compile(r"(</?)(?:m|mml|mathml|math|h|html|xhtml):(?=[A-Za-z])")
# Formulas have a text to be read aloud beside them ("no alternative text"), where web pages have their TeX.
_READ_ALOUD = re.compile(r"""(<math\b[^<>]*?)\salttext=(?:"[^"<>]*"|'[^'<>]*')""")
# What a web page has beside its text is text in a book: notes, heads of chapters.
_BESIDE = re.compile(r"(</?)(?:aside|header|footer)\b", re.I)
_CDATA, _END_CDATA = "<![CDATA[", "]]>"


@dataclass
class EpubReader:
    """Reads EPUB books. It has no options."""

    def packages(self) -> Sequence[str]:
        return ("resiliparse",)  # its detector of encodings

    def split(self, piece: InputSplit, root: str, target: int) -> list[InputSplit]:
        """A book is read by one task."""
        return [piece]

    def read(
        self, piece: InputSplit, root: str, *, collection: str, domain: str, rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of `document.READ_BATCH`, one row for each chapter in reading order, one for a broken book."""
        return batch_rows(self._rows(piece, root, collection), domain, rows)

    def original(self, source: Mapping[str, Any], root: str) -> bytes:
        """A chapter as stored, unpacked."""
        with storage.open_input(root, source["file"]) as file:
            archive = Archive(file, file.seek(0, 2))
            if source["row"] is None or not 0 <= source["row"] < len(archive.package.spine):
                raise RecordError(f"{source['file']}: no chapter {source['row']}")
            return archive.read(archive.package.spine[source["row"]].path, MAX_CHAPTER)

    def _rows(self, piece: InputSplit, root: str, collection: str) -> Iterator[SourceRow]:
        with storage.open_input(root, piece.path) as file:
            try:
                archive = Archive(file, piece.size)
            except RecordError as error:
                row = SourceRow(
                    document.doc_id(collection, piece.path, position_key(0)),
                    provenance(piece.path, "epub", 0, piece.size),
                )
                row.drop = ("unreadable", str(error))
                yield row
                return
            rows: list[SourceRow] = []  # since the document that chapters go into began
            book: SourceRow | None = None  # the document that chapters go into
            bodies: list[str] = []
            size = 0  # characters of them
            for number, item in enumerate(archive.package.spine):
                row = SourceRow(
                    document.doc_id(collection, piece.path, position_key(number)),
                    provenance(piece.path, "epub", None, None, number),
                )
                try:
                    if not item.path:
                        raise RecordError("the manifest does not name this chapter")
                    if item.navigation or not is_text(item):
                        row.drop = ("record_type", "table of contents" if item.navigation else item.media_type)
                        rows.append(row)
                        continue
                    data = archive.read(item.path, MAX_CHAPTER)
                    row.bytes, row.mime = len(data), "text/html"
                    decoded = charset.decode(data)
                    row.charset, body = decoded.charset, _body(decoded.text)
                except RecordError as error:
                    row.drop = ("unreadable", str(error))
                    rows.append(row)
                    continue
                size += len(body)
                if book is None or size > MAX_PAGE:
                    _finish(book, bodies, archive)
                    yield from rows
                    book, bodies, rows, size = row, [body], [row], len(body)
                else:
                    bodies.append(body)
                    row.drop = ("merged", document.hex_id(book.doc_id))
                    rows.append(row)
            _finish(book, bodies, archive)
            yield from rows


def _finish(book: SourceRow | None, bodies: Sequence[str], archive: Archive) -> None:
    """Fills in the document that the chapters went into."""
    if book is None:
        return
    fields = archive.package.fields
    title = html.escape(" ".join(fields.get("title", [])[:1]))
    language = html.escape(" ".join(fields.get("language", [])[:1]))
    head = f'<!DOCTYPE html><html lang="{language}"><head><title>{title}</title></head>'
    chapters = "\n".join(bodies)
    book.text = f"{head}<body><article>\n{chapters}\n</article></body></html>" if chapters.strip() else ""
    meta: dict[str, Any] = {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
    meta["chapters"] = len(bodies)
    if archive.package.licence or "rights" in fields:
        meta["licence"] = archive.package.licence or " ".join(fields["rights"])
    book.meta = meta_json(meta)
    book.date = parse_date(" ".join(fields.get("date", [])[:1]))


def _body(page: str) -> str:
    """What a chapter shows, as HTML. Raises RecordError."""
    page = _PREFIX.sub(r"\1", _without_cdata(page))
    begin = _BODY.search(page)
    if begin is None:
        raise RecordError("a chapter without <body>")
    if begin[0].endswith("/>"):
        return ""
    end = page.rfind("</body", begin.end())
    body = page[begin.end() : end if end >= 0 else len(page)]
    if "alttext" in body:
        body = _READ_ALOUD.sub(r"\1", body)
    body = _BESIDE.sub(r"\1div", body)
    return _EMPTY_ELEMENT.sub(r"<\1\2></\1>", body)


def _without_cdata(page: str) -> str:
    """The page with CDATA sections as escaped text. One that is not closed stays, and so does what follows it."""
    out: list[str] = []
    at = 0
    while (start := page.find(_CDATA, at)) >= 0:
        end = page.find(_END_CDATA, start)
        if end < 0:
            break
        out += [page[at:start], html.escape(page[start + len(_CDATA) : end])]
        at = end + len(_END_CDATA)
    return "".join([*out, page[at:]]) if out else page
