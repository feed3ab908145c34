"""Writes blocks as plain text with their line structure.

Blank lines separate paragraphs and headings; list items begin with `- ` or their number, indented by the depth of their
list; a table row is a line of cells separated by ` | `; code keeps every space.
"""

from __future__ import annotations

from curation.extract.blocks import PageBlocks
from curation.extract.main_content import layout_table_rows


def render(page: PageBlocks, chosen: list[int]) -> str:
    """The text of the chosen blocks (indices in page order)."""
    ancestors = _Ancestors(page)
    layout = layout_table_rows(page)
    out: list[str] = []
    items: set[int] = set()
    last_row = last_cell = last_item = -1
    for i in chosen:
        node, text = page.container[i], page.text[i]
        row, cell, item = ancestors.row(node), ancestors.cell(node), ancestors.item(node)
        if row >= 0 and row not in layout:
            text = " ".join(text.split()) if page.tag[node] != "pre" else text
            if row == last_row:
                out.append((" " if cell == last_cell else " | ") + text)
            else:
                out.append(
                    ("\n" if last_row >= 0 and ancestors.table(row) == ancestors.table(last_row) else "\n\n") + text
                )
            last_row, last_cell, last_item = row, cell, -1
            continue
        last_row = last_cell = -1
        if item >= 0 and item not in items:
            items.add(item)
            indent = "  " * (ancestors.depth(item) - 1)
            text = indent + ancestors.bullet(item) + text
            same_list = last_item >= 0 and ancestors.outermost(item) == ancestors.outermost(last_item)
            out.append(("\n" if same_list else "\n\n") + text)
        elif item >= 0 and item == last_item:
            out.append("\n" + "  " * ancestors.depth(item) + text if page.tag[node] != "pre" else "\n" + text)
        else:
            out.append("\n\n" + text)
        last_item = item
    return "".join(out).strip("\n")


class _Ancestors:
    """For each container the list item, table row, cell and table it is in: the nearest above it, or -1."""

    def __init__(self, page: PageBlocks) -> None:
        self._item: list[int] = []
        self._row: list[int] = []
        self._cell: list[int] = []
        self._table: list[int] = []
        self._depth: list[int] = []
        self._outermost: list[int] = []
        self._number: list[int] = []
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
            number = 0
            if tag == "li" and above and page.tag[up] == "ol":
                number = count[up] = count.get(up, 0) + 1
            self._number.append(number)

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
        return f"{self._number[item]}. " if self._number[item] else "- "
