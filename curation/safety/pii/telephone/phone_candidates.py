"""Kernels that find the candidates for telephone numbers in a text, and tell dates and page numbers from them.

A candidate is a match of phonenumbers' _PATTERN: up to 21 blocks of digits with up to four characters of punctuation
between them, perhaps with brackets or plus signs before and an extension after.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from curation.kernels import kernel

# What a character is to phonenumbers. A digit's value is in the bits from DIGIT_VALUE on.
PUNCTUATION, LEAD, PLUS, OPENS, CLOSES, BLANK = 1, 2, 4, 8, 16, 32
ASKED, REFUSED, DIGIT, DIGIT_VALUE = 64, 128, 256, 9  # left to the library; not allowed beside a number
_SEPARATOR, _LABEL = 1 << 13, 14  # before the word for an extension; from this bit on, a letter of such a word
_LABEL_LETTERS = (
    "eEｅＥ",
    "xXｘＸ",
    "tTｔＴ",
    "nNｎＮ",
    "iIıİｉＩ",
    "aA",
    "дД",
    "оО",
    "#＃~～",
    ";",
    ":.．",
)  # 1 to 11

_MAX_BLOCK, _MAX_BLOCKS, _MAX_PUNCTUATION = 20, 20, 4
CHARS, KINDS = nb.int32[::1], nb.int32[::1]


@functools.cache
def character_table() -> np.ndarray[Any, np.dtype[np.int32]]:
    import re
    import sys
    import unicodedata

    from phonenumbers import PhoneNumberMatcher, phonenumberutil

    table = np.zeros(sys.maxunicode + 1, np.int32)
    punctuation = re.compile(f"[{phonenumberutil._VALID_PUNCTUATION}]")
    latin, refused = PhoneNumberMatcher._is_latin_letter, PhoneNumberMatcher._is_invalid_punctuation_symbol
    for code in (*range(0x20000), *range(0xE0000, 0xE0200)):
        c = chr(code)
        category = unicodedata.category(c)
        if category == "Nd":
            table[code] |= DIGIT | unicodedata.digit(c) << DIGIT_VALUE
        elif code < 0x10000:
            if punctuation.match(c):
                table[code] |= PUNCTUATION
                if c.isalnum() or c in "~⁓∼～":
                    table[code] |= ASKED
            if c.isspace():
                table[code] |= BLANK
            if category == "Sc" or (code < 0x2000 and latin(c)) or refused(c):
                table[code] |= REFUSED
    for c in "([（［":
        table[ord(c)] |= LEAD | OPENS
    for c in ")]）］":
        table[ord(c)] |= CLOSES
    for c in "+＋":
        table[ord(c)] |= LEAD | PLUS
    for c in " \xa0\t,":
        table[ord(c)] |= _SEPARATOR
    for number, letters in enumerate(_LABEL_LETTERS, 1):
        for c in letters:
            table[ord(c)] |= number << _LABEL
    return table


@kernel(nb.boolean(CHARS, KINDS, nb.int64, nb.int64))
def _leads(chars, kinds, i, j):  # type: ignore[no-untyped-def]
    """Whether chars[i:j] is one or two brackets or plus signs, each before up to four characters of punctuation."""
    for second in range(i, min(i + _MAX_PUNCTUATION + 2, j)):
        if j - second - 1 > _MAX_PUNCTUATION or not kinds[chars[second]] & LEAD:
            continue
        plain = True
        for k in range(i + 1, j):
            plain = plain and (k == second or kinds[chars[k]] & PUNCTUATION != 0)
        if plain:
            return True
    return False


@kernel(nb.boolean(CHARS, KINDS, nb.int64, nb.int64))
def _may_be_extended(chars, kinds, n, at):  # type: ignore[no-untyped-def]
    """Whether an extension may follow: `;ext=`, `ext`, `x 5`, `#5`, `int`, `anexo`, `доб`, ` 503#`."""
    i = at
    while i < n and kinds[chars[i]] & _SEPARATOR:
        i += 1
    label = 0  # of the next three letters
    for j in range(i, i + 3):
        label = label << 4 | (kinds[chars[j]] >> _LABEL if j < n else 0)
    first = label >> 8
    if first == 1 or first == 5 or first == 6:  # ext, int, ane(xo)
        return label == 0x123 or label == 0x543 or label == 0x641
    if first == 7 or first == 10:  # до(б), and ;e(xt=), which no blank comes before
        return label >> 4 == 0x78 or (label >> 4 == 0xA1 and i == at)
    if first == 2 or first == 9:  # x or #, then perhaps a stop, then blanks, then digits; or xt
        if label >> 4 == 0x23:
            return True
        i += 1
        if i < n and kinds[chars[i]] >> _LABEL == 11:
            i += 1
        while i < n and (kinds[chars[i]] & _SEPARATOR or chars[i] == 45):
            i += 1
        return i < n and kinds[chars[i]] & DIGIT != 0
    i = at
    while i < n and (chars[i] == 32 or chars[i] == 45):
        i += 1
    j = i
    while j < n and j - i < 7 and kinds[chars[j]] & DIGIT:
        j += 1
    return i > at and i < j < n and chars[j] == 35


@kernel(nb.types.Tuple((nb.int64, nb.int64, nb.boolean))(CHARS, KINDS, nb.int64, nb.int64))  # type: ignore[no-untyped-call]
def next_candidate(chars, kinds, n, at):  # type: ignore[no-untyped-def]
    """(start, end, whether the library has to look at it) of the next match of phonenumbers' _PATTERN, or (-1, ...)."""
    start = -1
    first = -1
    for i in range(at, n):
        k = kinds[chars[i]]
        if k & DIGIT:
            start = first = i
            break
        if k & LEAD:
            j = i + 1
            while j < n and j - i <= 2 * _MAX_PUNCTUATION + 1 and kinds[chars[j]] & (PUNCTUATION | LEAD):
                j += 1
            if j < n and kinds[chars[j]] & DIGIT and _leads(chars, kinds, i, j):
                start = i
                first = j
                break
    if start < 0:
        return -1, -1, False
    end = first
    asked = False
    for block in range(_MAX_BLOCKS + 1):
        j = end
        if block:
            while j < n and j - end < _MAX_PUNCTUATION and kinds[chars[j]] & PUNCTUATION:
                j += 1
            if j == n or not kinds[chars[j]] & DIGIT:
                break
            for k in range(end, j):
                asked = asked or kinds[chars[k]] & ASKED != 0
        end = j
        while end < n and end - j < _MAX_BLOCK and kinds[chars[end]] & DIGIT:
            end += 1
    for k in range(start, first):
        asked = asked or kinds[chars[k]] & ASKED != 0
    return start, end, asked or _may_be_extended(chars, kinds, n, end)


@kernel(nb.boolean(CHARS, KINDS, nb.int64, nb.int64, nb.int64))
def is_date(chars, kinds, start, end, n):  # type: ignore[no-untyped-def]
    """Whether phonenumbers takes a candidate for a date with slashes or for a time stamp."""
    for i in range(start + 1, end - 3):
        if chars[i] == 47 and kinds[chars[i - 1]] & DIGIT and kinds[chars[i + 1]] & DIGIT:
            j = i + 2
            if kinds[chars[j]] & DIGIT and 48 <= chars[i + 1] <= 51:
                j += 1
            if j + 2 < end and chars[j] == 47 and kinds[chars[j + 1]] & DIGIT and kinds[chars[j + 2]] & DIGIT:
                return True
    # [12]\d{3}[-/]?[01]\d[-/]?[0-3]\d +[0-2]\d, then the minutes
    if end + 2 >= n or chars[end] != 58 or not 48 <= chars[end + 1] <= 53 or not kinds[chars[end + 2]] & DIGIT:
        return False
    i = end - 2
    if i <= start or not 48 <= chars[i] <= 50 or chars[i - 1] != 32:
        return False
    while i > start and chars[i - 1] == 32:
        i -= 1
    for most in (51, 49):  # day and month, which may have a hyphen or slash before them
        i -= 2
        if i < start or not 48 <= chars[i] <= most or not kinds[chars[i + 1]] & DIGIT:
            return False
        if i > start and (chars[i - 1] == 45 or chars[i - 1] == 47):
            i -= 1
    i -= 4
    if i < start or not 49 <= chars[i] <= 50:
        return False
    return kinds[chars[i + 1]] & kinds[chars[i + 2]] & kinds[chars[i + 3]] & DIGIT != 0


@kernel(nb.boolean(CHARS, KINDS, nb.int64, nb.int64))
def is_reference(chars, kinds, first, end):  # type: ignore[no-untyped-def]
    """Whether a piece has the pages of a publication: `211-227 (2003)`. (_PUB_PAGES)"""
    for i in range(first, end - 1):
        if chars[i] == 40 and kinds[chars[i + 1]] & DIGIT:
            j = i - 1
            while j > first and i - j <= 4 and kinds[chars[j]] & BLANK:
                j -= 1
            k = j
            while k > first and j - k < 5 and kinds[chars[k]] & DIGIT:
                k -= 1
            if k < j and chars[k] == 45:
                while k > first and chars[k] == 45:
                    k -= 1
                if kinds[chars[k]] & DIGIT:
                    return True
    return False
