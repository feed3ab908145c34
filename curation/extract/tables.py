"""Separates tables of data from layout tables, and finds tables and lists outside the main container.

The main container is where the prose is. Tables have none, so a page with its description in one box and its figures in
another would lose the second. On a product's page the lists of features and what is in the box are such boxes too.
"""

from __future__ import annotations

from itertools import accumulate

from curation.extract.blocks import PageBlocks, heading_level

_LAYOUT_CELL_CHARS = 200  # a table with a longer block in a cell is there for the page's layout
_MIN_BESIDE_CHARS, _MIN_BESIDE_PARTS = 20, 3  # characters, and rows or items, of what is taken from beside the text
_MIN_DATA_ROWS = 3
_MAX_TABLE_LINKED, _MAX_LIST_LINKED = 0.3, 0.1  # share of its text in links; with more it leads to other pages


def table_places(page: PageBlocks) -> tuple[list[int], set[int]]:
    """The cell that each container is or is in, or -1, and the table rows used for page layout: with a long block, a
    heading or two paragraphs in a cell. Cells of those are separate texts, not cells of a table."""
    if page.table_places is not None:
        return page.table_places
    cell: list[int] = []
    rows: set[int] = set()
    if "td" not in page.tag and "th" not in page.tag:
        page.table_places = [-1] * len(page.tag), rows
        return page.table_places
    paragraphs: dict[int, int] = {}
    for node, tag in enumerate(page.tag):
        up = page.parent[node]
        cell.append(node if tag in ("td", "th") else cell[up] if up >= 0 and tag != "table" else -1)
        inside = cell[node]
        if inside >= 0 and inside != node:
            if tag == "p":
                paragraphs[inside] = paragraphs.get(inside, 0) + 1
            if tag in ("h1", "h2", "h3") or paragraphs.get(inside, 0) > 1:
                rows.add(page.parent[inside])
    for node, text in zip(page.container, page.text, strict=True):
        if len(text) > _LAYOUT_CELL_CHARS and cell[node] >= 0 and page.tag[node] != "pre":
            rows.add(page.parent[cell[node]])
    page.table_places = cell, rows
    return page.table_places


def data_tables(page: PageBlocks) -> list[int]:
    """How many tables of data begin before each container: with at least three rows, of two cells or more on average,
    none of which lays out the page. What is in them is data even if all of it is links."""
    if "table" not in page.tag:
        return [0] * (len(page.tag) + 1)
    tables, rows, cells = (_before(page, tags) for tags in (("table",), ("tr",), ("td", "th")))
    laid = _laid_out_before(page)
    found = (
        tag == "table"
        and tables[end] - tables[node] == 1
        and rows[end] - rows[node] >= _MIN_DATA_ROWS
        and cells[end] - cells[node] >= 2 * (rows[end] - rows[node])
        and laid[end] == laid[node]
        for node, (tag, end) in enumerate(zip(page.tag, page.end, strict=True))
    )
    return list(accumulate(found, initial=0))


def _before(page: PageBlocks, tags: tuple[str, ...]) -> list[int]:
    """How many containers of these tags begin before each: those inside one are a difference of two places."""
    return list(accumulate(map(tags.__contains__, page.tag), initial=0))


def _laid_out_before(page: PageBlocks) -> list[int]:
    """How many rows that lay out the page begin before each container."""
    _, layout = table_places(page)
    return list(accumulate(map(layout.__contains__, range(len(page.tag))), initial=0))


def beside_main(
    page: PageBlocks, top: int, dropped: list[bool], size_of: list[int], linked_of: list[int], lists: bool
) -> set[int]:
    """Containers outside the main container `top` that are tables of data, or lists if `lists`, each with the heading
    right before it, and all that is in them."""
    tags = ("table", "dl", "ul", "ol") if lists else ("table",)
    if not any(tag in page.tag for tag in tags):
        return set()
    parts, laid = _before(page, ("tr", "dt", "li")), _laid_out_before(page)
    found: set[int] = set()
    node = 0
    while node < len(page.tag):
        tag, end = page.tag[node], page.end[node]
        if dropped[node] or node == top:
            node = end
            continue
        most = _MAX_TABLE_LINKED if tag == "table" else _MAX_LIST_LINKED
        if (
            tag in tags
            and not node < top < end
            and size_of[node] >= _MIN_BESIDE_CHARS
            and linked_of[node] <= most * size_of[node]
            and parts[end] - parts[node] >= _MIN_BESIDE_PARTS
            and laid[end] == laid[node]
        ):
            before = page.previous(node)
            if before >= 0 and heading_level(page.tag[before]):
                found.update(range(before, page.end[before]))
            found.update(range(node, end))
            node = end
        else:
            node += 1
    return found
