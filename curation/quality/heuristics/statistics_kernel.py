"""Computes all statistics of the heuristics in one pass over Arrow's string buffer; heuristics.py has the rules.

A document is decoded once into code points with their character classes; words, lines and paragraphs are ranges of that
array, and repeated ones are found by their hashes.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel
from curation.quality.heuristics.c4_kernels import c4_statistics
from curation.quality.heuristics.character_classes import ALPHA, WORD, decode, strip_range
from curation.quality.heuristics.line_kernels import fineweb_statistics, line_ends, line_hashes
from curation.quality.heuristics.repetition_kernels import repeated_lines, repeated_ngrams
from curation.quality.heuristics.stop_words import count_stop_words
from curation.quality.heuristics.word_kernels import split_words

# What `compute_statistics` fills in for each document, in this order.
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
_STOP_WORDS = COLUMNS.index("stop_words")
_C4 = COLUMNS.index("sentences")
_FINEWEB = COLUMNS.index("punct_line_ratio")


@kernel("void(int32[::1], uint16[::1], int64, int32[::1], int32[::1], int64, int32[::1], int64, float64[::1])")
def gopher_quality(code, flags, n, start, end, count, breaks, lines_at_most, out):  # type: ignore[no-untyped-def]
    """Rae et al. 2021, section A1.1: words, symbols, bullets, alphabetic words. Lines as str.splitlines."""
    good = 0
    letters = 0
    alpha = 0
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
    hashes = 0
    dots = 0
    for i in range(n):
        hashes += code[i] == 35
        dots += code[i] == 0x2026
    i = 0
    while i + 2 < n:
        if code[i + 2] != 46:
            i += 3
        elif code[i] == 46 and code[i + 1] == 46:
            dots += 1
            i += 3
        else:
            i += 1
    lines = 0
    bullets = 0
    trailing = 0
    lo = 0
    for line in range(lines_at_most):
        hi = breaks[line]
        if hi < lo:  # the second half of \r\n
            continue
        lines += 1
        a, b = strip_range(flags, lo, hi)
        if a < b:
            if code[a] == 45 or code[a] == 0x2022:
                bullets += 1
            if code[b - 1] == 0x2026 or (b - a >= 3 and code[b - 1] == 46 and code[b - 2] == 46 and code[b - 3] == 46):
                trailing += 1
        lo = hi + 1
        if hi + 1 < n and code[hi] == 13 and code[hi + 1] == 10:
            lo += 1
    out[1] = good
    out[2] = letters / good if good else 0.0
    out[3] = hashes / count if count else 0.0
    out[4] = dots / count if count else 0.0
    out[5] = bullets / lines if lines else 0.0
    out[6] = trailing / lines if lines else 0.0
    out[7] = alpha / count if count else 0.0


@kernel(
    (
        *(BYTES, OFFSETS, nb.uint16[::1], nb.int64, nb.int64, nb.uint64[::1], nb.int64[:, ::1], nb.int64[::1]),
        *(nb.int64[::1], nb.float64[:, ::1]),
    )
)
def compute_statistics(  # type: ignore[no-untyped-def]
    data, offsets, table, sets, longest, stop_hashes, stop_words, languages, cuts, out
):
    """All statistics of a batch: document d is the bytes offsets[d]..offsets[d + 1] of `data`, row d of `out`.

    sets     bit 0: gopher, 1: gopher_repetition, 2: c4, 3: fineweb, 4: C4 without terminal punctuation. Columns of
             other sets are 0
    longest  the longest document in bytes; scratch memory is about 60 times as much
    stop_hashes, stop_words, languages
             from stop_words.build_table, and the row of each document's language there, -1 for none
    cuts  for each language how its words are cut (see split_words)
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
    places = np.empty(longest + 1, np.int32)
    same = np.empty(longest + 1, np.int32)
    times = np.empty(longest + 1, np.int32)
    breaks = np.empty(longest + 1, np.int32)
    newlines = np.empty(longest + 1, np.int32)
    line_hash = np.empty(longest + 1, np.uint64)
    found = np.empty(len(stop_hashes), np.bool_)
    for d in range(len(offsets) - 1):
        row = out[d]
        row[:] = 0.0
        n = decode(data, offsets[d], offsets[d + 1], table, code, flags)
        row[0] = n
        count = split_words(code, flags, n, start, end, ends, cuts[languages[d]] if languages[d] >= 0 else 0)
        row[0] = n
        ended, lines = line_ends(code, flags, n, breaks, newlines)
        if sets & 10:
            line_hashes(code, newlines, lines, line_hash)
        if sets & 1:
            gopher_quality(code, flags, n, start, end, count, breaks, ended, row)
            if languages[d] >= 0:
                row[_STOP_WORDS] = count_stop_words(
                    code, flags, n, start, end, count, stop_hashes, stop_words, languages[d], found
                )
        if sets & 2 and n:
            repeated_lines(code, flags, n, newlines, lines, line_hash, hashes, row)
            repeated_ngrams(code, n, start, end, count, one, gram, hashes, places, same, times, row)
        if sets & 4:
            c4_statistics(code, flags, start, end, count, breaks, ended, sets & 16 != 0, row[_C4:])
        if sets & 8:
            fineweb_statistics(flags, n, count, newlines, lines, line_hash, hashes, row[_FINEWEB:])
