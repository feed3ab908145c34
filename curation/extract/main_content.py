"""Which blocks of a page are its content: ours, on text and link density, structure, and what elements are called.

Three cuts, each from what is left by the one before. (1) Containers that name themselves something else (comments,
share bars, related links, ...) go, unless most of the page's prose is inside: names lie. (2) The *main container*:
from the body down, into whichever child holds nearly all the prose, so that what stands beside the content falls away;
elements that say they are the content (article, main, articleBody) are entered earlier, and one that has its own title
or looks like a section among others is not. (3) Inside it, runs of links go, judged by link density, while tables,
lists and code stay whatever their density of prose.

*Prose* of a block is its unlinked characters if it reads like a sentence, less if it does not. The idea of scoring
containers by the paragraphs below them is Readability's, that of link density boilerplate detection's (Kohlschütter et
al. 2010, "Boilerplate Detection using Shallow Text Features"); the figures here were chosen by looking at crawled
documentation in twenty languages and at news pages.
"""

from __future__ import annotations

import re

from curation.extract.blocks import Page, heading, sums

_KEEP_SHARE = 0.5  # a container with this share of the prose is content whatever it is called
_KEEP_PROSE = 140  # ... and this much of it: on a page of two lines, a copyright notice is most of the prose
_LEFT = 0.1  # where less of the prose than this is outside of comments, they are what the page is about
_DESCEND = 0.8  # a child with this share of its parent's prose is entered
_DESCEND_NAMED = 0.5  # ... if it says that it is the content
_SECTION = 0.05  # a container with a larger share, and like its largest sibling, makes both of them sections of a text
# Never entered: content, not layout.
_WHOLE = frozenset(("p", "pre", "li", "ul", "ol", "table", "tbody", "blockquote", "dl", "dd"))
_LINKED = 0.5  # a block or container with a larger share of link text is navigation
_ALL_LINK = 0.8  # a block by itself with more is a link, not text
# Judged with what they are parts of: a linked cell belongs to its table.
_PARTS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6", "thead", "tbody", "tfoot", "tr", "td", "th", "dt", "dd", "li"))
CELL = 200  # characters: a table with a longer block in a cell lays out the page
_SHORT = 25  # characters: shorter blocks prove nothing

_JUNK = re.compile(
    r"(?:^|[\s_-])(?:linenos?|line-?numbers?|lineno|blob-num|gutter|shar(?:e|es|ing)|sharedaddy|addthis\w*|addtoany\w*|"
    r"socials?|follow-?us|related\w*|recommend\w*|recirc\w*|promos?|promoted|sponsor\w*|adverts?|advertis\w*|ads?|dfp|banner|"
    r"breadcrumbs?|cookies?|consent|gdpr|newsletter\w*|subscri\w+|signup|sign-up|sidebar\w*|side-bar|rail|widgets?|footer|"
    r"navigation|navbar|nav|menu|submenu|popup|modal|overlay|lightbox|toolbar|pagination|pager|paging|tags|taglist|tag-list|"
    r"byline|author-?(?:bio|info|box|card|meta)|bio|post-?meta|entry-?meta|article-?meta|postmetadata|dateline|timestamp|"
    r"skip-?link|sr-only|visually-?hidden|screen-reader\w*|hidden|print-?only|noprint|copyright|disclaimer|trending|popular|"
    r"most-?read|more-?(?:stories|news|from|on)|read-?(?:more|next|also)|see-?also|you-?may|teasers?|outbrain\w*|taboola\w*|"
    r"masthead|site-?header|topbar|utility|search\w*|login|user-?menu|editsection|mw-editsection|catlinks|printfooter|"
    r"jump-?(?:link|to-nav)|sphinxsidebar\w*|credits?|caption\w*|wp-caption-text|figcaption|image-?meta|slideshow\w*|"
    r"gallery|carousel|poll|rating\w*|feedback|correction|toc|table-of-contents|donat\w+)(?=$|[\s_-])"
)
_COMMENTS = re.compile(r"(?:^|[\s_-])(?:comments?|commentlist|respond|replies|disqus\w*|livefyre)(?=$|[\s_-])")
# Letters of which one says as much as two or three of an alphabet: Han, kana, Hangul
_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_CONTENT = re.compile(
    r"articlebody|article-?(?:body|content|text|copy)|(?:post|entry|story|page|main|body)-?(?:content|body|text|copy)|"
    r"storytext|post__content|entry__content|blog-?post|(?:^|[\s#])(?:content|body|main|document|article|story|post|entry)(?:$|\s)"
)
_JUNK_TAGS = frozenset(
    ("aside", "footer", "form", "fieldset", "figcaption", "figure", "menu", "address", "legend", "optgroup")
)
_CONTENT_TAGS = frozenset(("article", "main"))
_SENTENCE = re.compile(r"[.!?;:,。！？、，।۔؟…][\"'”’)\]]*(?:\s|$)|[。！？、，]")


def content(page: Page) -> list[int]:
    """Indices of the blocks that are the page's content, in page order. Empty for a page without text."""
    if not page.text:
        return []
    sizes = [len(t) for t in page.text]
    prose = [_prose(page, i, sizes[i]) for i in range(len(sizes))]
    dropped = _named_junk(page, prose)
    for i, node in enumerate(page.node):
        if dropped[node]:
            prose[i] = sizes[i] = 0
    linked = [0 if dropped[n] else c for n, c in zip(page.node, page.linked, strict=True)]
    size_of, linked_of, prose_of = sums(page, sizes), sums(page, linked), sums(page, prose)
    top = _main(page, prose_of)
    inside = _inside(page, top)
    return _judge(page, inside, dropped, size_of, linked_of, prose_of)


def _prose(page: Page, i: int, size: int) -> int:
    own = size - page.linked[i]
    if page.tag[page.node[i]] == "pre":
        return own
    text = page.text[i]
    if not text.isascii():
        wide = 2 * sum(map(len, _WIDE.findall(text)))
        size += wide
        own += wide
    if size < _SHORT or page.linked[i] > _LINKED * size:
        return 0
    sentence = _SENTENCE.search(text) is not None
    if page.tag[page.node[i]] == "p":
        return own if sentence else own // 2
    return own if sentence and size > 80 else own // 3


def _named_junk(page: Page, prose: list[int]) -> list[bool]:
    """Containers that are, or stand in, something that is not content by its name or tag.

    Comments are not, unless there is hardly anything else: then it is a page of them.
    """
    prose_of = sums(page, prose)
    whole = max(1, prose_of[0])
    verdicts: dict[tuple[str, str], int] = {}
    out: list[bool] = []
    said: list[int] = []  # 1: a comment, 2: other junk; of the container that the node stands in
    for node, tag in enumerate(page.tag):
        up = page.parent[node]
        if up >= 0 and out[up]:
            out.append(True)
            said.append(said[up])
            continue
        key = (tag, page.names[node])
        if key not in verdicts:
            verdicts[key] = _says(*key)
        kept = prose_of[node] >= max(_KEEP_SHARE * whole, _KEEP_PROSE)
        out.append(verdicts[key] > 0 and tag != "body" and not kept)
        said.append(verdicts[key])
    if 1 in verdicts.values():
        comments = sum(p for p, node in zip(prose, page.node, strict=True) if out[node] and said[node] == 1)
        others = sum(p for p, node in zip(prose, page.node, strict=True) if not out[node])
        if comments >= _KEEP_PROSE and others < _LEFT * (comments + others):
            out = [gone and said[node] != 1 for node, gone in enumerate(out)]
    return out


def _says(tag: str, names: str) -> int:
    """1 for comments, 2 for other junk, 0 for neither: by the tag, by its classes; by its id only if that begins so and
    this is no section, whose id is its subject (`comments`)."""
    if tag in _JUNK_TAGS:
        return 2
    words = names.split()
    classes = " ".join(w for w in words if w[0] != "#")
    section = tag == "section" or "sect" in classes
    ids = [] if section else [w[1:] for w in words if w[0] == "#"]
    if _JUNK.search(classes) or any(map(_JUNK.match, ids)):
        return 2
    return 1 if _COMMENTS.search(classes) or any(map(_COMMENTS.match, ids)) else 0


def _main(page: Page, prose_of: list[int]) -> int:
    """The container that holds the content: from the body down for as long as one child has nearly all of it."""
    children: dict[int, list[int]] = {}
    for node, up in enumerate(page.parent):
        if prose_of[node] and up >= 0:
            children.setdefault(up, []).append(node)
    headings: dict[int, int] = {}  # the first h1 or h2 that is a child of a container
    for node, up in enumerate(page.parent):
        if page.tag[node] in ("h1", "h2"):
            headings.setdefault(up, node)
    top, says = 0, False
    while below := children.get(top):
        best = max(below, key=lambda n: (prose_of[n], -n))
        named = page.tag[best] in _CONTENT_TAGS or _CONTENT.search(page.names[best]) is not None
        needed = _DESCEND_NAMED if named and not says else _DESCEND
        alike = not named and any(
            n != best and _alike(page, n, best) for n in below if prose_of[n] > _SECTION * prose_of[top]
        )
        if not named and headings.get(top, best) < best:  # its title stands right here
            break
        if page.tag[best] in _WHOLE or prose_of[best] < (0.99 if alike else needed) * prose_of[top]:
            break
        top, says = best, says or named
    return top


def _alike(page: Page, one: int, other: int) -> bool:
    """Whether two containers look like sections of one text: the same tag, and a class in common."""
    if page.tag[one] != page.tag[other]:
        return False
    return page.tag[one] == "section" or not set(page.names[one].split()).isdisjoint(page.names[other].split())


def _inside(page: Page, top: int) -> list[bool]:
    inside = [False] * len(page.tag)
    for node in range(top, len(page.tag)):
        inside[node] = node == top or (page.parent[node] >= 0 and inside[page.parent[node]])
    return inside


def _judge(
    page: Page, inside: list[bool], dropped: list[bool], size_of: list[int], linked_of: list[int], prose_of: list[int]
) -> list[int]:
    """Inside the main container: everything but containers and blocks that are mostly links."""
    layout = layout_rows(page)
    out = [False] * len(page.tag)
    for node, tag in enumerate(page.tag):
        if not inside[node] or dropped[node]:
            continue
        up = page.parent[node]
        if up >= 0 and inside[up] and not out[up]:
            continue
        dense = linked_of[node] > _LINKED * size_of[node] and prose_of[node] < 0.2 * size_of[node]
        out[node] = not dense or (tag in _PARTS and up not in layout)
    chosen = []
    for i, node in enumerate(page.node):
        if out[node] and (page.linked[i] <= _ALL_LINK * len(page.text[i]) or page.tag[node] in _PARTS):
            chosen.append(i)
    return _without_dangling(page, chosen)


def layout_rows(page: Page) -> set[int]:
    """Table rows that place things on the page: with a long block in a cell, a heading, or two paragraphs. Each of
    their cells is for itself."""
    if "td" not in page.tag and "th" not in page.tag:
        return set()
    cell: list[int] = []  # that a container is or stands in
    paragraphs: dict[int, int] = {}
    rows = set()
    for node, tag in enumerate(page.tag):
        up = page.parent[node]
        cell.append(node if tag in ("td", "th") else cell[up] if up >= 0 and tag != "table" else -1)
        inside = cell[node]
        if inside >= 0 and inside != node:
            if tag == "p":
                paragraphs[inside] = paragraphs.get(inside, 0) + 1
            if tag in ("h1", "h2", "h3") or paragraphs.get(inside, 0) > 1:
                rows.add(page.parent[inside])
    for node, text in zip(page.node, page.text, strict=True):
        if len(text) > CELL and cell[node] >= 0 and page.tag[node] != "pre":
            rows.add(page.parent[cell[node]])
    return rows


def _without_dangling(page: Page, chosen: list[int]) -> list[int]:
    """Headings at the end have lost what they stood over."""
    while len(chosen) > 1 and heading(page.tag[page.node[chosen[-1]]]):
        chosen.pop()
    return chosen
