"""Finds containers that are not content (menus, share bars, comments) by their names, tags and what they hold.

A name that leaves no doubt is enough unless the container holds code, a table or most of the page's prose. A name that
leaves it open is enough only if the container holds hardly any prose, list items or cells. What is content depends on
the kind of page: comments on a forum, teasers on a page of links.
"""

from __future__ import annotations

import functools
import re

from curation.extract import page_kind
from curation.extract.blocks import PageBlocks, subtree_sums
from curation.extract.tables import table_places

_KEEP_MIN_SHARE = 0.5  # a container with this share of the prose is content whatever it is called
_WEAK_MAX_PROSE = 30  # characters of prose, list items and cells that a box of an open name may hold and still go
_KEEP_MIN_CHARS = 140  # ... and this many characters: on a page of two lines a copyright notice is most of the prose
_MIN_PROSE_OUTSIDE_COMMENTS = 0.1  # share of prose; with less outside of them, comments are the page's content

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
# What a page of links consists of, and what others show beside their text
_TEASERS = re.compile(
    r"(?:^|[\s_-])(?:related\w*|recommend\w*|recirc\w*|promos?|promoted|banner|popular|trending|teasers?|gallery|carousel|slideshow|more-\w+)(?=$|[\s_-])"
)
_REVIEW_NAME = re.compile(r"(?:^|[\s_-])(?:customer-?)?(?:reviews?|ratings?)(?=$|[\s_-])")  # of a product
# What forum software puts around each post: who wrote it, when, how to react; a class token as a whole
_POST_FRAME = re.compile(
    r"(?:^|\s)(?!(?:has|no|with|without|by)[-_])(?:[a-z0-9]+[-_]+)*?(?:ips)?(?:profile|author|poster|userinfo|keyinfo|moderatorbar|modified|expandlink|"
    r"(?:author|user|poster|member|message-?user)[-_]*(?:wrap|info\w*|statistics|pane|column|details|extras?|profile|title|"
    r"name|stats|card|banner|block)|message-?user|posthead|postdate|lastedit(?:ed)?|"
    r"(?:post|message|comment|entry|discussion|topic|reply)[-_]*(?:author|meta|infos|date|time|timestamp|footer|foot|menu|"
    r"tools|controls|buttons|actions|actionbar|attribution|lastedit|edited|likes|counter|number|options|reactions|votes?)|"
    r"quote[-_]*(?:citation|header|title|by)|reactions?\w*|react|kudos|votes?|voting|likes)(?:[-_]+\w+)*(?=$|\s)"
)
_COMMENT_NAME = re.compile(r"(?:^|[\s_-])(?:comments?|commentlist|respond|replies|disqus\w*|livefyre)(?=$|[\s_-])")
_WEAK, _COMMENTS, _JUNK, _FRAME = 1, 2, 3, 4  # what a name says; of several names the highest counts
_JUNK_TAGS = frozenset(("footer", "figcaption", "optgroup", "form"))
_LISTED_TAGS = frozenset(("li", "td", "th", "dd"))
_WEAK_TAGS = frozenset(("figure", "aside", "fieldset", "menu", "address", "legend"))


def boilerplate(page: PageBlocks, prose: list[int], kind: str = "article") -> list[bool]:
    """For each container whether it is, or is inside, something that is not content by its name or tag.

    Comments are not content, unless the page has hardly anything else: then they are.
    """
    prose_of = subtree_sums(page, prose)
    cell, layout = table_places(page)
    solid = [
        len(text) if page.verbatim[n] or (cell[n] >= 0 and page.parent[cell[n]] not in layout) else 0
        for n, text in zip(page.container, page.text, strict=True)
    ]
    solid_of = subtree_sums(page, solid)  # code and tables
    held = [
        max(p, len(text) - linked) if page.tag[n] in _LISTED_TAGS else p  # of lists and tables what is no link
        for p, text, linked, n in zip(prose, page.text, page.link_chars, page.container, strict=True)
    ]
    held_of = subtree_sums(page, held)
    whole = max(1, prose_of[0])
    out = [False] * len(page.tag)
    verdicts: dict[tuple[str, str], int] = {}
    comments: list[int] = []
    gone = 0  # prose of what is dropped
    node = 0
    while node < len(out):
        tag, names, end = page.tag[node], page.names[node], page.end[node]
        if (junk := verdicts.get((tag, names), -1)) < 0:
            junk = verdicts[tag, names] = _junk_on(kind, tag, names)
        if not junk or tag == "body" or (junk == _COMMENTS and kind == "forum"):  # a forum's comments are its content
            node += 1
            continue
        kept = prose_of[node] >= max(_KEEP_MIN_SHARE * whole, _KEEP_MIN_CHARS)
        holds = held_of[node] if junk == _WEAK else prose_of[node] if junk == _FRAME else 0
        if tag == "figure" and holds:  # its caption is no prose
            holds -= sum(held_of[n] for n in range(node, end) if page.tag[n] == "figcaption")
        if kept or solid_of[node] > 0 or holds > _WEAK_MAX_PROSE:
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


def _junk_on(kind: str, tag: str, names: str) -> int:
    """What a container is on a page of a kind: as `_junk_kind`, or `_FRAME`, what is around a post and goes unless it
    holds prose. The lists of an author's pane are no content. A post itself may be called after its author, too
    (phpBB's `post has-profile`, WordPress' `comment comment-author-admin`)."""
    junk = _junk_kind(tag, names)
    if kind == "product" and not junk and _REVIEW_NAME.search(names):
        return _COMMENTS
    if kind == "listing" and tag not in _JUNK_TAGS and _TEASERS.search(names):
        return 0
    if kind == "forum" and junk < _JUNK and _POST_FRAME.search(names) and not page_kind.POST.search(names):
        return _FRAME
    return junk


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
