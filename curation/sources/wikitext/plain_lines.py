"""Writes the lines of wikitext as plain text: headings, lists, rows and paragraphs, as the step `extract` writes them.

Blank lines separate paragraphs, headings, lists and tables; items begin with `- ` or their number, indented by their
depth. A heading with nothing below it (what it had were references, pictures or templates) is left out.
"""

from __future__ import annotations

import re

from curation.sources.wikitext.mending import UNFINISHED
from curation.sources.wikitext.tables import ROW

_HEADING = re.compile(r"(={1,6})[ \t]*(.+?)[ \t]*\1\s*$")
_ITEM = re.compile(r"[*#:;]+")
_MAX_DEPTH = 8


def write(text: str) -> str:
    """The text of lines whose inner markup is gone."""
    out: list[tuple[str, str]] = []  # kind: t(ext), l(ist), r(ow), 1..6 (heading), blank
    numbers: list[int] = []
    for raw in text.split("\n"):
        first = raw[:1]
        if not first:
            out.append(("", ""))
            numbers.clear()
            continue
        if first == ROW:
            line = raw[1:].rstrip()
            if line.strip(" |"):
                out.append(("r", line))
            continue
        if first in "*#:;":
            item = _item(raw, numbers)
            if item:
                out.append(("l" if first in "*#" else "t", item))
            continue
        numbers.clear()
        if first == "=" and (heading := _HEADING.match(raw)):
            out.append((str(len(heading[1])), heading[2]))
        elif first == "-" and raw.startswith("----"):
            out.append(("", ""))
        else:
            line = raw.strip()
            out.append(("t" if line else "", line))
    return _join(_without_empty_sections(out))


def _item(raw: str, numbers: list[int]) -> str:
    """An item with its bullet or number. `numbers`: of the items before it, by depth."""
    match = _ITEM.match(raw)
    assert match is not None
    marks, content = match[0], raw[match.end() :].strip()
    if not content or content.startswith(UNFINISHED):
        return ""
    depth = len(marks)
    if depth <= _MAX_DEPTH:
        del numbers[depth:]
    numbers += [0] * (min(depth, _MAX_DEPTH) - len(numbers))
    listed = marks.rstrip(":;")
    indent = "  " * (min(len(listed), _MAX_DEPTH) - 1)
    if marks[-1] == "#":
        numbers[-1] += 1
        return f"{indent}{numbers[-1]}. {content}"
    if marks[-1] != ":":
        numbers[-1] = 0
    if marks[-1] == "*":
        return f"{indent}- {content}"
    return f"{indent}  {content}" if listed else content


def _without_empty_sections(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    kept: list[tuple[str, str]] = []
    level = 0  # what follows is a heading of this level, or the end; 7: it is text
    for kind, line in reversed(lines):
        if not kind:
            kept.append((kind, line))
        elif kind.isdigit():
            if int(kind) < level:
                kept.append((kind, line))
                level = int(kind)
        else:
            level = 7
            kept.append((kind, line))
    kept.reverse()
    return kept


def _join(lines: list[tuple[str, str]]) -> str:
    out: list[str] = []
    last = ""
    for kind, line in lines:
        if not kind:
            last = ""
            continue
        if out:
            out.append("\n" if kind == last and not kind.isdigit() else "\n\n")
        out.append(line)
        last = kind
    return "".join(out)
