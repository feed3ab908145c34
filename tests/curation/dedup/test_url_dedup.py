"""One document per URL, through the stages.

Covers: curation/canonical_url.py
"""

from __future__ import annotations

import datetime
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.canonical_url import canonicalize_url
from curation.dedup import keep_one
from curation.dedup.url_dedup import UrlDedup
from tests.curation.stages import corpus_of, cut, documents, run, signals

SAME = [
    "http://example.org/a/b?x=1&y=2",
    "https://www.Example.org:443/a/b/?y=2&x=1#part",
    "HTTP://EXAMPLE.ORG:80/a/./c/../b?utm_source=mail&x=1&UTM_medium=x&y=2&fbclid=7",
    "http://example.org/%61/b?x=%31&y=2",
    " http://example.org./a/b?x=1&y=2&",
]
OTHER = [
    "http://example.org/a/b?x=1&y=3",
    "http://example.org/A/b?x=1&y=2",
    "http://example.org:8080/a/b?x=1&y=2",
    "http://example.com/a/b?x=1&y=2",
    "http://example.org/a%2Fb?x=1&y=2",
    "http://example.org/?x=1&y=2",
    "http://[::1/", "mailto:me", "", "http://example.org:port/",
]  # fmt: skip


def test_spellings_of_one_address_are_one():
    assert {canonicalize_url(u) for u in SAME} == {"//example.org/a/b?x=1&y=2"}
    assert len({canonicalize_url(u) for u in OTHER}) == len(OTHER)
    assert canonicalize_url("http://e.org") == canonicalize_url("https://e.org//") == "//e.org/"
    assert canonicalize_url("http://e.org/%c3%a9%7E") == "//e.org/%C3%A9~"
    assert canonicalize_url("http://e.org/?s=1&t=2", ["s"]) == "//e.org/?t=2"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30) | st.text(alphabet="htp:/.%2Fa?=&#[]@", max_size=30).map("http://e.org/".__add__))
def test_normalising_takes_anything(url):
    assert isinstance(canonicalize_url(url), str)


def decide(table, tasks=1, shuffle=None, **options):
    parts = cut(table, tasks, shuffle)
    return signals(run(UrlDedup(**options).stages(corpus_of(parts)), parts), parts)


def day(n):
    return None if n is None else datetime.datetime(2026, 1, 1 + n)


def test_the_latest_the_earliest_or_the_longest_stays():
    table = documents(["xx", "xxxx", "x", "xxx"], url=SAME[:4], date=[day(3), day(1), None, day(7)])
    ids = [v.hex() for v in table["doc_id"].to_pylist()]
    for prefer, stays in (("latest", 3), ("earliest", 1), ("longest", 1)):
        found = decide(table, prefer=prefer)
        assert [not found[i]["duplicate"] for i in ids] == [k == stays for k in range(4)]
        assert {found[i]["of"] for k, i in enumerate(ids) if k != stays} == {ids[stays]}
        assert found[ids[stays]] == {"duplicate": False, "of": None, "copies": 4}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([None, *SAME, *OTHER]), st.none() | st.integers(0, 3)), max_size=30),
    st.sampled_from(["latest", "earliest"]), st.integers(1, 5), st.integers(0, 9),
)  # fmt: skip
def test_against_a_dictionary_and_any_layout(rows, prefer, tasks, shuffle):
    table = documents(["t"] * len(rows), url=[u for u, _ in rows], date=[day(d) for _, d in rows])
    found = decide(table, tasks, shuffle, prefer=prefer)
    assert found == decide(table, prefer=prefer)
    groups = defaultdict(list)
    for (url, date), doc in zip(rows, table["doc_id"].to_pylist(), strict=True):
        if url is None:
            assert doc.hex() not in found  # no row: its signals are null, and it stays
        else:
            groups[canonicalize_url(url)].append((date, found[doc.hex()]))
    for group in groups.values():
        dates = [d for d, _ in group if d is not None]
        (kept,) = [d for d, s in group if not s["duplicate"]]
        assert kept == ((max if prefer == "latest" else min)(dates) if dates else None)
        assert [s["copies"] for _, s in group if not s["duplicate"]] == [len(group)]


def test_many_partitions_give_the_same_answer(monkeypatch: pytest.MonkeyPatch):
    table = documents(["t"] * 200, url=[f"http://e.org/{i % 40}" for i in range(200)])
    once = decide(table)
    monkeypatch.setattr(keep_one, "ROWS_PER_PARTITION", 16)
    assert decide(table, 4, 3) == once
    assert sum(s["duplicate"] for s in once.values()) == 160
