"""Selects the blocks of a page that are its main content, by text and link density, structure and element names.

Three steps, each on what the one before left. (1) Containers whose name says that they are something else (comments,
share bars, related links, ...) are removed, unless most of the page's prose is inside: names can be wrong. (2) The
*main container* is found: from the body down, into whichever child holds nearly all the prose, which leaves out
everything beside the content. Elements that say they are the content (article, main, articleBody) are entered at a
lower share; one that has its own title, or looks like one section among others, is not entered. (3) Inside the main
container, runs of links are removed by link density; tables, lists and code stay whatever their density of prose.

*Prose* of a block is its unlinked characters if it reads like a sentence, fewer if it does not. Scoring containers by
the paragraphs below them is Readability's idea, link density that of boilerplate detection (Kohlschütter et al. 2010,
"Boilerplate Detection using Shallow Text Features"). The thresholds were chosen on crawled documentation in twenty
languages and on news pages.
"""

from __future__ import annotations

import re

from curation.extract.blocks import PageBlocks, heading_level, subtree_sums
from curation.extract.boilerplate import boilerplate
from curation.extract.tables import beside_main, data_tables, table_places

_DESCEND_MIN_SHARE = 0.8  # a child with this share of its parent's prose is entered
_DESCEND_MIN_SHARE_NAMED = 0.5  # ... if it says that it is the content
# Containers with more of their parent's prose that look like its largest child: all of them are sections of one text
_SECTION_MIN_SHARE = 0.05
# Never entered: content, not layout.
_NEVER_ENTERED_TAGS = frozenset(("p", "pre", "li", "ul", "ol", "table", "tbody", "blockquote", "dl", "dd"))
_MAX_LINK_SHARE = 0.5  # a block or container with a larger share of link text is navigation
_MAX_BLOCK_LINK_SHARE = 0.8  # a single block with more is a link, not text
# Judged together with what they are part of: a linked cell belongs to its table.
_PART_TAGS = frozenset(
    ["h1", "h2", "h3", "h4", "h5", "h6", "thead", "tbody", "tfoot", "tr", "td", "th", "dt", "dd", "li"]
)
_MIN_PARAGRAPHS_BESIDE = 2  # with so many in its container, a list of links is part of the text
_MIN_SENTENCE_CHARS = 25  # shorter blocks are too short to judge

# Han, kana, Hangul: one such letter carries as much as two or three of an alphabet
_WIDE_LETTERS = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_CONTENT_NAME = re.compile(
    r"articlebody|article-?(?:body|content|text|copy)|(?:post|entry|story|page|main|body)-?(?:content|body|text|copy)|"
    r"storytext|post__content|entry__content|blog-?post|(?:^|[\s#])(?:content|body|main|document|article|story|post|entry)(?:$|\s)"
)
_CONTENT_TAGS = frozenset(("article", "main"))
_STAYS_NAMES = frozenset(
    f"{sign}{name}" for sign in ("", "#") for name in ("articlebody", "question", "mainentity", "post-cell", "postcell")
)
_STAYS_MIN_SHARE = 0.02
_SENTENCE = re.compile(r"[.!?;:,。！？、，।۔؟…][\"'”’)\]]*(?:\s|$)|[。！？、，]")


def main_content_blocks(page: PageBlocks, kind: str = "article") -> list[int]:
    """Indices of the blocks that are the page's main content, in page order. Empty for a page without text."""
    if not page.text:
        return []
    sizes = list(map(len, page.text))
    prose = [_prose_chars(page, i, sizes[i]) for i in range(len(sizes))]
    dropped = boilerplate(page, prose, kind)
    for i, node in enumerate(page.container):
        if dropped[node]:
            prose[i] = sizes[i] = 0
        elif kind == "listing":
            prose[i] = sizes[i]
    linked = [0 if dropped[n] else c for n, c in zip(page.container, page.link_chars, strict=True)]
    size_of, linked_of, prose_of = subtree_sums(page, sizes), subtree_sums(page, linked), subtree_sums(page, prose)
    top = _main_container(page, prose_of)
    if kind == "listing":
        end = page.end[top]
        return [i for i, node in enumerate(page.container) if top <= node < end and not dropped[node]]
    beside = beside_main(page, top, dropped, size_of, linked_of, lists=kind == "product")
    return _select_blocks(page, top, dropped, size_of, linked_of, prose_of, beside)


def _prose_chars(page: PageBlocks, i: int, size: int) -> int:
    own = size - page.link_chars[i]
    if page.tag[page.container[i]] == "pre":
        return own
    text = page.text[i]
    if not text.isascii():
        wide = 2 * sum(map(len, _WIDE_LETTERS.findall(text)))
        size += wide
        own += wide
    if size < _MIN_SENTENCE_CHARS or page.link_chars[i] > _MAX_LINK_SHARE * size:
        return 0
    sentence = _SENTENCE.search(text) is not None
    if page.tag[page.container[i]] == "p":
        return own if sentence else own // 2
    return own if sentence and size > 80 else own // 3


def _main_container(page: PageBlocks, prose_of: list[int]) -> int:
    """The container that holds the content: from the body down while one child has nearly all the prose."""
    stays = _articles(page)
    top, says = 0, False
    while below := [n for n in page.children(top) if prose_of[n]]:
        best = max(below, key=lambda n: (prose_of[n], -n))
        named = page.tag[best] in _CONTENT_TAGS or _CONTENT_NAME.search(page.names[best]) is not None
        needed = _DESCEND_MIN_SHARE_NAMED if named and not says else _DESCEND_MIN_SHARE
        names = set(page.names[best].split())
        alike = not named and any(
            n != best and _look_like_sections(page, n, best, names)
            for n in below
            if prose_of[n] > _SECTION_MIN_SHARE * prose_of[top]
        )
        heading = next((n for n in page.children(top) if page.tag[n] in ("h1", "h2")), best)
        if not named and heading < best:  # the title is right here
            break
        least = _STAYS_MIN_SHARE * prose_of[top]
        if stays and any(_prose_of_article(page, n, stays, prose_of) > least for n in below if n < best):
            break  # never left outside
        if page.tag[best] in _NEVER_ENTERED_TAGS or prose_of[best] < (0.99 if alike else needed) * prose_of[top]:
            break
        top, says = best, says or named
    return top


def _articles(page: PageBlocks) -> list[int]:
    """The outermost containers that say that they are an article, a question or its text."""
    found: list[int] = []
    said = not _STAYS_NAMES.isdisjoint(" ".join(page.names).split())
    if not said and "article" not in page.tag:
        return found
    node = 0
    while node < len(page.tag):
        if page.tag[node] == "article" or (said and not _STAYS_NAMES.isdisjoint(page.names[node].split())):
            found.append(node)
            node = page.end[node]
        else:
            node += 1
    return found


def _prose_of_article(page: PageBlocks, node: int, articles: list[int], prose_of: list[int]) -> int:
    """The prose of the article in a container, or that it is; none where there are several: those are teasers."""
    inside = [n for n in articles if node <= n < page.end[node]]
    return prose_of[inside[0]] if len(inside) == 1 else 0


def _look_like_sections(page: PageBlocks, one: int, other: int, names: set[str]) -> bool:
    """Whether two containers look like sections of one text: the same tag, and a class in common. `names`: those of the
    second."""
    if page.tag[one] != page.tag[other]:
        return False
    return page.tag[one] == "section" or not names.isdisjoint(page.names[one].split())


def _select_blocks(
    page: PageBlocks,
    top: int,
    dropped: list[bool],
    size_of: list[int],
    linked_of: list[int],
    prose_of: list[int],
    beside: set[int],
) -> list[int]:
    """The blocks inside the main container that are not mostly links."""
    _, layout = table_places(page)
    data = data_tables(page)
    out = [False] * len(page.tag)
    for node in beside:
        out[node] = not dropped[node]
    node = top
    while node < page.end[top]:
        if dropped[node]:
            node = page.end[node]
            continue
        dense = linked_of[node] > _MAX_LINK_SHARE * size_of[node] and prose_of[node] < 0.2 * size_of[node]
        dense = dense and (page.tag[node] not in _PART_TAGS or page.parent[node] in layout)
        dense = dense and data[page.end[node]] == data[node]
        if dense and not _is_list_in_text(page, node, prose_of):
            node = page.end[node]
            continue
        out[node] = True
        node += 1
    chosen = []
    for i, node in enumerate(page.container):
        if out[node] and (
            page.link_chars[i] <= _MAX_BLOCK_LINK_SHARE * len(page.text[i]) or page.tag[node] in _PART_TAGS
        ):
            chosen.append(i)
    return _without_trailing_headings(page, chosen)


def _is_list_in_text(page: PageBlocks, node: int, prose_of: list[int]) -> bool:
    """Whether a list of links is part of a text: two paragraphs are beside it and text comes after it, or it is in an
    item of a list that is."""
    if page.tag[node] not in ("ul", "ol", "table"):
        return False
    up = page.parent[node]
    if page.tag[up] == "li":
        return True
    rows = page.tag[node] == "table" and page.tag[node : page.end[node]].count("tr")
    if (rows or sum(1 for _ in page.children(node))) < 2:  # one link is a hint to read on
        return False
    beside = [n for n in page.children(up) if prose_of[n] > 0]
    paragraphs = sum(page.tag[n] == "p" for n in beside)
    return paragraphs >= _MIN_PARAGRAPHS_BESIDE and beside[-1] > node


def _without_trailing_headings(page: PageBlocks, chosen: list[int]) -> list[int]:
    """Removes headings at the end: the text they belong to was left out."""
    while len(chosen) > 1 and heading_level(page.tag[page.container[chosen[-1]]]):
        chosen.pop()
    return chosen
