"""Tables, folded sections, copies and post frames: what stays of them and what goes, wherever on a page they are.

Covers: tables.py, boilerplate.py, repeated_text.py
"""

from __future__ import annotations

import pytest

from curation.extract import blocks, page_kind, tables
from curation.extract.extract import extract
from tests.curation.extract.builder_pages import FOOT, NAV, PROSE, paragraphs

SPEC = (("Stone", "Granite"), ("Width", "1.2 m"), ("Weight", "840 kg"), ("Speed", "96 rpm"))
PLACES = {  # where a box without prose is, on pages whose text is elsewhere
    "in the text": "<main><h1>Mill</h1>{text}{box}{end}</main>",
    "at the end": "<main><h1>Mill</h1>{text}{box}</main>",
    "in a box of its own": "<main><h1>Mill</h1><div class=desc>{text}</div><div class=more>{box}</div></main>",
    "outside the content": "<div class=desc><h1>Mill</h1>{text}</div><div class=more>{box}</div>",
    "before the content": "<div class=facts>{box}</div><div class=text><h1>Mill</h1>{text}</div>",
    "aside": "<main><h1>Mill</h1>{text}<aside>{box}</aside>{end}</main>",
    "aside, outside": "<main><h1>Mill</h1>{text}</main><aside>{box}</aside>",
    "side column": "<main><h1>Mill</h1>{text}</main><div class=sidebar>{box}</div>",
    "widget": '<main><h1>Mill</h1>{text}<div class="widget related-info">{box}</div></main>',
    "form": "<main><h1>Mill</h1>{text}<form>{box}</form>{end}</main>",
    "footer of the article": "<main><article><h1>Mill</h1>{text}<footer>{box}</footer></article></main>",
    "section beside the article": "<main><article><h1>Mill</h1>{text}</article><section>{box}</section></main>",
    "tab of a shop": '<div class="woocommerce-tabs"><div class="panel" id="tab-description"><h1>Mill</h1>{text}</div>'
    '<div class="panel" id="tab-additional_information">{box}</div></div>',
    "folded": "<main><h1>Mill</h1>{text}<h3><button aria-expanded=false>More</button></h3>"
    '<div class="accordion-content" style="display: none">{box}</div></main>',
    "folded region": "<main><h1>Mill</h1>{text}<button aria-expanded=false>More</button>"
    "<div role=region hidden>{box}</div></main>",
}
CELLS = {"cells": "{}", "paragraphs": "<p>{}</p>", "boxes": "<div><span>{}</span></div>", "labels": "<label>{}</label>"}


def table(cell: str = "{}", tag: str = "td") -> str:
    rows = ("".join(f"<{tag}>{cell.format(text)}</{tag}>" for text in row) for row in SPEC)
    return f"<table><tr>{'</tr><tr>'.join(rows)}</tr></table>"


def on_page(place: str, box: str) -> str:
    main = PLACES[place].format(text=paragraphs(0, 1, 2) * 2, box=box, end=paragraphs(3))
    return extract(f"<body><nav>{NAV}</nav>{main}<footer>{FOOT}</footer>").text


@pytest.mark.parametrize("place", PLACES)
def test_a_table_of_data_stays_wherever_it_is(place: str) -> None:
    for cell in CELLS.values():
        text = on_page(place, table(cell))
        assert "Stone | Granite\nWidth | 1.2 m\nWeight | 840 kg\nSpeed | 96 rpm" in text
        assert PROSE[0] in text and "Write to us" not in text and "All rights reserved" not in text


@pytest.mark.parametrize("place", ["in the text", "at the end", "in a box of its own"])
def test_a_table_of_links_is_data(place: str) -> None:
    assert "Stone | Granite\nWidth | 1.2 m" in on_page(place, table("<a href=/x>{}</a>"))


def test_header_cells_that_sort_and_tables_that_lay_out_the_page() -> None:
    text = on_page("in the text", f"<table><tr><th><button>Part</button><th>Value</tr>{table()[7:]}")
    assert "Part | Value\nStone | Granite" in text
    layout = f"<table><tr><td>{paragraphs(0, 1)}</td><td><a href=/x>Our mills</a></td></tr></table>"
    page = blocks.parse_page(f"<body>{layout}{table()}")
    assert tables.data_tables(page)[-1] == 1  # the second alone
    assert tables.data_tables(blocks.parse_page("<body><p>no table")) == [0, 0, 0]


def test_lists_of_a_product_beside_its_description_stay() -> None:
    shop = '<head><meta property="og:type" content="product"></head>'
    items = "<h3>In the box</h3><ul><li>two millstones</li><li>an oak axle</li><li>a rope</li></ul>"
    page = f"<body><div class=desc><h1>Mill</h1>{paragraphs(0, 1, 2)}</div><div class=more>{items}</div>"
    assert "In the box\n\n- two millstones\n- an oak axle\n- a rope" in extract(shop + page).text
    assert "oak axle" not in extract(page).text


@pytest.mark.parametrize(
    "title",
    [
        "<button><h3>How is it turned?</h3></button>",
        "<h3><button>How is it turned?</button></h3>",
        "<button aria-expanded=false><span>How is it turned?</span></button>",
        "<div><a href='#a' aria-expanded=false>How is it turned?</a></div>",
    ],
)
def test_the_title_of_a_folded_section_stays(title: str) -> None:
    text = extract(f"<body><main>{paragraphs(0, 1)}{title}{paragraphs(2)}<button>Buy</button></main>").text
    assert f"{PROSE[1]}\n\nHow is it turned?\n\n{PROSE[2]}" in text and "Buy" not in text


def test_signs_of_folded_sections_and_menus_stay_hidden() -> None:
    page = f"<body><main>{paragraphs(0)}<span class='accordion-icon' aria-hidden=true>plus</span>{paragraphs(1)}"
    assert "plus" not in extract(page).text


def test_copies_go_once() -> None:
    slide = f"<h3>Stones</h3><p>{PROSE[0]}</p>"
    page = f"<body><main>{paragraphs(1, 2)}<div class=slide>{slide}</div><div class='slide cloned'>{slide}</div></main>"
    text = extract(page).text
    assert text.count("Stones") == text.count(PROSE[0]) == 1
    desktop = f"<div class=desktop>{paragraphs(0, 1, 2)}</div>"
    text = extract(f"<body><main>{desktop}{desktop.replace('desktop', 'mobile')}{paragraphs(3)}</main>").text
    assert [text.count(sentence) for sentence in PROSE] == [1, 1, 1, 1]


def test_what_repeats_rightly_stays() -> None:
    refrain = f"<p>{PROSE[0]}</p><p>{PROSE[1]}</p>"
    for repeated in (
        f"{refrain}<p>{PROSE[2]}</p>{refrain}",  # beside each other
        f"<div><pre>{PROSE[0]}</pre></div><div><pre>{PROSE[0]}</pre></div>",
        f"<ul><li>{PROSE[0]}</li></ul><p>and</p><ol><li>{PROSE[0]}</li></ol>",
        f"<table><tr><td>{PROSE[0]}<td>1</tr></table><table><tr><td>{PROSE[0]}<td>2</tr></table>",
        "<div><p>Yes.</p></div><div><p>Yes.</p></div>",  # too short to tell
    ):
        text = extract(f"<body><main>{paragraphs(3)}{repeated}{paragraphs(2)}</main>").text
        assert text.count(PROSE[0]) == 2 or text.count("Yes.") == 2


POSTS = {  # around each post: what goes; the program that writes it so
    "XenForo": "<section class='message-user'><dl class='pairs pairs--justified'><dt>Joined</dt><dd>May 2019</dd></dl>"
    "</section><header class='message-attribution'>Jun 4, 2021</header><div class='message-userContent'>{}</div>"
    "<div class='message-lastEdit'>Last edited: Jun 5</div>",
    "Invision": "<aside class='ipsComment_author cAuthorPane'><ul><li>Members</li><li>May 2019</li></ul></aside>"
    "<div class='ipsComment_meta'>Jun 4, 2021</div><div class='cPost_contentWrap'>{}</div>",
    "phpBB": "<p class=author>by miller4, Jun 4, 2021</p><div class=content>{}</div><dl class=postprofile>"
    "<dt>Joined</dt><dd>May 2019</dd></dl>",
    "vBulletin": "<div class=posthead><span class=postdate>Jun 4, 2021</span></div><div class=userinfo><dl><dt>Since"
    "</dt><dd>May 2019</dd></dl></div><div class=postbody>{}</div>",
    "MyBB": "<div class=post_author><div class=author_statistics>Joined: May 2019</div></div><div class=post_content>"
    "<div class=post_date>Jun 4, 2021</div><div class=post_body>{}</div></div>",
}


@pytest.mark.parametrize("program", POSTS)
def test_what_forums_write_around_posts_goes(program: str) -> None:
    posts = "".join(f"<div class=post>{POSTS[program].format(f'<p>{said}</p>')}</div>" for said in (*PROSE, "Thanks!"))
    got = extract(f"<body><main><h1>Mill</h1>{posts}</main>")
    assert got.kind == "forum" and all(said in got.text for said in (*PROSE, "Thanks!"))
    assert not any(gone in got.text for gone in ("May 2019", "Jun 4", "Last edited", "Members"))


@pytest.mark.parametrize(
    "names",
    [
        "post has-profile bg2",
        "comment byuser comment-author-admin",
        "message message--post has-author",
        "post by-author",
    ],
)
def test_a_short_post_stays_whatever_it_is_called(names: str) -> None:
    said = (PROSE[0], "Thanks!", "<ul><li>an oak axle</li></ul>", PROSE[1], PROSE[2], PROSE[3])
    posts = "".join(f'<div class="{names}"><div class=text>{one}</div></div>' for one in said)
    got = extract(f'<head><meta name="generator" content="phpBB"></head><body><main><h1>Mill</h1>{posts}</main>')
    assert got.kind == "forum" and "Thanks!" in got.text and "- an oak axle" in got.text


def test_teasers_are_the_content_of_a_page_of_links() -> None:
    cards = "".join(f"<div class=card><h3><a href=/{i}>Loaf number {i} of the mill</a></h3></div>" for i in range(30))
    for name in ("related-posts", "recirc-list", "carousel", "teaser-row"):
        got = extract(f"<body><main><h1>Bread</h1><div class={name}>{cards}</div></main>")
        assert got.kind == "listing" and "Loaf number 29" in got.text
        few = f"<div class={name}>{cards[: cards.index('number 4')]}</h3></div></div>"
        assert "Loaf number" not in extract(f"<body><main>{paragraphs(0, 1, 2, 3)}{few}</main>").text


def test_a_forum_has_most_of_its_text_in_posts() -> None:
    notes = "<div class=message></div>" * 2 + "<div class=message>Sent.</div>"
    page = blocks.parse_page(f"<body>{paragraphs(0, 1, 2)}{notes}")
    assert page_kind.page_kind("", page) == ("article", False)
    shop = '<meta property="og:type" content="product.item">'
    assert page_kind.page_kind(shop, page) == ("product", True)
