"""Damaged pages: what HTML allows authors to get wrong costs no text, and a page that loses its text says so.

Covers: html_tag_kernels.py, blocks.py
"""

from __future__ import annotations

import collections
import json
import random
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.extract import blocks
from curation.extract.extract import extract

PROSE = "The miller opened the sluice at dawn, and the new wheel turned for the first time since the flood. "
STRAY = ('<a href="x"">link</a>', '<img alt="5" screen">', '<span style="color:red" "class=x">word</span>',
         '<p ">', '<div class="a"b"c">', '<b =">', "<i x='\"'>", '<a"b>', '<p title=5" x>',
         '<img src=a"b>')  # fmt: skip


@pytest.mark.parametrize("tag", STRAY)
def test_a_stray_quote_costs_nothing(tag: str) -> None:
    page = f"<body><main><p>{PROSE}{tag}</p><p>{PROSE * 2}</p><p>Last words of the page, right here.</p></main>"
    got = extract(page)
    assert got.text.endswith("Last words of the page, right here.") and got.text.count("sluice") == 3
    assert got.lost < 0.05


def stray_quote(page: str, choose: random.Random) -> str:
    return some(page, choose, r'<(?:div|p|span|a|li|td)\s[^<>]*"(?=>)', lambda m: m[0] + '"')


def named_quote(page: str, choose: random.Random) -> str:
    return some(page, choose, r"<(?:div|p|span|a|li|td)(?=[\s>])", lambda m: m[0] + ' screen" ')


def no_space(page: str, choose: random.Random) -> str:
    return some(page, choose, r'"\s+(?=\w+=")', lambda m: '" "')


def unclosed(page: str, choose: random.Random) -> str:
    return some(page, choose, r"</(?:p|li|td|b|i|em|strong|span)>", lambda m: "")


def closed_twice(page: str, choose: random.Random) -> str:
    return some(page, choose, r"</(?:span|b|em|strong|i)>", lambda m: m[0] * 2)


def some(page: str, choose: random.Random, pattern: str, change: Callable[[re.Match[str]], str]) -> str:
    """The page with three matches in its body changed."""
    start = max(0, page.lower().find("<body"))
    places = [m for m in re.finditer(pattern, page) if m.start() > start]
    for match in sorted(choose.sample(places, min(3, len(places))), key=lambda m: -m.start()):
        page = page[: match.start()] + change(match) + page[match.end() :]
    return page


def words(text: str) -> collections.Counter[str]:
    return collections.Counter(re.findall(r"\w+", text))


def test_damaged_variants_of_real_pages(data: Path) -> None:
    """Forty: eight news pages, each damaged in five ways. None loses over 2 % of the words of the undamaged one."""
    names = sorted(json.loads((data / "html_gold" / "gold.json").read_text("utf-8")))[::12][:8]
    with tarfile.open(data / "html_gold" / "html.tar.gz") as archive:
        members = {Path(m.name).stem: m for m in archive.getmembers()}
        pages = [archive.extractfile(members[name]).read().decode("utf-8", "replace") for name in names]  # type: ignore[union-attr]
    for number, page in enumerate(pages):
        whole = words(extract(page).text)
        for damage in (stray_quote, named_quote, no_space, unclosed, closed_twice):
            variant = damage(page, random.Random(number))
            got = words(extract(variant).text)
            assert (whole - got).total() <= 0.02 * whole.total(), (names[number], damage.__name__)


def test_the_walk_sees_every_character_of_the_tree(data: Path) -> None:
    """Text written and text passed over, together, are what a plain walk of the parser's tree gives."""
    from resiliparse.parse.html import HTMLTree

    with tarfile.open(data / "html_gold" / "html.tar.gz") as archive:
        members = archive.getmembers()[::6]
        pages = [archive.extractfile(m).read().decode("utf-8", "replace") for m in members]  # type: ignore[union-attr]
    for page in pages:
        tree = HTMLTree.parse(page)
        assert tree.body is not None
        for element in tree.body.query_selector_all("script,style,iframe,textarea,xmp,noembed,noframes"):
            element.parent.remove_child(element)
        plain = len("".join(tree.body.text.split()))
        walked = blocks.PageBlocks()
        assert blocks._fill_blocks(tree.body.html, walked)
        written = sum(len("".join(text.split())) for text in walked.text)
        assert written <= plain <= walked.visible_chars


def test_a_page_cut_off_in_the_middle_says_what_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "<body><main>" + f"<p>{PROSE}</p>" * 100
    assert extract(page).lost < 0.01
    monkeypatch.setattr(blocks, "MAX_NODES", 7)
    assert extract(page).lost > 0.9
