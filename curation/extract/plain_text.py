"""Writes blocks as plain text with their line structure.

Blank lines separate paragraphs and headings; list items begin with `- ` or their number, indented by the depth of their
list; a table row is a line of cells separated by ` | `, with nothing in an empty one; code keeps every space.
"""

from __future__ import annotations

import re

from curation.extract.blocks import PageBlocks
from curation.extract.main_content import layout_table_rows

_MAX_SPAN = 100  # columns or rows that a cell covers at most: pages ask for thousands
_LINE_NUMBERS = re.compile(r"[\d\s]+")
_LINE_CLASSES = frozenset(("line", "code-line", "token-line", "ace_line", "crayon-line"))


def render(page: PageBlocks, chosen: list[int]) -> str:
    """The text of the chosen blocks (indices in page order)."""
    ancestors = _Ancestors(page)
    layout = layout_table_rows(page)
    tables = _Tables(page, chosen, ancestors, layout)
    out: list[str] = []
    items: set[int] = set()
    last_row = last_item = last_node = -1
    for i in chosen:
        node, text = page.container[i], page.text[i]
        row, item = ancestors.row(node), ancestors.item(node)
        if row >= 0 and row not in layout:
            if row != last_row:
                same = last_row >= 0 and ancestors.table(row) == ancestors.table(last_row)
                out.append(("\n" if same else "\n\n") + tables.row(row))
            last_row, last_item, last_node = row, -1, node
            continue
        code = page.verbatim[node]
        if item >= 0 and item not in items:
            items.add(item)
            indent = "  " * (ancestors.depth(item) - 1)
            text = indent + ancestors.bullet(item) + text
            same_list = last_item >= 0 and ancestors.outermost(item) == ancestors.outermost(last_item)
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
        self._numbers = page.numbers
        self._cells: dict[int, list[int]] = {}  # row -> its cells
        self._text: dict[int, list[str]] = {}  # cell -> the texts of its chosen blocks
        self._code: set[int] = set()  # cells that hold code
        self._covered: dict[int, dict[int, int]] = {}  # table -> column -> rows that a cell above still covers
        self._ancestors = ancestors
        cells = []
        for node, tag in enumerate(page.tag):
            if tag in ("td", "th") and ancestors.row(node) >= 0:
                cells.append(node)
                self._cells.setdefault(ancestors.row(node), []).append(node)
        if not cells:
            return
        for i in chosen:
            node = page.container[i]
            if (cell := ancestors.cell(node)) >= 0:
                code = page.verbatim[node]
                self._text.setdefault(cell, []).append(page.text[i] if code else " ".join(page.text[i].split()))
                self._code |= {cell} if code else set()

    def row(self, row: int) -> str:
        """One row as a line; code alone in its row is written as it is."""
        cells = self._cells.get(row, [])
        full = [cell for cell in cells if cell in self._text]
        if len(full) > 1 and self._code.issuperset(full):  # the numbers of its lines beside code
            full = [cell for cell in full if not _LINE_NUMBERS.fullmatch("".join(self._text[cell]))] or full
        if len(full) == 1 and full[0] in self._code:
            return "\n".join(self._text[full[0]])
        covered = self._covered.setdefault(self._ancestors.table(row), {})
        line: list[str] = []
        for cell in cells:
            self._fill_covered(line, covered)
            numbers = self._numbers.get(cell, {})
            columns = min(max(1, numbers.get("colspan", 1)), _MAX_SPAN)
            if (rows := min(numbers.get("rowspan", 1), _MAX_SPAN)) > 1:
                covered |= dict.fromkeys(range(len(line), len(line) + columns), rows - 1)
            line += [" ".join(self._text.get(cell, [])), *[""] * (columns - 1)]
        self._fill_covered(line, covered)
        return " | ".join(line).rstrip(" ") if any(line) else ""

    @staticmethod
    def _fill_covered(line: list[str], covered: dict[int, int]) -> None:
        while (rows := covered.pop(len(line), 0)) > 0:
            if rows > 1:
                covered[len(line)] = rows - 1
            line.append("")


class _Ancestors:
    """For each container the list item, table row, cell and table it is in: the nearest above it, or -1."""

    def __init__(self, page: PageBlocks) -> None:
        self._item: list[int] = []
        self._row: list[int] = []
        self._cell: list[int] = []
        self._table: list[int] = []
        self._depth: list[int] = []
        self._outermost: list[int] = []
        self._number: dict[int, int] = {}
        count: dict[int, int] = {}
        for node, tag in enumerate(page.tag):
            up = page.parent[node]
            above = up >= 0
            table = node if tag == "table" else self._table[up] if above else -1
            opens = tag == "table"  # rows and cells around a nested table are not those of its own cells
            self._table.append(table)
            self._row.append(node if tag == "tr" else -1 if opens else self._row[up] if above else -1)
            self._cell.append(node if tag in ("td", "th") else -1 if opens else self._cell[up] if above else -1)
            self._item.append(node if tag == "li" else self._item[up] if above else -1)
            self._depth.append((self._depth[up] if above else 0) + (tag in ("ul", "ol", "menu")))
            outer = self._outermost[up] if above else -1
            self._outermost.append(node if outer < 0 and tag in ("ul", "ol", "menu") else outer)
            if tag == "li" and above and page.tag[up] == "ol":
                before = count.get(up, page.numbers.get(up, {}).get("start", 1) - 1)
                count[up] = page.numbers.get(node, {}).get("value", before + 1)
                self._number[node] = count[up]

    def item(self, node: int) -> int:
        return self._item[node]

    def row(self, node: int) -> int:
        return self._row[node]

    def cell(self, node: int) -> int:
        return self._cell[node]

    def table(self, row: int) -> int:
        return self._table[row]

    def depth(self, item: int) -> int:
        return min(8, max(1, self._depth[item]))  # deeper lists are not indented further

    def outermost(self, item: int) -> int:
        """The outermost list that holds the item."""
        return self._outermost[item]

    def bullet(self, item: int) -> str:
        return f"{self._number[item]}. " if item in self._number else "- "
