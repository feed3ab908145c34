"""Every statistic equals a reference in plain Python, on generated and on real text.

Covers: c4_kernels.py, line_kernels.py, repetition_kernels.py, hash_table.py, character_classes.py
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curation.document import clean_text
from curation.quality.heuristics.heuristics import Heuristics
from tests.curation.quality.heuristics.reference import measure, reference, texts_


@settings(max_examples=150, deadline=None)
@given(st.lists(texts_, min_size=1, max_size=4))
@example(["", "a", "\n", "one word only", "same line\nsame line\nsame line", "a b " * 50])
def test_every_statistic_equals_the_reference(texts: list[str]) -> None:
    for text, found in zip(texts, measure(list(texts)), strict=True):
        assert found == pytest.approx(reference(text), abs=1e-12), text
    for text, found in zip(texts, measure(list(texts), c4_terminal=False), strict=True):
        assert found == pytest.approx(reference(text, any_end=True), abs=1e-12), text


def test_real_text_equals_the_reference(data: Path) -> None:
    lines = (data / "lid" / "sentences.tsv").read_text(encoding="utf-8").strip("\n").split("\n")
    by_language: dict[str, list[str]] = {}
    for line in lines:
        code, sentence = line.split("\t", 1)
        by_language.setdefault(code, []).append(sentence)
    texts = [clean_text("\n".join(s[:40])) for s in by_language.values()]
    assert len(texts) >= 75
    for text, found in zip(texts, measure(list(texts)), strict=True):
        assert found == pytest.approx(reference(text), abs=1e-12), text[:200]


def test_rows_are_independent_and_slices_and_nulls_are_read_right() -> None:
    texts = ["first text.\n" * 3, None, "", "Ünïcode — テスト", "last"]
    whole = measure(texts)
    assert [measure([t])[0] for t in texts] == whole
    assert whole[1] == whole[2]
    step = Heuristics()
    batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
    step.open()
    sliced = step(batch.slice(2, 2)).column("heuristics").to_pylist()
    assert sliced == whole[2:4]
    assert measure([]) == []


def test_ten_megabytes_in_one_line() -> None:
    word, line = "x" * 10_000_000, "abc def " * 1_250_000
    one, many = measure([word, line])
    assert (one["words"], one["mean_word_length"]) == (1, 10_000_000)
    assert many["words"] == 2_500_000
    assert many["top_2gram"] == pytest.approx(7 * 1_250_000 / 10_000_000)
