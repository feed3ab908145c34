"""The reader of EPUB books: chapters in reading order, each accounted for, whatever is wrong with the archive.

Covers: epub_archive.py
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from curation import document
from curation.extract.extract import extract
from curation.sources.books import epub, epub_archive
from curation.sources.books.epub import EpubReader
from curation.step import InputSplit, RecordError

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">'
    '<rootfiles><rootfile full-path="OPS/package.opf"/></rootfiles></container>'
)
OPF = """<?xml version="1.0"?>
<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/" version="3.0">
<metadata><dc:title>Das Mühlenbuch</dc:title><dc:language>ja</dc:language><dc:creator>A. Miller</dc:creator>
<dc:creator>B. Miller</dc:creator><dc:date>2012-03-04</dc:date>
<link rel="cc:license" href="http://creativecommons.org/licenses/by-sa/3.0/"/></metadata>
<manifest><item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>
<item id="b" href="text/b%20x.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="../a.xhtml" media-type="application/xhtml+xml"/>
<item id="n" href="notes.xhtml" media-type="application/xhtml+xml"/>
<item id="p" href="p.svg" media-type="image/svg+xml"/></manifest>
<spine><itemref idref="nav"/><itemref idref="b"/><itemref idref="a"/><itemref idref="p"/>
<itemref idref="n" linear="no"/></spine></package>"""


def chapter(body: str) -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><head><title/>'
        f'<script src="x.js"/></head><body class="c">{body}</body></html>'
    )


FIRST = "<h1>第一章</h1><p>山路を<ruby>登<rt>のぼ</rt></ruby>りながら<a id='x'/>、こう考えた。</p><div/><p>二</p>"
SECOND = (
    "<h1>Second</h1><p>So <m:math xmlns:m='http://www.w3.org/1998/Math/MathML' alttext='not available'><m:mfrac>"
    "<m:mi>a</m:mi><m:mi>b</m:mi></m:mfrac></m:math> holds for every mill.</p><p><![CDATA[1 < 2]]></p>"
)
FILES = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": CONTAINER,
    "OPS/package.opf": OPF,
    "OPS/nav.xhtml": chapter("<nav>contents</nav>"),
    "OPS/text/b x.xhtml": chapter(FIRST),
    "a.xhtml": chapter(SECOND),
    "OPS/notes.xhtml": chapter("<aside><p>A note at the end.</p></aside>"),
    "OPS/p.svg": "<svg/>",
}


def archive(files: dict[str, Any], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as written:
        for name, data in files.items():
            written.writestr(name, data)
    return out.getvalue()


def read(root: Path, name: str = "book.epub") -> list[Any]:
    part = InputSplit(name, (root / name).stat().st_size, "")
    batches = EpubReader().read(part, str(root), collection="c", domain="d", rows=3)
    return [row for batch in batches for row in batch.to_pylist()]


def verdicts(rows: list[Any]) -> list[str]:
    return ["kept" if r["drop"] is None else r["drop"]["rule"] for r in rows]


def test_chapters_in_reading_order_are_a_document(tmp_path: Path) -> None:
    (tmp_path / "book.epub").write_bytes(archive(FILES))
    rows = read(tmp_path)
    assert verdicts(rows) == ["record_type", "kept", "merged", "record_type", "merged"]
    assert [rows[i]["drop"]["value"] for i in (0, 3)] == ["table of contents", "image/svg+xml"]
    book = rows[1]
    assert {rows[i]["drop"]["value"] for i in (2, 4)} == {document.hex_id(book["doc_id"])}
    assert extract(book["text"]).text == (
        "第一章\n\n山路を登りながら、こう考えた。\n\n二\n\nSecond\n\n"
        "So $\\frac{a}{b}$ holds for every mill.\n\n1 < 2\n\nA note at the end."
    )
    assert json.loads(book["meta"]) == {
        "title": "Das Mühlenbuch", "language": "ja", "creator": ["A. Miller", "B. Miller"], "date": "2012-03-04",
        "chapters": 3, "licence": "http://creativecommons.org/licenses/by-sa/3.0/",
    }  # fmt: skip
    assert book["read"]["mime"] == "text/html" and book["date"].year == 2012
    assert EpubReader().original(rows[2]["source"], str(tmp_path)).decode() == FILES["a.xhtml"]
    with pytest.raises(RecordError):
        EpubReader().original({**rows[2]["source"], "row": 99}, str(tmp_path))


def test_a_long_book_goes_on_in_another_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epub, "MAX_PAGE", 200)
    (tmp_path / "book.epub").write_bytes(archive(FILES))
    rows = read(tmp_path)
    assert verdicts(rows) == ["record_type", "kept", "kept", "record_type", "merged"]
    assert rows[4]["drop"]["value"] == document.hex_id(rows[2]["doc_id"])


def test_a_body_with_a_prefix(tmp_path: Path) -> None:
    page = (
        '<html:html xmlns:html="http://www.w3.org/1999/xhtml"><html:head/><html:body><html:p>Two</html:p></html:body>'
    )
    for prefix in ("html", "h", "xhtml"):
        named = page.replace("html:", f"{prefix}:") + f"</{prefix}:html>"
        (tmp_path / "book.epub").write_bytes(archive(FILES | {"a.xhtml": named}))
        rows = read(tmp_path)
        assert verdicts(rows) == ["record_type", "kept", "merged", "record_type", "merged"]
        assert "\n\nTwo\n\n" in extract(rows[1]["text"]).text


def test_sections_of_cdata_take_linear_work(tmp_path: Path) -> None:
    """Of those that are not closed the first ends the search."""
    opened = "<![CDATA[" * 100_000
    body = f"<![CDATA[1 < 2]]>, <![CDATA[3 > 2]]> {opened}"
    (tmp_path / "book.epub").write_bytes(archive(FILES | {"a.xhtml": chapter(body)}))
    assert f"1 &lt; 2, 3 &gt; 2 {opened}" in read(tmp_path)[1]["text"]


def edited(name: str, old: str, new: str) -> Callable[[], bytes]:
    def make() -> bytes:
        assert old in FILES[name]
        return archive(FILES | {name: FILES[name].replace(old, new)})

    return make


def without(*names: str) -> Callable[[], bytes]:
    return lambda: archive({k: v for k, v in FILES.items() if k not in names})


def broken_data() -> bytes:
    data = bytearray(archive(FILES))
    at = data.index(b"a.xhtml") + 40
    data[at : at + 20] = bytes(20)
    return bytes(data)


ENCRYPTION = '<encryption><CipherReference URI="a.xhtml"/></encryption>'
KINDS = ("kept", "merged", "record_type", "unreadable", "empty")
DAMAGED: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "no archive": (lambda: b"<html>no archive</html>", (0, 0, 0, 1, 0)),
    "empty": (lambda: b"", (0, 0, 0, 1, 0)),
    "cut off": (lambda: archive(FILES)[:1500], (0, 0, 0, 1, 0)),
    "cut at its end": (lambda: archive(FILES)[:-30], (0, 0, 0, 1, 0)),
    "no container": (without("META-INF/container.xml"), (0, 0, 0, 1, 0)),
    "a container that is no XML": (edited("META-INF/container.xml", "</container>", ""), (0, 0, 0, 1, 0)),
    "a container that names nothing": (edited("META-INF/container.xml", "full-path", "path"), (0, 0, 0, 1, 0)),
    "no package document": (without("OPS/package.opf"), (0, 0, 0, 1, 0)),
    "a package that is no XML": (edited("OPS/package.opf", "</spine>", ""), (0, 0, 0, 1, 0)),
    "entities": (edited("OPS/package.opf", "<package", '<!DOCTYPE p [<!ENTITY a "b">]><package'), (0, 0, 0, 1, 0)),
    "no spine": (edited("OPS/package.opf", "itemref", "item"), (0, 0, 0, 1, 0)),
    "a chapter missing": (without("a.xhtml"), (1, 1, 2, 1, 0)),
    "all chapters missing": (without("a.xhtml", "OPS/text/b x.xhtml", "OPS/notes.xhtml"), (0, 0, 2, 3, 0)),
    "a chapter not in the manifest": (edited("OPS/package.opf", 'item id="a"', 'item id="z"'), (1, 1, 2, 1, 0)),
    "a chapter twice": (edited("OPS/package.opf", '<itemref idref="a"/>', '<itemref idref="b"/>'), (1, 1, 2, 1, 0)),
    "a chapter outside": (edited("OPS/package.opf", "../a.xhtml", "../../../etc/passwd"), (1, 1, 2, 1, 0)),
    "a chapter without body": (edited("a.xhtml", "<body", "<text"), (1, 1, 2, 1, 0)),
    "an empty body": (lambda: archive(FILES | {"a.xhtml": "<html><body/></html>"}), (1, 2, 2, 0, 0)),
    "a body not closed": (edited("a.xhtml", "</body></html>", ""), (1, 2, 2, 0, 0)),
    "another charset": (lambda: archive(FILES | {"a.xhtml": chapter("Mühle").encode("latin-1")}), (1, 2, 2, 0, 0)),
    "broken data": (broken_data, (1, 1, 2, 1, 0)),
    "encrypted": (lambda: archive(FILES | {"META-INF/encryption.xml": ENCRYPTION}), (1, 1, 2, 1, 0)),
    "a method that is not allowed": (lambda: archive(FILES, zipfile.ZIP_BZIP2), (0, 0, 0, 1, 0)),
    "tags nested wrongly": (edited("a.xhtml", "<h1>Second</h1><p>", "<h1>Second<p></h1><b>"), (1, 2, 2, 0, 0)),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_a_drop_with_its_reason(damage: str, tmp_path: Path) -> None:
    make, wanted = DAMAGED[damage]
    (tmp_path / "book.epub").write_bytes(make())
    rows = read(tmp_path)
    assert tuple(verdicts(rows).count(kind) for kind in KINDS) == wanted
    assert all(r["drop"]["value"] for r in rows if r["drop"])
    assert len({r["doc_id"] for r in rows}) == len(rows)


def test_an_archive_expands_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = chapter("0" * 3_000_000)
    items = "".join(f'<item id="z{i}" href="z{i}.xhtml" media-type="text/html"/>' for i in range(9))
    refs = "".join(f'<itemref idref="z{i}"/>' for i in range(9))
    opf = OPF.replace("</manifest>", f"{items}</manifest>").replace("</spine>", f"{refs}</spine>")
    data = archive(FILES | {"OPS/package.opf": opf} | {f"OPS/z{i}.xhtml": zeros for i in range(9)})
    (tmp_path / "book.epub").write_bytes(data)
    monkeypatch.setattr(epub_archive.limits, "max_expanded", lambda stored: 300 * stored)
    rows = read(tmp_path)
    assert len(data) < 35_000 and verdicts(rows)[5:].count("unreadable") >= 5
    assert sum(r["read"]["bytes"] or 0 for r in rows) < 300 * len(data)
    monkeypatch.setattr(epub_archive, "MAX_SPINE", 4)
    assert "chapters" in read(tmp_path)[0]["drop"]["value"]


BOOKS = ["linear-algebra", "moby-dick", "regime-anticancer-arabic", "wasteland", "kusamakura-japanese"]


@pytest.mark.parametrize("name", BOOKS)
def test_published_books(data: Path, name: str) -> None:
    """Counted by the spine; chapters that a shortened sample lacks are drops that name them."""
    root = data / "sources" / "epub"
    with zipfile.ZipFile(root / f"{name}.epub") as stored:
        names = set(stored.namelist())
        opf = next(n for n in names if n.endswith(".opf"))
        package = ElementTree.fromstring(stored.read(opf))
    ids = [e.get("idref") for e in package.iter("{http://www.idpf.org/2007/opf}itemref")]
    items = {e.get("id"): e for e in package.iter("{http://www.idpf.org/2007/opf}item")}
    base = opf.rpartition("/")[0]
    there = [f"{base}/{items[i].get('href')}" in names for i in ids]
    navigation = [items[i].get("properties") == "nav" for i in ids]
    rows = read(root, f"{name}.epub")
    count = Counter(verdicts(rows))
    assert len(rows) == len(ids)
    assert count["kept"] + count["merged"] == sum(t and not n for t, n in zip(there, navigation, strict=True))
    assert count["unreadable"] == sum(not t and not n for t, n in zip(there, navigation, strict=True))
    for row in rows:
        if row["drop"] is None:
            assert row["text"].count("<math") == (4459 if name == "linear-algebra" else 0)
            assert "not available" not in row["text"] and json.loads(row["meta"])["licence"].startswith("http")
