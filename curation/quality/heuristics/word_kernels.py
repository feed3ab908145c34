"""What a word is, for the heuristics, and the kernel that cuts a text into words.

White space cuts a text into chunks; each chunk is then taken apart much as spaCy's English tokenizer does it, which
datatrove counts with (so that thresholds tuned there keep their meaning):

1. Punctuation is peeled off both ends, one character a word (a run of dots stays together); `'s`, `n't`, `'ll`, `'re`,
   `'ve`, `'d`, `'m` come off as words; so does a closing dot after a lower-case letter, a digit or two capitals, but
   not in `a.` or `e.g.`. URLs, host and file names (`docs.python.org/3`, `my-file.txt`) are left whole.
2. What remains is cut at runs of dots, at symbols, at hyphens, tildes and commas between letters, at `: < > = /`
   before a letter, at `+ - * ^` between digits, and at a dot between a lower-case and an upper-case letter.
3. In scripts written without spaces a word ends where the script changes (Han, Hiragana, Katakana, another), and after
   two letters of Han, eight of kana and four of Thai, Lao, Khmer or Burmese, about what dictionaries give; marks join
   the letter before. Each letter a word would make five-word phrases of two real words: measured on the crawl, nine of
   ten Japanese pages then have too many duplicate 5-grams. spaCy's English rules take such a run for one long word.

A word *counts* when it has a letter, mark or number of any script; other words are punctuation. What spaCy also knows
and this does not: lists of abbreviations, emoticons and units of measure, and contractions without an apostrophe.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, kernel

SPACE, BREAK = 1, 2  # white space; characters at which str.splitlines ends a line
ALPHA, DIGIT, LOWER, UPPER = 4, 8, 16, 32  # any letter; 0-9; cased letters
WORD = 64  # letters, marks and numbers: what makes a word count
UNSPACED = 128  # letters of scripts without spaces
PEEL, PREFIX = 256, 512  # comes off both ends of a chunk; off its beginning only
ICON = 1024  # symbols that are words wherever they stand
TERMINAL = 2048  # ends a sentence
PUNCTUATION = 4096
CURRENCY = 8192
QUOTE = 16384
ANCHOR = 32768  # j, k, m and v: each of C4's phrases has one, and one letter in 24 of English is one

_TOP = 0x110000
# Scripts written without spaces between words; only the letters of these blocks count.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # Han radicals
    (0x3005, 0x30FF),  # iteration marks, Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
_BREAKS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
_QUOTES = "'\"”“`‘´’‚„»«「」『』"


def character_classes() -> np.ndarray[Any, np.dtype[np.uint16]]:
    """The flags above for every code point: uint16[0x110000]. About 0.1 s, so made once a process.

    By general category, with the few exceptions that tokenizing needs. Planes 4 to 13 and the private planes hold no
    assigned characters that matter and stay without flags.
    """
    import regex

    table = np.zeros(_TOP, np.uint16)
    by_category = {
        "Lu": ALPHA | WORD | UPPER,
        "Ll": ALPHA | WORD | LOWER,
        "Lt": ALPHA | WORD | UPPER,
        "Lm": ALPHA | WORD,
        "Lo": ALPHA | WORD,
        **dict.fromkeys(("Mn", "Mc", "Me", "Nd", "Nl", "No"), WORD),
        **dict.fromkeys(("Ps", "Pe", "Pi", "Pf", "Po"), PUNCTUATION | PEEL),
        **dict.fromkeys(("Pd", "Pc"), PUNCTUATION),
        "So": ICON | PEEL,
        "Sc": PREFIX | CURRENCY,
    }
    for block in (range(0x40000), range(0xE0000, 0xE0200)):
        table[block.start : block.stop] = [by_category.get(unicodedata.category(chr(c)), 0) for c in block]
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x20000))))
    for c in map(ord, regex.findall(r"\p{Sentence_Terminal}", everything)):
        table[c] |= TERMINAL
    for c in map(ord, "。．｡！？"):  # full-width; the first two are not in every version of the property
        table[c] |= TERMINAL
    for c in map(ord, "/\\@.%§"):
        table[c] &= ~np.uint16(PEEL)
    for c in map(ord, "–—_<>`´"):
        table[c] |= PEEL
    for c in map(ord, "%=+§"):
        table[c] |= PREFIX
    for c in map(ord, _QUOTES):
        table[c] |= QUOTE
    for c in range(ord("0"), ord("9") + 1):
        table[c] |= DIGIT
    for c in map(ord, "jkmvJKMV"):
        table[c] |= ANCHOR
    for c in (c for c in range(0x3001) if chr(c).isspace()):
        table[c] = SPACE
    for c in map(ord, _BREAKS):
        table[c] |= BREAK | SPACE
    for first, last in _UNSPACED:
        span = table[first : last + 1]
        span[(span & ALPHA) != 0] |= UNSPACED
    return table


@kernel((BYTES, nb.int64, nb.int64, nb.uint16[::1], nb.int32[::1], nb.uint16[::1]))
def decode(data, lo, hi, table, code, flags):  # type: ignore[no-untyped-def]
    """UTF-8 bytes [lo, hi) to code points and their flags; returns how many. The bytes are valid: Arrow checked."""
    n = 0
    i = lo
    while i < hi:
        c = np.int32(data[i])
        if c < 0x80:
            i += 1
        elif c < 0xE0:
            c = ((c & 0x1F) << 6) | (np.int32(data[i + 1]) & 0x3F)
            i += 2
        elif c < 0xF0:
            c = ((c & 0x0F) << 12) | ((np.int32(data[i + 1]) & 0x3F) << 6) | (np.int32(data[i + 2]) & 0x3F)
            i += 3
        else:
            c = ((c & 0x07) << 18) | ((np.int32(data[i + 1]) & 0x3F) << 12)
            c |= ((np.int32(data[i + 2]) & 0x3F) << 6) | (np.int32(data[i + 3]) & 0x3F)
            i += 4
        code[n] = c
        flags[n] = table[c]
        n += 1
    return n


@kernel("UniTuple(int64, 2)(uint16[::1], int64, int64)")
def trimmed(flags, lo, hi):  # type: ignore[no-untyped-def]
    """[lo, hi) without the white space around it; empty, and then at its end, if there is nothing else."""
    while lo < hi and flags[lo] & SPACE:
        lo += 1
    while hi > lo and flags[hi - 1] & SPACE:
        hi -= 1
    return lo, hi


@kernel("boolean(int32[::1], uint16[::1], int64, int64)")
def is_address(code, flags, lo, hi):  # type: ignore[no-untyped-def]
    """Whether [lo, hi) is [scheme://][user@]host.name[:port][/...]: two labels or more, the last in lower case."""
    start = lo
    for i in range(lo, hi - 2):
        if code[i] == 58 and code[i + 1] == 47 and code[i + 2] == 47:  # ://
            if not flags[lo] & WORD:  # a quotation mark, which comes off first
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
def letters_a_word(c):  # type: ignore[no-untyped-def]
    """Script of an unspaced letter, as the number of letters to a word: Han 2, others 4, Hiragana 8, Katakana 9."""
    if c < 0x2E80:
        return 4
    if 0x3040 <= c <= 0x309F or 0x1B001 <= c <= 0x1B11F:
        return 8
    if 0x30A0 <= c <= 0x30FF or 0x31F0 <= c <= 0x31FF or 0xFF66 <= c <= 0xFF9F or c == 0x1B000:
        return 9
    return 2


@kernel("int64(int32[::1], uint16[::1], int64, int64, int32[::1], int32[::1], int64)")
def emit(code, flags, lo, hi, start, end, n):  # type: ignore[no-untyped-def]
    """Appends the word [lo, hi), cut where it is of unspaced scripts; returns the new number of words."""
    first = lo
    size = 0  # letters to a word in the script that we are in; 0: a spaced one
    letters = 0
    for i in range(lo, hi):
        f = flags[i]
        if not f & ALPHA:
            continue
        now = letters_a_word(code[i]) if f & UNSPACED else 0
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
def closing(code, flags, lo, hi):  # type: ignore[no-untyped-def]
    """How many characters come off the end of [lo, hi), hi > lo, as one word; 0 when none do."""
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
            initials = True
            for i in range(lo, hi, 2):
                initials = initials and flags[i] & ALPHA != 0 and code[i + 1] == 46
            if initials:
                return 0
        if p & (LOWER | DIGIT | PEEL | QUOTE) or code[hi - 2] in (37, 43, 45):
            return 1
        if left > 2 and p & UPPER and flags[hi - 3] & UPPER:
            return 1
        return 0
    if f & PEEL:
        return 1
    if left > 1 and flags[hi - 2] & DIGIT and (f & CURRENCY or c == 37 or c == 43):  # 5€ 100% 3+
        return 1
    lower = c | 32
    if left > 2 and (code[hi - 2] == 39 or code[hi - 2] == 0x2019):  # 's 'd 'm, and n't whose n comes along
        if lower == 115 or lower == 100 or lower == 109:
            return 2
        if lower == 116 and left > 3 and code[hi - 3] | 32 == 110:
            return 3
    if left > 3 and (code[hi - 3] == 39 or code[hi - 3] == 0x2019):  # 'll 're 've
        before = code[hi - 2] | 32
        if (lower == 108 and before == 108) or (lower == 101 and (before == 114 or before == 118)):
            return 3
    return 0


@kernel("int64(int32[::1], uint16[::1], int64, int64, int64)")
def infix(code, flags, lo, hi, i):  # type: ignore[no-untyped-def]
    """How many characters at i, inside [lo, hi), are a word between two others; 0 when the word goes on."""
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
        if j < hi and flags[j] & ALPHA:
            return j - i
    if c == 45 or c == 43 or c == 42 or c == 94:
        return 1 if before & DIGIT and (after & DIGIT or code[i + 1] == 45) else 0
    return 0


@kernel("int64(int32[::1], uint16[::1], int64, int32[::1], int32[::1], int32[::1])")
def words(code, flags, n, start, end, ends):  # type: ignore[no-untyped-def]
    """Cuts n code points into words [start, end); returns how many. `ends` is scratch, as long as the text."""
    total = 0
    i = 0
    while i < n:
        if flags[i] & SPACE:
            i += 1
            continue
        lo = i
        common = flags[i]  # to all characters of the chunk
        union = np.uint16(0)
        while i < n and not flags[i] & SPACE:
            common &= flags[i]
            union |= flags[i]
            i += 1
        hi = i
        if common & WORD:  # four chunks of five
            if union & UNSPACED:
                total = emit(code, flags, lo, hi, start, end, total)
            else:
                start[total] = lo
                end[total] = hi
                total += 1
            continue
        dotted = False  # a dot before a lower-case letter: what every address has
        for j in range(lo, hi - 1):
            dotted = dotted or (code[j] == 46 and flags[j + 1] & LOWER != 0)
        peeled = 0
        address = False
        while lo < hi:
            if dotted and is_address(code, flags, lo, hi):
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
                off = closing(code, flags, lo, hi)
                if off:
                    ends[peeled] = hi
                    peeled += 1
                    hi -= off
            if hi - lo == before:
                break
        if address:
            total = emit(code, flags, lo, hi, start, end, total)
        else:
            first = lo
            j = lo
            while j < hi:
                if flags[j] & WORD:  # of which no infix consists
                    j += 1
                    continue
                size = infix(code, flags, lo, hi, j)
                if size:
                    if j > first:
                        total = emit(code, flags, first, j, start, end, total)
                    start[total] = j
                    j += size
                    end[total] = j
                    total += 1
                    first = j
                else:
                    j += 1
            if hi > first:
                total = emit(code, flags, first, hi, start, end, total)
        for k in range(peeled - 1, -1, -1):
            start[total] = hi
            hi = ends[k]
            end[total] = hi
            total += 1
    return total
