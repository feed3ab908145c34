"""Mends a sentence where templates, files and references were taken out of it.

Each leaves a sign behind, so that only brackets and spaces beside it are mended: `(born {{x}}; 1950)` keeps its
brackets, `Foo ({{x}}, {{y}})` loses them, and `main()` is left alone.
"""

from __future__ import annotations

import re

REMOVED = "\x02"  # where something was taken out
UNFINISHED = "\x04"  # begins an item of a list that had its subject there: `* {{cite book}}, volume 3`
_RUN = re.compile("\x02\x02+")
_BULLET = re.compile(r"(?:^|\n)[*#:;]+[ \t]*\Z")
_AROUND = " \t,;:"
_ENDS = f"{_AROUND}(\n*#"  # what mending looks at before a sign
_PART = 4096


def mend(text: str) -> str:
    """The text without the signs."""
    if REMOVED not in text:
        return text
    first, *rest = _RUN.sub(REMOVED, text).split(REMOVED)
    out = _parts(first)
    for right in rest:
        while len(out) > 1 and not out[-1]:
            out.pop()
        left = out.pop()
        after = right.lstrip(_AROUND)
        if right[:1] in (" ", ",", ";", ":", ".", "!", "?", ")", "\n", ""):
            before = left.rstrip(_AROUND)
            if before.endswith("("):
                left, right = (before[:-1].rstrip(" "), after[1:]) if after.startswith(")") else (before, after)
            elif after.startswith(")"):
                left, right = before, after
            elif _BULLET.search(left[-16:]):
                left += UNFINISHED if right[:1] in (",", ";", ":", ".", ")") else ""
            else:
                left = left.rstrip(" \t")
        out.append(left)
        out += _parts(right)
    return "".join(out)


def _parts(text: str) -> list[str]:
    """The text in parts that end in a word, so that of a long one only the last is copied where its end is mended."""
    parts = []
    at = 0
    while len(text) - at > 2 * _PART:
        end = at + _PART
        while end > at and text[end - 1] in _ENDS:
            end -= 1
        end = end if end > at else at + _PART
        parts.append(text[at:end])
        at = end
    return [*parts, text[at:]]
