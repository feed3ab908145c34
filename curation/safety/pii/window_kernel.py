"""Kernel that finds the windows of a text in which a match of one of six PII recognizers is possible.

A window holds everything that a match could consist of, and all that the recognizer's look-around may read. The scan
may select too much but never loses a match. This follows from the recognizers' patterns, and tests compare with
presidio:

EMAIL_ADDRESS, IP_ADDRESS  no pattern matches white space, and around a match white space counts as the end of the text.
        Window: a chunk between white space that has an `@`; for IP addresses `::`, six colons, or three dots with
        a digit. (`::` and digits alone would miss `fe:ed:be:ef:ca:fe:ba:be`.)
CREDIT_CARD  decimal digits of any script, `-` and space. Window: a run of those that has 13 to 17 digits whose check
        digit is right.
US_SSN  ASCII digits, `-`, `.` and space. Window: a run with groups of 9, 5-4, 3-6 or 3-2-4 digits.
IBAN_CODE  letters A to Z of either case, 0-9, `-` and space. Window: a run of 12 letters and digits or more in which a
        group begins with two letters and two digits.
PHONE_NUMBER  phonenumbers' pattern has digits, punctuation and the words for "extension". Window: a run without
        newlines, without letters that no such word has, and without other symbols, that has a run of digits and number
        punctuation with 4 digits or more (`1640` is a valid German number; no country has shorter ones).
The last four read one character before and after the run (is it a letter?), so windows include it.
"""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel

ENTITIES = ("EMAIL_ADDRESS", "IP_ADDRESS", "CREDIT_CARD", "US_SSN", "IBAN_CODE", "PHONE_NUMBER")


# What a character can be part of; a character outside the class of a kind ends its windows.
_CHUNK, _CARDS, _SSNS, _IBANS, _PHONES = 1, 2, 4, 8, 16
_NUMBER = 32  # phonenumbers' digits and punctuation: what a number itself consists of
_DIGIT, _ASCII_DIGIT = 64, 128

# phonenumbers' VALID_PUNCTUATION and leading characters, from its documentation of the pattern.
_PHONE_PUNCTUATION = "-xX‐‑‒–—―−ー－．／ \xa0\xad\u200b\u2060\u3000()（）［］.[]/~⁓∼～+＋"
_EXTENSION_LETTERS = "aeinostxAEINOSTX"  # of ext, extension, int, anexo
_NOT_IN_PHONES = "$%&*!\"'<>?@_{|}^`\\\n\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029"


@functools.cache
def character_classes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    import sys
    import unicodedata

    import regex

    table = np.full(sys.maxunicode + 1, _CHUNK | _PHONES, np.uint8)
    for c in "\t\n\v\f\r ":
        table[ord(c)] &= ~np.uint8(_CHUNK)
    for c in _NOT_IN_PHONES:
        table[ord(c)] &= ~np.uint8(_PHONES)
    # presidio's registry makes every pattern ignore case; [A-Z] then also matches ſ, K and more: regex itself finds
    # them.
    characters = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x20000))))
    for c in regex.findall("[A-Z0-9]", characters, flags=regex.IGNORECASE):
        table[ord(c)] |= _IBANS
    for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        for letter in (c, c.lower()):
            if letter not in _EXTENSION_LETTERS:
                table[ord(letter)] &= ~np.uint8(_PHONES)
    for code in (*range(0x20000), *range(0xE0000, 0xE0200)):
        if unicodedata.category(chr(code)) == "Nd":
            table[code] |= _DIGIT | _CARDS | _NUMBER
    for c in "0123456789":
        table[ord(c)] |= _ASCII_DIGIT | _SSNS
    for c in "- ":
        table[ord(c)] |= _CARDS | _SSNS | _IBANS
    table[ord(".")] |= _SSNS
    for c in _PHONE_PUNCTUATION:
        table[ord(c)] |= _NUMBER
    return table


@kernel(nb.boolean(BYTES, nb.int64, nb.int64))
def _may_hold_ssn(data, first, end):  # type: ignore[no-untyped-def]
    """Whether a run of digits, `-`, `.` and blanks has groups of 9, 5-4, 3-6 or 3-2-4 digits."""
    before = 0  # lengths of the two groups before, where one character separates them
    last = 0
    size = 0
    separators = 2
    for i in range(first, end + 1):
        if i < end and 48 <= data[i] <= 57:
            if size == 0 and separators != 1:
                before = last = 0
            size += 1
            separators = 0
        else:
            if size:
                if size == 9 or (last == 5 and size == 4) or (last == 3 and size == 6):
                    return True
                if before == 3 and last == 2 and size == 4:
                    return True
                before = last
                last = size
                size = 0
            separators += 1
    return False


@kernel(nb.boolean(BYTES, nb.int64, nb.int64))
def _may_hold_card(data, first, end):  # type: ignore[no-untyped-def]
    """Whether a run of digits, `-` and blanks has 13 to 17 digits in up to four groups whose check digit is right.

    True for digits of other scripts, which this does not read.
    """
    for start in range(first, end):
        if data[start] >= 0x80:
            return True
        if not 48 <= data[start] <= 57 or (start > first and 48 <= data[start - 1] <= 57):
            continue
        if data[start] != 49 and not 51 <= data[start] <= 54:  # cards begin with 1, 3, 4, 5 or 6
            continue
        size = 0
        groups = 1
        even: Any = 0  # Luhn's sum, where the last digit is doubled, and where it is not
        odd: Any = 0
        i = start
        while i < end and size <= 17:
            if 48 <= data[i] <= 57:
                digit = np.int64(data[i]) - 48
                twice = 2 * digit - (9 if digit > 4 else 0)
                even, odd = odd + twice, even + digit
                size += 1
                ends = i + 1 == end or not 48 <= data[i + 1] <= 57
                if 13 <= size <= 17 and ends and odd % 10 == 0:
                    return True
            elif data[i] >= 0x80:
                return True
            else:
                groups += 1
                if groups > 4 or i + 1 == end or not 48 <= data[i + 1] <= 57:
                    break
            i += 1
    return False


@kernel((BYTES, OFFSETS, nb.uint8[::1], nb.int64, nb.int64[:, ::1], nb.int64[::1]))
def find_windows(data, offsets, table, wanted, windows, groups):  # type: ignore[no-untyped-def]
    """Finds the windows of all texts; returns how many there are. Text d is data[offsets[d]:offsets[d + 1]].

    wanted   bit k: find windows of kind k (the index in ENTITIES)
    windows  filled with rows (text, kind, first byte, byte after the last, number of the first character); if more are
             found than it has rows, the rest is not stored
    groups   filled with the number of groups of digits in each text
    """
    total = 0
    for d in range(len(offsets) - 1):
        hi = offsets[d + 1]
        i = offsets[d]
        n = 0  # characters so far
        # Beginning (byte, character) of the current run of each kind, the character before included where there is one.
        chunk = i
        chunk_n = 0
        at = False
        colons = 0
        double = False
        dots = 0
        digits = 0
        card = i
        card_n = 0
        cards = 0
        ssn = i
        ssn_n = 0
        ssns = 0
        iban = i
        iban_n = 0
        ibans = 0
        opening = 0  # progress in matching two letters and two digits from the start of a group; -1: they are none
        opened = False
        phone = i
        phone_n = 0
        phones = 0
        number = False
        last = 0  # the previous character
        groups[d] = 0
        while i <= hi:
            begin = i
            c: Any = 0
            size = 0
            f = 0  # after the last character: ends everything
            if i < hi:
                c = np.int64(data[i])
                size = 1
                if c >= 0xF0:
                    c = ((c & 7) << 18) | ((np.int64(data[i + 1]) & 63) << 12)
                    c |= ((np.int64(data[i + 2]) & 63) << 6) | (np.int64(data[i + 3]) & 63)
                    size = 4
                elif c >= 0xE0:
                    c = ((c & 15) << 12) | ((np.int64(data[i + 1]) & 63) << 6) | (np.int64(data[i + 2]) & 63)
                    size = 3
                elif c >= 0x80:
                    c = ((c & 31) << 6) | (np.int64(data[i + 1]) & 63)
                    size = 2
                f = table[c]
            after = min(begin + size, hi)
            if f & 1:
                if c == 64:
                    at = True
                elif c == 58:
                    colons += 1
                    double = double or (last == 58 and begin > chunk)
                elif c == 46:
                    dots += 1
                elif f & 128:
                    digits += 1
            else:
                if at and wanted & 1:
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 0
                        windows[total, 2] = chunk
                        windows[total, 3] = begin
                        windows[total, 4] = chunk_n
                    total += 1
                if wanted & 2 and (double or colons >= 6 or (dots >= 3 and digits >= 4)):
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 1
                        windows[total, 2] = chunk
                        windows[total, 3] = begin
                        windows[total, 4] = chunk_n
                    total += 1
                chunk = after
                chunk_n = n + 1
                at = False
                colons = 0
                double = False
                dots = 0
                digits = 0
            if f & 2:
                if f & 64:
                    cards += 1
                    if not (last < 1114112 and table[last] & 64):
                        groups[d] += 1
            else:
                if cards >= 13 and wanted & 4 and _may_hold_card(data, card, after):
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 2
                        windows[total, 2] = card
                        windows[total, 3] = after
                        windows[total, 4] = card_n
                    total += 1
                card = begin
                card_n = n
                cards = 0
            if f & 4:
                if f & 128:
                    ssns += 1
            else:
                if ssns >= 9 and wanted & 8 and _may_hold_ssn(data, ssn, after):
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 3
                        windows[total, 2] = ssn
                        windows[total, 3] = after
                        windows[total, 4] = ssn_n
                    total += 1
                ssn = begin
                ssn_n = n
                ssns = 0
            if f & 8:
                if c != 45 and c != 32:
                    ibans += 1
                    fits = opening >= 0 and (opening >= 2) == (f & 128 != 0)
                    opening = opening + 1 if fits else -1
                    if opening == 4:
                        opened = True
                        opening = -1
                else:
                    opening = 0
            else:
                if ibans >= 12 and opened and wanted & 16:
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 4
                        windows[total, 2] = iban
                        windows[total, 3] = after
                        windows[total, 4] = iban_n
                    total += 1
                iban = begin
                iban_n = n
                ibans = 0
                opening = 0
                opened = False
            if f & 32:
                if f & 64:
                    phones += 1
                    number = number or phones >= 4
            else:
                phones = 0
            if not f & 16:
                if number and wanted & 32:
                    if total < len(windows):
                        windows[total, 0] = d
                        windows[total, 1] = 5
                        windows[total, 2] = phone
                        windows[total, 3] = after
                        windows[total, 4] = phone_n
                    total += 1
                phone = begin
                phone_n = n
                number = False
            last = c
            i = begin + size if size else hi + 1
            n += 1
    return total
