"""The kernel that walks a page, against regular expressions and lists that say the same thing slowly.

Covers: blocks.py, html_tag_kernels.py
"""

from __future__ import annotations

import collections
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from benchmarks import crawl
from curation.extract import blocks
from curation.extract.blocks import _BLOCK_TAGS, _HEADINGS, _NEVER_TEXT, _VOID, PageBlocks, _fill_blocks
from curation.extract.html_tag_kernels import max_open_tags
from tests.curation.extract.test_extract import MARKUP, ODD, PAGE

ATTRIBUTES = r'(?:(?<!\s)="[^"]*"|[^>])*+'  # a quote opens a value only after the `=` of a name
RAW = re.compile(
    rf"<(script|style|iframe|textarea|xmp|noembed|noframes|plaintext)(?=[\s>]){ATTRIBUTES}>.*?</\1>|<!--.*?-->|"
    r"<![^>]*>|<\?[^>]*>",
    re.S,
)
TAG = re.compile(rf"([^<]*)<(/?)([^\s/>]*)({ATTRIBUTES})>")
ATTRIBUTE = re.compile(r'\s([^\s>][^\s=>]*)(?:="([^"]*)")?')
BLOCK_LEVEL = {*_BLOCK_TAGS, *_HEADINGS, "hr", "nav", "dialog", "frameset", "applet"}
ASIDE = ("navigation", "search", "dialog", "menu", "menubar", "toolbar", "tablist", "alert", "banner", "contentinfo")
NAMING = ("class", "id", "role", "itemprop", "data-component", "data-testid")


def hidden(attributes: dict[str, str]) -> bool:
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden", "").lower() == "true"
        or re.search(r"display:[ \t\n\f\r\v]*none", attributes.get("style", ""), re.I) is not None
        or not set(attributes.get("class", "").lower().split()).isdisjoint(("headerlink", "linenos"))
        or attributes.get("role", "").lower() in ASIDE
    )


def plain(text: str) -> str:
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, character)
    return text


OPENS, CLOSES, BREAK = "\0opens", "\0closes", "\0break"  # of block-level elements and br in code


def code(parts: list[str]) -> str:
    """Code: what a block-level element in it holds is a line, and a newline just after one is the same end of line."""
    out = []
    opened = text = closed = False
    for part in parts:
        if part == OPENS:
            out.append("\n" * text)
            opened, text, closed = True, False, False
        elif part == CLOSES:
            out.append("\n" * opened)
            opened, text, closed = False, False, opened or closed
        elif part == BREAK:
            out.append("\n")
            opened = text = closed = False
        else:
            for character in part:
                newline = character == "\n"
                out.append("" if newline and closed else character)
                opened, text, closed = not newline, not newline, False
    return plain("".join(out).replace("&nbsp;", " ").strip("\n"))


def block(parts: list[str], verbatim: bool) -> str:
    if verbatim:
        return code(parts)
    text = "".join("\n" if part == BREAK else part for part in parts)
    text = re.sub(r" ?\n ?", "\n", re.sub(r"[^\S\n]+", " ", text)).strip().replace("&nbsp;", " ")
    text = re.sub(r" +$", "", re.sub(r"(?<=\S) {2,}(?=\S)", " ", text), flags=re.M)
    return plain(text.lstrip("\n").rstrip())


def reference(source: str) -> PageBlocks:
    page = PageBlocks()
    parts: list[str] = []
    linked = skipped = inner = 0
    link = verbatim = False
    current = -1

    def flush() -> None:
        nonlocal linked
        text = block(parts, verbatim)
        if text and not text.isspace():
            page.text.append(text)
            page.link_chars.append(min(linked, len(text)))
            page.container.append(current)
        parts.clear()
        linked = 0

    for match in TAG.finditer(RAW.sub("", source)):
        text, closing, name, rest = match.groups()
        if skipped:
            skipped += 0 if name in _VOID else -1 if closing else 1
            continue
        if text:
            parts.append(text if verbatim else text.replace("\n", " "))
        linked += len(text.strip()) if link else 0
        attributes = {} if closing else dict(ATTRIBUTE.findall(rest))
        dropped = not closing and (hidden(attributes) or name in _NEVER_TEXT) and name not in _VOID and name != "body"
        if name == "button" and not closing:
            dropped = hidden(attributes) or current < 0 or page.tag[current] not in _HEADINGS
        if dropped:
            skipped = 1
            if name in BLOCK_LEVEL and not verbatim:
                flush()
        elif name == "br":
            parts.append(BREAK)
        elif name not in BLOCK_LEVEL:
            if name == "a":
                link = "href" in attributes
        elif verbatim and not (closing and not inner):
            inner += 0 if name in _VOID else -1 if closing else 1
            if name not in ("td", "th"):
                parts.append(CLOSES if closing or name in _VOID else OPENS)
        else:
            flush()
            if name in _VOID:
                continue
            if closing:
                verbatim = False
                current = page.parent[current] if current >= 0 else -1
                continue
            said = [("#" if k == "id" else "") + v for k, v in ATTRIBUTE.findall(rest) if k in NAMING]
            page.tag.append(name)
            page.names.append(" ".join(said).lower())
            page.parent.append(current)
            current = len(page.tag) - 1
            verbatim = name in ("pre", "listing")
    flush()
    return page


def check(html: str) -> None:
    body = HTMLTree.parse(html).body
    if body is None:
        return
    source = body.html
    # `<a<b>` is an element named `a<b`, and only five kinds of white space end a name: more than these expressions tell
    if re.search(r"<[^ \t\n\f\r>]*<", source) or re.search(r"<[^>]*[^\S \t\n\f\r]", source):
        return
    found, expected = PageBlocks(), reference(source)
    _fill_blocks(source, found)
    assert found.text == expected.text
    assert (found.tag, found.parent, found.names, found.container) == (
        expected.tag,
        expected.parent,
        expected.names,
        expected.container,
    )
    assert found.link_chars == pytest.approx(expected.link_chars, abs=3)  # of white space at the ends of links


MORE = st.lists(
    st.one_of(
        st.sampled_from(
            ["<p hidden>", "<div style='color:red; DISPLAY:\nnone'>", "<p aria-hidden=TRUE>", "<b role=search>", "</b>",
             "<p title='a hidden > b' id=\"x\" class='Y&quot;z'>", "<a href=x>", "<a name=href>", "</a>", "&nbsp;",
             "&nbsp;&nbsp;", " ", "\n", "<br>", "word", "&lt;", "&amp;lt;", "<pre>", "</pre>", "\u3000", "\u2028", "é",
             "日本", "👩‍💻", "<nobr>", "<hr>", "<x-y id=q>", "</x-y>", "<svg><title>t</title></svg>", "<!-- > -- x -->",
             "<script>'</p>'</script>", "<img alt='>'>", "\t", "\x1f", "\xa0", "<td>", "<table>", "<li>"]
        ),
        st.text(max_size=12),
    ),
    max_size=40,
).map("".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(MORE, MARKUP))
@example(PAGE)
@example("<p>a<br>&nbsp;&nbsp;b &nbsp; c<br>&nbsp;<br> d<pre>\n\n  x\n   y &lt;\n\n</pre>")
def test_equals_the_reference(html: str) -> None:
    check(html.encode("utf-8", "replace").decode())


@pytest.mark.parametrize("name", ["angles", "comments", "lists", "nul", "plain", "tables"])
def test_odd_pages(name: str) -> None:
    check(ODD[name])


def test_crawled_pages(data: Path) -> None:
    pages = [t for b in crawl.pages(data, ["docs-01*"]) for t in b.column("text").to_pylist()]
    for page in pages[::20]:
        check(page)


def test_containers_end_where_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_NODES", 10)
    page = blocks.parse_page("".join(f"<p>number {i}</p>" for i in range(30)))
    assert len(page.tag) == 10 and page.text == [f"number {i}" for i in range(9)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["<p>", "</p>", "<b a='<'>", "</B>", "<br>", "text", "<", "</", "<x-é>", "< p>"])))
def test_nesting_equals_the_reference(parts: list[str]) -> None:
    html = "".join(parts)
    open_: collections.Counter[bytes] = collections.Counter()
    deepest = 0
    for closing, name in re.findall(rb"<(/?)([a-zA-Z][^>/ \t-\r]*)", html.encode()):
        key = bytes(c | 32 for c in name)
        if not closing:
            open_[key] += 1
        elif open_[key]:
            open_[key] -= 1
        deepest = max(deepest, open_.total())
    data = html.encode()
    assert max_open_tags(np.frombuffer(data, np.uint8), len(data)) == deepest
