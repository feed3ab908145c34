"""Hashed words are the words of curation/words.py: equal where those are equal, with their places in the bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import words
from curation.word_hashes import hash_words

ALPHABET = "ab Z\u00e9e\u0301\u00df\n\u3000日本ーけがกัน한국दिन\u00ad\u200b\ufe0f😀👍🏽_-.1１٣\0Ω\u2028𝒳ﾊ"


def hashed(text: str, with_bounds: bool = True) -> tuple[list[int], list[str]]:
    data = np.frombuffer(text.encode(), np.uint8)
    out, bounds = np.zeros(len(data) + 1, np.uint64), np.zeros((len(data) + 1, 2), np.int64)
    count = hash_words(data, 0, len(data), words.character_table(), out, bounds if with_bounds else None)
    return out[:count].tolist(), [data[a:b].tobytes().decode() for a, b in bounds[:count].tolist()]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(ALPHABET), max_size=40))
def test_words_and_places(text: str) -> None:
    found, written = hashed(text)
    assert found == hashed(text, with_bounds=False)[0]
    assert [len(words.words(w)) for w in written] == [1] * len(written)
    for value, part in zip(found, written, strict=True):
        assert hashed(part)[0] == [value]  # a word by itself has the same hash
    plain = [w for part in written for w in words.words(part)]
    assert plain == words.words(text)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Straße", "STRAẞE"),
        ("Ｆｕｌｌ１２", "full12"),
        ("ｶﾞｷﾞ", "ガギ"),
        ("٣٤", "34"),
        ("Ge\u00adnossen", "genossen"),
        ("ΣΟΦΟΣ", "σοφος"),
    ],
)
def test_folded_forms_are_equal(left: str, right: str) -> None:
    assert hashed(left)[0] == hashed(right)[0]


def test_truncated_bytes_do_not_read_beyond_the_end() -> None:
    for size in range(1, 5):
        data = np.frombuffer(b"\xf0\x9f\x98\x80"[:size], np.uint8)
        out = np.zeros(8, np.uint64)
        assert hash_words(data, 0, size, words.character_table(), out, None) <= size
