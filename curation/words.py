"""Cuts text of any script into words: the one definition for all steps that compare texts.

A *word* is a run of letters, marks, digits and underscores. In scripts written without spaces (Han, kana, Thai, Lao,
Khmer, Burmese and relatives) each letter is a word by itself, with the marks on it, and so is an emoji. White space and
all other characters separate words. Where UAX 29 (Unicode text segmentation) joins over a mark of punctuation ("can't",
"3.14"), a word ends: texts are compared without their punctuation. Words of spaceless scripts need a dictionary, which
UAX 29 leaves to the application; single letters do not depend on one, nor on where a run begins.

What nobody sees does not count: format characters (category Cf: soft hyphens, zero-width spaces and joiners, byte order
marks, direction marks), variation selectors, the Arabic tatweel and emoji modifiers are skipped, and cut no word apart.

Words are compared in a *folded* form, one code point to one: compatibility forms (NFKC: full and half width,
presentation forms), case (Unicode case folding), decimal digits of every script as 0 to 9, and kana without voicing
marks, because half-width text writes them as characters of their own. Foldings to several characters ("ß" to "ss") are
left out, which `fold_text` does have.

Kernels read one table entry per character: its class in the top byte and its folded form below.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Any

import numpy as np
import numpy.typing as npt

# Classes of characters. MARK continues any word, also a letter that is a word by itself; SKIPPED is as if absent.
SEPARATOR, PART, ALONE, MARK, SKIPPED, SPACE = range(6)
CLASS_SHIFT = 24  # the class is entry >> 24, the folded code point entry & 0xFFFFFF

TABLE_SIZE = 0xE0200  # code points above are unassigned, private, or variation selectors: separators

# Scripts written without spaces between words: first and last code point, and letters per word of running text, about
# the length of dictionary words.
UNSPACED_SCRIPTS = (
    (0x0E00, 0x0EFF, 4),  # Thai, Lao
    (0x1000, 0x109F, 4),  # Burmese
    (0x1780, 0x17FF, 4),  # Khmer
    (0x1950, 0x19DF, 4),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF, 4),  # Tai Tham
    (0x1B00, 0x1B7F, 4),  # Balinese
    (0x2E80, 0x2FDF, 2),  # Han radicals
    (0x3005, 0x3007, 2),  # Han iteration mark and zero
    (0x3021, 0x30FF, 4),  # Hiragana, Katakana
    (0x31F0, 0x31FF, 4),
    (0x3400, 0x4DBF, 2),  # Han
    (0x4E00, 0x9FFF, 2),
    (0xA980, 0xA9FF, 4),  # Javanese, Burmese
    (0xAA60, 0xAADF, 4),  # Burmese, Tai Viet
    (0xF900, 0xFAFF, 2),
    (0xFF66, 0xFF9F, 4),  # half-width Katakana
    (0x1B000, 0x1B16F, 4),
    (0x20000, 0x3FFFF, 2),
)

# Large blocks of letters of one class that fold to themselves; all others are looked at one by one.
_LARGE_BLOCKS = (
    (0x3400, 0x4DBF, ALONE),  # Han
    (0x4E00, 0x9FFF, ALONE),
    (0xAC00, 0xD7A3, PART),  # Hangul
    (0x17000, 0x18CFF, PART),  # Tangut
    (0x20000, 0x2F7FF, ALONE),  # Han
    (0x2FA20, 0x3FFFF, ALONE),
)
_SMALL_BLOCKS = (
    *((0, 0x33FF), (0x4DC0, 0x4DFF), (0xA000, 0xABFF), (0xD7B0, 0xD7FF), (0xF900, 0x16FFF), (0x18D00, 0x1FFFF)),
    *((0x2F800, 0x2FA1F), (0xE0000, TABLE_SIZE - 1)),
)

_VOICING = "\u3099\u309a\u309b\u309c\uff9e\uff9f"
_INVISIBLE = "\u034f\u0640\u180b\u180c\u180d\u180f" + "".join(map(chr, range(0xFE00, 0xFE10))) + _VOICING
_KANA = range(0x3040, 0x3100)


def fold_character(char: str) -> str:
    """The folded form of a character: one character."""
    folded = char
    if unicodedata.decomposition(char):
        compatible = unicodedata.normalize("NFKC", char)
        folded = compatible if len(compatible) == 1 else char
        if ord(folded) in _KANA:
            folded = unicodedata.normalize("NFD", folded)[0]
    small = folded.casefold()
    if len(small) != 1:
        small = folded.lower()
    folded = small if len(small) == 1 else folded
    return str(int(folded)) if folded.isdecimal() else folded


def classify_character(char: str) -> int:
    """The class of a character: SEPARATOR, PART, ALONE, MARK, SKIPPED or SPACE."""
    if char.isspace():
        return SPACE
    code, category = ord(char), unicodedata.category(char)
    if category == "Cf" or char in _INVISIBLE or 0x1F3FB <= code <= 0x1F3FF or 0xE0100 <= code <= 0xE01EF:
        return SKIPPED
    if category[0] == "M":
        return MARK
    if category[0] in "LN" or fold_character(char) == "_":
        return ALONE if category[0] == "L" and is_unspaced(code) else PART
    if category == "So" and code >= 0x2600:  # dingbats, emoji
        return ALONE
    return SEPARATOR


def is_unspaced(code: int) -> bool:
    """Whether a code point belongs to a script written without spaces between words."""
    return any(first <= code <= last for first, last, _ in UNSPACED_SCRIPTS)


@functools.cache
def character_table() -> npt.NDArray[np.uint32]:
    """The entry of each code point, uint32[TABLE_SIZE]: class << 24 | folded code point. Built once per process."""
    table = np.zeros(TABLE_SIZE, np.uint32)
    for first, last in _SMALL_BLOCKS:
        for code in range(first, last + 1):
            char = chr(code)
            if unicodedata.category(char) not in ("Cn", "Co"):
                table[code] = classify_character(char) << CLASS_SHIFT | ord(fold_character(char))
    for first, last, kind in _LARGE_BLOCKS:
        table[first : last + 1] = np.arange(first, last + 1, dtype=np.uint32) | np.uint32(kind << CLASS_SHIFT)
    return table


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(words, skipped characters) of text that is not ASCII."""
    classes = character_table() >> np.uint32(CLASS_SHIFT)

    def characters(kind: int) -> str:
        found = np.flatnonzero(classes == kind)
        ends = np.flatnonzero(np.diff(found) > 1)
        firsts, lasts = found[np.r_[0, ends + 1]], found[np.r_[ends, len(found) - 1]]
        return "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in zip(firsts, lasts, strict=True))

    part, alone, mark = characters(PART), characters(ALONE), characters(MARK)
    return re.compile(f"[{alone}][{mark}]*|[{part}{mark}]+"), re.compile(f"[{characters(SKIPPED)}]")


_ASCII_WORD = re.compile(r"\w+", re.ASCII)
# Text of these characters alone, most text in Latin, Greek and Cyrillic, has neither marks nor characters to skip, so
# that Python's own class of word characters is the same and five times as fast.
_SIMPLE = re.compile("[\x00-\xac\xae-\u02ff\u0370-\u0482\u048a-\u052f\u2010-\u2027\u2030-\u205e\u20a0-\u20bf]*")
_SIMPLE_WORD = re.compile(r"\w+")


def fold_text(text: str) -> str:
    """The text as it is compared, in full: NFKC, case folded (also to several characters), without what is skipped."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKC", text).casefold()
    if _SIMPLE.fullmatch(folded):
        return folded
    # voiced kana stay composed, and half-width ones have become so: only what is left over is skipped
    return _patterns()[1].sub("", unicodedata.normalize("NFC", folded))


def words(text: str) -> list[str]:
    """The words of a text, folded in full.

    >>> words("Ge\\u00adnossen, can't: 水車 x_1")
    ['genossen', 'can', 't', '水', '車', 'x_1']
    """
    folded = fold_text(text)
    if folded.isascii():
        return _ASCII_WORD.findall(folded)
    return (_SIMPLE_WORD if _SIMPLE.fullmatch(folded) else _patterns()[0]).findall(folded)


def estimate_words(text: str) -> float:
    """About how many words a reader would count: a letter of Han is half a word, of Thai or kana a quarter."""
    if text.isascii():
        return float(len(_ASCII_WORD.findall(text)))
    total = 0.0
    for word in words(text):
        code = ord(word[0])
        total += next((1 / n for first, last, n in UNSPACED_SCRIPTS if first <= code <= last), 1.0)
    return total


def entry(table: Any, code: int) -> tuple[int, int]:
    """(class, folded code point) of a code point in the table, as kernels read it."""
    value = int(table[code]) if code < TABLE_SIZE else 0
    return value >> CLASS_SHIFT, value & 0xFFFFFF
