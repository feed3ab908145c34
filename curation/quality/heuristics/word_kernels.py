"""Kernels that split a text into words for the heuristics.

White space separates chunks; each chunk is then split much as spaCy's English tokenizer does, which datatrove uses (so
that thresholds tuned there keep their meaning):

1. Punctuation is split off at both ends, one character per word (a run of dots stays together); `'s`, `n't`, `'ll`,
   `'re`, `'ve`, `'d`, `'m` become words; so does a final dot after a lower-case letter, a letter of a
   script without case, a digit or two capitals, but not in `a.` or `e.g.`. URLs, host and file names
   (`docs.python.org/3`, `my-file.txt`) stay whole.
2. The rest is split at runs of dots, at symbols, at hyphens, tildes and commas between letters, at `: < > = /` before a
   letter, at `+ - * ^` between digits, and at a dot between a lower-case and an upper-case letter.
3. In scripts written without spaces a word ends where the script changes (Han, Hiragana, Katakana, another), and after
   two letters of Han, eight of kana and four of Thai, Lao, Khmer or Burmese, which is about the length of dictionary
   words; marks join the letter before. One letter per word would make five-word phrases of two real words: measured on
   the crawl, nine of ten Japanese pages then have too many duplicate 5-grams. spaCy's English rules make one long word
   of such a run.
4. Where thresholds are by language, words are cut as those that the thresholds were set on (language_stats.py): a
   single hyphen does not split words of languages whose compounds have one ("Nord-Süd-Gefälle"), an apostrophe splits
   those of languages with elision ("l'eau"), and Hangul is cut after two letters, about the length of its morphemes.

A word *counts* if it has a letter, mark or number of any script; other words are punctuation. Not implemented of
spaCy's rules: lists of abbreviations, emoticons and units of measure, and contractions without an apostrophe.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.quality.heuristics.character_classes import (
    ALPHA,
    CURRENCY,
    DIGIT,
    ICON,
    LOWER,
    PEEL,
    PREFIX,
    QUOTE,
    SPACE,
    UNSPACED,
    UPPER,
    WORD,
)

COMPOUNDS, ELISION, MORPHEMES = 1, 2, 4  # how words of a language are cut, see 4.

# How often a chunk is tried as an address: each time all of it is read, and a punctuation mark is split off between two
# tries. Of the chunks of real pages none has as many marks before or after an address.
MAX_TRIES = 64


@kernel("boolean(int32[::1], uint16[::1], int64, int64)")
def is_url_or_host(code, flags, lo, hi):  # type: ignore[no-untyped-def]
    """Whether [lo, hi) is [scheme://][user@]host.name[:port][/...]: two labels or more, the last in lower case."""
    start = lo
    for i in range(lo, hi - 2):
        if code[i] == 58 and code[i + 1] == 47 and code[i + 2] == 47:  # ://
            if not flags[lo] & WORD:  # a quotation mark, which is split off first
                return False
            start = i + 3
            break
    end = start  # of the host
    while end < hi and code[end] != 47 and code[end] != 63 and code[end] != 35:  # / ? #
        end += 1
    for i in range(end - 1, start - 1, -1):
        if code[i] == 64:  # @
            start = i + 1
            break
    for i in range(start, end):
        if code[i] == 58:  # a port
            if i + 2 > end - 1 or end - i > 6:
                return False
            for j in range(i + 1, end):
                if not flags[j] & DIGIT:
                    return False
            end = i
            break
    dots = 0
    label = start
    for i in range(start, end):
        c = code[i]
        if c == 46:
            if i == label or not flags[label] & WORD or not flags[i - 1] & WORD:
                return False
            dots += 1
            label = i + 1
        elif not flags[i] & WORD and c != 45 and c != 95 and c < 0xA1:
            return False
    if dots == 0 or end - label < 2:
        return False
    for i in range(label, end):  # noqa: SIM110
        if not flags[i] & LOWER:
            return False
    return True


@kernel("int64(int32)")
def script_word_length(c):  # type: ignore[no-untyped-def]
    """Letters per word in the script of an unspaced letter; also identifies it: Han 2, others 4, Hiragana 8, Katakana
    9."""
    if c < 0x2E80 or 0xA980 <= c <= 0xAADF:
        return 4
    if 0x3040 <= c <= 0x309F or 0x1B001 <= c <= 0x1B11F:
        return 8
    if 0x30A0 <= c <= 0x30FF or 0x31F0 <= c <= 0x31FF or 0xFF66 <= c <= 0xFF9F or c == 0x1B000:
        return 9
    return 2


@kernel("int64(int32[::1], uint16[::1], int64, int64, int32[::1], int32[::1], int64, int64)")
def append_word(code, flags, lo, hi, start, end, n, scripts):  # type: ignore[no-untyped-def]
    """Appends the word [lo, hi), split where it is of unspaced scripts; returns the new number of words.

    scripts  whether its chunk has such letters: 0 no, 1 yes, 2 Hangul is cut like them
    """
    if not scripts:
        start[n] = lo
        end[n] = hi
        return n + 1
    first = lo
    size = 0  # letters per word in the current script; 0: a script with spaces
    letters = 0
    for i in range(lo, hi):
        f = flags[i]
        if not f & ALPHA:
            continue
        now = script_word_length(code[i]) if f & UNSPACED else 0
        if scripts == 2 and 0xAC00 <= code[i] <= 0xD7A3:
            now = 2
        if i > first and (now != size or (now and letters == now)):
            start[n] = first
            end[n] = i
            n += 1
            first = i
        if i == first or now != size:
            letters = 0
        size = now
        letters += 1
    start[n] = first
    end[n] = hi
    return n + 1


@kernel("int64(int32[::1], uint16[::1], int64, int64)")
def suffix_length(code, flags, lo, hi):  # type: ignore[no-untyped-def]
    """How many characters at the end of [lo, hi), hi > lo, are a word of their own; 0 if none are."""
    c = code[hi - 1]
    f = flags[hi - 1]
    left = hi - lo
    if c == 46:
        if left > 1 and code[hi - 2] == 46:
            i = hi - 2
            while i > lo and code[i - 1] == 46:
                i -= 1
            return hi - i
        if left < 2 or (left == 2 and flags[lo] & LOWER):
            return 0
        p = flags[hi - 2]
        if left > 3 and left % 2 == 0:  # e.g. i.e. a.m.
            i = hi - 2  # from the end, where most chunks differ at once
            while i >= lo and flags[i] & ALPHA and code[i + 1] == 46:
                i -= 2
            if i < lo:
                return 0
        if p & (LOWER | DIGIT | PEEL | QUOTE) or code[hi - 2] in (37, 43, 45):
            return 1
        if p & WORD and not p & UPPER:  # a letter without case, or a mark: Korean, Arabic, Hebrew, Tamil
            return 1
        if left > 2 and p & UPPER and flags[hi - 3] & UPPER:
            return 1
        return 0
    if f & PEEL:
        return 1
    if left > 1 and flags[hi - 2] & DIGIT and (f & CURRENCY or c == 37 or c == 43):  # 5€ 100% 3+
        return 1
    lower = c | 32
    if left > 2 and (code[hi - 2] == 39 or code[hi - 2] == 0x2019):  # 's 'd 'm, and n't with its n
        if lower == 115 or lower == 100 or lower == 109:
            return 2
        if lower == 116 and left > 3 and code[hi - 3] | 32 == 110:
            return 3
    if left > 3 and (code[hi - 3] == 39 or code[hi - 3] == 0x2019):  # 'll 're 've
        before = code[hi - 2] | 32
        if (lower == 108 and before == 108) or (lower == 101 and (before == 114 or before == 118)):
            return 3
    return 0


@kernel("int64(int32[::1], uint16[::1], int64, int64, int64, int64)")
def infix_length(code, flags, lo, hi, i, cut):  # type: ignore[no-untyped-def]
    """How many characters at i, inside [lo, hi), are a word between two others; 0 where the word continues."""
    c = code[i]
    f = flags[i]
    if c == 46 and i + 1 < hi and code[i + 1] == 46:
        j = i + 2
        while j < hi and code[j] == 46:
            j += 1
        return j - i
    if c == 0x2026 or f & ICON:
        return 1
    if i == lo or i + 1 >= hi:
        return 0
    before = flags[i - 1]
    after = flags[i + 1]
    if c == 46:
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if c == 44:
        return 1 if before & ALPHA and after & ALPHA else 0
    if c == 58 or c == 60 or c == 61 or c == 62 or c == 47:
        return 1 if before & (ALPHA | DIGIT) and after & ALPHA else 0
    if (c == 45 or c == 0x2013 or c == 0x2014 or c == 126) and before & ALPHA:
        j = i + 1
        while j < hi and code[j] == c and j - i < 3:
            j += 1
        if j < hi and flags[j] & ALPHA and not (cut & COMPOUNDS and j == i + 1):
            return j - i
    if c == 45 or c == 43 or c == 42 or c == 94:
        return 1 if before & DIGIT and (after & DIGIT or code[i + 1] == 45) else 0
    return 0


@kernel("int64(int32[::1], uint16[::1], int64, int32[::1], int32[::1], int32[::1], int64)")
def split_words(code, flags, n, start, end, ends, cut):  # type: ignore[no-untyped-def]
    """Splits n code points into words [start, end); returns how many. `ends` is scratch, as long as the text.

    cut  how words of the language are cut: COMPOUNDS | ELISION | MORPHEMES, 0 as in English
    """
    total = 0
    i = 0
    while i < n:
        if flags[i] & SPACE:
            i += 1
            continue
        lo = i
        common = flags[i]  # flags that all characters of the chunk have
        union = np.uint16(0)
        while i < n and not flags[i] & SPACE:
            common &= flags[i]
            union |= flags[i]
            i += 1
        hi = i
        scripts = 2 if cut & MORPHEMES else 1 if union & UNSPACED else 0
        if common & WORD:  # four chunks of five
            if scripts:
                total = append_word(code, flags, lo, hi, start, end, total, scripts)
            else:
                start[total] = lo
                end[total] = hi
                total += 1
            continue
        dotted = False  # a dot before a lower-case letter: what every address has
        for j in range(lo, hi - 1):
            dotted = dotted or (code[j] == 46 and flags[j + 1] & LOWER != 0)
        peeled = 0
        tries = 0
        address = False
        while lo < hi:
            if dotted and tries < MAX_TRIES:
                tries += 1
                if is_url_or_host(code, flags, lo, hi):
                    address = True
                    break
            before = hi - lo
            f = flags[lo]
            if f & (PEEL | PREFIX) and not (code[lo] == 43 and lo + 1 < hi and flags[lo + 1] & DIGIT):
                start[total] = lo
                lo += 1
                end[total] = lo
                total += 1
            elif code[lo] == 46 and lo + 1 < hi and code[lo + 1] == 46:
                start[total] = lo
                while lo < hi and code[lo] == 46:
                    lo += 1
                end[total] = lo
                total += 1
            if lo < hi:
                off = suffix_length(code, flags, lo, hi)
                if off:
                    ends[peeled] = hi
                    peeled += 1
                    hi -= off
            if hi - lo == before:
                break
        if address:
            total = append_word(code, flags, lo, hi, start, end, total, scripts)
        else:
            first = lo
            j = lo
            while j < hi:
                if flags[j] & WORD:  # of which no infix consists
                    j += 1
                    continue
                size = infix_length(code, flags, lo, hi, j, cut)
                if size:
                    if j > first:
                        total = append_word(code, flags, first, j, start, end, total, scripts)
                    start[total] = j
                    j += size
                    end[total] = j
                    total += 1
                    first = j
                else:
                    quote = cut & ELISION and (code[j] == 39 or code[j] == 0x2019)
                    j += 1
                    if quote and first < j - 1 and j < hi and flags[j - 2] & ALPHA and flags[j] & ALPHA:
                        total = append_word(code, flags, first, j, start, end, total, scripts)
                        first = j
            if hi > first:
                total = append_word(code, flags, first, hi, start, end, total, scripts)
        for k in range(peeled - 1, -1, -1):
            start[total] = hi
            hi = ends[k]
            end[total] = hi
            total += 1
    return total
