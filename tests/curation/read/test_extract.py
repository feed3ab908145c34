"""Extraction: the content and no more, with its lines; and never a failure, whatever the page."""

from __future__ import annotations

import collections
import json
import re
import tarfile
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import record
from curation.read.extract import Extract, extract

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
        [pa.array(texts, pa.large_string()), pa.array(read, record.READ)], names=["text", "read"]
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
    }
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
    from curation.read.warc import Warc
    from curation.step import Piece

    name = "docs-00.warc.gz"
    piece = Piece(name, (data / "crawl" / name).stat().st_size, "")
    batches = Warc().read(piece, str(data / "crawl"), collection="c", domain="web", rows=200)
    step = Extract()
    kept = empty = 0
    for item in batches:
        for row in step(item).to_pylist():
            if row["drop"] is None:
                kept += 1
                empty += not row["extract"]["chars"]
                assert row["extract"]["problem"] is None
    assert kept == 1005 and empty <= 5
