"""Books of Project Gutenberg: the book alone, with what its header says; damaged files are drops with their reason.

The files are made here in the form that https://www.gutenberg.org publishes.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation.sources.books.gutenberg import GutenbergReader, book_text
from curation.step import InputSplit, UnreadableFile

HEADER = """The Project Gutenberg eBook of The Mill, by A. Miller

This ebook is for the use of anyone anywhere at no cost.

Title: The Mill
Author: A. Miller
Release Date: May 1, 2003 [eBook #1234]
Language: English

"""
START, END = (
    "*** START OF THE PROJECT GUTENBERG EBOOK THE MILL ***\n",
    "*** END OF THE PROJECT GUTENBERG EBOOK THE MILL ***\n",
)
CREDITS = "\n\nProduced by Anne Nonymous and the Online\nDistributed Proofreading Team\n\n\n"
NOTE = "[Transcriber's Note: Spelling was kept,\n\nand so were hyphens.]\n\n"
BODY = "THE MILL\n\n\nCHAPTER I\n\n" + "\n\n".join(
    f'Paragraph {i} of the book, where a note [1] says "Produced by nobody".\nIt goes on — é.' for i in range(30)
)
LATE_NOTES = "\n\n\nTRANSCRIBER'S NOTES\n\nPage 12: corrected a comma.\n\n"
LICENCE = "\nUpdated editions will replace the previous one.\nTHE FULL PROJECT GUTENBERG LICENSE\n"
WHOLE = HEADER + START + CREDITS + NOTE + BODY + LATE_NOTES + END + LICENCE


def read(root: Path, data: bytes, name: str = "1234-0.txt") -> Any:
    (root / name).write_bytes(data)
    batches = GutenbergReader().read(InputSplit(name, len(data), ""), str(root), collection="c", domain="d", rows=8)
    (row,) = [row for batch in batches for row in batch.to_pylist()]
    return row


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        WHOLE.replace("\n", "\r\n"),
        "\ufeff" + WHOLE,
        WHOLE.replace("OF THE PROJECT", "OF THIS PROJECT")
        .replace("*** START", "***START")
        .replace("MILL ***", "MILL***"),
        WHOLE.replace("EBOOK THE MILL ***", "EBOOK THE MILL,\nA VERY LONG TITLE ***"),
        WHOLE.replace(START, "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n").replace(
            END, "End of Project Gutenberg's The Mill, by A. Miller\n"
        ),
        WHOLE.replace(NOTE, "").replace(LATE_NOTES, "\n\n"),
        WHOLE.replace(END, "End of the Project Gutenberg EBook of The Mill\n\n" + END),
    ],
)
def test_the_book_alone(text: str, tmp_path: Path) -> None:
    row = read(tmp_path, text.encode())
    assert row["drop"] is None and row["text"] == BODY
    assert json.loads(row["meta"]) == {
        "title": "The Mill", "author": "A. Miller", "language": "English",
        "release_date": "May 1, 2003 [eBook #1234]",
    }  # fmt: skip
    assert GutenbergReader().original(row["source"], str(tmp_path)) == text.encode()


def test_charsets_and_compression(tmp_path: Path) -> None:
    plain = WHOLE.replace("—", "-")
    assert read(tmp_path, plain.encode("latin-1"))["text"] == BODY.replace("—", "-")
    packed = read(tmp_path, gzip.compress(WHOLE.encode()), "1234-0.txt.gz")
    assert packed["text"] == BODY and packed["doc_id"] == read(tmp_path, WHOLE.encode())["doc_id"]


CUT = "no END line of Project Gutenberg: the book is cut off"
NO_START = "no START line of Project Gutenberg"
DAMAGED: dict[str, tuple[Callable[[], bytes], str, str]] = {
    **{
        f"cut at {share}": (lambda share=share: WHOLE.encode()[: int(share * WHOLE.index(END))], "unreadable", CUT)
        for share in (0.3, 0.5, 0.7, 0.9, 1.0)
    },
    "cut in the header": (lambda: HEADER.encode(), "unreadable", NO_START),
    "cut in the START line": (lambda: (HEADER + START[:30]).encode(), "unreadable", NO_START),
    "beginning lost": (lambda: WHOLE.encode()[WHOLE.index("CHAPTER") :], "unreadable", NO_START),
    "no START": (lambda: WHOLE.replace(START, "").encode(), "unreadable", NO_START),
    "no END": (lambda: WHOLE.replace(END, "").encode(), "unreadable", CUT),
    "END before START": (lambda: (HEADER + END + START + BODY).encode(), "unreadable", CUT),
    "START twice": (
        lambda: (HEADER + START + BODY + "\n" + START + BODY + "\n" + END).encode(), "unreadable", "second START",
    ),
    "nothing between": (lambda: (HEADER + START + "\n\n" + END).encode(), "empty", ""),
    "credits alone": (lambda: (HEADER + START + CREDITS + NOTE + END).encode(), "empty", ""),
    "another text": (lambda: b"A text of anything else.\n" * 99, "unreadable", NO_START),
    "an empty file": (lambda: b"", "empty", ""),
    "blanks": (lambda: b"\n \n" * 50, "empty", ""),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(99), "mime", "image/png"),
    "binary": (lambda: bytes(range(256)) * 9, "mime", "application/octet-stream"),
    "a cut gzip": (lambda: gzip.compress(WHOLE.encode())[:-40], "unreadable", "ends early"),
    "words without marks": (lambda: WHOLE.replace("***", "").encode(), "unreadable", NO_START),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_a_drop_with_its_reason(damage: str, tmp_path: Path) -> None:
    make, rule, reason = DAMAGED[damage]
    row = read(tmp_path, make())
    assert row["text"] is None and row["drop"]["rule"] == rule and reason in row["drop"]["value"]


def test_a_broken_gzip_is_unread(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile):
        read(tmp_path, b"\x1f\x8b\x08" + b"nothing of the kind" * 9)


@pytest.mark.parametrize(
    "shape", ["[Transcriber's Note ", "*** START OF THE PROJECT GUTENBERG\n", "\n \n", "[", " " * 9 + "\n"]
)
def test_hostile_books_end(shape: str) -> None:
    """Patterns that could try every way to divide a text: all are bounded, so a megabyte of each ends."""
    book, reason = book_text(HEADER + START + "A book.\n\n" + shape * (1_000_000 // len(shape)) + "\n" + END)
    assert not reason and book.text.startswith("A book.")
