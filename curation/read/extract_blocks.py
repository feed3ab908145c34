"""An HTML page as blocks of text in a tree of containers: what `extract_main` judges and `extract_text` writes.

lexbor (through resiliparse) parses, as browsers do. Walking its tree from Python costs 2.5 µs a node and taking a node
out of it 200 µs, more than there is time for; so the tree is written out once more as HTML, now well-formed, and one
regular expression walks that: 0.5 µs a tag. A *block* is the text between two block-level tags. A *container* is a
block-level element; blocks hang on containers, and lengths are summed up the tree in one backward pass.
"""

from __future__ import annotations

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
_NEVER_SAYS = re.compile(
    r'\s(?:hidden(?:="[^"]*")?(?=\s|$)|aria-hidden="true"|style="[^"]*display:\s*none|class="headerlink"|'
    r'role="(?:navigation|search|dialog|menu|menubar|toolbar|tablist|alert|banner|contentinfo)")',
    re.I,
)
# Elements whose content the parser takes verbatim, so that tags in it are none; and comments.
_VERBATIM = re.compile(
    r'<(script|style|iframe|textarea|xmp|noembed|noframes|plaintext)(?=[\s>])(?:[^>"]++|"[^"]*+")*+>.*?</\1>|'
    r"<!--.*?-->|<!DOCTYPE[^>]*>|<\?[^>]*>",
    re.S,
)
_TAG = re.compile(r'([^<]*+)<(/?+)([a-zA-Z][^\s/>]*+)((?:[^">]++|"[^"]*+")*+)>')
_SPACE = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n ?")
_RUN = re.compile(r"(?<=\S) {2,}(?=\S)")
_TRAILING = re.compile(r" +$", re.M)
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
    _walk(_VERBATIM.sub("", body.html), page)
    return page


def head(tree: Any) -> tuple[str, str]:
    """Title and language of a parsed page, as it says itself; empty where it says nothing."""
    root = tree.document.document_element if tree.document else None
    language = (root.getattr("lang") or root.getattr("xml:lang") or "").strip() if root is not None else ""
    return " ".join((tree.title or "").split()), language


def _walk(source: str, page: Page) -> None:
    tags, names, parents = page.tag, page.names, page.parent
    named: dict[str, tuple[str, bool]] = {"": ("", False)}
    parts: list[str] = []
    linked = verbatim = skipped = 0
    links = False
    current = -1

    def flush() -> None:
        nonlocal linked
        text = "".join(parts)
        parts.clear()
        text = text.replace("&nbsp;", " ").strip("\n") if verbatim else _LINES.sub("\n", _SPACE.sub(" ", text)).strip()
        text = _unescape(text)
        if text and not text.isspace():
            page.text.append(text)
            page.linked.append(min(linked, len(text)))
            page.node.append(current)
        linked = 0

    for match in _TAG.finditer(source):
        text, closing, name, attributes = match.groups()
        if skipped:
            if name not in _VOID:
                skipped += -1 if closing else 1
            continue
        if text:
            parts.append(text if verbatim else text.replace("\n", " "))
            if links:
                linked += len(text.strip())
        if not closing:
            said = named.get(attributes)
            if said is None:
                says = " ".join("#" + v if is_id else v for is_id, v in _NAMED.findall(attributes)).lower()
                said = named[attributes] = (says, _NEVER_SAYS.search(attributes) is not None)
            if (said[1] or name in _NEVER) and name not in _VOID and name != "body":
                if name not in _INLINE and parts:
                    flush()
                skipped = 1
                continue
        if name in _INLINE:
            if name == "a":
                links = not closing and "href=" in attributes  # anchors do not nest; one without href is no link
            continue
        if name == "br":
            parts.append("\n")
            continue
        if parts:
            flush()
        if name in _VOID:
            continue
        if closing:
            if name == "pre":
                verbatim -= 1
            current = parents[current] if current >= 0 else -1
            continue
        assert said is not None
        if len(tags) >= MAX_NODES:
            break
        tags.append(name)
        names.append(said[0])
        parents.append(current)
        current = len(tags) - 1
        if name == "pre":
            verbatim += 1
    if parts:
        flush()


def _unescape(text: str) -> str:
    """Undoes what a serialiser of HTML escapes in text: these four and no more. Hard spaces become spaces: those that
    begin a line are its indentation and stay, those between words count for one, those at the ends for none."""
    if "&" not in text:
        return text
    if "&nbsp;" in text:
        text = _TRAILING.sub("", _RUN.sub(" ", text.replace("&nbsp;", " "))).lstrip("\n").rstrip()
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


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
