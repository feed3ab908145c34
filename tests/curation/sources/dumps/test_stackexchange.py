"""The reader of Stack Exchange dumps: threads put together, every post accounted for, whatever is wrong with it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from curation import document
from curation.sources.dumps import stackexchange
from curation.sources.dumps.stackexchange import StackExchangeReader
from curation.step import InputSplit, UnreadableFile

HEAD, TAIL = '\ufeff<?xml version="1.0" encoding="utf-8"?>\n<posts>\n', "</posts>"


BODY = 'Body="&lt;p&gt;Body {} é &amp;amp; more&lt;/p&gt;&#xA;"'


def post(number: int, kind: int = 1, parent: int = 0, score: int = 1, **other: str) -> str:
    named = {
        "Id": number, "PostTypeId": kind, **({"ParentId": parent} if parent else {}), "Score": score,
        "CreationDate": f"20{10 + number % 12}-03-04T05:06:07.890",
        "Body": BODY.format(number).partition('"')[2].rstrip('"'),
        **({"Title": f"Title {number}", "Tags": "&lt;grind&gt;&lt;mill-stone&gt;"} if kind == 1 else {}), **other,
    }  # fmt: skip
    return "  <row " + " ".join(f'{k}="{v}"' for k, v in named.items() if v != "") + " />\n"


POSTS = [
    post(1, AcceptedAnswerId="4"), post(2), post(3, 2, 1, score=5), post(4, 2, 1, score=9), post(5, 5), post(6, 2, 99),
    post(7, 2, 2, score=-3), post(8, 2, 1, score=9), post(9), post(10, 2, 2),
]  # fmt: skip


def read(root: Path, name: str = "Posts.xml", part: InputSplit | None = None, site: str = "") -> list[Any]:
    part = part or InputSplit(name, (root / name).stat().st_size, "")
    batches = StackExchangeReader(site).read(part, str(root), collection="c", domain="d", rows=7)
    return [row for batch in batches for row in batch.to_pylist()]


def write(root: Path, *posts: str, name: str = "Posts.xml") -> bytes:
    data = (HEAD + "".join(posts) + TAIL).encode()
    (root / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return data


def verdicts(rows: list[Any]) -> list[str]:
    return ["kept" if r["drop"] is None else r["drop"]["rule"] for r in rows]


def test_a_question_with_its_answers_is_a_document(tmp_path: Path) -> None:
    data = write(tmp_path, *POSTS)
    rows = read(tmp_path, site="mill.stackexchange.com")
    assert verdicts(rows) == [
        "kept", "kept", "merged", "merged", "record_type", "record_type", "merged", "merged", "kept", "merged",
    ]  # fmt: skip
    first = rows[0]
    assert [first["text"].index(f"Body {i} é") for i in (1, 4, 8, 3)] == sorted(
        first["text"].index(f"Body {i} é") for i in (1, 4, 8, 3)
    )
    assert "&amp; more</p>" in first["text"] and first["read"]["mime"] == "text/html"
    assert first["url"] == "https://mill.stackexchange.com/questions/1" and first["date"].year == 2011
    assert json.loads(first["meta"]) == {
        "id": "1", "title": "Title 1", "score": 1, "tags": ["grind", "mill-stone"],
        "answers": [
            {"id": "4", "score": 9, "accepted": True}, {"id": "8", "score": 9, "accepted": False},
            {"id": "3", "score": 5, "accepted": False},
        ],
        "licence": ["CC BY-SA 2.5", "CC BY-SA 3.0"],  # of 2011, 2013, 2014 and March 2018
    }  # fmt: skip
    assert [r["drop"]["value"] for r in rows if r["drop"] and r["drop"]["rule"] == "merged"] == [
        document.hex_id(rows[i]["doc_id"]) for i in (0, 0, 1, 0, 1)
    ]
    assert [r["drop"]["value"] for r in rows[4:6]] == ["tag wiki", "answer without its question"]
    for row in rows:
        where = row["source"]
        line = data[where["offset"] : where["offset"] + where["length"]]
        assert StackExchangeReader().original(where, str(tmp_path)) == line and line.startswith(b"  <row ")


def test_any_range_and_compression_gives_the_same(tmp_path: Path) -> None:
    posts = [*POSTS, *(post(20 + i, 1 + i % 2, (19 + i if i % 4 else 1) if i % 2 else 0) for i in range(200))]
    write(tmp_path, *posts)
    whole = read(tmp_path)
    piece = InputSplit("Posts.xml", (tmp_path / "Posts.xml").stat().st_size, "")
    for target in (1000, 9000, 1 << 20):
        parts = StackExchangeReader().split(piece, str(tmp_path), target)
        assert len(parts) == {1000: 8, 9000: piece.size // 9000, 1 << 20: 1}[target]
        assert [row for part in parts for row in read(tmp_path, part=part)] == whole
    write(tmp_path, *posts, name="Posts.xml.gz")
    packed = read(tmp_path, "Posts.xml.gz")
    assert [r | {"source": None} for r in packed] == [r | {"source": None} for r in whole]
    assert b'Id="20"' in StackExchangeReader().original(packed[10]["source"], str(tmp_path))


def test_the_dump_of_a_site(data: Path, tmp_path: Path) -> None:
    """Counted by another parser of XML."""
    stored = data / "sources" / "stackexchange" / "coffee-Posts.xml.gz"
    elements = [e.attrib for e in ElementTree.fromstring(gzip.decompress(stored.read_bytes()))]
    (tmp_path / "Posts.xml").write_bytes(gzip.decompress(stored.read_bytes()))
    rows = read(tmp_path)
    kinds = Counter(e["PostTypeId"] for e in elements)
    questions = {e["Id"]: e for e in elements if e["PostTypeId"] == "1"}
    orphans = sum(e["PostTypeId"] == "2" and e["ParentId"] not in questions for e in elements)
    count = Counter(verdicts(rows))
    assert len(rows) == len(elements) == 592
    assert count == {
        "kept": kinds["1"], "merged": kinds["2"] - orphans, "record_type": orphans + kinds["4"] + kinds["5"],
    }  # fmt: skip
    answered = Counter(e["ParentId"] for e in elements if e["PostTypeId"] == "2")
    for row in rows:
        if row["drop"] is None:
            meta = json.loads(row["meta"])
            assert len(meta["answers"]) == answered[meta["id"]]
            assert questions[meta["id"]]["Body"].strip() in row["text"]


def edited(at: int, old: str, new: str) -> Callable[[], bytes]:
    def make() -> bytes:
        posts = list(POSTS)
        assert old in posts[at]
        posts[at] = posts[at].replace(old, new)
        return (HEAD + "".join(posts) + TAIL).encode()

    return make


WHOLE = (HEAD + "".join(POSTS) + TAIL).encode()
KINDS = ("kept", "merged", "record_type", "unreadable", "empty")
DAMAGED: dict[str, tuple[Callable[[], bytes], tuple[int, ...]]] = {
    "cut in a row": (lambda: WHOLE[: WHOLE.index(b'Id="9"') + 40], (2, 4, 2, 1, 0)),
    "cut after a row": (lambda: WHOLE[: WHOLE.index(b"  <row Id=\"9\"")], (2, 4, 2, 0, 0)),
    "no id": (edited(1, 'Id="2"', ""), (2, 3, 4, 1, 0)),
    "no number as id": (edited(1, 'Id="2"', 'Id="two"'), (2, 3, 4, 1, 0)),
    "a very long number": (edited(1, 'Id="2"', f'Id="{"9" * 5000}"'), (2, 3, 4, 1, 0)),
    "an id twice": (edited(8, 'Id="9"', 'Id="2"'), (1, 3, 4, 2, 0)),
    "no parent": (edited(2, 'ParentId="1" ', ""), (3, 4, 2, 1, 0)),
    "no type": (edited(0, 'PostTypeId="1" ', ""), (2, 2, 6, 0, 0)),
    "another type": (edited(0, 'PostTypeId="1"', 'PostTypeId="77"'), (2, 2, 6, 0, 0)),
    "no body": (edited(8, BODY.format(9), ""), (3, 5, 2, 0, 0)),
    "nothing but an id": (
        lambda: edited(8, post(9), '<row Id="9" PostTypeId="1"/>\n')(), (2, 5, 2, 0, 1),
    ),
    "a quote in a value": (edited(0, "Title 1", 'Title "1"'), (2, 2, 5, 1, 0)),
    "a tag in a value": (edited(0, "Title 1", "Title <b>1</b>"), (2, 2, 5, 1, 0)),
    "a row in a row": (edited(0, " />", ">" + post(50).strip() + "</row>"), (2, 2, 5, 1, 0)),
    "two rows in a line": (edited(8, "\n", post(51)), (2, 5, 2, 1, 0)),
    "no end": (edited(8, " />", ""), (2, 5, 2, 1, 0)),
    "bytes of another charset": (
        lambda: WHOLE.replace("Body 9 é".encode(), "Body 9 é à ü groß".encode("latin-1")),
        (3, 5, 2, 0, 0),
    ),
    "zeros": (lambda: WHOLE.replace(b"Title 9", bytes(7)), (3, 5, 2, 0, 0)),
    "no frame": (lambda: "".join(POSTS).encode(), (3, 5, 2, 0, 0)),
    "prose between": (edited(3, "\n", "\nand so on\n"), (3, 5, 2, 1, 0)),
    "an entity that is none": (edited(8, "&#xA;", "&nonsense;&#x110000;"), (3, 5, 2, 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_a_drop_with_its_reason(damage: str, tmp_path: Path) -> None:
    make, wanted = DAMAGED[damage]
    (tmp_path / "Posts.xml").write_bytes(make())
    rows = read(tmp_path)
    assert tuple(verdicts(rows).count(kind) for kind in KINDS) == wanted
    assert all(r["drop"]["value"] for r in rows if r["drop"] and r["drop"]["rule"] != "empty")
    assert len({r["doc_id"] for r in rows}) == len(rows)
    piece = InputSplit("Posts.xml", len(make()), "")
    parts = StackExchangeReader().split(piece, str(tmp_path), 300)
    assert [row for part in parts for row in read(tmp_path, part=part)] == rows


def test_files_that_are_no_dump_or_cut_off_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Posts.xml").write_text("<html><p>no dump</p></html>")
    with pytest.raises(UnreadableFile, match="no <posts>"):
        read(tmp_path)
    (tmp_path / "Posts.xml").write_bytes(WHOLE.decode().encode("utf-16"))
    with pytest.raises(UnreadableFile, match="no <posts>"):
        read(tmp_path)
    stored = gzip.compress(WHOLE)
    for cut in range(400, len(stored), 29):
        (tmp_path / "Posts.xml.gz").write_bytes(stored[:cut])
        rows = read(tmp_path, "Posts.xml.gz")
        assert len({r["doc_id"] for r in rows}) == len(rows) and verdicts(rows).count("unreadable") <= 1
    monkeypatch.setattr(stackexchange, "MAX_EXPANDED", 1000)
    (tmp_path / "Posts.xml.gz").write_bytes(stored)
    with pytest.raises(UnreadableFile, match="unpack it"):
        read(tmp_path, "Posts.xml.gz")
    monkeypatch.setattr(stackexchange, "MAX_ROW", 300)
    write(tmp_path, *POSTS[:2], post(3, 2, 1, Body="x" * 500))
    rows = read(tmp_path)
    assert verdicts(rows) == ["kept", "kept", "unreadable"] and "longer than 300" in rows[2]["drop"]["value"]


def test_a_packed_file_that_ends_between_two_rows_is_cut_off(tmp_path: Path) -> None:
    """Nothing of the last row tells it; the posts after it are missing all the same."""
    packer = zlib.compressobj(wbits=31)
    stored = packer.compress(WHOLE[: WHOLE.index(b'  <row Id="9"')]) + packer.flush(zlib.Z_FULL_FLUSH)
    (tmp_path / "Posts.xml.gz").write_bytes(stored)
    rows = read(tmp_path, "Posts.xml.gz")
    assert [r["drop"]["value"] for r in rows if r["drop"] and r["drop"]["rule"] == "unreadable"] == [
        "the compressed data ends early"
    ]
    assert len({r["doc_id"] for r in rows}) == len(rows)
