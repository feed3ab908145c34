"""Splits a text into lines or paragraphs, hashes spans of them, cuts some out, and restores the original text.

A *unit* is a line that is not blank, or a paragraph: the lines between blank ones. A *span* is a few consecutive
units, identified by the hash of their normalized forms. Units with an empty normalized form (a line of dashes, under
`words`) are in no span and are cut only between units that are cut.

What is cut is stored as pieces, [offset, text] in characters of the original text, in ascending order; `restore`
rebuilds the original text from them exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Literal

import xxhash

Unit = Literal["line", "paragraph"]
Range = tuple[int, int]  # first character, and one past the last


def units(text: str, unit: Unit) -> list[Range]:
    """The character ranges of the units of a text."""
    found: list[Range] = []
    at, paragraph = 0, -1  # start of this line; start of the current paragraph, -1: none
    for line in text.split("\n"):
        end = at + len(line)
        if line and not line.isspace():
            if unit == "line" or paragraph < 0:
                found.append((at, end))
            else:
                found[-1] = (paragraph, end)
            paragraph = found[-1][0]
        else:
            paragraph = -1
        at = end + 1
    return found


def span_hashes(
    text: str, where: Sequence[Range], normalise: Callable[[str], str], length: int, min_chars: int, salt: bytes
) -> list[tuple[bytes, int, int]]:
    """(hash, first unit, last unit) of each span of `length` units with a normalized form of at least `min_chars`.

    `salt` is hashed with the form: spans of different scopes have different hashes."""
    forms = [(f, i) for i, (a, b) in enumerate(where) if (f := normalise(text[a:b]))]
    found = []
    for i in range(len(forms) - length + 1):
        span = forms[i : i + length]
        form = "\n".join([f for f, _ in span]) if length > 1 else span[0][0]
        if len(form) >= min_chars:
            found.append((xxhash.xxh3_128_digest(salt + form.encode()), span[0][1], span[-1][1]))
    return found


def pieces_to_cut(text: str, where: Sequence[Range], removed: Sequence[bool]) -> list[tuple[int, str]]:
    """The pieces to cut for the units marked `removed`: runs of them, each with the blank lines after it."""
    found: list[tuple[int, str]] = []
    i = 0
    while i < len(where):
        if not removed[i]:
            i += 1
            continue
        first = i
        while i < len(where) and removed[i]:
            i += 1
        start, end = where[first][0], where[i][0] if i < len(where) else len(text)
        if i == len(where):  # at the end of the text, the blank lines before it instead
            start = len(text[:start].rstrip())
        found.append((start, text[start:end]))
    return found


def cut(text: str, pieces: Sequence[tuple[int, str]]) -> str:
    """The text without the pieces."""
    kept, at = [], 0
    for offset, piece in pieces:
        kept.append(text[at:offset])
        at = offset + len(piece)
    kept.append(text[at:])
    return "".join(kept)


def restore(text: str, pieces: Sequence[tuple[int, str]]) -> str:
    """The original text, from the text after `cut` and the pieces."""
    parts, at, before = [], 0, 0  # position in the text after the cut, and in the original
    for offset, piece in pieces:
        parts += [text[at : at + offset - before], piece]
        at, before = at + offset - before, offset + len(piece)
    parts.append(text[at:])
    return "".join(parts)


def dump(pieces: Sequence[tuple[int, str]]) -> str:
    """Pieces as JSON, as the ledger stores them."""
    return json.dumps(pieces, ensure_ascii=False, separators=(",", ":"))


def load(value: str) -> list[tuple[int, str]]:
    """Pieces from the JSON of the ledger."""
    return [(int(offset), str(piece)) for offset, piece in json.loads(value)]
