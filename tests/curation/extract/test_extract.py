"""Extraction: the content and no more, with its lines; and never a failure, whatever the page.

Covers: main_content.py, plain_text.py
"""

from __future__ import annotations

import collections
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import document
from curation.extract.extract import ENGINES, Extract, ExtractedPage, extract

PARAGRAPH = "This is a paragraph of the article, with commas, and it is long enough to be taken for prose by anybody. "

PAGE = f"""<!DOCTYPE html><html lang="en-GB"><head><title> The
 title </title><style>p {{}}</style></head><body>
<header class="site-header"><a href="/">Home</a> <a href="/about">About</a></header>
<nav><ul><li><a href="/1">One</a></li><li><a href="/2">Two</a></li></ul></nav>
<div id="wrapper"><main><article>
<h1>Heading <em>one</em></h1>
<p>{PARAGRAPH * 2}</p>
<div class="share-buttons">Share this on everything you have</div>
<p>Second&nbsp;&amp; last: 1 &lt; 2,<br>after a break. {PARAGRAPH}</p>
<h2>A list</h2>
<ul><li>first item</li><li>second item<ul><li>nested item</li></ul></li></ul>
<ol><li>step one</li><li>step two</li></ol>
<h2>Some code</h2>
<pre><code class="language-python">def f(x):
    if x:
        return "&lt;b&gt;"

    return None
</code></pre>
<table><thead><tr><th>Name</th><th>Value</th></tr></thead>
<tbody><tr><td>alpha</td><td>1</td></tr><tr><td>beta</td><td><b>2</b></td></tr></tbody></table>
<dl><dt>term</dt><dd>its definition</dd></dl>
<blockquote><p>{PARAGRAPH}</p></blockquote>
<script>var x = "<p>not text</p>";</script><!-- <p>nor this</p> -->
</article></main>
<aside><p>{PARAGRAPH} Beside the point.</p></aside>
<div class="comments"><p>First! {PARAGRAPH}</p></div></div>
<footer>Copyright</footer></body></html>"""

EXPECTED = f"""Heading one

{PARAGRAPH.strip()} {PARAGRAPH.strip()}

Second & last: 1 < 2,
after a break. {PARAGRAPH.strip()}

A list

- first item
- second item
  - nested item

1. step one
2. step two

Some code

def f(x):
    if x:
        return "<b>"

    return None

Name | Value
alpha | 1
beta | 2

term

its definition

{PARAGRAPH.strip()}"""


def test_structure_is_kept() -> None:
    got = extract(PAGE)
    assert got.text == EXPECTED
    assert (got.title, got.language) == ("The title", "en-GB")


def test_soft_hyphens_are_gone_from_text_and_title() -> None:
    body = f"<p>Ge&shy;nos&shy;sen.</p>{PARAGRAPH}"
    page = f"<html><head><title>Die Ge&shy;nossen</title></head><body>{body}</body></html>"
    got = extract(page)
    assert "\xad" not in got.text + got.title and "Genossen." in got.text and got.title == "Die Genossen"


@pytest.mark.parametrize("engine", ["resiliparse", "trafilatura"])
def test_other_engines(engine: Literal["resiliparse", "trafilatura"]) -> None:
    got = extract(PAGE, engine)
    assert PARAGRAPH.strip() in got.text and "not text" not in got.text
    assert got.title == "The title"


def test_a_page_of_links_is_still_text() -> None:
    page = "<body>" + "".join(f'<p><a href="/{i}">Link number {i}</a></p>' for i in range(20))
    assert extract(page).text.startswith("Link number 0\n\nLink number 1")


def test_layout_tables_are_paragraphs() -> None:
    page = f"<table><tr><td>{PARAGRAPH * 3}<p>{PARAGRAPH * 3}</p></td><td><a href=x>menu</a></td></tr></table>"
    assert extract(page).text == f"{(PARAGRAPH * 3).strip()}\n\n{(PARAGRAPH * 3).strip()}"


def test_hard_spaces_indent_and_do_not_pile_up() -> None:
    page = f"<p>&nbsp;</p><p>{PARAGRAPH}</p><p>if&nbsp;a:<br>&nbsp;&nbsp;b&nbsp; &nbsp;c&nbsp;<br>&nbsp;<br>d, e.</p>"
    page += "<pre>a&nbsp; &nbsp;b</pre>"
    assert extract(page).text == f"{PARAGRAPH.strip()}\n\nif a:\n  b c\n\nd, e.\n\na   b"


def test_names_lie() -> None:
    """A page that calls all of itself a sidebar or a comment is content all the same."""
    page = f'<body class="has-sidebar"><div class="comments widget"><p>{PARAGRAPH * 3}</p></div></body>'
    assert extract(page).text == (PARAGRAPH * 3).strip()


def batch(*pages: tuple[str | None, str | None]) -> pa.RecordBatch:
    texts, mimes = zip(*pages, strict=True)
    read = [{"mime": m, "charset": "utf-8", "status": 200, "bytes": 1} for m in mimes]
    return pa.RecordBatch.from_arrays(
        [pa.array(texts, pa.large_string()), pa.array(read, document.READ)], names=["text", "read"]
    )


def test_step() -> None:
    step = Extract()
    step.open()
    given_ = batch((PAGE, "text/html"), ("<b>as it is</b>", "text/plain"), ("", "text/html"), (None, None))
    got = step(given_)
    assert got.schema.field("extract").type == pa.struct(list(step.signals))
    assert got.column("text").to_pylist() == [EXPECTED, "<b>as it is</b>", "", None]
    signals = got.column("extract").to_pylist()
    assert signals[0] == {
        "title": "The title",
        "language": "en-GB",
        "html_chars": len(PAGE),
        "chars": len(EXPECTED),
        "problem": None,
        "kind": "article",
        "lost": signals[0]["lost"],
    }
    assert 0.2 < signals[0]["lost"] < 0.4  # header, aside, comments and footer
    assert [s["chars"] for s in signals] == [len(EXPECTED), 15, 0, None]
    for i in range(given_.num_rows):
        one = step(given_.slice(i, 1))
        assert one.to_pylist() == got.slice(i, 1).to_pylist()
    assert step.rules() == {"empty": "extract.chars > 0"}


ODD = {
    "empty": "",
    "deep": "<div>" * 100_000 + "hello world",
    "deep inline": "<b>" * 100_000 + "hello world",
    "one line": "<p>" + "word " * 2_000_000,
    "angles": "<" * 300_000,
    "open tag": '<div class="' + "a" * 3_000_000,
    "attributes": "<a " + 'x="' * 100_000,
    "comments": "<!--" * 100_000,
    "tables": "<table><tr><td>" * 3_000 + "x",
    "lists": "<ul><li>x" * 10_000,
    "links": "<a href=x><p>" * 2_000,
    "nul": "a\0b<p>\0 hello",
    "surrogate": "<p>\ud800 lone surrogate</p>",
    "paragraphs": "<p>a " * 100_000,
    "frames": "<html><frameset><frame src=x></frameset></html>",
    "plain": "no markup at all, but words",
}


@pytest.mark.parametrize("name", sorted(ODD))
def test_odd_pages(name: str) -> None:
    got = extract(ODD[name])
    assert got.problem == ""
    assert got == extract(ODD[name])
    got.text.encode()


def test_deep_pages_are_refused_by_quadratic_engines() -> None:
    for engine in ("resiliparse", "trafilatura"):
        got = extract("<div>" * 100_000 + "hello", engine)  # type: ignore[arg-type]
        assert got.text == "" and "nested deeper" in got.problem


MARKUP = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<div>",
                "</div>",
                "<ul>",
                "<li>",
                "</ul>",
                "<table>",
                "<tr>",
                "<td>",
                "</table>",
                "<pre>",
                "</pre>",
                "<a",
                "href=x>",
                "</a>",
                "<svg>",
                "</svg>",
                "<script>",
                "</script>",
                "<br>",
                "<h1>",
                "</h2>",
                "<template>",
                "</template>",
                "<noscript>",
                "<select>",
                "<option>",
                "<math>",
                "<textarea>",
                "<nav>",
                "</nav>",
                "<span",
                "hidden>",
                "</span>",
                "<!--",
                "-->",
                "<plaintext>",
                "<title>",
                "<body",
                "class=comments>",
                "<iframe>",
                "<xmp>",
                "&amp;",
                "&#0;",
            ]
        ),
        st.text(max_size=40),
        st.just(PARAGRAPH),
    ),
    max_size=60,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(MARKUP)
def test_any_markup(html: str) -> None:
    got = extract(html)
    assert got.problem == "" and got == extract(html)
    assert got.text == got.text.strip("\n")


def words(text: str) -> collections.Counter[str]:
    return collections.Counter(re.findall(r"\w+", text))


def test_quality_on_gold_pages(data: Path) -> None:
    """Token F1 (of mean precision and mean recall) on 90 hand-made main texts; trafilatura has 0.961 to 0.967."""
    gold = json.loads((data / "html_gold" / "gold.json").read_text("utf-8"))
    precision = recall = 0.0
    with tarfile.open(data / "html_gold" / "html.tar.gz") as archive:
        for member in archive.getmembers():
            page = archive.extractfile(member)
            assert page is not None
            truth = words(gold[Path(member.name).stem]["articleBody"])
            got = words(extract(page.read().decode("utf-8", "replace")).text)
            common = sum((truth & got).values())
            precision += common / max(1, sum(got.values())) / len(gold)
            recall += common / max(1, sum(truth.values())) / len(gold)
    assert 2 * precision * recall / (precision + recall) >= 0.97


def test_crawled_documentation(data: Path) -> None:
    """Pages of documentation: their code and lists come through, their navigation does not."""
    from curation.sources.warc.warc import WarcReader
    from curation.step import InputSplit

    name = "docs-00.warc.gz"
    piece = InputSplit(name, (data / "crawl" / name).stat().st_size, "")
    batches = WarcReader().read(piece, str(data / "crawl"), collection="c", domain="web", rows=200)
    step = Extract()
    kept = empty = 0
    for item in batches:
        for row in step(item).to_pylist():
            if row["drop"] is None:
                kept += 1
                empty += not row["extract"]["chars"]
                assert row["extract"]["problem"] is None
    assert kept == 1005 and empty <= 5


NAV = '<div id="nav"><ul><li><a href="/">Home</a></li><li><a href="/f">Forum</a></li></ul></div>'
FOOT = '<div class="footer"><p>Copyright 2024 Example Inc. All rights reserved. <a href="/p">Privacy</a></p></div>'
SAID = "Loosen the tensioner bolt first, then turn the crank by hand. "
KINDS = {  # page -> (what must be in its text, what must not)
    "short": (f"<body>{NAV}<div class=content><h1>Closed</h1><p>We are closed on Monday.</p></div>{FOOT}",
              ["Closed", "We are closed on Monday."], ["Copyright", "Home"]),
    "forum": (f"<body>{NAV}<h1>Timing belt</h1>" + "".join(
        f'<div class=post><a href=/u>user{i}</a><div class=postbody><p>{SAID}{i}</p></div></div>' for i in range(4))
        + FOOT, [f"{SAID}{i}" for i in range(4)], ["Copyright", "Home"]),
    "comments": (f"<body>{NAV}<h1>Best shell?</h1>" + "".join(
        f'<div class=comment><div class=comment-content><p>{SAID}{i}</p></div></div>' for i in range(4)) + FOOT,
        [f"{SAID}{i}" for i in range(4)], ["Copyright", "Home"]),
    "no paragraphs": ("<body><center><a href=/>home</a> | <a href=/x>next</a></center><h2>My trip</h2>We went to the "
                      "sea in June, and it rained.<br><br>The hotel was small but clean, with a view.<hr>",
                      ["My trip\n\nWe went to the sea in June, and it rained.\n\nThe hotel was"], ["home"]),
    "table": (f"<body>{NAV}<h1>Prices</h1><table><tr><th>Item<th>Price<tr><td><a href=/a>Bolt</a><td>1.20"
              f"<tr><td><a href=/b>Nut</a><td>0.80</table>{FOOT}",
              ["Prices\n\nItem | Price\nBolt | 1.20\nNut | 0.80"], ["Copyright", "Home"]),
    "layout table": ("<table><tr><td><a href=1>Home</a><br><a href=2>News</a></td><td><h1>Club news</h1><p>The annual "
                     "meeting took place on the 3rd of May.</p><p>Forty came.</p></td></tr></table>",
                     ["Club news\n\nThe annual meeting took place on the 3rd of May.\n\nForty came."], ["Home"]),
    "frames": ("<html><frameset cols='20%,80%'><frame src=a><noframes><body><p>The text is <a href=b>here</a>, please "
               "read it there.</p></noframes></frameset>", ["The text is here, please read it there."], []),
    "broken": ("<div><p>First, never closed <b>and bold <i>and italic</b> text</i> goes on.<div><p>Second one, with "
               "more text after it.</div></span></table><p>Third paragraph, the last of them.",
               ["First, never closed and bold and italic text goes on.\n\nSecond", "Third paragraph"], []),
    "Japanese": (f"<body>{NAV}<div class=main><h1>日本の歴史</h1><p>日本列島の歴史は、約十万年前に始まる。</p>"
                 f"</div><div class=sidebar><a href=1>最近の記事</a></div>{FOOT}",
                 ["日本の歴史\n\n日本列島の歴史は、約十万年前に始まる。"], ["Copyright", "最近"]),
    "Chinese": ("<div class=menu><a href=1>首页</a><a href=2>新闻</a></div><div class=art>北京时间昨日，国家统计局"
                "公布了数据。<br>数据显示，经济总体保持平稳增长。</div>",
                ["公布了数据。\n数据显示，经济总体保持平稳增长。"], ["首页"]),
    "Arabic": ("<html dir=rtl><ul class=menu><li><a href=1>الرئيسية</a></li></ul><article><h1>عنوان المقال</h1><p>قال "
               "المتحدث إن الاجتماع سيعقد يوم الأحد، وسيشارك فيه عدد من الخبراء.</p></article><footer>حقوق</footer>",
               ["عنوان المقال\n\nقال المتحدث إن"], ["الرئيسية", "حقوق"]),
    "line numbers": ("<p>" + SAID * 3 + "</p><table class=highlighttable><tr><td class=linenos><pre>1\n2</pre></td>"
                     "<td class=code><pre>def f():\n    return 1</pre></td></tr></table>",
                     ["\n\ndef f():\n    return 1"], ["1\n2"]),
    "list": (f"<body>{NAV}<h1>Recipes</h1><ul><li><a href=/r>Bread</a>: takes ten minutes, serves four.</li>"
             f"<li><a href=/s>Soup</a>: takes an hour, serves two.</li></ul>{FOOT}",
             ["- Bread: takes ten minutes, serves four.\n- Soup: takes an hour"], ["Copyright"]),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(KINDS))
def test_pages_of_many_kinds(name: str) -> None:
    html, inside, outside = KINDS[name]
    text = extract(html).text
    for part in inside:
        assert part.strip() in text
    for part in outside:
        assert part not in text


@pytest.mark.parametrize("engine", ["auto", "resiliparse", "trafilatura"])
@pytest.mark.parametrize("error", [MemoryError(), ModuleNotFoundError("no module"), OSError(5, "I/O error")])
def test_what_the_machine_lacks_is_no_fault_of_the_page(
    monkeypatch: pytest.MonkeyPatch, engine: Literal["auto", "resiliparse", "trafilatura"], error: Exception
) -> None:
    """The page would be dropped on this machine and kept on another."""
    monkeypatch.setitem(ENGINES, engine, fails_with(error))  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        extract("<p>a page", engine)


def test_a_parsers_complaint_about_a_page_is_a_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "trafilatura", fails_with(AttributeError("no text")))  # type: ignore[arg-type]
    assert extract("<p>a page", "trafilatura").problem == "AttributeError: no text"


def fails_with(error: Exception) -> Callable[[str], ExtractedPage]:
    def engine(html: str) -> ExtractedPage:
        raise error

    return engine
