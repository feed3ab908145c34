"""Line and paragraph deduplication, through the stages, against a slow and obvious reference.

Covers: line_spans.py
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.dedup import line_dedup, line_spans
from curation.dedup.line_dedup import LineDedup
from curation.dedup.text_normalization import NORMALIZERS
from curation.seeded_hash import hash_with_seed, words
from tests.curation.stages import corpus_of, cut, documents, run, signals

LOOSE: dict[str, Any] = {"span": 1, "min_chars": 0, "normalise": "whitespace"}


def edited(table: pa.Table, tasks: int = 1, shuffle: int | None = None, **options: Any) -> dict[str, tuple[str, dict]]:
    """doc_id -> (the text after the step, the step's signals), in the order of the table."""
    step = LineDedup(**{**LOOSE, **options})
    parts = cut(table, tasks, shuffle)
    found = signals(run(step.stages(corpus_of(parts)), parts, expressions=dict(step.expressions())), parts)
    ids, texts = [v.hex() for v in table["doc_id"].to_pylist()], table["text"].combine_chunks()
    kind = pa.struct(list(step.signals))
    after = step.edit(texts, pa.array([found[i] for i in ids], kind)).to_pylist()
    return {i: (text, found[i]) for i, text in zip(ids, after, strict=True)}


def texts_of(answer: dict[str, tuple[str, dict]]) -> list[str]:
    return [text for text, _ in answer.values()]


def obvious(table: pa.Table, unit: str, span: int, min_documents: int) -> list[list[bool]]:
    """For each document which of its units go: all spans of all documents in a dictionary."""
    texts, ids = table["text"].to_pylist(), table["doc_id"].combine_chunks()
    place = list(zip(hash_with_seed(ids, 17, "line_dedup").tolist(), words(ids)[:, 0].tolist(), strict=True))
    units = [[" ".join(t[a:b].split()) for a, b in line_spans.units(t, unit)] for t in texts]
    holders: dict[tuple[str, ...], set[int]] = {}
    for d, mine in enumerate(units):
        for i in range(len(mine) - span + 1):
            holders.setdefault(tuple(mine[i : i + span]), set()).add(d)
    gone = [[False] * len(mine) for mine in units]
    for d, mine in enumerate(units):
        for i in range(len(mine) - span + 1):
            who = holders[tuple(mine[i : i + span])]
            if len(who) >= min_documents and min(who, key=place.__getitem__) != d:
                gone[d][i : i + span] = [True] * span
    return gone


LINE = st.text(alphabet="ab \0\té😀\r\u0301", max_size=3)
TEXT = st.lists(LINE, max_size=8).map("\n".join)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(TEXT, max_size=12), st.sampled_from(["line", "paragraph"]), st.integers(1, 3), st.integers(2, 3),
    st.integers(1, 4), st.integers(0, 9),
)  # fmt: skip
def test_against_a_dictionary_and_any_layout(texts, unit, span, min_documents, tasks, shuffle):
    table = documents(texts)
    options = {"unit": unit, "span": span, "min_documents": min_documents}
    answer = edited(table, **options)
    assert answer == edited(table, tasks, shuffle, **options)
    gone = obvious(table, unit, span, min_documents)
    for text, (after, found), mine in zip(texts, answer.values(), gone, strict=True):
        assert (found["units"], found["repeated"]) == (len(mine), sum(mine))
        left = [
            " ".join(text[a:b].split()) for (a, b), g in zip(line_spans.units(text, unit), mine, strict=True) if not g
        ]
        # pieces that go take blank lines along, so what stood apart may become one paragraph, but no line is lost
        assert " ".join(after.split()) == " ".join(" ".join(left).split())
        pieces = line_spans.load(found["cut"]) if found["cut"] else []
        assert line_spans.restore(after, pieces) == text
        assert found["share"] == (sum(len(p) for _, p in pieces) / len(text) if pieces else 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, max_size=12), st.integers(1, 3))
def test_nothing_is_lost_from_the_corpus(texts, span):
    """Whatever is cut somewhere still stands elsewhere, chains of overlapping spans included."""
    after = texts_of(edited(documents(texts), span=span))

    def all_units(many):
        return {" ".join(t[a:b].split()) for t in many for a, b in line_spans.units(t, "line")}

    assert all_units(after) == all_units(texts)


@settings(max_examples=100, deadline=None)
@given(TEXT, st.sampled_from(["line", "paragraph"]), st.integers(0, 2**12))
def test_any_units_can_be_cut_and_put_back(text, unit, mask):
    where = line_spans.units(text, unit)
    gone = [bool(mask >> i & 1) for i in range(len(where))]
    pieces = line_spans.pieces_to_cut(text, where, gone)
    assert pieces == sorted(pieces) and all(p for _, p in pieces)
    after = line_spans.cut(text, pieces)
    assert line_spans.restore(after, line_spans.load(line_spans.dump(pieces))) == text
    if not any(gone):
        assert after == text


def test_menus_go_and_prose_stays():
    menu, foot = "Home | News | About\nSearch this site", "Copyright 2026 The Mill"
    stories = ["The wheel turns with the water.\nIt grinds.", "Rye is harder than wheat.", "See also", "Bran\n\nOats"]
    texts = [f"{menu}\n\n{story}\n\n{foot}" for story in stories]
    answer = edited(documents(texts), span=1, normalise="words", min_chars=12)
    whole = [text for text in texts_of(answer) if menu in text and foot in text]
    assert len(whole) == 1  # the first keeps the lot
    others = [(t, s) for t, s in zip(texts_of(answer), stories, strict=True) if t not in whole]
    assert [t for t, _ in others] == [s for _, s in others]
    # in spans of three, a short line that is the same by chance stays, and so does a footer of two lines
    apart = ["one\nSee also\ntwo", "three\nSee also\nfour", f"five\n{foot}", f"six\n{foot}"]
    assert texts_of(edited(documents(apart), span=3)) == apart
    assert sum("See also" in t for t in texts_of(edited(documents(apart)))) == 1


def test_a_document_may_repeat_itself():
    texts = ["a\nb\na\na", "c\na\nd\na"]
    after = sorted(texts_of(edited(documents(texts))))
    assert after in (["a\nb\na\na", "c\nd"], ["b\n", "c\na\nd\na"], ["b", "c\na\nd\na"])


def test_options_say_what_is_the_same_and_where():
    texts = ["Page 12 of 40 — The Mill\nx", "page 7 of 9: the mill!\ny"]
    counts = {form: sum(s["repeated"] for _, s in edited(documents(texts), normalise=form).values())
              for form in NORMALIZERS}  # fmt: skip
    assert counts == {"none": 0, "whitespace": 0, "words": 0, "template": 0}
    texts = ["Page 12 of 40 — The Mill\nx", "page 72 of 90: the mill!\ny"]
    assert sum(s["repeated"] for _, s in edited(documents(texts), normalise="template").values()) == 1
    urls = ["http://a.org/1", "https://www.a.org/2", "http://b.org/1", None]
    table = documents(["same line"] * 4, url=urls, domain=["x", "x", "y", "y"])
    repeated = {scope: sum(s["repeated"] for _, s in edited(table, scope=scope).values())
                for scope in ("all", "site", "domain", "source")}  # fmt: skip
    assert repeated == {"all": 3, "site": 1, "domain": 2, "source": 2}
    assert sum(s["repeated"] for _, s in edited(table, min_documents=5).values()) == 0
    assert sum(s["repeated"] for _, s in edited(table, min_chars=10).values()) == 0
    for bad in ({"span": 0}, {"min_chars": -1}, {"min_documents": 1}, {"scope": ""}):
        with pytest.raises(UserError):
            LineDedup(**bad).check()


def test_no_partition_grows_with_a_line_that_is_in_every_document(monkeypatch):
    """A task sends a line once, however many of its documents have it; parts that were merged apart agree."""
    table = documents([f"everywhere\nonly {i}" for i in range(300)])
    parts = cut(table, 3)
    ran = run(LineDedup(**LOOSE).stages(corpus_of(parts)), parts)
    assert ran.widest["owners"] == 300 + 3
    assert ran.widest["cut"] == 1
    expected = edited(table, 3)
    monkeypatch.setattr(line_dedup, "PENDING_SPANS", 16)
    monkeypatch.setattr(line_dedup, "TEXT_PER_PARTITION", 64)
    assert edited(table, 3) == expected


def test_half_a_hash_may_be_shared():
    """Spans are told apart by all 16 bytes, also where the first 8 are equal."""
    made = [bytes([1]) * 8 + bytes([i]) * 8 for i in range(5)]
    told = pa.RecordBatch.from_arrays(
        [pa.array([0] * 4, pa.uint32()), pa.array(made[:4], pa.binary(16)), pa.array([10, 11, 12, 13])],
        schema=line_dedup._OWNERS,
    )
    repeated = line_dedup._RepeatedSpans(iter([told]))
    assert repeated.owner([made[4], *made[:4], b"\0" * 16]).tolist() == [-1, 10, 11, 12, 13, -1]
