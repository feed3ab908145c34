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
from curation.extract.blocks import _INLINE, _NEVER_TEXT, _VOID, PageBlocks, _fill_blocks
from curation.extract.html_tag_kernels import max_open_tags
from tests.curation.extract.test_extract import MARKUP, ODD, PAGE

RAW = re.compile(
    r'<(script|style|iframe|textarea|xmp|noembed|noframes|plaintext)(?=[\s>])(?:[^>"]|"[^"]*")*>.*?</\1>|<!--.*?-->|'
    r"<![^>]*>|<\?[^>]*>",
    re.S,
)
TAG = re.compile(r'([^<]*)<(/?)([^\s/>]*)((?:[^">]|"[^"]*")*)>')
ATTRIBUTE = re.compile(r'\s([^\s=">]+)(?:="([^"]*)")?')
ASIDE = ("navigation", "search", "dialog", "menu", "menubar", "toolbar", "tablist", "alert", "banner", "contentinfo")
NAMING = ("class", "id", "role", "itemprop", "data-component", "data-testid")


def hidden(attributes: dict[str, str]) -> bool:
    return (
        "hidden" in attributes
        or attributes.get("aria-hidden", "").lower() == "true"
        or re.search(r"display:[ \t\n\f\r\v]*none", attributes.get("style", ""), re.I) is not None
        or attributes.get("class", "").lower() == "headerlink"
        or attributes.get("role", "").lower() in ASIDE
    )


def plain(text: str) -> str:
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, character)
    return text


def block(parts: list[str], verbatim: int) -> str:
    text = "".join(parts)
    if verbatim:
        return plain(text.replace("&nbsp;", " ").strip("\n"))
    text = re.sub(r" ?\n ?", "\n", re.sub(r"[^\S\n]+", " ", text)).strip().replace("&nbsp;", " ")
    text = re.sub(r" +$", "", re.sub(r"(?<=\S) {2,}(?=\S)", " ", text), flags=re.M)
    return plain(text.lstrip("\n").rstrip())


def reference(source: str) -> PageBlocks:
    page = PageBlocks()
    parts: list[str] = []
    linked = verbatim = skipped = 0
    link, current = False, -1

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
        parts.append(text if verbatim else text.replace("\n", " "))
        linked += len(text.strip()) if link else 0
        attributes = {} if closing else dict(ATTRIBUTE.findall(rest))
        if not closing and (hidden(attributes) or name in _NEVER_TEXT) and name not in _VOID and name != "body":
            if name not in _INLINE:
                flush()
            skipped = 1
        elif name in _INLINE:
            if name == "a":
                link = "href" in attributes
        elif name == "br":
            parts.append("\n")
        else:
            flush()
            if name in _VOID:
                continue
            if closing:
                verbatim -= name == "pre"
                current = page.parent[current] if current >= 0 else -1
                continue
            said = [("#" if k == "id" else "") + v for k, v in ATTRIBUTE.findall(rest) if k in NAMING]
            page.tag.append(name)
            page.names.append(" ".join(said).lower())
            page.parent.append(current)
            current = len(page.tag) - 1
            verbatim += name == "pre"
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
