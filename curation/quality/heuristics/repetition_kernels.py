"""Kernels that measure repetition within a document: lines, paragraphs and n-grams that occur more than once.

Rae et al. 2021, section A1.1, as datatrove implements it: the *top* n-gram counts the characters of all its
occurrences, its words joined with spaces; *duplicate* n-grams are counted from left to right without overlap: one seen
before adds its characters and is skipped, any other is remembered and the scan advances by one word. All are divided by
the number of characters of the text. `out` is the document's row: see COLUMNS in statistics_kernel.py.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel
from curation.quality.heuristics.character_classes import strip_range
from curation.quality.heuristics.hash_table import (
    HASH_MULTIPLIER,
    ONE,
    clear_table,
    combine_hash,
    hash_characters,
    mix_hash,
    seen_before,
)

_LOW = np.uint64(0xFFFFFFFF)


@kernel("void(int32[::1], uint16[::1], int64, int32[::1], int64, uint64[::1], uint64[::1], float64[::1])")
def repeated_lines(code, flags, n, newlines, lines, line_hash, table, out):  # type: ignore[no-untyped-def]
    """Shares of duplicate lines and paragraphs (separated by two newlines or more), by number and by characters."""
    mask = clear_table(lines, table)
    full = 0
    double = 0
    characters = 0
    lo = 0
    for line in range(lines):
        hi = newlines[line]
        if hi > lo:
            full += 1
            if seen_before(line_hash[line], table, mask):
                double += 1
                characters += hi - lo
        lo = hi + 1
    out[9] = double / full if full else 0.0
    out[10] = characters / n
    first, last = strip_range(flags, 0, n)
    mask = clear_table(lines, table)
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
            h = combine_hash(h, line_hash[line] if lo == begin and hi == stop else hash_characters(code, lo, hi))
            size += hi - lo + 1
        if size and (hi <= lo or line == lines - 1):
            blocks += 1
            if seen_before(mix_hash(h), table, mask):
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

    An n-gram that occurs twice begins with an (n-1)-gram that does. So each size looks only at the `places` where the
    size before found repetition, which in prose are few; all others occur once.
    """
    for i in range(count):
        one[i] = hash_characters(code, start[i], end[i])
        gram[i] = one[i]
        places[i] = i
    some = count  # number of places left
    for size in range(2, 5):
        while some and places[some - 1] + size > count:
            some -= 1
        if count < size:
            break
        # A table entry is 32 bits of the hash and the n-gram's first place plus 1: one cache line per look-up.
        mask = clear_table(some, table)
        best = 1
        at = np.int64(0)
        for p in range(some):
            w = places[p]
            gram[w] = gram[w] * HASH_MULTIPLIER + one[w + size - 1]
            h = mix_hash(gram[w])
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
        mask = clear_table(some, table)
        characters = 0
        free = 0  # end of the last counted n-gram
        for p in range(some):
            w = places[p]
            gram[w] = gram[w] * HASH_MULTIPLIER + one[w + size - 1]
            if w >= free and seen_before(mix_hash(gram[w]), table, mask):
                free = w + size
                for i in range(w, free):
                    characters += end[i] - start[i]
        if not characters:  # no n-gram occurs twice, so no longer one does
            break
        out[11 + size] = characters / n
