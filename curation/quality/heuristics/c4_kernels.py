"""Kernels of C4's rules: which lines of a text it keeps, and the statistics that decide about the document.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2, in the order of C4's published code.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.quality.heuristics.character_classes import (
    ALPHA,
    ANCHOR,
    BREAK,
    DIGIT,
    PUNCTUATION,
    SPACE,
    TERMINAL,
    UNSPACED,
    strip_range,
)
from curation.quality.heuristics.word_kernels import script_word_length

_POLICY = (b"terms of use", b"privacy policy", b"cookie policy", b"uses cookies", b"use of cookies", b"use cookies")
_PHRASES = (b"lorem ipsum", b"javascript", *_POLICY, b"[edit]", b"[citation needed]")
_LOREM, _JAVASCRIPT, _FIRST_POLICY, _EDIT, _CITATION, _END = 0, 1, 2, 8, 9, 10
_PHRASE = np.array([list(p.ljust(20, b"\0")) for p in _PHRASES], np.int32)
_PHRASE_SIZE = np.array([len(p) for p in _PHRASES])
_ANCHOR_AT = np.array([next((i for i, c in enumerate(p) if c in b"jkmv"), 0) for p in _PHRASES])


@kernel("boolean(int32[::1], int64, int64)")
def matches_phrase(code, i, which):  # type: ignore[no-untyped-def]
    """Whether phrase number `which` is at i, ignoring case. The text must be long enough for it."""
    for k in range(_PHRASE_SIZE[which]):
        c = code[i + k]
        if 65 <= c <= 90:
            c |= 32
        if c != _PHRASE[which, k]:
            return False
    return True


@kernel("int64(int32[::1], uint16[::1], int64, int64)")
def find_phrases(code, flags, lo, hi):  # type: ignore[no-untyped-def]
    """Which phrases occur in [lo, hi), one bit each. They are searched by their rarest letter."""
    found = 0
    for i in range(lo, hi):
        if not flags[i] & ANCHOR:
            continue
        for which in range(_EDIT):
            at = i - _ANCHOR_AT[which]
            if at >= lo and at + _PHRASE_SIZE[which] <= hi and matches_phrase(code, at, which):
                found |= 1 << which
    return found


@kernel("int64(int32[::1], int64, int64)")
def end_before_citations(code, lo, hi):  # type: ignore[no-untyped-def]
    """The end of the line [lo, hi) without [1], [], [edit] and [citation needed] at its end."""
    while hi > lo and code[hi - 1] == 93:
        i = hi - 2
        while i >= lo and 48 <= code[i] <= 57:
            i -= 1
        if i >= lo and code[i] == 91:
            hi = i
            continue
        size = 0
        for which in range(_EDIT, _END):
            k = _PHRASE_SIZE[which]
            if hi - lo >= k and matches_phrase(code, hi - k, which):
                size = k
        if size == 0:
            break
        hi -= size
    return hi


LONG_WORD, NO_TERMINAL, FEW_WORDS, JAVASCRIPT, POLICY, KEPT = 0, 1, 2, 3, 4, 5  # C4's decision about a line
_HAS_LOREM_IPSUM, _HAS_BRACKET, _HAS_TERMINAL = 8, 16, 32  # flags of a line


@kernel("boolean(int32[::1], uint16[::1], int64, int64)")
def has_bracket_outside_formulas(code, flags, a, b):  # type: ignore[no-untyped-def]
    """Whether { occurs in [a, b) outside `$…$` and `$$…$$`: brackets of TeX are no program code. As in pandoc, the sign
    that opens has no space after it, and the one that closes none before it and no digit after it; nor a {, as
    `${a}${b}` is code."""
    i = a
    while i < b:
        if code[i] == 123:
            return True
        if code[i] == 36:
            while i + 1 < b and code[i + 1] == 36:
                i += 1
            if i + 1 < b and not flags[i + 1] & SPACE:
                j = i + 2
                while j < b:
                    follows = code[j + 1] if j + 1 < b else 32
                    opens = follows == 123 or 48 <= follows <= 57
                    if code[j] == 36 and code[j - 1] != 92 and not flags[j - 1] & SPACE and not opens:
                        break
                    j += 1
                if j < b:
                    i = j
                    while i + 1 < b and code[i + 1] == 36:
                        i += 1
        i += 1
    return False


@kernel("UniTuple(int64, 2)(int32[::1], uint16[::1], int64, int64)")
def count_unspaced_line(code, flags, a, b):  # type: ignore[no-untyped-def]
    """(words, characters of the longest one) of a line with letters of scripts without spaces.

    Words as curation.words.estimate_words counts them: a letter of Han is half a word, of kana, Thai and its neighbours
    a quarter, and each run of other letters and digits between them is one.
    """
    quarters = 0
    longest = 0
    run = 0
    inside = False
    for i in range(a, b):
        f = flags[i]
        if f & UNSPACED:
            quarters += 2 if script_word_length(code[i]) == 2 else 1
        elif f & (ALPHA | DIGIT) and not inside:
            quarters += 4
        inside = f & (ALPHA | DIGIT) != 0 and not f & UNSPACED
        run = 0 if f & (SPACE | UNSPACED) else run + 1
        longest = max(longest, run)
    return quarters // 4, longest


@kernel("int64(int32[::1], uint16[::1], int64, int64, boolean)")
def classify_c4_line(code, flags, a, b, any_end):  # type: ignore[no-untyped-def]
    """C4's decision about one line [a, b), given without surrounding white space, plus flags.

    A line is kept if it has three words or more, none over 1,000 characters, ends in . ? ! " or ' but not in ...
    (`any_end`: ends in anything, as in FineWeb) and mentions neither javascript nor policies. Words are between white
    space, as published; of a line of a script without spaces, which so has too few or too long ones, they are
    estimated. Flags: it contains "lorem ipsum" or {, if the checks got that far (these decide about the document), and
    it ends in terminal punctuation.
    """
    chunks = 0
    longest = 0
    run = 0
    bracket = False
    union = np.uint16(0)
    for i in range(a, b):  # without branches
        union |= flags[i]
        run = 0 if flags[i] & SPACE else run + 1
        chunks += run == 1
        longest = max(longest, run)
        bracket |= code[i] == 123
    if union & UNSPACED and (chunks < 3 or longest > 1000):
        estimated, longest = count_unspaced_line(code, flags, a, b)
        chunks = max(chunks, estimated)
    if longest > 1000:
        return LONG_WORD
    e = end_before_citations(code, a, b)
    c = code[e - 1] if e > a else 0
    ends = c == 46 or c == 63 or c == 33 or c == 34 or c == 39
    if e - a >= 3 and c == 46 and code[e - 2] == 46 and code[e - 3] == 46:
        ends = False
    said = _HAS_TERMINAL if ends else 0
    if not ends and not any_end:
        return NO_TERMINAL
    if chunks < 3:
        return FEW_WORDS | said
    phrases = find_phrases(code, flags, a, b)
    if phrases >> _LOREM & 1:
        said |= _HAS_LOREM_IPSUM
    if phrases >> _JAVASCRIPT & 1:
        return JAVASCRIPT | said
    if bracket and has_bracket_outside_formulas(code, flags, a, b):
        said |= _HAS_BRACKET
    if phrases >> _FIRST_POLICY:
        return POLICY | said
    return KEPT | said


@kernel("void(int32[::1], uint16[::1], int32[::1], int32[::1], int64, int32[::1], int64, boolean, float64[::1])")
def c4_statistics(code, flags, start, end, count, breaks, ended, any_end, out):  # type: ignore[no-untyped-def]
    """C4's statistics of a document: sentences in the kept lines, and what was found in any line.

    After a word that ends a sentence, the next word that is not punctuation begins another one.
    """
    lines = 0
    ending = 0
    sentences = 0
    noticed = 0
    javascript = 0
    policy = 0
    w = 0
    hi = -1
    for line in range(ended):
        lo = hi + 1
        hi = breaks[line]
        a, b = strip_range(flags, lo, hi)
        if a == b:
            continue
        lines += 1
        said = classify_c4_line(code, flags, a, b, any_end)
        noticed |= said
        if said & _HAS_TERMINAL:
            ending += 1
        if said & 7 == JAVASCRIPT:
            javascript += 1
        elif said & 7 == POLICY:
            policy += 1
        if said & 7 != KEPT:
            continue
        while w < count and start[w] < a:
            w += 1
        sentences += 1
        over = False
        while w < count and start[w] < b:
            s = start[w]
            single = end[w] - s == 1
            if single and flags[s] & TERMINAL:
                over = True
            elif over:
                punctuation = True
                for i in range(s, end[w]):
                    punctuation = punctuation and flags[i] & PUNCTUATION != 0
                if not punctuation:
                    sentences += 1
                    over = False
            w += 1
    out[0] = sentences
    out[1] = ending / lines if lines else 0.0
    out[2] = noticed & _HAS_LOREM_IPSUM != 0
    out[3] = noticed & _HAS_BRACKET != 0
    out[4] = javascript
    out[5] = policy


@kernel("int64(int32[::1], int64, int64)")
def citation_length(code, i, hi):  # type: ignore[no-untyped-def]
    """Length of the citation at i: [1], [], [edit] or [citation needed]; 0 without one."""
    j = i + 1
    while j < hi and 48 <= code[j] <= 57:
        j += 1
    if j < hi and code[j] == 93:
        return j + 1 - i
    for which in range(_EDIT, _END):
        if hi - i >= _PHRASE_SIZE[which] and matches_phrase(code, i, which):
            return _PHRASE_SIZE[which]
    return 0


@kernel("int64(int32[::1], uint16[::1], int64, boolean, uint8[::1], int64, int64[::1])")
def write_kept_lines(code, flags, n, any_end, text, at, counts):  # type: ignore[no-untyped-def]
    """Writes the lines that C4 keeps to `text` from `at` on, as UTF-8, joined by newlines, without surrounding white
    space and citations; returns the end. Adds to `counts`: lines that are not blank, lines kept."""
    begin = at
    lo = 0
    while lo < n:
        hi = lo
        while hi < n and not flags[hi] & BREAK:
            hi += 1
        a, b = strip_range(flags, lo, hi)
        lo = hi + 1
        if a == b:
            continue
        counts[0] += 1
        if classify_c4_line(code, flags, a, b, any_end) & 7 != KEPT:
            continue
        counts[1] += 1
        if at > begin:
            text[at] = 10
            at += 1
        i = a
        while i < b:
            c = code[i]
            if c == 91:
                skip = citation_length(code, i, b)
                if skip:
                    i += skip
                    continue
            if c < 0x80:
                text[at] = c
                at += 1
            elif c < 0x800:
                text[at] = 0xC0 | (c >> 6)
                text[at + 1] = 0x80 | (c & 63)
                at += 2
            elif c < 0x10000:
                text[at] = 0xE0 | (c >> 12)
                text[at + 1] = 0x80 | ((c >> 6) & 63)
                text[at + 2] = 0x80 | (c & 63)
                at += 3
            else:
                text[at] = 0xF0 | (c >> 18)
                text[at + 1] = 0x80 | ((c >> 12) & 63)
                text[at + 2] = 0x80 | ((c >> 6) & 63)
                text[at + 3] = 0x80 | (c & 63)
                at += 4
            i += 1
    return at
