"""The statistics behind the heuristics, in one pass over Arrow's string buffer: see `heuristics.py` for the rules.

A document is decoded once into code points with their character classes; words, lines and paragraphs are then ranges
of that array, and repeated ones are found by their hashes.

Repetition (Rae et al. 2021, section A1.1, with datatrove's reading of it): of words w_1..w_n, the *top* n-gram counts
characters of all its occurrences, its words joined with spaces; *duplicate* n-grams are counted from left to right
without overlap: one seen before adds its characters and is skipped over, any other is remembered and moved on from
by one word. All over the number of characters of the text.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel
from curation.quality.heuristics_hashes import BASE, ONE, clear, hash_range, mix, seen
from curation.quality.heuristics_lines import c4, fineweb
from curation.quality.heuristics_words import ALPHA, BREAK, SPACE, WORD, decode, words

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


def _packed(word: str) -> np.uint64:
    return np.uint64(int.from_bytes(word.encode(), "big"))


_STOP = np.array([_packed(w) for w in ("the", "be", "to", "of", "and", "that", "have", "with")], np.uint64)


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
    " int32[::1], int32[::1], int32[::1], boolean[::1], float64[::1])"
)
def repeated_ngrams(code, n, start, end, count, one, gram, table, times, first, where, again, out):  # type: ignore[no-untyped-def]
    """Top 2- to 4-grams and duplicate 5- to 10-grams. An n-gram's hash is a polynomial over its words' hashes.

    An n-gram that occurs twice begins with one of n - 1 words that does. So each size looks only at the places where
    the one before found repetition (`again`), which in prose are few; the others occur once and match nothing.
    """
    for w in range(count):
        one[w] = hash_range(code, start[w], end[w])
        gram[w] = one[w]
        again[w] = True
    unique = False  # no n-gram occurs twice: then no longer one does, and the first stands for all
    for size in range(2, 5):
        grams = count - size + 1
        if grams < 1:
            break
        for w in range(grams):
            gram[w] = gram[w] * BASE + one[w + size - 1]
        best = 1
        at = 0
        if not unique:
            some = 0
            for w in range(grams):
                some += again[w]
            mask = clear(some, table)
            for w in range(grams):
                if not again[w]:
                    continue
                h = mix(gram[w])
                slot = h & mask
                while table[slot] and table[slot] != h:
                    slot = (slot + ONE) & mask
                if table[slot]:
                    times[slot] += 1
                else:
                    table[slot] = h
                    times[slot] = 1
                    first[slot] = w
                where[w] = slot
                if times[slot] > best or (times[slot] == best and best > 1 and first[slot] < at):
                    best = times[slot]
                    at = first[slot]
            for w in range(grams):
                again[w] = again[w] and times[where[w]] > 1
            unique = best == 1
        length = size - 1
        for w in range(at, at + size):
            length += end[w] - start[w]
        out[11 + size] = length * best / n
    for size in range(5, 11):
        grams = count - size + 1
        if grams < 1:
            break
        some = 0
        for w in range(grams):
            gram[w] = gram[w] * BASE + one[w + size - 1]
            some += again[w]
        if unique:
            continue
        mask = clear(some, table)
        characters = 0
        w = 0
        while w < grams:
            if again[w] and seen(mix(gram[w]), table, mask):
                for k in range(w, w + size):
                    characters += end[k] - start[k]
                w += size
            else:
                w += 1
        unique = characters == 0
        out[11 + size] = characters / n


@kernel((BYTES, OFFSETS, nb.uint16[::1], nb.int64, nb.int64, nb.float64[:, ::1]))
def measure(data, offsets, table, sets, longest, out):  # type: ignore[no-untyped-def]
    """All statistics of a batch: document d is the bytes offsets[d]..offsets[d + 1] of `data`, row d of `out`.

    `sets` has bit 0 for gopher, 1 for gopher_repetition, 2 for c4, 3 for fineweb, 4 for C4's lines however they end;
    what is not asked for stays 0.
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
    where = np.empty(longest + 1, np.int32)
    again = np.empty(longest + 1, np.bool_)
    for d in range(len(offsets) - 1):
        row = out[d]
        row[:] = 0.0
        n = decode(data, offsets[d], offsets[d + 1], table, code, flags)
        row[0] = n
        count = words(code, flags, n, start, end, ends)
        row[0] = n
        if sets & 1:
            gopher_quality(code, flags, n, start, end, count, row)
        if sets & 2 and n:
            repeated_lines(code, flags, n, hashes, row)
            repeated_ngrams(code, n, start, end, count, one, gram, hashes, times, first, where, again, row)
        if sets & 4:
            c4(code, flags, n, start, end, count, sets & 16 != 0, row[_C4:])
        if sets & 8:
            fineweb(code, flags, n, count, hashes, row[_FINEWEB:])
