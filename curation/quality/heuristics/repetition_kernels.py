"""The kernels of repetition within a document: lines, paragraphs and phrases that occur more than once.

Rae et al. 2021, section A1.1, with datatrove's reading of it: of words w_1..w_n, the *top* n-gram counts characters of
all its occurrences, its words joined with spaces; *duplicate* n-grams are counted from left to right without overlap:
one seen before adds its characters and is skipped over, any other is remembered and moved on from by one word. All over
the number of characters of the text. `out` is the document's row: see COLUMNS in `heuristics_kernels.py`.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.quality.heuristics.hash_table import BASE, ONE, clear, fold, hash_range, mix, seen
from curation.quality.heuristics.word_kernels import trimmed

_LOW = np.uint64(0xFFFFFFFF)


@kernel("void(int32[::1], uint16[::1], int64, int32[::1], int64, uint64[::1], uint64[::1], float64[::1])")
def repeated_lines(code, flags, n, newlines, lines, line_hash, table, out):  # type: ignore[no-untyped-def]
    """Duplicate lines and paragraphs (blocks between two newlines or more), by number and by characters."""
    mask = clear(lines, table)
    full = 0
    double = 0
    characters = 0
    lo = 0
    for line in range(lines):
        hi = newlines[line]
        if hi > lo:
            full += 1
            if seen(line_hash[line], table, mask):
                double += 1
                characters += hi - lo
        lo = hi + 1
    out[9] = double / full if full else 0.0
    out[10] = characters / n
    first, last = trimmed(flags, 0, n)
    mask = clear(lines, table)
    blocks = 0
    double = 0
    characters = 0
    size = 0  # of the block so far
    h = np.uint64(0)
    begin = 0
    for line in range(lines):
        stop = newlines[line]
        lo = max(begin, first)  # the text without white space around it
        hi = min(stop, last)
        if hi > lo:
            h = fold(h, line_hash[line] if lo == begin and hi == stop else hash_range(code, lo, hi))
            size += hi - lo + 1
        if size and (hi <= lo or line == lines - 1):
            blocks += 1
            if seen(mix(h), table, mask):
                double += 1
                characters += size - 1
            size = 0
            h = np.uint64(0)
        begin = stop + 1
    out[11] = double / blocks if blocks else 0.0
    out[12] = characters / n


@kernel(
    "void(int32[::1], int64, int32[::1], int32[::1], int64, uint64[::1], uint64[::1], uint64[::1],"
    " int32[::1], int32[::1], int32[::1], float64[::1])"
)
def repeated_ngrams(code, n, start, end, count, one, gram, table, places, same, times, out):  # type: ignore[no-untyped-def]
    """Top 2- to 4-grams and duplicate 5- to 10-grams. An n-gram's hash is a polynomial over its words' hashes.

    An n-gram that occurs twice begins with one of n - 1 words that does. So each size looks only at the `places` where
    the one before found repetition, which in prose are few; the others occur once and match nothing.
    """
    for i in range(count):
        one[i] = hash_range(code, start[i], end[i])
        gram[i] = one[i]
        places[i] = i
    some = count  # places left
    for size in range(2, 5):
        while some and places[some - 1] + size > count:
            some -= 1
        if count < size:
            break
        # An entry of the table is 32 bits of the hash and the n-gram's first place, plus 1: one cache line a look-up.
        mask = clear(some, table)
        best = 1
        at = np.int64(0)
        for p in range(some):
            w = places[p]
            gram[w] = gram[w] * BASE + one[w + size - 1]
            h = mix(gram[w])
            slot = (h >> ONE) & mask
            entry = table[slot]
            while entry and not ((entry ^ h) <= _LOW and gram[np.int64(entry & _LOW) - 1] == gram[w]):
                slot = (slot + ONE) & mask
                entry = table[slot]
            if entry:
                w = np.int64(entry & _LOW) - 1
                times[w] += 1
                if times[w] > best or (times[w] == best and w < at):
                    best = times[w]
                    at = w
            else:
                table[slot] = (h & ~_LOW) | np.uint64(w + 1)
                times[w] = 1
            same[p] = w
        left = 0
        for p in range(some):
            if times[same[p]] > 1:
                places[left] = places[p]
                left += 1
        some = left
        length = size - 1
        for i in range(at, at + size):
            length += end[i] - start[i]
        out[11 + size] = length * best / n
    for size in range(5, 11):
        while some and places[some - 1] + size > count:
            some -= 1
        if not some:
            break
        mask = clear(some, table)
        characters = 0
        free = 0  # up to where words are counted
        for p in range(some):
            w = places[p]
            gram[w] = gram[w] * BASE + one[w + size - 1]
            if w >= free and seen(mix(gram[w]), table, mask):
                free = w + size
                for i in range(w, free):
                    characters += end[i] - start[i]
        if not characters:  # no n-gram occurs twice, and no longer one does
            break
        out[11 + size] = characters / n
