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
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from curation.extract import formulas

MAX_HTML = 1 << 24  # characters of a page that are read: 16 Mi, more than any page written by hand has
MAX_NODES = 1 << 20  # containers; a page with more is cut off there

# Never text: code, media, controls, readings beside characters (ruby), and what is marked as not content.
_NEVER_TAGS = """
noscript template object audio video canvas svg map select dialog nav datalist annotation annotation-xml rp rt rtc
frameset applet
"""
_NEVER_TEXT = frozenset(_NEVER_TAGS.split())
_NUMBERED_TAGS = frozenset(("td", "th", "ol", "li"))
_NUMBERS = re.compile(r'\s(colspan|rowspan|start|value|reversed)="\s*(-?[0-9]{1,6}|(?<=reversed="))')
_INLINE_TAGS = """
a abbr acronym b bdi bdo big button cite code data del dfn em font i ins kbd label mark nobr q rb rp rt rtc ruby s samp
small span strike strong sub sup time tt u var wbr output meter progress picture img slot annotation annotation-xml
canvas svg audio video object template noscript select datalist map
"""
_VOID_TAGS = """
area base basefont bgsound br col embed frame hr img input keygen link meta param source track wbr
"""
_VOID = frozenset(_VOID_TAGS.split())
_INLINE = frozenset(_INLINE_TAGS.split()) | _VOID - {"br", "hr"}
_HEADINGS = {f"h{i}": i for i in range(1, 7)}
# Elements whose content the parser takes verbatim: tags inside are not tags.
_RAW_TEXT = frozenset(("script", "style", "iframe", "textarea", "xmp", "noembed", "noframes", "plaintext"))
_BLOCK_TAG_NAMES = """
body div p ul ol li dl dt dd table caption colgroup thead tbody tfoot tr td th pre blockquote section article main aside
header footer figure figcaption form fieldset legend address details summary center hgroup optgroup option menu dir
listing search isindex
"""
_BLOCK_TAGS = frozenset(_BLOCK_TAG_NAMES.split())
_TAG_NAMES: list[str] = []
# Programs that set formulas written in the text, and classes of Sphinx, MkDocs and pandoc for them
_TYPESETTERS = ("mathjax", "MathJax", "katex", "KaTeX", "arithmatex", 'class="math')


@dataclass
class PageBlocks:
    """Blocks in page order and containers in the order they open: container 0 is the body."""

    title: str = ""
    language: str = ""
    # containers
    tag: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # class, role, itemprop, #id; lower case
    parent: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)  # the container after the last inside it
    verbatim: list[int] = field(default_factory=list)  # 1: its white space is code
    numbers: dict[int, dict[str, int]] = field(default_factory=dict)  # colspan, rowspan, start, value, reversed
    # blocks
    text: list[str] = field(default_factory=list)
    link_chars: list[int] = field(default_factory=list)  # how many of its characters are link text
    container: list[int] = field(default_factory=list)  # the container it belongs to
    index: tuple[Any, Any] = ((), ())  # `container` and `end` as arrays
    table_places: tuple[list[int], set[int]] | None = None  # see tables.py
    visible_chars: int = 0  # of the whole page, without scripts; also of what is never text

    def children(self, node: int) -> Iterator[int]:
        """The containers directly in a container."""
        child, end = node + 1, self.end[node]
        while child < end:
            yield child
            child = self.end[child]

    def previous(self, node: int) -> int:
        """The container before this one in the same container, or -1."""
        up, before = self.parent[node], node - 1
        while before > up and self.parent[before] != up:
            before = self.parent[before]
        return before if before > up else -1


def parse_page(html: str) -> PageBlocks:
    """Parses a page. Any string is accepted; what follows the first `MAX_HTML` characters is ignored."""
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html[:MAX_HTML])
    page = PageBlocks()
    page.title, page.language = title_and_language(tree)
    body = tree.body
    if body is None:
        return page
    source = body.html
    complete, signs = _fill_blocks(source, page)
    if signs and (written := formulas.write_inline(source)) != source:
        complete, _ = _fill_blocks(written, page)
    delimited = [i for i, text in enumerate(page.text) if "\\(" in text or "\\[" in text]
    if delimited and any(name in html for name in _TYPESETTERS):
        for i in delimited:
            if not page.verbatim[page.container[i]]:
                page.text[i] = formulas.write_delimiters(page.text[i])
    if not complete:  # the rest of the page is lost: count it as such
        page.visible_chars = max(page.visible_chars, len("".join((body.text or "").split())))
    return page


def title_and_language(tree: Any) -> tuple[str, str]:
    """Title and language that a parsed page declares; empty where it declares none."""
    root = tree.document.document_element if tree.document else None
    language = (root.getattr("lang") or root.getattr("xml:lang") or "").strip() if root is not None else ""
    return " ".join((tree.title or "").split()), language


def _fill_blocks(source: str, page: PageBlocks) -> tuple[bool, int]:
    """Whether the walk ended where the page ends, and signs of formulas."""
    import numpy as np

    from curation.extract.html_walk_kernel import walk_html

    data = source.encode("utf-8", "replace")
    known, kinds = _tag_table()
    tags = data.count(b"<") + 1
    out = np.empty(len(data) + 1, np.uint8)
    nodes, blocks = np.empty((min(tags, MAX_NODES), 8), np.int64), np.empty((tags + 1, 4), np.int64)
    names = np.empty(len(data) + 1, np.uint8)
    containers, found, size, named, unseen, complete, signs = walk_html(
        np.frombuffer(data, np.uint8), len(data), known, kinds, MAX_NODES, out, names, nodes, blocks
    )
    text = out[:size].tobytes().decode("utf-8", "replace")
    said = names[:named].tobytes()
    tag, lows, highs, page.parent, page.verbatim, page.end, *_ = nodes[:containers].T.tolist()
    page.tag = [_TAG_NAMES[number] for number in tag]
    if said.isascii():
        all_names = said.decode("ascii")
        page.names = [all_names[lo:hi] for lo, hi in zip(lows, highs, strict=True)]
    else:
        page.names = [said[lo:hi].decode("utf-8", "replace").lower() for lo, hi in zip(lows, highs, strict=True)]
    for node in np.flatnonzero(nodes[:containers, 7]).tolist():
        if page.tag[node] in _NUMBERED_TAGS:
            attributes = data[nodes[node, 6] : nodes[node, 7]].decode("utf-8", "replace")
            page.numbers[node] = {name: int(number or 1) for name, number in _NUMBERS.findall(attributes)}
    starts, ends, page.link_chars, page.container = blocks[:found].T.tolist()
    page.index = (blocks[:found, 3].copy(), nodes[:containers, 5].copy())
    page.text = [text[lo:hi] for lo, hi in zip(starts, ends, strict=True)]
    page.visible_chars = len(text) + unseen
    return bool(complete), signs


@functools.cache
def _tag_table() -> tuple[Any, Any]:
    """Hashes of the tag names that the kernel treats specially, ascending, and their flags; fills `_TAG_NAMES`."""
    import numpy as np

    from curation.extract import html_tag_kernels as w

    kinds = dict.fromkeys((*_BLOCK_TAGS, *_HEADINGS), 0)
    for names, kind in ((_INLINE, w.INLINE), (_VOID, w.VOID), (_NEVER_TEXT, w.NEVER), (_RAW_TEXT, w.RAW)):
        for name in names:
            kinds[name] = kinds.get(name, 0) | kind
    for name in (*_HEADINGS, "th"):
        kinds[name] |= w.HEADING
    for name, kind in (("sup", w.SCRIPTED), ("sub", w.SCRIPTED), ("math", w.MATH), ("mjx-container", w.MATH)):
        kinds[name] = kinds.get(name, w.INLINE) | kind
    for name in ("script", "img"):
        kinds[name] |= w.MAY_BE_MATH
    special = {"a": w.ANCHOR, "br": w.BR, "pre": w.PRE, "listing": w.PRE, "body": w.BODY, "button": w.BUTTON}
    for name, kind in (special | {"td": w.CELL, "th": w.CELL}).items():
        kinds[name] |= kind
    _TAG_NAMES[:] = sorted(kinds, key=w.fnv1a)
    return np.array([w.fnv1a(n) for n in _TAG_NAMES], np.uint64), np.array([kinds[n] for n in _TAG_NAMES], np.int64)


def subtree_sums(page: PageBlocks, values: list[int]) -> list[int]:
    """Sums a value of the blocks over containers: for each container, its own blocks and all those below it. Those are
    the containers from it to its `end`, so two places of one running sum say it."""
    import numpy as np

    own = np.bincount(page.index[0], values, minlength=len(page.tag))  # exact: below 2^53
    running = np.zeros(len(own) + 1, np.int64)
    running[1:] = np.cumsum(own)
    sums: list[int] = (running[page.index[1]] - running[:-1]).tolist()
    return sums


def heading_level(tag: str) -> int:
    """1 to 6 for h1 to h6, else 0."""
    return _HEADINGS.get(tag, 0)
