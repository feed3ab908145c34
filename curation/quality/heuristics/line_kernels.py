"""The kernels of the rules that look at lines: C4's, which ends pages and lines, and FineWeb's, which counts them.

`out` is the part of the document's row that these statistics stand in: see COLUMNS in `heuristics_kernels.py`.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.quality.heuristics.hash_table import clear, hash_range, seen
from curation.quality.heuristics.word_kernels import ANCHOR, BREAK, PUNCTUATION, SPACE, TERMINAL, trimmed

_POLICY = (b"terms of use", b"privacy policy", b"cookie policy", b"uses cookies", b"use of cookies", b"use cookies")
_PHRASES = (b"lorem ipsum", b"javascript", *_POLICY, b"[edit]", b"[citation needed]")
_LOREM, _JAVASCRIPT, _FIRST_POLICY, _EDIT, _CITATION, _END = 0, 1, 2, 8, 9, 10
_PHRASE = np.array([list(p.ljust(20, b"\0")) for p in _PHRASES], np.int32)
_PHRASE_SIZE = np.array([len(p) for p in _PHRASES])
_ANCHOR_AT = np.array([next((i for i, c in enumerate(p) if c in b"jkmv"), 0) for p in _PHRASES])


@kernel("UniTuple(int64, 2)(int32[::1], uint16[::1], int64, int32[::1], int32[::1])")
def line_ends(code, flags, n, breaks, newlines):  # type: ignore[no-untyped-def]
    """Where lines end, for both readings of what a line is; returns how many ends of each.

    `breaks`: as str.splitlines has it, every break an end, so that \r\n gives two; a text that does not end in one ends
    the last line. `newlines`: as text.split("\n") has it; so there is always one, and the last is n.
    """
    all_ = 0
    some = 0
    for i in range(n):
        if flags[i] & BREAK:
            breaks[all_] = i
            all_ += 1
            if code[i] == 10:
                newlines[some] = i
                some += 1
    if n and not flags[n - 1] & BREAK:
        breaks[all_] = n
        all_ += 1
    newlines[some] = n
    return all_, some + 1


@kernel("void(int32[::1], int32[::1], int64, uint64[::1])")
def line_hashes(code, newlines, lines, out):  # type: ignore[no-untyped-def]
    lo = 0
    for line in range(lines):
        out[line] = hash_range(code, lo, newlines[line])
        lo = newlines[line] + 1


@kernel("boolean(int32[::1], int64, int64)")
def phrase_at(code, i, which):  # type: ignore[no-untyped-def]
    """Whether phrase number `which` stands at i, whatever its case. Its last character has to be within the text."""
    for k in range(_PHRASE_SIZE[which]):
        c = code[i + k]
        if 65 <= c <= 90:
            c |= 32
        if c != _PHRASE[which, k]:
            return False
    return True


@kernel("int64(int32[::1], uint16[::1], int64, int64)")
def phrases_in(code, flags, lo, hi):  # type: ignore[no-untyped-def]
    """Which phrases stand in [lo, hi), a bit each. They are looked for at their rarest letter."""
    found = 0
    for i in range(lo, hi):
        if not flags[i] & ANCHOR:
            continue
        for which in range(_EDIT):
            at = i - _ANCHOR_AT[which]
            if at >= lo and at + _PHRASE_SIZE[which] <= hi and phrase_at(code, at, which):
                found |= 1 << which
    return found


@kernel("int64(int32[::1], int64, int64)")
def before_citations(code, lo, hi):  # type: ignore[no-untyped-def]
    """Where the line [lo, hi) ends when [1], [], [edit] and [citation needed] at its end don't count."""
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
            if hi - lo >= k and phrase_at(code, hi - k, which):
                size = k
        if size == 0:
            break
        hi -= size
    return hi


LONG, ENDLESS, SHORT, JAVASCRIPT, POLICY, STAYS = 0, 1, 2, 3, 4, 5  # what C4 says of a line
_LOREM_IPSUM, _BRACKET, _ENDS = 8, 16, 32  # ... and what it notices on the way


@kernel("int64(int32[::1], uint16[::1], int64, int64, boolean)")
def c4_line(code, flags, a, b, any_end):  # type: ignore[no-untyped-def]
    """Raffel et al. 2020, section 2.2, in the order of its published code: one line [a, b), without white space around.

    It stays with three words (by white space) or more, none over 1,000 characters, if it ends in . ? ! " or ' but not
    in ... (`any_end`: however it ends, as FineWeb has it) and does not speak of javascript or policies. Flags: "lorem
    ipsum" or { in it, when it got so far: these are against the document; and whether it ends as it should.
    """
    chunks = 0
    longest = 0
    run = 0
    bracket = False
    for i in range(a, b):  # without branches
        run = 0 if flags[i] & SPACE else run + 1
        chunks += run == 1
        longest = max(longest, run)
        bracket |= code[i] == 123
    if longest > 1000:
        return LONG
    e = before_citations(code, a, b)
    c = code[e - 1] if e > a else 0
    ends = c == 46 or c == 63 or c == 33 or c == 34 or c == 39
    if e - a >= 3 and c == 46 and code[e - 2] == 46 and code[e - 3] == 46:
        ends = False
    said = _ENDS if ends else 0
    if not ends and not any_end:
        return ENDLESS
    if chunks < 3:
        return SHORT | said
    phrases = phrases_in(code, flags, a, b)
    if phrases >> _LOREM & 1:
        said |= _LOREM_IPSUM
    if phrases >> _JAVASCRIPT & 1:
        return JAVASCRIPT | said
    if bracket:
        said |= _BRACKET
    if phrases >> _FIRST_POLICY:
        return POLICY | said
    return STAYS | said


@kernel("void(int32[::1], uint16[::1], int32[::1], int32[::1], int64, int32[::1], int64, boolean, float64[::1])")
def c4(code, flags, start, end, count, breaks, ended, any_end, out):  # type: ignore[no-untyped-def]
    """C4's verdict on the document: sentences in the lines that stay, and what was noticed in any of them.

    After a word that ends a sentence, the next that is no punctuation begins another.
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
        a, b = trimmed(flags, lo, hi)
        if a == b:
            continue
        lines += 1
        said = c4_line(code, flags, a, b, any_end)
        noticed |= said
        if said & _ENDS:
            ending += 1
        if said & 7 == JAVASCRIPT:
            javascript += 1
        elif said & 7 == POLICY:
            policy += 1
        if said & 7 != STAYS:
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
    out[2] = noticed & _LOREM_IPSUM != 0
    out[3] = noticed & _BRACKET != 0
    out[4] = javascript
    out[5] = policy


@kernel("int64(int32[::1], int64, int64)")
def citation(code, i, hi):  # type: ignore[no-untyped-def]
    """How many characters the citation at i takes, [1], [], [edit] or [citation needed]; 0 where there is none."""
    j = i + 1
    while j < hi and 48 <= code[j] <= 57:
        j += 1
    if j < hi and code[j] == 93:
        return j + 1 - i
    for which in range(_EDIT, _END):
        if hi - i >= _PHRASE_SIZE[which] and phrase_at(code, i, which):
            return _PHRASE_SIZE[which]
    return 0


@kernel("int64(int32[::1], uint16[::1], int64, boolean, uint8[::1], int64, int64[::1])")
def c4_keep(code, flags, n, any_end, text, at, counts):  # type: ignore[no-untyped-def]
    """Writes the lines that C4 keeps to `text` from `at` on, as UTF-8, between newlines, white space around them and
    citations inside them gone; returns where it ends. Adds to `counts`: lines with something on them, lines kept."""
    begin = at
    lo = 0
    while lo < n:
        hi = lo
        while hi < n and not flags[hi] & BREAK:
            hi += 1
        a, b = trimmed(flags, lo, hi)
        lo = hi + 1
        if a == b:
            continue
        counts[0] += 1
        if c4_line(code, flags, a, b, any_end) & 7 != STAYS:
            continue
        counts[1] += 1
        if at > begin:
            text[at] = 10
            at += 1
        i = a
        while i < b:
            c = code[i]
            if c == 91:
                skip = citation(code, i, b)
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


@kernel("void(uint16[::1], int64, int64, int32[::1], int64, uint64[::1], uint64[::1], float64[::1])")
def fineweb(flags, n, count, newlines, full, line_hash, table, out):  # type: ignore[no-untyped-def]
    """Penedo et al. 2024, section 3.6: over lines with something on them, cut at newlines only."""
    mask = clear(full, table)
    lines = 0
    ending = 0
    short = 0
    double = 0
    hi = -1
    for line in range(full):
        lo = hi + 1
        hi = newlines[line]
        at = lo
        while at < hi and flags[at] & SPACE:
            at += 1
        if at < hi:
            lines += 1
            if flags[hi - 1] & TERMINAL:
                ending += 1
            if hi - lo <= 30:
                short += 1
            if seen(line_hash[line], table, mask):
                double += hi - lo
    breaks = full - 1
    out[0] = ending / lines if lines else 0.0
    out[1] = short / lines if lines else 0.0
    out[2] = double / (n - breaks) if n > breaks else 0.0
    out[3] = breaks / count if count else 0.0
