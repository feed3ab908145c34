"""Writes tables of wikitext as rows: a line of cells separated by ` | `, with nothing in an empty one.

Syntax: https://www.mediawiki.org/wiki/Help:Tables.
"""

from __future__ import annotations

import re

ROW = "\x03"  # begins a line that is a row, so that a cell `#` or `* note` is not read as an item of a list
_BREAK = re.compile(r"<(?:br|/?p|/?div|/?li|/?ul|/?ol|hr)\b[^<>]*>", re.I)
_BULLETS = re.compile(r"\n[*#:;]+")
_SPAN = re.compile(r"\b(col|row)span\s*=\s*[\"']?\s*(\d{1,3})", re.I)
_MAX_SPAN = 100  # columns or rows that a cell covers, and columns of a row that are covered: pages ask for thousands
_CAPTION = "\x03caption"


class Table:
    """A table that is being read: cells are added to its last row."""

    __slots__ = ("attributes", "caption", "cell", "header_line", "line_has_pipe", "rows")

    def __init__(self) -> None:
        self.rows: list[list[tuple[str, str]]] = [[]]  # of (attributes, text)
        self.caption = ""
        self.cell: list[str] | None = None  # the text of the cell that is open; None: attributes of a row or table
        self.attributes = ""
        self.header_line = False  # whether the line began with `!`, so that `!!` separates cells
        self.line_has_pipe = False

    def open_cell(self, header: bool) -> None:
        self.close_cell()
        self.cell, self.attributes, self.header_line, self.line_has_pipe = [], "", header, False

    def open_row(self) -> None:
        self.close_cell()
        self.rows.append([])

    def open_caption(self) -> None:
        self.close_cell()
        self.cell, self.attributes, self.line_has_pipe = [], _CAPTION, False

    def pipe(self) -> None:
        """A single pipe: what stood before it in this cell were attributes."""
        if self.cell is None:
            return
        before = "" if self.line_has_pipe else "".join(self.cell)  # joined once a cell
        if self.line_has_pipe or "\n" in before:
            self.line_has_pipe = True
            self.cell.append("|")
            return
        self.line_has_pipe = True
        if self.attributes != _CAPTION:
            self.attributes = before
        self.cell = []

    def close_cell(self) -> None:
        if self.cell is None:
            return
        text = "".join(self.cell)
        self.cell = None
        if ROW not in text:
            if "\n" in text or "<" in text:
                text = _BULLETS.sub("\n", _BREAK.sub(" ", text))
            text = " ".join(text.split())
        if self.attributes == _CAPTION:
            self.caption = text
        else:
            self.rows[-1].append((self.attributes, text))

    def text(self) -> str:
        """The table as lines."""
        self.close_cell()
        covered: dict[int, int] = {}  # column -> rows that a cell above still covers
        lines = [self.caption] if self.caption else []
        for row in self.rows:
            if any(ROW in text for _, text in row):  # tables inside a table set it on the page: they are no cells
                lines += [text for _, text in row]
                continue
            cells: list[str] = []
            for attributes, text in row:
                _fill_covered(cells, covered)
                spans = {k.lower(): min(int(n), _MAX_SPAN) for k, n in _SPAN.findall(attributes)}
                columns = max(1, spans.get("col", 1))
                if spans.get("row", 1) > 1:
                    covered.update(dict.fromkeys(range(len(cells), len(cells) + columns), spans["row"] - 1))
                cells += [text, *[""] * (min(columns, _MAX_SPAN - len(cells)) - 1)]
            if row:
                _fill_covered(cells, covered)
            if any(cell.strip(" \x02") for cell in cells):
                lines.append(ROW + " | ".join(cells).rstrip(" "))
        return "\n\n" + "\n".join(lines) + "\n\n" if lines else "\n"


def _fill_covered(cells: list[str], covered: dict[int, int]) -> None:
    while len(cells) < _MAX_SPAN and (rows := covered.pop(len(cells), 0)) > 0:
        if rows > 1:
            covered[len(cells)] = rows - 1
        cells.append("")
