"""Counts how many different stop words of its language a document has.

A stop word counts where it is a word of the text, exactly as it is written. One of a script without spaces counts
wherever its letters stand together: word_kernels.py cuts such scripts without a dictionary, so 的 is seldom a word. One
in Hangul also counts as the end of a word, because Korean's most frequent words are particles written with the noun.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from curation.kernels import kernel
from curation.quality.heuristics.character_classes import UNSPACED
from curation.quality.heuristics.hash_table import hash_characters

# Columns of the table: the stop words of a language are hashes[FIRST:LAST], of at most LONGEST characters, those with
# letters of unspaced scripts of at most LONGEST_UNSPACED. FILTER has a bit for each hash's bits 1 to 6.
_FIRST, _LAST, _LONGEST, _LONGEST_UNSPACED, _FILTER = range(5)
_BITS, _ONE = np.uint64(63), np.uint64(1)

StopWordTable = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]


def build_table(languages: Sequence[Sequence[str]], classes: npt.NDArray[np.uint16]) -> StopWordTable:
    """(hashes, table) for `count_stop_words`: a row of the table for each list of stop words.

    classes  from character_classes()
    """
    table = np.zeros((len(languages), 5), np.int64)
    hashes: list[int] = []
    for row, words in zip(table, languages, strict=True):
        row[_FIRST] = len(hashes)
        bits = 0
        for word in dict.fromkeys(words):
            code = np.fromiter(map(ord, word), np.int32, len(word))
            hashes.append(int(hash_characters(code, 0, len(code))))
            bits |= 1 << (hashes[-1] >> 1 & 63)
            row[_LONGEST] = max(row[_LONGEST], len(word))
            if max(word) >= "\u0e00" and (classes[code] & UNSPACED).any():
                row[_LONGEST_UNSPACED] = max(row[_LONGEST_UNSPACED], len(word))
        row[_LAST] = len(hashes)
        row[_FILTER] = np.uint64(bits).astype(np.int64)
    return np.array(hashes, np.uint64), table


@kernel("int64(uint64, uint64, uint64[::1], int64, int64, boolean[::1])")
def _find(h, bits, hashes, first, last, found):  # type: ignore[no-untyped-def]
    """1 if h is of a stop word that was not found before, else 0."""
    if (bits >> (h >> _ONE & _BITS)) & _ONE:
        for s in range(first, last):
            if hashes[s] == h and not found[s - first]:
                found[s - first] = True
                return 1
    return 0


@kernel(
    "int64(int32[::1], uint16[::1], int64, int32[::1], int32[::1], int64, uint64[::1], int64[:, ::1], int64,"
    " boolean[::1])"
)
def count_stop_words(code, flags, n, start, end, count, hashes, table, language, found):  # type: ignore[no-untyped-def]
    """How many of a language's stop words occur; `found` is scratch, as long as the longest list of stop words."""
    first = table[language, _FIRST]
    last = table[language, _LAST]
    longest = table[language, _LONGEST]
    bits = np.uint64(table[language, _FILTER])
    found[: last - first] = False
    distinct = 0
    for w in range(count):
        hi = end[w]
        if hi - start[w] <= longest:
            distinct += _find(hash_characters(code, start[w], hi), bits, hashes, first, last, found)
        if 0xAC00 <= code[hi - 1] <= 0xD7A3:
            for lo in range(max(start[w] + 1, hi - longest), hi):
                distinct += _find(hash_characters(code, lo, hi), bits, hashes, first, last, found)
    longest = table[language, _LONGEST_UNSPACED]
    if longest:
        for i in range(n):
            if flags[i] & UNSPACED:
                for stop in range(i + 1, min(i + longest, n) + 1):
                    distinct += _find(hash_characters(code, i, stop), bits, hashes, first, last, found)
    return distinct
