"""The statistics behind the heuristics, in one pass over Arrow's string buffer: see `heuristics.py` for the rules.

A document is decoded once into code points with their character classes; words, lines and paragraphs are then ranges
of that array, and repeated ones are found by 64-bit hashes (a collision in a document of 10^6 words: under 10^-7).

Repetition (Rae et al. 2021, section A1.1, with datatrove's reading of it): of words w_1..w_n, the *top* n-gram counts
characters of all its occurrences, its words joined with spaces; *duplicate* n-grams are counted from left to right
without overlap: one seen before adds its characters and is skipped over, any other is remembered and moved on from
by one word. All over the number of characters of the text.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel
from curation.quality.heuristics_words import (
    ALPHA,
    BREAK,
    PUNCTUATION,
    SPACE,
    TERMINAL,
    WORD,
    decode,
    words,
)

# What `measure` fills in for each document, in this order.
COLUMNS = (
    "characters",
    "words",
    "mean_word_length",
    "hash_ratio",
    "ellipsis_ratio",
    "bullet_lines",
    "ellipsis_lines",
    "alpha_words",
    "stop_words",
    "dup_line_frac",
    "dup_line_char_frac",
    "dup_para_frac",
    "dup_para_char_frac",
    "top_2gram",
    "top_3gram",
    "top_4gram",
    "dup_5gram",
    "dup_6gram",
    "dup_7gram",
    "dup_8gram",
    "dup_9gram",
    "dup_10gram",
    "sentences",
    "terminal_lines",
    "lorem_ipsum",
    "curly_bracket",
    "javascript_lines",
    "policy_lines",
    "punct_line_ratio",
    "short_line_ratio",
    "dup_char_ratio",
    "newline_ratio",
)
_C4 = COLUMNS.index("sentences")
_FINEWEB = COLUMNS.index("punct_line_ratio")

_M1 = np.uint64(0xFF51AFD7ED558CCD)  # the finalizer of MurmurHash3 (Appleby, public domain)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_ONE = np.uint64(1)


def _packed(word: str) -> np.uint64:
    return np.uint64(int.from_bytes(word.encode(), "big"))


_STOP = np.array([_packed(w) for w in ("the", "be", "to", "of", "and", "that", "have", "with")], np.uint64)


@kernel("uint64(uint64)")
def mix(h):  # type: ignore[no-untyped-def]
    """Spreads a hash over all 64 bits; never 0, which marks a free slot."""
    h = (h ^ (h >> _SHIFT)) * _M1
    h = (h ^ (h >> _SHIFT)) * _M2
    return (h ^ (h >> _SHIFT)) | _ONE


@kernel("uint64(int32[::1], int64, int64)")
def hash_range(code, lo, hi):  # type: ignore[no-untyped-def]
    h = np.uint64(hi - lo)
    for i in range(lo, hi):
        h = (h ^ np.uint64(code[i])) * _BASE
        h ^= h >> _SHIFT
    return mix(h)


@kernel("boolean(uint64, uint64[::1], uint64)")
def seen(h, table, mask):  # type: ignore[no-untyped-def]
    """Whether h is in the open-addressing table; it is afterwards."""
    slot = h & mask
    while table[slot]:
        if table[slot] == h:
            return True
        slot = (slot + _ONE) & mask
    table[slot] = h
    return False


@kernel("uint64(int64, uint64[::1])")
def clear(entries, table):  # type: ignore[no-untyped-def]
    """Empties the part of the table that `entries` entries use at most half of; returns its mask."""
    size = 16
    while size < 2 * entries:
        size *= 2
    table[:size] = 0
    return np.uint64(size - 1)


@kernel("void(int32[::1], uint16[::1], int64, int32[::1], int32[::1], int64, float64[::1])")
def gopher_quality(code, flags, n, start, end, count, out):  # type: ignore[no-untyped-def]
    """Rae et al. 2021, section A1.1: words, symbols, bullets, alphabetic words, stop words. Lines as str.splitlines."""
    good = 0
    letters = 0
    alpha = 0
    stops = 0
    for w in range(count):
        union = np.uint16(0)
        lo = start[w]
        hi = end[w]
        for i in range(lo, hi):
            union |= flags[i]
        if union & WORD:
            good += 1
            letters += hi - lo
            if union & ALPHA:
                alpha += 1
            if 2 <= hi - lo <= 4 and code[lo] >= 97:
                packed = np.uint64(0)
                for i in range(lo, hi):
                    packed = (packed << np.uint64(8)) | np.uint64(code[i] & 0xFF)
                    if code[i] > 127:
                        packed = np.uint64(0)
                        break
                for s in range(len(_STOP)):
                    if _STOP[s] == packed:
                        stops |= 1 << s
    hashes = 0
    dots = 0
    i = 0
    while i < n:
        c = code[i]
        if c == 35:
            hashes += 1
        elif c == 0x2026:
            dots += 1
        elif c == 46 and i + 2 < n and code[i + 1] == 46 and code[i + 2] == 46:
            dots += 1
            i += 2
        i += 1
    lines = 0
    bullets = 0
    trailing = 0
    lo = 0
    while lo < n:
        hi = lo
        while hi < n and not flags[hi] & BREAK:
            hi += 1
        lines += 1
        a = lo
        while a < hi and flags[a] & SPACE:
            a += 1
        b = hi
        while b > a and flags[b - 1] & SPACE:
            b -= 1
        if a < b:
            if code[a] == 45 or code[a] == 0x2022:
                bullets += 1
            if code[b - 1] == 0x2026 or (b - a >= 3 and code[b - 1] == 46 and code[b - 2] == 46 and code[b - 3] == 46):
                trailing += 1
        lo = hi + 1
        if hi + 1 < n and code[hi] == 13 and code[hi + 1] == 10:
            lo += 1
    distinct = 0
    while stops:
        distinct += stops & 1
        stops >>= 1
    out[1] = good
    out[2] = letters / good if good else 0.0
    out[3] = hashes / count if count else 0.0
    out[4] = dots / count if count else 0.0
    out[5] = bullets / lines if lines else 0.0
    out[6] = trailing / lines if lines else 0.0
    out[7] = alpha / count if count else 0.0
    out[8] = distinct


@kernel("void(int32[::1], uint16[::1], int64, uint64[::1], float64[::1])")
def repeated_lines(code, flags, n, table, out):  # type: ignore[no-untyped-def]
    """Duplicate lines and paragraphs (blocks between two newlines or more), by number and by characters."""
    breaks = 1
    for i in range(n):
        if code[i] == 10:
            breaks += 1
    mask = clear(breaks, table)
    lines = 0
    double = 0
    characters = 0
    lo = 0
    while lo < n:
        hi = lo
        while hi < n and code[hi] != 10:
            hi += 1
        if hi > lo:
            lines += 1
            if seen(hash_range(code, lo, hi), table, mask):
                double += 1
                characters += hi - lo
        lo = hi + 1
    out[9] = double / lines if lines else 0.0
    out[10] = characters / n if n else 0.0
    first = 0
    last = n
    while first < last and flags[first] & SPACE:
        first += 1
    while last > first and flags[last - 1] & SPACE:
        last -= 1
    mask = clear(breaks, table)
    blocks = 0
    double = 0
    characters = 0
    lo = first
    while lo < last:
        hi = lo
        while hi < last and not (code[hi] == 10 and code[hi + 1] == 10):  # text[last - 1] is no newline
            hi += 1
        blocks += 1
        if seen(hash_range(code, lo, hi), table, mask):
            double += 1
            characters += hi - lo
        while hi < last and code[hi] == 10:
            hi += 1
        lo = hi
    out[11] = double / blocks if blocks else 0.0
    out[12] = characters / n if n else 0.0


@kernel(
    "void(int32[::1], int64, int32[::1], int32[::1], int64, uint64[::1], uint64[::1], uint64[::1],"
    " int32[::1], int32[::1], float64[::1])"
)
def repeated_ngrams(code, n, start, end, count, one, gram, table, times, first, out):  # type: ignore[no-untyped-def]
    """Top 2- to 4-grams and duplicate 5- to 10-grams. An n-gram's hash is a polynomial over its words' hashes."""
    for w in range(count):
        one[w] = hash_range(code, start[w], end[w])
        gram[w] = one[w]
    unique = False  # no n-gram occurs twice: then no longer one does, and the first stands for all
    for size in range(2, 5):
        grams = count - size + 1
        if grams < 1:
            break
        for w in range(grams):
            gram[w] = gram[w] * _BASE + one[w + size - 1]
        best = 0
        at = 0
        if unique:
            best = 1
        else:
            mask = clear(grams, table)
            for w in range(grams):
                h = mix(gram[w])
                slot = h & mask
                while table[slot] and table[slot] != h:
                    slot = (slot + _ONE) & mask
                if table[slot]:
                    times[slot] += 1
                else:
                    table[slot] = h
                    times[slot] = 1
                    first[slot] = w
                if times[slot] > best or (times[slot] == best and first[slot] < at):
                    best = times[slot]
                    at = first[slot]
            unique = best == 1
        length = size - 1
        for w in range(at, at + size):
            length += end[w] - start[w]
        out[11 + size] = length * best / n
    for size in range(5, 11):
        grams = count - size + 1
        if grams < 1:
            break
        for w in range(grams):
            gram[w] = gram[w] * _BASE + one[w + size - 1]
        if unique:
            continue
        mask = clear(grams, table)
        characters = 0
        w = 0
        while w < grams:
            if seen(mix(gram[w]), table, mask):
                for k in range(w, w + size):
                    characters += end[k] - start[k]
                w += size
            else:
                w += 1
        unique = characters == 0
        out[11 + size] = characters / n


_POLICY = (b"terms of use", b"privacy policy", b"cookie policy", b"uses cookies", b"use of cookies", b"use cookies")
_PHRASES = (b"lorem ipsum", b"javascript", *_POLICY, b"[edit]", b"[citation needed]")
_LOREM, _JAVASCRIPT, _FIRST_POLICY, _EDIT, _CITATION, _END = 0, 1, 2, 8, 9, 10
_PHRASE = np.array([list(p.ljust(20, b"\0")) for p in _PHRASES], np.int32)
_PHRASE_SIZE = np.array([len(p) for p in _PHRASES])


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


@kernel("boolean(int32[::1], int64, int64, int64)")
def contains(code, lo, hi, which):  # type: ignore[no-untyped-def]
    for i in range(lo, hi - _PHRASE_SIZE[which] + 1):  # noqa: SIM110
        if phrase_at(code, i, which):
            return True
    return False


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


@kernel("void(int32[::1], uint16[::1], int64, int32[::1], int32[::1], int64, float64[::1])")
def c4(code, flags, n, start, end, count, out):  # type: ignore[no-untyped-def]
    """Raffel et al. 2020, section 2.2, and the published code's order of tests: which lines C4 would keep.

    A line stays with three words (by white space) or more, none over 1,000 characters, if it ends in . ? ! " or '
    but not in ... and does not speak of javascript or policies. "lorem ipsum" or { in a line that ends well is
    against the document. Sentences are counted in the lines that stay: after a word that ends a sentence, the next
    that is no punctuation begins another.
    """
    lines = 0
    ending = 0
    sentences = 0
    lorem = 0
    curly = 0
    javascript = 0
    policy = 0
    w = 0
    lo = 0
    while lo < n:
        hi = lo
        while hi < n and not flags[hi] & BREAK:
            hi += 1
        a = lo
        while a < hi and flags[a] & SPACE:
            a += 1
        b = hi
        while b > a and flags[b - 1] & SPACE:
            b -= 1
        lo = hi + 1
        if a == b:
            continue
        lines += 1
        chunks = 0
        longest = 0
        run = 0
        bracket = False
        for i in range(a, b):
            if flags[i] & SPACE:
                run = 0
            else:
                if run == 0:
                    chunks += 1
                run += 1
                longest = max(longest, run)
                if code[i] == 123:
                    bracket = True
        if longest > 1000:
            continue
        e = before_citations(code, a, b)
        if e == a:
            continue
        c = code[e - 1]
        if not (c == 46 or c == 63 or c == 33 or c == 34 or c == 39):
            continue
        if e - a >= 3 and c == 46 and code[e - 2] == 46 and code[e - 3] == 46:
            continue
        ending += 1
        if chunks < 3:
            continue
        if contains(code, a, b, _LOREM):
            lorem = 1
        if contains(code, a, b, _JAVASCRIPT):
            javascript += 1
            continue
        if bracket:
            curly = 1
        banned = False
        for which in range(_FIRST_POLICY, _EDIT):
            banned = banned or contains(code, a, b, which)
        if banned:
            policy += 1
            continue
        while w < count and start[w] < a:
            w += 1
        sentences += 1
        ended = False
        while w < count and start[w] < b:
            s = start[w]
            single = end[w] - s == 1
            if single and flags[s] & TERMINAL:
                ended = True
            elif ended:
                punctuation = True
                for i in range(s, end[w]):
                    punctuation = punctuation and flags[i] & PUNCTUATION != 0
                if not punctuation:
                    sentences += 1
                    ended = False
            w += 1
    out[_C4] = sentences
    out[_C4 + 1] = ending / lines if lines else 0.0
    out[_C4 + 2] = lorem
    out[_C4 + 3] = curly
    out[_C4 + 4] = javascript
    out[_C4 + 5] = policy


@kernel("void(int32[::1], uint16[::1], int64, int64, uint64[::1], float64[::1])")
def fineweb(code, flags, n, count, table, out):  # type: ignore[no-untyped-def]
    """Penedo et al. 2024, section 3.6: over lines with something on them, cut at newlines only."""
    breaks = 0
    for i in range(n):
        if code[i] == 10:
            breaks += 1
    mask = clear(breaks + 1, table)
    lines = 0
    ending = 0
    short = 0
    double = 0
    lo = 0
    while lo < n:
        hi = lo
        blank = True
        while hi < n and code[hi] != 10:
            blank = blank and flags[hi] & SPACE != 0
            hi += 1
        if not blank:
            lines += 1
            if flags[hi - 1] & TERMINAL:
                ending += 1
            if hi - lo <= 30:
                short += 1
            if seen(hash_range(code, lo, hi), table, mask):
                double += hi - lo
        lo = hi + 1
    out[_FINEWEB] = ending / lines if lines else 0.0
    out[_FINEWEB + 1] = short / lines if lines else 0.0
    out[_FINEWEB + 2] = double / (n - breaks) if n > breaks else 0.0
    out[_FINEWEB + 3] = breaks / count if count else 0.0


@kernel((BYTES, OFFSETS, nb.uint16[::1], nb.int64, nb.int64, nb.float64[:, ::1]))
def measure(data, offsets, table, sets, longest, out):  # type: ignore[no-untyped-def]
    """All statistics of a batch: document d is the bytes offsets[d]..offsets[d + 1] of `data`, row d of `out`.

    `sets` has bit 0 for gopher, 1 for gopher_repetition, 2 for c4, 3 for fineweb; what is not asked for stays 0.
    `longest` is the longest document in bytes. Scratch is about 60 bytes for each of those.
    """
    code = np.empty(longest + 1, np.int32)
    flags = np.empty(longest + 1, np.uint16)
    start = np.empty(longest + 1, np.int32)
    end = np.empty(longest + 1, np.int32)
    ends = np.empty(longest + 1, np.int32)
    one = np.empty(longest + 1, np.uint64)
    gram = np.empty(longest + 1, np.uint64)
    slots = 16
    while slots < 2 * (longest + 1):
        slots *= 2
    hashes = np.empty(slots, np.uint64)
    times = np.empty(slots, np.int32)
    first = np.empty(slots, np.int32)
    for d in range(len(offsets) - 1):
        row = out[d]
        row[:] = 0.0
        n = decode(data, offsets[d], offsets[d + 1], table, code, flags)
        row[0] = n
        count = words(code, flags, n, start, end, ends)
        if sets & 1:
            gopher_quality(code, flags, n, start, end, count, row)
        if sets & 2 and n:
            repeated_lines(code, flags, n, hashes, row)
            repeated_ngrams(code, n, start, end, count, one, gram, hashes, times, first, row)
        if sets & 4:
            c4(code, flags, n, start, end, count, row)
        if sets & 8:
            fineweb(code, flags, n, count, hashes, row)
