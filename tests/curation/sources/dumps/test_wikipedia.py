"""The reader of MediaWiki dumps: every page accounted for, by any range and compression, whatever is wrong with it.

Covers: dump_pages.py
"""

from __future__ import annotations

import bz2
import gzip
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from curation.core.errors import UserError
from curation.sources import limits
from curation.sources.dumps import dump_pages
from curation.sources.dumps.wikipedia import WikipediaReader
from curation.step import InputSplit, UnreadableFile

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Mühlenwiki</sitename>
    <base>https://mill.example.org/wiki/Hauptseite</base>
    <namespaces>
      <namespace key="0" case="first-letter" />
      <namespace key="4" case="first-letter">Mühlenwiki</namespace>
      <namespace key="6" case="first-letter">Datei</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"


def page(number: int, text: str = "", ns: int = 0, extra: str = "", title: str = "") -> str:
    text = text or (
        f"{{{{Infobox mill|built=150{number % 10}}}}}\n'''Mill {number}''' grinds [[corn|grain]] &amp;amp; more."
        "&lt;ref&gt;x&lt;/ref&gt; [[Datei:m.png|thumb|y]] ß\n[[Kategorie:Mühlen]]"
    )
    return (
        f"  <page>\n    <title>{title or f'Mühle {number}'}</title>\n    <ns>{ns}</ns>\n    <id>{number}</id>\n{extra}"
        f"    <revision>\n      <id>{number + 1000}</id>\n      <timestamp>2024-01-02T03:04:05Z</timestamp>\n"
        "      <contributor><username>M</username><id>7</id></contributor>\n      <model>wikitext</model>\n"
        f'      <text bytes="9" xml:space="preserve">{text}</text>\n    </revision>\n  </page>\n'
    )


REDIRECT = page(3, "#WEITERLEITUNG [[Mühle 1]]", extra='    <redirect title="Mühle 1" />\n')
PAGES = [page(1), page(2), REDIRECT, page(4, ns=4, title="Mühlenwiki:Regeln"), page(5), page(6)]


def dump(pages: list[str]) -> bytes:
    return (HEAD + "".join(pages) + TAIL).encode()


def streams(pages: list[str], each: int = 3) -> bytes:
    """As published: a stream for the head, one for so many pages each, one for the end."""
    parts = [HEAD, *("".join(pages[i : i + each]) for i in range(0, len(pages), each)), TAIL]
    return b"".join(bz2.compress(part.encode()) for part in parts)


def read(root: Path, name: str = "dump.xml", part: InputSplit | None = None, **options: Any) -> list[Any]:
    part = part or InputSplit(name, (root / name).stat().st_size, "")
    batches = WikipediaReader(**options).read(part, str(root), collection="c", domain="d", rows=7)
    return [row for batch in batches for row in batch.to_pylist()]


def in_parts(root: Path, name: str, target: int) -> tuple[list[Any], int, int]:
    """The rows of all ranges of a file, the bytes of it that are unread, and the number of ranges."""
    rows: list[Any] = []
    unread = 0
    parts = WikipediaReader().split(InputSplit(name, (root / name).stat().st_size, ""), str(root), target)
    for part in parts:
        try:
            for batch in WikipediaReader().read(part, str(root), collection="c", domain="d", rows=1):
                rows += batch.to_pylist()
        except UnreadableFile as error:
            unread += error.length
    return rows, unread, len(parts)


def verdicts(rows: list[Any]) -> list[str]:
    return ["kept" if r["drop"] is None else r["drop"]["rule"] for r in rows]


def same(rows: list[Any]) -> list[Any]:
    return [r | {"source": None, "doc_id": None} for r in rows]


def test_a_page_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "dump.xml").write_bytes(data := dump(PAGES))
    rows = read(tmp_path, infobox=True)
    assert verdicts(rows) == ["kept", "kept", "record_type", "record_type", "kept", "kept"]
    first = rows[0]
    assert first["text"] == "Mill 1 grinds grain & more. ß" and first["date"].year == 2024
    assert first["url"] == "https://mill.example.org/wiki/M%C3%BChle_1"
    assert json.loads(first["meta"]) == {
        "title": "Mühle 1", "id": 1, "revision": 1001, "language": "de", "categories": ["Mühlen"],
        "infobox": {"built": "1501"},
    }  # fmt: skip
    assert "infobox" not in json.loads(read(tmp_path)[0]["meta"])
    assert [rows[i]["drop"]["value"] for i in (2, 3)] == ["redirect to Mühle 1", "namespace Mühlenwiki"]
    assert verdicts(read(tmp_path, namespaces=[4])).count("kept") == 1
    for row in rows:
        where = row["source"]
        xml = WikipediaReader().original(where, str(tmp_path))
        assert xml == data[where["offset"] : where["offset"] + where["length"]]
        assert xml.startswith(b"<page>") and xml.endswith(b"</page>")
    with pytest.raises(UserError, match="namespaces"):
        WikipediaReader(namespaces=[])


def test_other_kinds_of_pages(tmp_path: Path) -> None:
    others = [
        page(1).replace("<model>wikitext", "<model>json"),
        page(2, "#REDIRECT [[Old]]"),
        page(3, "{{only|templates}}"),
        page(4).replace('<text bytes="9"', '<text deleted="deleted" bytes="9"'),
        page(5, title="Mühlenwiki:x").replace("<ns>0</ns>", ""),
        page(6).replace(
            "</revision>", "</revision><revision><id>9</id><text>Last &lt;b&gt;one&lt;/b&gt;.</text></revision>"
        ),
        page(7).partition("<text")[0] + '<text bytes="0" /></revision></page>',
    ]
    (tmp_path / "dump.xml").write_bytes(dump(others))
    rows = read(tmp_path)
    assert [r["drop"] and r["drop"]["value"] for r in rows] == [
        "content model json", "redirect to Old", "", "deleted text", "namespace Mühlenwiki", None, "",
    ]  # fmt: skip
    assert rows[5]["text"] == "Last one." and json.loads(rows[5]["meta"])["revision"] == 9


@pytest.mark.parametrize("target", [400, 2000, 1 << 20])
def test_any_range_and_compression_gives_the_same(tmp_path: Path, target: int) -> None:
    pages = [page(i, ns=4 * (i % 5 == 0)) for i in range(1, 61)]
    (tmp_path / "dump.xml").write_bytes(plain := dump(pages))
    whole = read(tmp_path)
    assert len({r["doc_id"] for r in whole}) == len(whole) == 60
    # "b": streams that begin anywhere, as parallel compressors write them
    bounds = pairwise([*range(0, len(plain), 777), len(plain)])
    forms: dict[str, bytes] = {
        "dump.xml": plain, "a.xml.bz2": streams(pages), "dump.xml.gz": gzip.compress(plain),
        "dump.xml.bz2": bz2.compress(plain), "b.xml.bz2": b"".join(bz2.compress(plain[a:b]) for a, b in bounds),
    }  # fmt: skip
    for name, data in forms.items():
        (tmp_path / name).write_bytes(data)
        rows = read(tmp_path, name)
        parted, unread, parts = in_parts(tmp_path, name, target)
        assert parted == rows and unread == 0
        assert same(rows) == same(whole) and len({r["doc_id"] for r in rows}) == 60
        if name.startswith("dump"):
            assert [r["doc_id"] for r in rows] == [r["doc_id"] for r in whole]
        assert (parts > 1) == (target < 1 << 20 and name not in ("dump.xml.gz", "dump.xml.bz2"))
        at = WikipediaReader().original(rows[40]["source"], str(tmp_path))
        assert b"<id>41</id>" in at and at.endswith(b"</page>")


def edited(at: int, old: str, new: str) -> Callable[[], bytes]:
    def make() -> bytes:
        assert old in PAGES[at]
        return dump([*PAGES[:at], PAGES[at].replace(old, new), *PAGES[at + 1 :]])

    return make


WHOLE = dump(PAGES)
LAST = WHOLE.rindex(b"  <page>")
KINDS = ("kept", "record_type", "unreadable", "empty")
DAMAGED: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "cut in a page": (lambda: WHOLE[: WHOLE.index(b"<id>1005")], (2, 2, 1, 0)),
    "cut in a text": (lambda: WHOLE[: WHOLE.index(b"Mill 6") + 4], (3, 2, 1, 0)),
    "cut between pages": (lambda: WHOLE[:LAST], (3, 2, 0, 0)),
    "cut in a tag": (lambda: WHOLE[: LAST + 6], (3, 2, 1, 0)),
    "a page not closed": (edited(1, "</page>", ""), (3, 2, 1, 0)),
    "a page not opened": (edited(1, "<page>", ""), (3, 2, 1, 0)),
    "an opening tag broken": (edited(1, "<page>", "<pge>"), (3, 2, 1, 0)),
    "a page in a page": (edited(1, "<revision>", "<page><title>x</title></page><revision>"), (3, 2, 3, 0)),
    "no title": (edited(1, "<title>Mühle 2</title>", ""), (3, 2, 1, 0)),
    "no id": (edited(1, "<id>2</id>", "").__call__, (3, 2, 1, 0)),
    "no number as id": (edited(1, "<id>2</id>", "<id>two</id>"), (3, 2, 1, 0)),
    "no namespace": (edited(1, "<ns>0</ns>", ""), (4, 2, 0, 0)),
    "a namespace that is not named": (edited(1, "<ns>0</ns>", "<ns>77</ns>"), (3, 3, 0, 0)),
    "no revision": (lambda: edited(1, "<revision>", "")().replace(b"  <id>1002</id>", b""), (3, 2, 1, 0)),
    "no text": (edited(1, "<text", "<txt"), (3, 2, 1, 0)),
    "text not closed": (edited(1, "</text>", ""), (3, 2, 1, 0)),
    "tags in a text": (edited(1, "'''Mill 2'''", "<b>Mill 2</b>"), (3, 2, 1, 0)),
    "bytes of another charset": (lambda: WHOLE.replace("Mühle 2".encode(), "Mühle 2".encode("latin-1")), (3, 2, 1, 0)),
    "zeros": (lambda: WHOLE.replace(b"'''Mill 2'''", bytes(12)), (4, 2, 0, 0)),
    "a page twice": (lambda: dump([*PAGES, PAGES[1]]), (5, 2, 0, 0)),
    "prose between": (lambda: dump([*PAGES[:2], "and so on\n", *PAGES[2:]]), (4, 2, 1, 0)),
    "no head": (lambda: "".join(PAGES).encode(), (4, 2, 0, 0)),
    "two dumps in one file": (lambda: WHOLE + WHOLE, (8, 4, 0, 0)),
    "markup that never closes": (lambda: dump([*PAGES[:1], page(2, "{{a|{{b|[[c|"), *PAGES[2:]]), (3, 2, 0, 1)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_a_drop_with_its_reason(damage: str, tmp_path: Path) -> None:
    make, wanted = DAMAGED[damage]
    (tmp_path / "dump.xml").write_bytes(make())
    rows = read(tmp_path)
    assert tuple(verdicts(rows).count(kind) for kind in KINDS) == wanted
    assert all(r["drop"]["value"] for r in rows if r["drop"] and r["drop"]["rule"] != "empty")
    assert len({r["doc_id"] for r in rows}) == len(rows)
    parted, unread, parts = in_parts(tmp_path, "dump.xml", 400)
    assert parts > 2 and parted == rows and not unread


def test_damage_in_a_compressed_dump_costs_its_stream(tmp_path: Path) -> None:
    """By any range, wherever the damage is: what is lost has a row or is unread, and pages behind it are read."""
    sound = streams([page(i, f"Mill {i} {'grinds ' * (i % 7)}.") for i in range(1, 25)])
    for at in (*range(30, len(sound), 197), len(sound) - 3):
        broken = bytearray(sound)
        broken[at] ^= 0x55
        for name, data in (("broken.bz2", bytes(broken)), ("cut.bz2", sound[:at])):
            (tmp_path / name).write_bytes(data)
            rows, unread, _ = in_parts(tmp_path, name, 1 << 20)
            assert in_parts(tmp_path, name, 300)[:2] == (rows, unread), (at, name)
            kept = verdicts(rows).count("kept")
            assert len({r["doc_id"] for r in rows}) == len(rows)
            assert kept == 24 or unread or "unreadable" in verdicts(rows)
            assert kept >= 21 or name == "cut.bz2" or unread


def test_files_that_are_no_dump_and_pages_that_are_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dump.xml").write_text("<html><p>no dump</p></html>")
    with pytest.raises(UnreadableFile, match="no dump of MediaWiki"):
        read(tmp_path)
    (tmp_path / "dump.xml").write_bytes(WHOLE)
    texts = [(r["text"], r["meta"], r["drop"]) for r in read(tmp_path)]
    (tmp_path / "dump.xml").write_bytes(WHOLE.decode().encode("utf-16"))
    assert [(r["text"], r["meta"], r["drop"]) for r in read(tmp_path)] == texts
    monkeypatch.setattr(dump_pages, "MAX_PAGE", 100_000)
    (tmp_path / "dump.xml").write_bytes(dump([PAGES[0], page(2, "x" * 300_000), PAGES[4]]))
    rows = read(tmp_path)
    assert verdicts(rows) == ["kept", "unreadable", "kept"] and "longer than" in rows[1]["drop"]["value"]


def test_a_dump_that_expands_too_far_is_unread_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its streams count together, whether the first expands too far or each of many damaged ones a little."""
    monkeypatch.setattr(limits, "MIN_EXPANDED", 1 << 20)
    far = bz2.compress(b"\n" * (4 << 20))
    (tmp_path / "a.bz2").write_bytes(data := streams(PAGES) + far * 9 + streams(PAGES))
    rows, error = until_unread(tmp_path, "a.bz2")
    assert verdicts(rows) == ["kept", "kept", "record_type", "record_type", "kept", "kept"]
    assert error.reason == limits.EXPANDS_TOO_FAR and len(streams(PAGES)) <= error.offset < len(streams(PAGES) + far)
    assert error.offset + error.length == len(data)

    some = bytearray(bz2.compress(page(7, "x" * 800_000).encode()))  # no further than the limit
    some[-1] ^= 0x55  # its checksum
    (tmp_path / "b.bz2").write_bytes(data := streams(PAGES) + bytes(some) * 30)
    assert len(some) + 800_000 < limits.max_expanded(len(data)) < 15 * 800_000
    rows, error = until_unread(tmp_path, "b.bz2")
    assert error.reason == limits.EXPANDS_TOO_FAR and 3 <= verdicts(rows).count("unreadable") < 20


def until_unread(root: Path, name: str) -> tuple[list[Any], UnreadableFile]:
    rows: list[Any] = []
    with pytest.raises(UnreadableFile) as caught:
        part = InputSplit(name, (root / name).stat().st_size, "")
        for batch in WikipediaReader().read(part, str(root), collection="c", domain="d", rows=1):
            rows += batch.to_pylist()
    return rows, caught.value


def test_repeated_tags_and_blanks_take_linear_work(tmp_path: Path) -> None:
    """Neither would end where each way to match them is tried."""
    heads = "<siteinfo></siteinfo>" * 200
    text = "#redirect" + " " * 400_000 + "Mill"
    (tmp_path / "dump.xml").write_text(HEAD + heads + "prose" + page(1) + page(2, text) + TAIL)
    assert verdicts(read(tmp_path)) == ["unreadable", "kept", "kept"]


@pytest.mark.parametrize(
    "name", ["enwiki-pages-articles-sample", "bgwiki-pages-articles-sample", "enwiki-table-markup"]
)
def test_the_dumps_of_two_wikis(data: Path, tmp_path: Path, name: str) -> None:
    """Counted by another parser of XML. Braces and brackets are left in formulas and in <nowiki> alone."""
    stored = data / "sources" / "wikipedia" / f"{name}.xml.bz2"
    xml = bz2.decompress(stored.read_bytes())
    space = "{http://www.mediawiki.org/xml/export-0.10/}"
    pages = ElementTree.fromstring(xml).findall(f"{space}page")
    articles = [p for p in pages if p.find(f"{space}redirect") is None and p.findtext(f"{space}ns") == "0"]
    rows = read(stored.parent, stored.name)
    kept = [r for r in rows if r["drop"] is None]
    assert Counter(verdicts(rows)) == Counter(kept=len(articles), record_type=len(pages) - len(articles))
    assert [json.loads(r["meta"])["title"] for r in kept] == [p.findtext(f"{space}title") for p in articles]
    for row in kept:
        words = "".join(row["text"].split("$")[::2])  # without formulas
        assert not any(sign in words for sign in ("{{", "}}", "[[", "]]", "|thumb", "{|", "<ref"))
    texts = {json.loads(r["meta"])["title"]: r["text"] for r in kept}
    if "Albedo" in texts:
        assert "\nFresh asphalt | 0.04\n" in texts["Albedo"] and r"\frac{1329\times10^{-H/5}}{D}" in texts["Albedo"]
