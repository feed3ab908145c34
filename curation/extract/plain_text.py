"""Writes blocks as plain text with their line structure.

Blank lines separate paragraphs and headings; list items begin with `- ` or their number, indented by the depth of their
list; a table row is a line of cells separated by ` | `, with nothing in an empty one; code keeps every space.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from curation.extract.blocks import PageBlocks
from curation.extract.tables import table_places

_MAX_SPAN = 100  # columns or rows that a cell covers at most: pages ask for thousands
_CELLS = ("td", "th")
_LINE_NUMBERS = re.compile(r"[\d\s]+")
_LINE_CLASSES = frozenset(("line", "code-line", "token-line", "ace_line", "crayon-line"))


def render(page: PageBlocks, chosen: list[int]) -> str:
    """The text of the chosen blocks (indices in page order)."""
    ancestors = _Ancestors(page)
    _, layout = table_places(page)
    tables = _Tables(page, chosen, ancestors, layout)
    out: list[str] = []
    items: set[int] = set()
    last_row = last_item = last_node = -1
    for i in chosen:
        node, text = page.container[i], page.text[i]
        # of a cell the row's: pages have many cells, which need no place of their own for this
        place = ancestors.of(page.parent[node] if page.tag[node] in _CELLS else node)
        row, item = place.row, place.item
        if row >= 0 and row not in layout:
            if row != last_row:
                same = last_row >= 0 and place.table == ancestors.of(last_row).table
                out.append(("\n" if same else "\n\n") + tables.row(row))
            last_row, last_item, last_node = row, -1, node
            continue
        code = page.verbatim[node]
        if item >= 0 and item not in items:
            items.add(item)
            indent = "  " * (ancestors.depth(item) - 1)
            text = indent + ancestors.bullet(item) + text
            same_list = last_item >= 0 and place.outermost == ancestors.of(last_item).outermost
            out.append(("\n" if same_list else "\n\n") + text)
        elif item >= 0 and item == last_item:
            out.append("\n" + text if code else "\n" + "  " * ancestors.depth(item) + text)
        else:
            line = last_node >= 0 and last_row < 0 and _lines_of_code(page, last_node, node)
            out.append(("\n" if line else "\n\n") + text)
        last_row, last_item, last_node = -1, item, node
    return "".join(out).strip("\n")


def _lines_of_code(page: PageBlocks, one: int, other: int) -> bool:
    """Whether two containers are lines of one code view."""
    if page.parent[one] != page.parent[other] or page.tag[one] != page.tag[other]:
        return False
    if page.verbatim[one] and page.verbatim[other]:
        return page.tag[one] != "pre"
    return not _LINE_CLASSES.isdisjoint(page.names[one].split()) and one != other


class _Tables:
    """Writes table rows with each cell in its column: an empty cell, and what a span covers, keep their place."""

    def __init__(self, page: PageBlocks, chosen: list[int], ancestors: _Ancestors, layout: set[int]) -> None:
        self._page = page
        self._text: dict[int, list[str]] = {}  # cell -> the texts of its chosen blocks
        self._code: set[int] = set()  # cells that hold code
        self._covered: dict[int, dict[int, int]] = {}  # table -> column -> rows that a cell above still covers
        self._ancestors = ancestors
        for i in chosen:
            node = page.container[i]
            if (cell := node if page.tag[node] in _CELLS else ancestors.of(node).cell) >= 0:
                code = page.verbatim[node]
                self._text.setdefault(cell, []).append(page.text[i] if code else " ".join(page.text[i].split()))
                if code:
                    self._code.add(cell)

    def row(self, row: int) -> str:
        """One row as a line; code alone in its row is written as it is."""
        cells = self._cells(row)
        full = [cell for cell in cells if cell in self._text]
        if len(full) > 1 and self._code.issuperset(full):  # the numbers of its lines beside code
            full = [cell for cell in full if not _LINE_NUMBERS.fullmatch("".join(self._text[cell]))] or full
        if len(full) == 1 and full[0] in self._code:
            return "\n".join(self._text[full[0]])
        covered = self._covered.setdefault(self._ancestors.of(row).table, {})
        line: list[str] = []
        for cell in cells:
            if covered:
                self._fill_covered(line, covered)
            numbers = self._page.numbers.get(cell)
            if numbers is None:
                line.append(" ".join(self._text.get(cell, ())))
                continue
            columns = min(max(1, numbers.get("colspan", 1)), _MAX_SPAN)
            if (rows := min(numbers.get("rowspan", 1), _MAX_SPAN)) > 1:
                covered |= dict.fromkeys(range(len(line), len(line) + columns), rows - 1)
            line += [" ".join(self._text.get(cell, [])), *[""] * (columns - 1)]
        self._fill_covered(line, covered)
        return " | ".join(line).rstrip(" ") if any(line) else ""

    def _cells(self, row: int) -> list[int]:
        """The cells of a row, without those of tables inside them."""
        page, out, node = self._page, [], row + 1
        while node < page.end[row]:
            if page.tag[node] in _CELLS:
                out.append(node)
            node = page.end[node] if page.tag[node] in (*_CELLS, "table") else node + 1
        return out

    @staticmethod
    def _fill_covered(line: list[str], covered: dict[int, int]) -> None:
        while (rows := covered.pop(len(line), 0)) > 0:
            if rows > 1:
                covered[len(line)] = rows - 1
            line.append("")


class _Place(NamedTuple):
    """What a container is in, the nearest above it or itself, or -1."""

    item: int = -1
    row: int = -1
    cell: int = -1
    table: int = -1
    outermost: int = -1  # the outermost list
    depth: int = 0  # lists around it


class _Ancestors:
    """Where containers are, and the numbers of list items."""

    def __init__(self, page: PageBlocks) -> None:
        self._page = page
        self._places = {-1: _Place()}
        self._number: dict[int, int] = {}
        for node, tag in enumerate(page.tag):
            if tag == "ol":
                self._count_items(node)

    def of(self, node: int) -> _Place:
        """The place of a container. Only those of the chosen blocks are looked for, and each once."""
        path = []
        while node not in self._places:
            path.append(node)
            node = self._page.parent[node]
        place = self._places[node]
        for at in reversed(path):
            tag = self._page.tag[at]
            if tag == "li":
                place = place._replace(item=at)
            elif tag == "tr":
                place = place._replace(row=at)
            elif tag in _CELLS:
                place = place._replace(cell=at)
            elif tag == "table":  # rows and cells around a nested table are not those of its own cells
                place = place._replace(table=at, row=-1, cell=-1)
            elif tag in ("ul", "ol", "menu"):
                outermost = place.outermost if place.outermost >= 0 else at
                place = place._replace(depth=place.depth + 1, outermost=outermost)
            self._places[at] = place
        return place

    def depth(self, item: int) -> int:
        return min(8, max(1, self.of(item).depth))  # deeper lists are not indented further

    def bullet(self, item: int) -> str:
        return f"{self._number[item]}. " if item in self._number else "- "

    def _count_items(self, node: int) -> None:
        items = [n for n in self._page.children(node) if self._page.tag[n] == "li"]
        numbers = self._page.numbers
        step = -1 if "reversed" in numbers.get(node, {}) else 1
        number = numbers.get(node, {}).get("start", 1 if step > 0 else len(items))
        for item in items:
            number = numbers.get(item, {}).get("value", number)
            self._number[item] = number
            number += step
