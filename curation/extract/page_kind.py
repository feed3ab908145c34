"""Recognises what kind of page a page is, by its structure: article, forum, product, listing, documentation.

What a page says of itself decides first: the types of its JSON-LD and microdata (schema.org), `og:type`, and the
program that made it (`generator`). Else its tree does: many posts with the same class are a forum, more than half its
text in links is a listing.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterator

from curation.extract.blocks import PageBlocks, subtree_sums

# What a type begins with, and the rest of it: finding the first takes a tenth of the time of a pattern for both
_TYPES = (
    ('"@type"', re.compile(r'"@type"\s*:\s*\[?\s*"(\w+)')),
    ("itemtype=", re.compile(r"itemtype=[\"']?https?://schema\.org/(\w+)")),
)
_META = re.compile(r"<meta\s[^>]*(?:og:type|[\"']generator[\"'])[^>]*>", re.I)
_META_WORDS = ("og:type", "generator", "Generator", "GENERATOR")
_HEAD_CHARS = 1 << 16  # in which meta tags are looked for
_KINDS = {
    "forum": re.compile(r"DiscussionForumPosting|QAPage|Question|Comment(?!Action)"),
    "product": re.compile(r"Product|ProductGroup|ItemPage"),
    "article": re.compile(r"\w*Article|BlogPosting|Recipe|Report"),
    "listing": re.compile(r"CollectionPage|ItemList|SearchResultsPage|OfferCatalog"),
}
_FORUM = re.compile(r"discourse|phpbb|vbulletin|xenforo|mybb|simple machines|invision|flarum|nodebb|vanilla", re.I)
_DOCUMENTATION = re.compile(
    r"sphinx|docusaurus|mkdocs|vitepress|docfx|mdbook|gitbook|javadoc|doxygen|hugo-book|asciidoc", re.I
)
# The class of a post, as a whole: a page of teasers has `post-title`, a page of questions and answers `faq_answer`
POST = re.compile(
    r"(?:^|\s)(?:(?:thread|forum|topic|uix|ips\w*)[_-]+)?(?:post|message|reply|comment|answer|postbody|postbit)(?=$|\s)"
)
_MIN_POSTS = 3
_MIN_POSTED = 0.3  # share of a page's text in posts; with less it has an answer or a message, and is no forum
_MAX_ARTICLES = 2  # a page with more of them lists articles
_MAX_LINKED = 0.5  # share of a page's text in links; with more it is a listing


def page_kind(html: str, page: PageBlocks) -> tuple[str, bool]:
    """The kind of a page, and whether the page says itself that it is of this kind."""
    said = collections.Counter(found for start, pattern in _TYPES for found in _find_all(html, start, pattern))
    meta = " ".join(_meta_tags(html[:_HEAD_CHARS]))
    asked = ("Comment",) if "FAQPage" not in said else ("Comment", "Question")  # on a page of another kind
    if _FORUM.search(meta) or any(_KINDS["forum"].fullmatch(t) for t in said if t not in asked):
        return "forum", True
    if _DOCUMENTATION.search(meta):
        return "documentation", True
    products = sum(n for t, n in said.items() if _KINDS["product"].fullmatch(t))
    if products and (products <= 2 or "product" in meta):
        return "product", True
    articles = sum(n for t, n in said.items() if _KINDS["article"].fullmatch(t))
    listed = any(_KINDS["listing"].fullmatch(t) for t in said)
    says_article = 'content="article"' in meta
    if articles or says_article:
        return "article", 0 < articles <= _MAX_ARTICLES or (says_article and not listed)
    if listed:
        return "listing", True
    chars = sum(map(len, page.text))
    repeated = {names for names, n in collections.Counter(page.names).items() if n >= _MIN_POSTS and POST.search(names)}
    if repeated and _chars_in(page, repeated) >= _MIN_POSTED * chars:
        return "forum", False
    if sum(page.link_chars) > _MAX_LINKED * chars:
        return "listing", False
    return ("product", True) if 'content="product' in meta else ("article", False)  # shops say so of lists too


def _chars_in(page: PageBlocks, names: set[str]) -> int:
    """Characters of the blocks in containers that are called so."""
    sizes = subtree_sums(page, [len(text) for text in page.text])
    total = node = 0
    while node < len(page.tag):
        if page.names[node] in names:
            total += sizes[node]
            node = page.end[node]
        else:
            node += 1
    return total


def _find_all(text: str, start: str, pattern: re.Pattern[str]) -> Iterator[str]:
    at = text.find(start)
    while at >= 0:
        if found := pattern.match(text, at):
            yield found[1]
        at = text.find(start, at + 1)


def _meta_tags(head: str) -> Iterator[str]:
    """The meta tags that name a type or a generator."""
    starts = set()
    for word in _META_WORDS:
        at = head.find(word)
        while at >= 0:
            start = max(head.rfind("<meta", 0, at), head.rfind("<META", 0, at))
            if start >= 0 and start not in starts and (found := _META.match(head, start)) and found.end() > at:
                starts.add(start)
                yield found[0]
            at = head.find(word, at + 1)
