"""An HTML page as blocks of text in a tree of containers: what `extract_main` judges and `extract_text` writes.

lexbor (through resiliparse) parses, as browsers do. Walking its tree from Python costs 2.5 µs a node and taking a node
out of it 200 µs, more than there is time for; so the tree is written out once more as HTML, now well-formed, and a
kernel walks that (`extract_walk`). A *block* is the text between two block-level tags. A *container* is a
block-level element; blocks hang on containers, and lengths are summed up the tree in one backward pass.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import Any

MAX_HTML = 1 << 24  # characters of a page that are looked at: 16 Mi, past every page that a person wrote
MAX_NODES = 1 << 20  # containers; a page with more is cut there

# Never text: code, media, controls, and what the author hid or marked as not the content.
_NEVER_TAGS = """
noscript template object audio video canvas svg map select button dialog nav datalist annotation annotation-xml rp
frameset applet
"""
_NEVER = frozenset(_NEVER_TAGS.split())
_NAMED = re.compile(r'\s(?:class|(id)|role|itemprop|data-component|data-testid)="([^"]*)"')
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
# Elements whose content the parser takes verbatim, so that tags in it are none.
_RAW = frozenset(("script", "style", "iframe", "textarea", "xmp", "noembed", "noframes", "plaintext"))
_OTHERS_TAGS = """
body div p ul ol li dl dt dd table caption colgroup thead tbody tfoot tr td th pre blockquote section article main aside
header footer figure figcaption form fieldset legend address details summary center hgroup optgroup option menu font
"""
_OTHERS = frozenset(_OTHERS_TAGS.split())
_KNOWN: list[str] = []


@dataclass
class Page:
    """Blocks in page order and containers in the order they open: container 0 is the body."""

    title: str = ""
    language: str = ""
    # containers
    tag: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # class, role, itemprop, #id: lower case
    parent: list[int] = field(default_factory=list)
    # blocks
    text: list[str] = field(default_factory=list)
    linked: list[int] = field(default_factory=list)  # characters of it that are link text
    node: list[int] = field(default_factory=list)  # the container it hangs on


def read(html: str) -> Page:
    """Parses a page. Any string will do; what is beyond `MAX_HTML` characters is not looked at."""
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html[:MAX_HTML])
    page = Page()
    page.title, page.language = head(tree)
    body = tree.body
    if body is None:
        return page
    _walk(body.html, page)
    return page


def head(tree: Any) -> tuple[str, str]:
    """Title and language of a parsed page, as it says itself; empty where it says nothing."""
    root = tree.document.document_element if tree.document else None
    language = (root.getattr("lang") or root.getattr("xml:lang") or "").strip() if root is not None else ""
    return " ".join((tree.title or "").split()), language


def _walk(source: str, page: Page) -> None:
    import numpy as np

    from curation.extract.html_walk_kernel import walk

    data = source.encode("utf-8", "replace")
    known, kinds = _table()
    tags = data.count(b"<") + 1
    out = np.empty(len(data) + 1, np.uint8)
    nodes, blocks = np.empty((min(tags, MAX_NODES), 6), np.int64), np.empty((tags + 1, 4), np.int64)
    containers, found, size = walk(
        np.frombuffer(data, np.uint8), len(data), known, kinds, MAX_NODES, out, nodes, blocks
    )
    text = out[:size].tobytes().decode("utf-8", "replace")
    rows = nodes[:containers].T.tolist()
    page.parent = rows[5]
    page.tag = [
        _KNOWN[tag] if tag >= 0 else data[lo:hi].decode("utf-8", "replace")
        for tag, lo, hi in zip(rows[0], rows[1], rows[2], strict=True)
    ]
    said: dict[bytes, str] = {b"": ""}
    for lo, hi in zip(rows[3], rows[4], strict=True):
        attributes = data[lo:hi]
        names = said.get(attributes)
        if names is None:
            found_ = _NAMED.findall(attributes.decode("utf-8", "replace"))
            names = said[attributes] = " ".join("#" + v if is_id else v for is_id, v in found_).lower()
        page.names.append(names)
    columns = blocks[:found].T.tolist()
    page.text = [text[lo:hi] for lo, hi in zip(columns[0], columns[1], strict=True)]
    page.linked, page.node = columns[2], columns[3]


@functools.cache
def _table() -> tuple[Any, Any]:
    """Hashes of the tag names that mean something to the kernel, ascending, and what each is; fills `_KNOWN`."""
    import numpy as np

    from curation.extract import html_walk_kernel as w

    kinds = dict.fromkeys((*_OTHERS, *_HEADINGS), 0)
    for names, kind in ((_INLINE, w.INLINE), (_VOID, w.VOID), (_NEVER, w.NEVER), (_RAW, w.RAW)):
        for name in names:
            kinds[name] = kinds.get(name, 0) | kind
    for name, kind in (("a", w.ANCHOR), ("br", w.BR), ("pre", w.PRE), ("body", w.BODY)):
        kinds[name] |= kind
    _KNOWN[:] = sorted(kinds, key=w.fnv)
    return np.array([w.fnv(n) for n in _KNOWN], np.uint64), np.array([kinds[n] for n in _KNOWN], np.int64)


def sums(page: Page, values: list[Any]) -> list[Any]:
    """Adds up a figure of the blocks over containers: for each, its own blocks' and all those below."""
    total = [0] * len(page.tag)
    for node, value in zip(page.node, values, strict=True):
        total[node] += value
    for node in range(len(total) - 1, 0, -1):
        total[page.parent[node]] += total[node]
    return total


def heading(tag: str) -> int:
    """1 to 6 for h1 to h6, else 0."""
    return _HEADINGS.get(tag, 0)
