"""What a word is, in many scripts, against UAX 29 as the regex package has it, and against plain Unicode categories."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
import regex

from curation import words

LANGUAGES = ("en", "de", "ru", "el", "ar", "fa", "he", "hi", "mr", "bn", "ta", "te", "ko", "ka", "hy")


def sentences(data: Path, language: str) -> list[str]:
    lines = (
        line.split("\t", 1) for line in (data / "lid/sentences.tsv").read_text(encoding="utf-8").split("\n") if line
    )
    return [text for code, text in lines if code == language]


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_those_of_uax_29_without_their_punctuation(data: Path, language: str) -> None:
    for text in sentences(data, language):
        segments = regex.findall(r"(?V1w)\b{w}.+?\b{w}", text) or regex.split(r"(?V1)\b{w}", text)
        whole = [s for s in segments if regex.search(r"[\p{L}\p{N}]", s)]
        parts = [p for s in whole for p in words.words(s)]
        assert parts == words.words(text), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World 42!", ["hello", "world", "42"]),
        ("snake_case can't", ["snake_case", "can", "t"]),
        ("दिन दान दीन", ["दिन", "दान", "दीन"]),
        ("水車は回る", ["水", "車", "は", "回", "る"]),
        ("กันยา", ["กั", "น", "ย", "า"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("Ge\u00adnos\u00adsen zero\u200bwidth \ufeffBOM", ["genossen", "zerowidth", "bom"]),
        ("می\u200cخواهم كتــــاب", ["میخواهم", "كتاب"]),
        ("ﾊﾝｶｸ ｶﾞｷﾞ", ["ハ", "ン", "カ", "ク", "ガ", "ギ"]),
        ("Ｆｕｌｌ１２", ["full12"]),
        ("👍🏽 ok ❤\ufe0f", ["👍", "ok", "❤"]),
        ("!!! — ???", []),
        ("", []),
    ],
)
def test_what_a_word_is(text: str, expected: list[str]) -> None:
    assert words.words(text) == [unicodedata.normalize("NFKC", w) for w in expected]


def test_characters_nobody_sees_change_no_word(data: Path) -> None:
    rng = random.Random(1)
    hidden = "\u00ad\u200b\u200c\u200d\u2060\ufeff\u200e\u200f\u202a\ufe0f\U000e0061"
    for language in ("en", "de", "ru", "ar", "he", "hi", "zh", "ja", "ko", "th"):
        for text in sentences(data, language)[:40]:
            planted = "".join(c + rng.choice(hidden) if rng.random() < 0.3 else c for c in text)
            assert words.words(planted) == words.words(text), (language, text)


def test_the_table_is_the_definition() -> None:
    table = words.character_table()
    rng = random.Random(2)
    for code in (*range(0x3000), *rng.sample(range(0x3000, words.TABLE_SIZE), 20_000)):
        char = chr(code)
        if unicodedata.category(char) in ("Cs", "Co", "Cn") or 0x17000 <= code <= 0x18CFF:
            continue
        assert words.entry(table, code) == (words.classify_character(char), ord(words.fold_character(char))), hex(code)


def test_words_are_estimated_alike_in_every_script() -> None:
    assert words.estimate_words("How many apples are there?") == 5
    assert words.estimate_words("水車は山の中") == pytest.approx(4 * 0.5 + 2 * 0.25)
    assert words.estimate_words("") == 0
