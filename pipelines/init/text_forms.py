"""Recognises CSV and TSV tables, dumps, books and text files of many documents by their first bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

DELIMITERS = {"csv": (",", ";", "|", "\t"), "tsv": ("\t",)}
# Names of a column of text: a .txt file whose first line has one, between delimiters, is a table.
_TEXT_NAMES = {"text", "content", "body", "article", "document"}
MARKERS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<EOS>", "<doc_sep>")
# No book has so many bytes (War and Peace has 3 MB): a larger text file holds many documents.
MAX_BOOK = 8 << 20
_NUMBER = re.compile(r"[+-]?[\d.,:/ -]+\Z")
_MAX_NAME = 64
_WIKI = re.compile(r"\ufeff?\s*(?:<\?xml[^<>]*\?>\s*)?<mediawiki\s")
_TEX_MEMBER = re.compile(rb"\.(?:tex|ltx)\x00|\d{7}\.gz\x00|\d{4}\.\d{4,5}\.gz\x00")
# The name of an entry of a zip archive, and of a header of a tar archive, whose mode comes 100 bytes later.
_ZIP_ENTRY = re.compile(rb"PK\x03\x04.{22}(..)..", re.S)
_TAR_NAME = re.compile(rb"(?:(?<=\x00)|\A)([\w./+@-]{3,100})(?=\x00{1,97}0\d{6}\x00)")
_REPOSITORY_FILE = re.compile(
    rb"\.(?:py|c|h|cc|cpp|hpp|java|js|ts|go|rs|rb|php|cs|swift|kt|scala|sh|jl|lua|hs|toml)$"
    rb"|(?:^|/)(?:makefile|cmakelists\.txt|setup\.cfg|package\.json|\.gitignore)$",
    re.I,
)
_WIKI_INDEX = re.compile(r"(?:\d+:\d+:[^\n]+\n){2}")  # offset:page:title, of a multistream dump


@dataclass(frozen=True)
class TextTable:
    """The first records of a CSV or TSV file. `delimiter`: empty for the usual one; `columns`: of one without a
    header."""

    form: str
    records: list[dict[str, Any]]
    delimiter: str
    columns: tuple[str, ...]


def text_table(head: bytes, suffix: str) -> TextTable | None:
    """The table that a file's first bytes show; None for what is none."""
    from curation.sources.text.csv_tsv import first_rows

    form = {".csv": "csv", ".tsv": "tsv", ".tab": "tsv"}.get(suffix)
    line = head.partition(b"\n")[0].decode("utf-8", "replace").removeprefix("\ufeff")
    if form is None:
        found = [d for d in DELIMITERS["csv"] if len(names := _names(line, d)) > 1 and names & _TEXT_NAMES]
        if suffix not in ("", ".txt") or not found:
            return None
        form, delimiters = "tsv" if "\t" in found else "csv", tuple(found)
    else:
        delimiters = DELIMITERS[form]
    tables = [(d, rows) for d in delimiters if len(rows := first_rows(head, d)) > 1]
    if not tables:
        return None
    delimiter, rows = max(tables, key=lambda table: len(table[1][0]))
    columns = tuple(rows[0]) if _is_header(rows[0]) else tuple(f"column_{i + 1}" for i in range(len(rows[0])))
    headed = list(columns) == rows[0]
    records = [dict(zip(columns, row, strict=True)) for row in rows[headed:]]
    usual = delimiter == DELIMITERS[form][0]
    return TextTable(form, records, "" if usual else delimiter, () if headed else columns)


def _names(line: str, delimiter: str) -> set[str]:
    return {name.strip().strip('"').lower() for name in line.split(delimiter)}


def _is_header(values: list[str]) -> bool:
    """Whether a first row has names of columns: short, all different, no number, date or address."""
    return len(set(values)) == len(values) and all(
        value and len(value) <= _MAX_NAME and "://" not in value and not _NUMBER.match(value) for value in values
    )


def kind_of_wiki_dump(head: bytes) -> str | None:
    """Empty for a dump of MediaWiki's pages; what else of its dumps it is; None for anything else."""
    code = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}.get(head[:2], "utf-8")
    text = head.decode(code, "replace")
    if _WIKI_INDEX.match(text):
        return "the index of a Wikipedia dump, which is not needed"
    if not _WIKI.match(text):
        return None
    return "" if "<page>" in text else "another dump of MediaWiki than its pages"


def holds_code(head: bytes) -> bool:
    """Whether a file's first bytes are an archive whose first files are a repository's: sources, or what is beside
    them."""
    if head[:4] == b"PK\x03\x04":
        names = [head[m.end() : m.end() + int.from_bytes(m[1], "little")] for m in _ZIP_ENTRY.finditer(head)]
    elif head[257:262] == b"ustar":
        names = [m[1] for m in _TAR_NAME.finditer(head)]
    else:
        return False
    return any(_REPOSITORY_FILE.search(name) for name in names) and not _TEX_MEMBER.search(head)


def holds_latex(head: bytes) -> bool:
    """Whether a file's first bytes are an archive with LaTeX in it, or LaTeX without a suffix, as arXiv has them."""
    if head[257:262] == b"ustar" or b"\x00" * 100 in head[:512]:
        return _TEX_MEMBER.search(head) is not None
    return head.lstrip()[:1] in (b"%", b"\\") and b"\\documentclass" in head


def starts_as_gutenberg(text: str) -> bool:
    """Whether a text begins with the header of a book of Project Gutenberg."""
    from curation.sources.books.gutenberg import book_text

    return "Project Gutenberg" in text[:2000] and not book_text(f"{text}\n*** END OF THE PROJECT GUTENBERG")[1]


def documents_of(text: str, size: int) -> dict[str, Any]:
    """The options `document` and `marker` for a text file that begins like this and has `size` bytes: a file is one
    document, unless it has markers, or is larger than any book."""
    for marker in MARKERS:
        if text.count(marker) > 1:
            return {"marker": marker}
    if size <= MAX_BOOK:
        return {}
    return {"document": "blank_lines" if re.search(r"\n\s*\n", text) else "line"}
