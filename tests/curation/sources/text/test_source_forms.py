"""Forms that data comes in: JSON arrays, CSV and TSV, plain text of many documents, nested and joined fields.

Every file is made here. Whole or split, compressed or not, each gives the same documents, and every byte that is no
white space belongs to a row.

Covers: json_values.py, csv_tsv.py, plain_text.py, field_mapping.py
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.sources import limits
from curation.sources.text import json_values, plain_text
from curation.sources.text.text import TextReader
from curation.step import InputSplit, UnreadableFile


def read(
    root: Path, name: str, reader: TextReader | None = None, part: InputSplit | None = None, size: int = 64
) -> list[Any]:
    part = part or InputSplit(name, (root / name).stat().st_size, "")
    batches = (reader or TextReader()).read(part, str(root), collection="c", domain="d", rows=size)
    return [row for batch in batches for row in batch.to_pylist()]


def parts(root: Path, name: str, reader: TextReader, target: int) -> list[InputSplit]:
    whole = InputSplit(name, (root / name).stat().st_size, "")
    cut = reader.index if reader.needs_index(name) else reader.split
    return cut(whole, str(root), target)


def texts(rows: list[Any]) -> list[str | None]:
    return [r["text"] for r in rows]


def reasons(rows: list[Any]) -> list[str]:
    return [f"{r['drop']['rule']}: {r['drop']['value']}" for r in rows if r["drop"]]


RECORDS = [{"text": f'text {i} [{{,"\\ é', "url": f"http://x/{i}", "n": [i, {"deep": ["}, {"]}]} for i in range(40)]
TABLE = [["url", "text", "n"], *([f"http://x/{i}", f'two, "fields"\nand {i} lines', str(i)] for i in range(40))]
PROSE = [f"Document {i} has a line.\nAnd é second{' ' * (i % 3)}\n  indented one." for i in range(40)]


def table_bytes(delimiter: str = ",", rows: list[list[str]] = TABLE, end: str = "\r\n") -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=end).writerows(rows)
    return out.getvalue().encode()


LINES = [text.replace("\n", " ") for text in PROSE]
FORMS: dict[str, tuple[str, bytes, TextReader, list[str]]] = {
    "array": ("a.json", json.dumps(RECORDS).encode(), TextReader(), [str(r["text"]) for r in RECORDS]),
    "array in lines": (
        "a.json", json.dumps(RECORDS, indent=2, ensure_ascii=False).encode(), TextReader(),
        [str(r["text"]) for r in RECORDS],
    ),
    "objects over several lines": (
        "a.json", "\n".join(json.dumps(r, indent=1) for r in RECORDS).encode(), TextReader(),
        [str(r["text"]) for r in RECORDS],
    ),
    "array by option": (
        "a.txt", json.dumps(RECORDS).encode(), TextReader(format="json"), [str(r["text"]) for r in RECORDS],
    ),
    "lines in .json": (
        "a.json", "".join(json.dumps(r) + "\n" for r in RECORDS).encode(), TextReader(),
        [str(r["text"]) for r in RECORDS],
    ),
    "lines in .ndjson": (
        "a.ndjson", "".join(json.dumps(r) + "\n" for r in RECORDS).encode(), TextReader(),
        [str(r["text"]) for r in RECORDS],
    ),
    "csv": ("a.csv", table_bytes(), TextReader(), [r[1] for r in TABLE[1:]]),
    "csv with a byte order mark": (
        "a.csv", b"\xef\xbb\xbf" + table_bytes(end="\n"), TextReader(), [r[1] for r in TABLE[1:]],
    ),
    "csv with semicolons": ("a.csv", table_bytes(";"), TextReader(delimiter=";"), [r[1] for r in TABLE[1:]]),
    "csv without a header": (
        "a.csv", table_bytes(rows=TABLE[1:]), TextReader(columns=["u", "t", "n"], text="t"), [r[1] for r in TABLE[1:]],
    ),
    "tsv": ("a.tsv", table_bytes("\t"), TextReader(), [r[1] for r in TABLE[1:]]),
    "a document a line": ("a.txt", "\n".join(LINES).encode(), TextReader(document="line"), LINES),
    "blank lines": ("a.txt", "\n\n \n".join(PROSE).encode(), TextReader(document="blank_lines"), PROSE),
    "blank lines, CRLF": (
        "a.txt", "\r\n\r\n".join(p.replace("\n", "\r\n") for p in PROSE).encode(), TextReader(document="blank_lines"),
        [p.replace("\n", "\r\n") for p in PROSE],
    ),
    "a marker in lines of its own": (
        "a.txt", "\n<|endoftext|>\n".join(PROSE).encode(), TextReader(marker="<|endoftext|>"), PROSE,
    ),
    "a marker between": ("a.txt", "</s>".join(PROSE).encode() + b"</s>", TextReader(marker="</s>"), PROSE),
    "a marker that overlaps itself": ("a.txt", "\n====\n".join(PROSE).encode(), TextReader(marker="===="), PROSE),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_each_form_whole_split_and_compressed(form: str, tmp_path: Path) -> None:
    name, data, reader, wanted = FORMS[form]
    (tmp_path / name).write_bytes(data)
    whole = read(tmp_path, name, reader)
    assert texts(whole) == wanted and not reasons(whole)
    assert len({r["doc_id"] for r in whole}) == len(whole)
    for row in whole:
        where = row["source"]
        stored = data[where["offset"] : where["offset"] + where["length"]]
        original = reader.original(where, str(tmp_path))
        assert original in (stored, stored.strip()) or (where["kind"] == "csv" and json.loads(original))
    for target in (64, 300, 2000, 10**6):
        cut = parts(tmp_path, name, reader, target)
        assert [p.start or 0 for p in cut[1:]] == [p.stop for p in cut[:-1]]
        assert target == 2000 or (len(cut) > 2) == (target < 1000 and "overlaps" not in form)
        assert [r for p in cut for r in read(tmp_path, name, reader, p, 7)] == whole
    for suffix, pack in ((".gz", gzip.compress), (".bz2", bz2.compress)):
        (tmp_path / f"{name}{suffix}").write_bytes(pack(data))
        got = read(tmp_path, f"{name}{suffix}", reader)
        assert [(r["doc_id"], r["text"], r["meta"]) for r in got] == [
            (r["doc_id"], r["text"], r["meta"]) for r in whole
        ]
        assert len(parts(tmp_path, f"{name}{suffix}", reader, 64)) == 1
        assert reader.original(got[17]["source"], str(tmp_path)) == reader.original(whole[17]["source"], str(tmp_path))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_cut_off_when_compressed(form: str, tmp_path: Path) -> None:
    name, data, reader, _ = FORMS[form]
    (tmp_path / name).write_bytes(data)
    whole = read(tmp_path, name, reader)
    stored = gzip.compress(data)
    for cut in range(300, len(stored), 37):
        (tmp_path / f"{name}.gz").write_bytes(stored[:cut])
        try:
            got = read(tmp_path, f"{name}.gz", reader)
        except UnreadableFile as error:
            assert error.offset >= 0
            continue
        found = [t for t in texts(got) if t is not None]
        assert found == texts(whole)[: len(found)] and got[-1]["drop"]["rule"] == "unreadable"


@pytest.mark.parametrize(
    ("data", "wanted", "why"),
    [
        (b'[{"text": "a"}, {"text": "b}, {"text": "c"}]', ["a", None, "c"], "brackets or quotes do not close"),
        (b'[{"text": "a"}, {"text": b}, {"text": "c"}]', ["a", None, "c"], "no JSON: Expecting value"),
        (b'[{"text": "a", {"text": "b"}, {"text": "c"}]', [None, "c"], "brackets or quotes do not close"),
        (b'[{"text": "a"}}, {"text": "b"}]', ["a", None, "b"], "no JSON: Expecting value"),
        (b'[{"text": "a"}, 7, "x", null, [1], {"text": "b"}]', ["a", *[None] * 4, "b"], "no JSON object but int"),
        (b'[{"text": "a"},, {"text": "b"},]', ["a", "b"], ""),
        (b'[{"text": "a"}\n{"text": "b"}', ["a", "b"], ""),
        (b'[{"text": "a"}, {"text": "b', ["a", None], "brackets or quotes do not close"),
        (b'[{"text": "\xff bad"}, {"text": "\\ud800"}]', ["\ufffd bad", "\ufffd"], ""),
        (b"[]", [], ""),
        (b"[" * 300 + b"]" * 300, [None], "nested too deep"),
    ],
)
def test_values_that_are_no_json_end_at_the_next(data: bytes, wanted: list[Any], why: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(data)
    got = read(tmp_path, "a.json")
    assert texts(got) == wanted
    assert why in "".join(reasons(got)[:1]) and bool(why) == bool(reasons(got))
    for target in (1, 20):
        cut = parts(tmp_path, "a.json", TextReader(), target)
        assert [r for p in cut for r in read(tmp_path, "a.json", part=p)] == got


@pytest.mark.parametrize(
    ("data", "wanted", "why"),
    [
        (b'text,n\n"He said "hi" to me",5\nb,6\n', ['He said "hi" to me', "b"], ""),
        (b'text,n\n"stray,5\nb,6\n"c",7\n', ['"stray', "b", "c"], ""),
        (b'text,n\n"a, b,5\n"c",6\n', [None, "c"], "text after a closing quote"),
        (b'text,n\n"a, b",c,5\n"c",6\n', [None, "c"], "more than 2 fields"),
        (b'text,n\na\nb,6\nc,7,8\n\n"d\n\ne",9\n', [None, "b", None, "d\n\ne"], "1 field, and the header has 2"),
        (b'text,n\n"never closed,\nb,6\n', ['"never closed', "b"], ""),
        (b'text,n\n"a\\"b",5\n', ['a\\"b'], ""),
        ("text;n\nGröße und Übermut der Müller;5\n".encode("latin-1"), ["Größe und Übermut der Müller"], ""),
        (b"text,n\n,5\nb,\n", [None, "b"], "empty: "),
        (b"\n\ntext,n\n\n\na,1", ["a"], ""),
    ],
)
def test_rows_that_break_the_rules(data: bytes, wanted: list[Any], why: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    reader = TextReader(delimiter=";" if b";" in data else "")
    got = read(tmp_path, "a.csv", reader)
    assert texts(got) == wanted
    assert why in "".join(reasons(got)[:1]) and bool(why) == bool(reasons(got))
    cut = parts(tmp_path, "a.csv", reader, 1)
    assert [r for p in cut for r in read(tmp_path, "a.csv", reader, p)] == got


def test_quotes_are_letters_in_a_tsv_that_has_none(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(b'n\ttext\n1\t"Yes\n2\tb\n3\t"No" she said\n4\t"quoted\tin full"\n')
    assert texts(read(tmp_path, "a.tsv")) == ['"Yes', "b", '"No" she said', "quoted\tin full"]


def test_a_table_without_the_column_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"body,n\na,1\n")
    with pytest.raises(UnreadableFile, match="no column 'text'; it has body, n"):
        read(tmp_path, "a.csv")
    (tmp_path / "a.csv").write_bytes(b"text,text\na,1\n")
    with pytest.raises(UnreadableFile, match="same name"):
        read(tmp_path, "a.csv")
    (tmp_path / "a.csv").write_bytes("text\nx\n".encode("utf-16"))
    with pytest.raises(UnreadableFile, match="UTF-16"):
        read(tmp_path, "a.csv")


ROWS = [
    {"article": {"title": "A", "body": "one", "n": 1}, "when": {"day": "2024-03-01"}, "x": {"id": "k"}},
    {"article": {"title": None, "body": "two"}, "article.body": "its own name first"},
    {"article": {"title": "C"}},
    {"article": {"title": None, "body": None}},
    {"article": "a string"},
    {"article": {"title": "D", "body": ["a"]}},
]


def test_nested_and_joined_fields(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    got = read(tmp_path, "a.jsonl", TextReader(text="article.body", date="when.day", id="x.id"))
    assert texts(got) == ["one", "its own name first", None, None, None, None]
    assert got[0]["date"].year == 2024 and got[0]["meta"] == '{"article":{"n":1,"title":"A"},"when":{},"x":{"id":"k"}}'
    assert reasons(got) == [
        "unreadable: no field 'article.body'; it has article", "empty: null",
        "unreadable: no field 'article.body'; it has article", "unreadable: field 'article.body' is no string but list",
    ]  # fmt: skip
    got = read(tmp_path, "a.jsonl", TextReader(text=["article.title", "article.body"], join=" | "))
    assert texts(got) == ["A | one", "its own name first", "C", None, None, None]
    assert "no field 'article.title' or 'article.body'; it has article" in reasons(got)[1]


def test_the_fields_that_meta_keeps(tmp_path: Path) -> None:
    rows = [
        {"text": f"t{i}", "image": {"bytes": b"\x89PNG\xff" * 9, "path": "p"}, "embedding": [0.5] * 9, "n": i}
        for i in range(9)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "a.arrow", pa.Table.from_pylist(rows).schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows))
    for name in ("a.parquet", "a.arrow"):
        kept = read(tmp_path, name, TextReader(meta=["n", "image.path", "absent"]))
        assert texts(kept) == [f"t{i}" for i in range(9)] and kept[3]["meta"] == '{"image.path":"p","n":3}'
        assert read(tmp_path, name, TextReader(meta=[]))[0]["meta"] is None
        assert json.loads(read(tmp_path, name)[0]["meta"])["image"] == {"bytes": None, "path": "p"}
        assert texts(read(tmp_path, name, TextReader(text="image.path", meta=[]))) == ["p"] * 9


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delimiter": "ab"}, "one ASCII character"),
        ({"marker": "x", "document": "line"}, "say two things"),
        ({"text": []}, "names no field"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TextReader(**options)


def test_documents_too_large_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_text, "MAX_DOCUMENT", 1 << 17)
    monkeypatch.setattr(json_values, "MAX_VALUE", 1 << 17)
    long = "x" * 400_000
    (tmp_path / "a.txt").write_text(f"a\n\n{long}\n\nb")
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a"}, {"text": long}, {"text": "b"}]))
    for name, reader in (("a.txt", TextReader(document="blank_lines")), ("a.json", TextReader())):
        got = read(tmp_path, name, reader)
        assert texts(got) == ["a", None, "b"] and "er than 131072 bytes" in reasons(got)[0]
        assert got[1]["source"]["length"] >= 400_000


def hostile() -> dict[str, Callable[[int], tuple[str, bytes]]]:
    """Shapes by name: file and bytes of about a size, in each of which every record could be looked for to the end."""
    return {
        "open brackets": lambda n: ("a.json", b"[" + b'{"a": [ }, ' * (n // 11)),
        "open quotes": lambda n: ("a.json", b"[" + b'{"a, ' * (n // 5)),
        "quotes that open and close": lambda n: (
            "a.csv", b"text" + b"".join(b",%d" % i for i in range(n // 16)) + b"\n" + b'x","y\n' * (n // 8)
        ),
        "quotes of one field": lambda n: ("a.csv", b"text,n\n" + b'"a\n' * (n // 3)),
        "quotes that open": lambda n: ("a.tsv", b"text\tn\n" + b'"a\tb\n' * (n // 5)),
    }  # fmt: skip


@pytest.mark.parametrize("shape", hostile())
def test_records_that_never_end_are_searched_for_a_bounded_time(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in bytes read of the stream; without the limit they grow with the square of the file."""
    from curation.sources.compressed_stream import CompressedStream

    monkeypatch.setattr(limits, "FREE_SCANS", 1 << 12)
    monkeypatch.setattr(limits, "FREE_DROPS", 1 << 30)
    looked = 0
    peek = CompressedStream.peek

    def counted(self: CompressedStream, size: int) -> bytes:
        nonlocal looked
        data = peek(self, size)
        looked += len(data)
        return data

    monkeypatch.setattr(CompressedStream, "peek", counted)
    counts = []
    for size in (4_000, 16_000):
        looked = 0
        name, data = hostile()[shape](size)
        (tmp_path / name).write_bytes(data)
        try:
            read(tmp_path, name, size=256)
        except UnreadableFile as error:
            assert "do not close" in error.reason
        counts.append(looked)
    assert counts[1] < 6 * counts[0] + (1 << 17)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(sorted(FORMS)),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=3)), min_size=1, max_size=6),
    st.integers(200, 3000),
)
def test_damage_and_splits(
    tmp_path_factory: pytest.TempPathFactory, form: str, hits: list[tuple[float, bytes]], target: int
) -> None:
    """Bytes overwritten anywhere: the same rows from any splits, each byte that is no blank in one at most."""
    root = tmp_path_factory.mktemp("damage")
    name, data, reader, _ = FORMS[form]
    stored = bytearray(data)
    for where, what in hits:
        at = int(where * (len(stored) - len(what)))
        stored[at : at + len(what)] = what
    (root / name).write_bytes(stored)
    try:
        whole = read(root, name, reader)
        cut = parts(root, name, reader, target)
    except UnreadableFile:
        return
    assert [r for p in cut for r in read(root, name, reader, p)] == whole
    assert len({r["doc_id"] for r in whole}) == len(whole)
    ends = [0]
    for row in whole:
        assert row["source"]["offset"] >= ends[-1]
        ends.append(row["source"]["offset"] + row["source"]["length"])
    assert ends[-1] <= len(stored)
