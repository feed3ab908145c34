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

import functools
import re

from curation.extract.blocks import PageBlocks, heading_level, subtree_sums

_KEEP_MIN_SHARE = 0.5  # a container with this share of the prose is content whatever it is called
_WEAK_MAX_PROSE = 30  # characters of prose, list items and cells that a box of an open name may hold and still go
_KEEP_MIN_CHARS = 140  # ... and this many characters: on a page of two lines a copyright notice is most of the prose
_MIN_PROSE_OUTSIDE_COMMENTS = 0.1  # share of prose; with less outside of them, comments are the page's content
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
LAYOUT_CELL_CHARS = 200  # a table with a longer block in a cell is there for the page's layout
_MIN_SENTENCE_CHARS = 25  # shorter blocks are too short to judge

# A class that names something else than content, as a whole, with words before it that say whose it is and words after
# it that say its shape. `has-sidebar` and `content-sidebar` are layouts.
_JUNK_CLASS = re.compile(
    r"(?!(?:has|no|with|without|content|full|hide|left|right|non)[-_])(?:[a-z0-9]+[-_]+){0,3}?"
    r"(?:shar(?:e|es|ing)|sharedaddy|addthis\w*|addtoany\w*|socials?|follow-?us|related|related-?(?:posts?|articles?|stories|"
    r"links?|content)|recommended|recommendations|recirc\w*|sponsored|adverts?|advertis(?:ing|ements?)|ads?|dfp|breadcrumbs?|"
    r"cookies?|consent|gdpr|newsletter|newsletter-?signup|subscribe|subscription|signup|sign-up|sidebar\d?|side-bar|footer|"
    r"navigation|navbar|nav|submenu|popup|tagcloud|taglist|tag-list|byline|"
    r"author-?(?:bio|info|box|card|meta)|(?:post|entry|article)-?meta|postmetadata|skip-?link|sr-only|visually-?hidden|"
    r"screen-reader\w*|noprint|trending|most-?read|read-?(?:next|also)|outbrain\w*|taboola\w*|masthead|"
    r"site-?header|topbar|login|register|registration|user-?menu|wp-caption-text|"
    r"(?:image|photo|img|media)-?(?:captions?|credits?)|captions?|figcaption|signature|"
    r"(?:user|poster|member)-?(?:info|profile|details)|userdetails|postprofile|cauthorpane|cauthorpane_\w+|"
    r"ipscomment_author|editsection|catlinks|printfooter|jump-?to-nav|sphinxsidebar\w*)"
    r"(?:[-_]+(?:links?|buttons?|btns?|bar|box|block|list|items?|container|wrapper|wrap|section|area|widget|icons?|inner|"
    r"outer|module|region|tools?|group|panel|holder|menu|form|cta|top|bottom|desktop|mobile|\d+))*"
)
# A word of a class that leaves it open: the box goes only if it holds no code, table, list or prose
_WEAK_NAME = re.compile(
    r"(?:^|[\s_-])(?:shar(?:e|es|ing)|socials?|follow-?us|related\w*|recommend\w*|recirc\w*|promos?|promoted|sponsor\w*|"
    r"adverts?|advertis\w*|ads?|banner|breadcrumbs?|cookies?|consent|newsletter\w*|subscri\w+|signup|sign-up|sidebar\w*|rail|"
    r"footer|navigation|navbar|nav|menu|popup|modal|overlay|lightbox|toolbar|pagination|pager|paging|tags|taglist|byline|"
    r"author-?(?:bio|info|box|card|meta)|bio|post-?meta|entry-?meta|article-?meta|dateline|timestamp|print-?only|"
    r"copyright|disclaimer|trending|popular|more-?(?:stories|news|from|on)|read-?(?:more|next|also)|see-?also|you-?may|"
    r"teasers?|utility|search\w*|login|jump-?(?:link|to-nav)|credits?|caption\w*|wp-caption-text|image-?meta|slideshow\w*|"
    r"gallery|carousel|poll|rating\w*|feedback|correction|toc|table-of-contents|donat\w+)(?=$|[\s_-])"
)
_REVIEW_NAME = re.compile(r"(?:^|[\s_-])(?:customer-?)?(?:reviews?|ratings?)(?=$|[\s_-])")  # of a product
_COMMENT_NAME = re.compile(r"(?:^|[\s_-])(?:comments?|commentlist|respond|replies|disqus\w*|livefyre)(?=$|[\s_-])")
# Han, kana, Hangul: one such letter carries as much as two or three of an alphabet
_WIDE_LETTERS = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
_CONTENT_NAME = re.compile(
    r"articlebody|article-?(?:body|content|text|copy)|(?:post|entry|story|page|main|body)-?(?:content|body|text|copy)|"
    r"storytext|post__content|entry__content|blog-?post|(?:^|[\s#])(?:content|body|main|document|article|story|post|entry)(?:$|\s)"
)
_WEAK, _COMMENTS, _JUNK = 1, 2, 3  # what a name says; of several names the highest counts
_JUNK_TAGS = frozenset(("footer", "figcaption", "optgroup", "form"))
_WEAK_TAGS = frozenset(("figure", "aside", "fieldset", "menu", "address", "legend"))
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
    sizes = [len(t) for t in page.text]
    prose = [_prose_chars(page, i, sizes[i]) for i in range(len(sizes))]
    dropped = _junk_containers(page, prose, kind)
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
    return _select_blocks(page, top, dropped, size_of, linked_of, prose_of)


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


def _junk_containers(page: PageBlocks, prose: list[int], kind: str = "article") -> list[bool]:
    """For each container whether it is, or is inside, something that is not content by its name or tag.

    Comments are not content, unless the page has hardly anything else: then they are.
    """
    prose_of = subtree_sums(page, prose)
    layout = layout_table_rows(page)
    solid = [
        len(text) if page.verbatim[n] or (page.tag[n] in ("td", "th") and page.parent[n] not in layout) else 0
        for n, text in zip(page.container, page.text, strict=True)
    ]
    solid_of = subtree_sums(page, solid)  # code and tables
    held_of = subtree_sums(page, [_held_chars(page, i, p) for i, p in enumerate(prose)])
    whole = max(1, prose_of[0])
    out = [False] * len(page.tag)
    verdicts: dict[tuple[str, str], int] = {}
    comments: list[int] = []
    gone = 0  # prose of what is dropped
    node = 0
    while node < len(out):
        tag, names, end = page.tag[node], page.names[node], page.end[node]
        if (junk := verdicts.get((tag, names), -1)) < 0:
            junk = verdicts[tag, names] = _junk_kind(tag, names)
        if kind == "product" and not junk and _REVIEW_NAME.search(names):
            junk = _COMMENTS
        if not junk or tag == "body" or (junk == _COMMENTS and kind == "forum"):  # a forum's comments are its content
            node += 1
            continue
        kept = prose_of[node] >= max(_KEEP_MIN_SHARE * whole, _KEEP_MIN_CHARS)
        held = held_of[node] if junk == _WEAK else 0
        if tag == "figure" and held:  # its caption is no prose
            held -= sum(held_of[n] for n in range(node, end) if page.tag[n] == "figcaption")
        if kept or solid_of[node] > 0 or held > _WEAK_MAX_PROSE:
            node += 1
            continue
        out[node:end] = [True] * (end - node)
        gone += prose_of[node]
        if junk == _COMMENTS:
            comments.append(node)
        node = end
    said = sum(prose_of[node] for node in comments)
    if said >= _KEEP_MIN_CHARS and prose_of[0] - gone < _MIN_PROSE_OUTSIDE_COMMENTS * (said + prose_of[0] - gone):
        for node in comments:
            out[node : page.end[node]] = [False] * (page.end[node] - node)
    return out


def _junk_kind(tag: str, names: str) -> int:
    """What a container is by its tag and classes: `_JUNK`, `_COMMENTS`, `_WEAK` (junk if it holds no content), or 0.
    The id counts only where it starts with such a word, and not in a section, whose id is its subject (`comments`)."""
    if tag in _JUNK_TAGS:
        return _JUNK
    words = names.split()
    if tag == "section" or ("sect" in names and any("sect" in word for word in words if word[0] != "#")):
        words = [word for word in words if word[0] != "#"]
    return max(map(_kind_of_name, words), default=0) or (_WEAK if tag in _WEAK_TAGS else 0)


@functools.lru_cache(1 << 15)
def _kind_of_name(name: str) -> int:
    is_id = name[0] == "#"
    if _JUNK_CLASS.fullmatch(name, is_id):
        return _JUNK
    found = (_COMMENT_NAME.match(name[1:]), _WEAK_NAME.match(name[1:])) if is_id else ()
    comment, weak = found or (_COMMENT_NAME.search(name), _WEAK_NAME.search(name))
    return _COMMENTS if comment else _WEAK if weak else 0


def _held_chars(page: PageBlocks, i: int, prose: int) -> int:
    """Characters of a block that are prose, or text of a list or a table without a link."""
    tag = page.tag[page.container[i]]
    return max(prose, len(page.text[i]) - page.link_chars[i] if tag in ("li", "td", "th", "dd") else 0)


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
) -> list[int]:
    """The blocks inside the main container that are not mostly links."""
    layout = layout_table_rows(page)
    out = [False] * len(page.tag)
    node = top
    while node < page.end[top]:
        if dropped[node]:
            node = page.end[node]
            continue
        dense = linked_of[node] > _MAX_LINK_SHARE * size_of[node] and prose_of[node] < 0.2 * size_of[node]
        dense = dense and (page.tag[node] not in _PART_TAGS or page.parent[node] in layout)
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
    if page.tag[node] not in ("ul", "ol"):
        return False
    up = page.parent[node]
    if page.tag[up] == "li":
        return True
    if sum(1 for _ in page.children(node)) < 2:  # one link is a hint to read on
        return False
    beside = [n for n in page.children(up) if prose_of[n] > 0]
    paragraphs = sum(page.tag[n] == "p" for n in beside)
    return paragraphs >= _MIN_PARAGRAPHS_BESIDE and beside[-1] > node


def layout_table_rows(page: PageBlocks) -> set[int]:
    """Table rows used for page layout: with a long block, a heading or two paragraphs in a cell. Their cells are
    separate texts, not cells of a table."""
    if page.layout_rows is None:
        page.layout_rows = _find_layout_rows(page)
    return page.layout_rows


def _find_layout_rows(page: PageBlocks) -> set[int]:
    if "td" not in page.tag and "th" not in page.tag:
        return set()
    cell: list[int] = []  # the table cell that a container is or is in
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
    for node, text in zip(page.container, page.text, strict=True):
        if len(text) > LAYOUT_CELL_CHARS and cell[node] >= 0 and page.tag[node] != "pre":
            rows.add(page.parent[cell[node]])
    return rows


def _without_trailing_headings(page: PageBlocks, chosen: list[int]) -> list[int]:
    """Removes headings at the end: the text they belong to was left out."""
    while len(chosen) > 1 and heading_level(page.tag[page.container[chosen[-1]]]):
        chosen.pop()
    return chosen
