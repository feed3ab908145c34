"""A text as units (lines or paragraphs), which of them go, and the way back.

A *unit* is a line that is not blank, or a paragraph: lines between blank ones. A *span* is some units in a row; it is
known by the hash of their normal forms. Units whose normal form is empty (a rule of dashes, under `words`) belong to
no span and go only between units that go.

What is cut is written down as pieces, [offset, text] in characters of the text as it was, ascending; with them
`restore` gives back that text to the letter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Literal

import xxhash

Unit = Literal["line", "paragraph"]
Range = tuple[int, int]  # first character, and the one behind the last


def units(text: str, unit: Unit) -> list[Range]:
    """Where the units of a text lie."""
    found: list[Range] = []
    at, open_ = 0, -1  # where this line begins; where the open paragraph does
    for line in text.split("\n"):
        end = at + len(line)
        if line and not line.isspace():
            if unit == "line" or open_ < 0:
                found.append((at, end))
            else:
                found[-1] = (open_, end)
            open_ = found[-1][0]
        else:
            open_ = -1
        at = end + 1
    return found


def span_hashes(
    text: str, where: Sequence[Range], normalise: Callable[[str], str], length: int, min_chars: int, salt: bytes
) -> list[tuple[bytes, int, int]]:
    """(hash, first unit, last unit) of each span of `length` units whose normal form has `min_chars` characters."""
    forms = [(f, i) for i, (a, b) in enumerate(where) if (f := normalise(text[a:b]))]
    found = []
    for i in range(len(forms) - length + 1):
        span = forms[i : i + length]
        form = "\n".join([f for f, _ in span]) if length > 1 else span[0][0]
        if len(form) >= min_chars:
            found.append((xxhash.xxh3_128_digest(salt + form.encode()), span[0][1], span[-1][1]))
    return found


def pieces(text: str, where: Sequence[Range], gone: Sequence[bool]) -> list[tuple[int, str]]:
    """What to cut so that the units marked `gone` go: runs of them, each with the blank lines behind it."""
    found: list[tuple[int, str]] = []
    i = 0
    while i < len(where):
        if not gone[i]:
            i += 1
            continue
        first = i
        while i < len(where) and gone[i]:
            i += 1
        start, end = where[first][0], where[i][0] if i < len(where) else len(text)
        if i == len(where):  # at the end of the text the blank lines before go instead
            start = len(text[:start].rstrip())
        found.append((start, text[start:end]))
    return found


def cut(text: str, taken: Sequence[tuple[int, str]]) -> str:
    """The text without these pieces."""
    kept, at = [], 0
    for offset, piece in taken:
        kept.append(text[at:offset])
        at = offset + len(piece)
    kept.append(text[at:])
    return "".join(kept)


def restore(text: str, taken: Sequence[tuple[int, str]]) -> str:
    """The text as it was before `cut` took these pieces out."""
    parts, at, before = [], 0, 0  # where we are in the text as it is, and as it was
    for offset, piece in taken:
        parts += [text[at : at + offset - before], piece]
        at, before = at + offset - before, offset + len(piece)
    parts.append(text[at:])
    return "".join(parts)


def dump(taken: Sequence[tuple[int, str]]) -> str:
    """Pieces as the ledger holds them."""
    return json.dumps(taken, ensure_ascii=False, separators=(",", ":"))


def load(value: str) -> list[tuple[int, str]]:
    """Pieces from the ledger."""
    return [(int(offset), str(piece)) for offset, piece in json.loads(value)]
