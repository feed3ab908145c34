"""Parses an HTML page into blocks of text in a tree of containers.

lexbor (through resiliparse) parses the page as browsers do. Walking its tree from Python costs 2.5 µs a node and
removing a node 200 µs, which is too slow; so the tree is written out as HTML again, now well-formed, and a kernel walks
that (html_walk_kernel.py). A *block* is the text between two block-level tags. A *container* is a block-level element;
every block belongs to one, and lengths are summed up the tree in one backward pass. main_content.py chooses among the
blocks, plain_text.py writes them.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any

MAX_HTML = 1 << 24  # characters of a page that are read: 16 Mi, more than any page written by hand has
MAX_NODES = 1 << 20  # containers; a page with more is cut off there

# Never text: code, media, controls, and what the author hid or marked as not content.
_NEVER_TAGS = """
noscript template object audio video canvas svg map select button dialog nav datalist annotation annotation-xml rp
frameset applet
"""
_NEVER_TEXT = frozenset(_NEVER_TAGS.split())
_NAMING_ATTRIBUTES = re.compile(r'\s(?:class|(id)|role|itemprop|data-component|data-testid)="([^"]*)"')
_INLINE_TAGS = """
a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark nobr q rb rp rt ruby s samp small
span strike strong sub sup time tt u var wbr output meter progress picture img slot math mi mn mo mrow msup msub
"""
_VOID_TAGS = """
area base br col embed hr img input link meta param source track wbr
"""
_INLINE = frozenset(_INLINE_TAGS.split())
_VOID = frozenset(_VOID_TAGS.split())
_HEADINGS = {f"h{i}": i for i in range(1, 7)}
# Elements whose content the parser takes verbatim: tags inside are not tags.
_RAW_TEXT = frozenset(("script", "style", "iframe", "textarea", "xmp", "noembed", "noframes", "plaintext"))
_OTHERS_TAGS = """
body div p ul ol li dl dt dd table caption colgroup thead tbody tfoot tr td th pre blockquote section article main aside
header footer figure figcaption form fieldset legend address details summary center hgroup optgroup option menu font
"""
_OTHER_TAGS = frozenset(_OTHERS_TAGS.split())
_TAG_NAMES: list[str] = []


@dataclass
class PageBlocks:
    """Blocks in page order and containers in the order they open: container 0 is the body."""

    title: str = ""
    language: str = ""
    # containers
    tag: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # class, role, itemprop, #id; lower case
    parent: list[int] = field(default_factory=list)
    # blocks
    text: list[str] = field(default_factory=list)
    link_chars: list[int] = field(default_factory=list)  # how many of its characters are link text
    container: list[int] = field(default_factory=list)  # the container it belongs to


def parse_page(html: str) -> PageBlocks:
    """Parses a page. Any string is accepted; what follows the first `MAX_HTML` characters is ignored."""
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html[:MAX_HTML])
    page = PageBlocks()
    page.title, page.language = title_and_language(tree)
    body = tree.body
    if body is None:
        return page
    _fill_blocks(body.html, page)
    return page


def title_and_language(tree: Any) -> tuple[str, str]:
    """Title and language that a parsed page declares; empty where it declares none."""
    root = tree.document.document_element if tree.document else None
    language = (root.getattr("lang") or root.getattr("xml:lang") or "").strip() if root is not None else ""
    return " ".join((tree.title or "").split()), language


def _fill_blocks(source: str, page: PageBlocks) -> None:
    import numpy as np

    from curation.extract.html_walk_kernel import walk_html

    data = source.encode("utf-8", "replace")
    known, kinds = _tag_table()
    tags = data.count(b"<") + 1
    out = np.empty(len(data) + 1, np.uint8)
    nodes, blocks = np.empty((min(tags, MAX_NODES), 6), np.int64), np.empty((tags + 1, 4), np.int64)
    containers, found, size = walk_html(
        np.frombuffer(data, np.uint8), len(data), known, kinds, MAX_NODES, out, nodes, blocks
    )
    text = out[:size].tobytes().decode("utf-8", "replace")
    rows = nodes[:containers].T.tolist()
    page.parent = rows[5]
    page.tag = [
        _TAG_NAMES[tag] if tag >= 0 else data[lo:hi].decode("utf-8", "replace")
        for tag, lo, hi in zip(rows[0], rows[1], rows[2], strict=True)
    ]
    names_of: dict[bytes, str] = {b"": ""}
    for lo, hi in zip(rows[3], rows[4], strict=True):
        attributes = data[lo:hi]
        names = names_of.get(attributes)
        if names is None:
            found_ = _NAMING_ATTRIBUTES.findall(attributes.decode("utf-8", "replace"))
            names = names_of[attributes] = " ".join("#" + v if is_id else v for is_id, v in found_).lower()
        page.names.append(names)
    columns = blocks[:found].T.tolist()
    page.text = [text[lo:hi] for lo, hi in zip(columns[0], columns[1], strict=True)]
    page.link_chars, page.container = columns[2], columns[3]


@functools.cache
def _tag_table() -> tuple[Any, Any]:
    """Hashes of the tag names that the kernel treats specially, ascending, and their flags; fills `_TAG_NAMES`."""
    import numpy as np

    from curation.extract import html_tag_kernels as w

    kinds = dict.fromkeys((*_OTHER_TAGS, *_HEADINGS), 0)
    for names, kind in ((_INLINE, w.INLINE), (_VOID, w.VOID), (_NEVER_TEXT, w.NEVER), (_RAW_TEXT, w.RAW)):
        for name in names:
            kinds[name] = kinds.get(name, 0) | kind
    for name, kind in (("a", w.ANCHOR), ("br", w.BR), ("pre", w.PRE), ("body", w.BODY)):
        kinds[name] |= kind
    _TAG_NAMES[:] = sorted(kinds, key=w.fnv1a)
    return np.array([w.fnv1a(n) for n in _TAG_NAMES], np.uint64), np.array([kinds[n] for n in _TAG_NAMES], np.int64)


def subtree_sums(page: PageBlocks, values: list[Any]) -> list[Any]:
    """Sums a value of the blocks over containers: for each container, its own blocks and all those below it."""
    total = [0] * len(page.tag)
    for node, value in zip(page.container, values, strict=True):
        total[node] += value
    for node in range(len(total) - 1, 0, -1):
        total[page.parent[node]] += total[node]
    return total


def heading_level(tag: str) -> int:
    """1 to 6 for h1 to h6, else 0."""
    return _HEADINGS.get(tag, 0)
