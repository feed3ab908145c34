"""Exact deduplication, through the stages.

Covers: keep_one.py, text_normalization.py
"""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup import keep_one
from curation.dedup.exact_dedup import ExactDedup
from tests.curation.stages import corpus_of, cut, documents, run, signals


def decide(table, tasks=1, shuffle=None, seed=17, **options):
    parts = cut(table, tasks, shuffle)
    return signals(run(ExactDedup(**options).stages(corpus_of(parts, seed)), parts), parts)


def test_one_of_each_text_stays_and_stands_for_the_others():
    table = documents(["a b", "c", "a  b\n", "a b", ""])
    ids = [v.hex() for v in table["doc_id"].to_pylist()]
    found = decide(table)
    assert set(found) == set(ids)  # a row for every document
    kept = [i for i in (0, 2, 3) if not found[ids[i]]["duplicate"]]
    assert len(kept) == 1
    assert found[ids[kept[0]]] == {"duplicate": False, "of": None, "copies": 3}
    for i in {0, 2, 3} - set(kept):
        assert found[ids[i]] == {"duplicate": True, "of": ids[kept[0]], "copies": None}
    assert found[ids[1]] == found[ids[4]] == {"duplicate": False, "of": None, "copies": 1}


@pytest.mark.parametrize(("normalise", "duplicates"), [("none", 1), ("whitespace", 2), ("words", 4), ("template", 5)])
def test_what_counts_as_the_same_text(normalise, duplicates):
    table = documents(
        ["Straße, ﬁn", "Straße, ﬁn", "Straße,\u3000 ﬁn ", "STRASSE fin", "strasse – fin.", "strässe fin", "other"]
    )
    found = decide(table, normalise=normalise)
    assert sum(s["duplicate"] for s in found.values()) == duplicates


@pytest.mark.parametrize("normalise", ["words", "template"])
def test_marks_are_part_of_words_and_what_nobody_sees_is_not(normalise):
    different = ["दिन", "दान", "दीन", "!!!", "???", "—", "กัน", "กิน", "שָלום", "한국", "水車"]
    found = decide(documents(different), normalise=normalise)
    assert not any(s["duplicate"] for s in found.values())
    same = ["Genossen, 水車", "Ge\u00adnos\u00adsen 水\u200b車", "\ufeffgenossen\u200e 水 車"]
    found = decide(documents(same), normalise=normalise)
    assert sum(s["duplicate"] for s in found.values()) == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="ab \0é😀", max_size=3), max_size=30), st.integers(1, 5), st.integers(0, 9))
def test_against_a_dictionary_and_any_layout(texts, tasks, shuffle):
    table = documents(texts)
    found = decide(table, tasks, shuffle)
    assert found == decide(table)
    groups = defaultdict(list)
    for text, value in zip(texts, table["doc_id"].to_pylist(), strict=True):
        groups[" ".join(text.split())].append(found[value.hex()])
    for group in groups.values():
        assert sum(not s["duplicate"] for s in group) == 1
        assert [s["copies"] for s in group if not s["duplicate"]] == [len(group)]


def test_many_partitions_give_the_same_answer_and_the_seed_another(monkeypatch):
    table = documents([f"text {i % 40}" for i in range(200)])
    once = decide(table)
    monkeypatch.setattr(keep_one, "ROWS_PER_PARTITION", 16)
    assert decide(table, 4, 3) == once
    other = decide(table, seed=18)
    assert other != once
    assert sum(s["duplicate"] for s in other.values()) == sum(s["duplicate"] for s in once.values()) == 160
