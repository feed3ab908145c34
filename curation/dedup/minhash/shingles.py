"""Hashes the shingles (word or character n-grams) of documents; a document is compared by its set of them.

A *word* is what curation/words.py says: letters, marks, digits and underscores, folded; a letter of a script without
spaces, or an emoji, is a word by itself. A *shingle* is n consecutive words, or n consecutive folded characters of the
text with each run of white space as one space. So with words, punctuation, case and layout are ignored. A document of
fewer than n words has one shingle, of all its words, so it equals only documents of the same words; a document without
words has none, and is similar to nothing.

The kernel reads UTF-8 bytes from the Arrow buffer in one pass, without string objects:

    word     w = mix(... (h ^ c) * FNV_PRIME ...)                                  curation/word_hashes.py
    shingle  s = mix(w_1 B^(n-1) + w_2 B^(n-2) + ... + w_n)  modulo 2^64           rolling, two multiplications each

Word hashes are mixed before they enter the polynomial, so two different shingles of a corpus have equal hashes with a
probability of about 2^-64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.document import string_buffers
from curation.kernels import kernel
from curation.word_hashes import hash_words, look_up, mix
from curation.words import CLASS_SHIFT, SKIPPED, SPACE, character_table

U64 = npt.NDArray[np.uint64]

WORDS, CHARACTERS = 0, 1  # units of an n-gram
UNITS = {"words": WORDS, "characters": CHARACTERS}

_BASE = np.uint64(0x9E3779B97F4A7C15)


@kernel()
def hash_characters(data, start, end, table, out):  # type: ignore[no-untyped-def]
    """Hashes of the folded characters of data[start:end] into `out`; returns their number. White space is one space."""
    count = 0
    inside = False  # the last character was not a space
    i = start
    while i < end:
        entry, size = look_up(data, i, end, table)
        i += size
        kind = entry >> np.uint32(CLASS_SHIFT)
        if kind == SPACE:
            if inside:
                out[count] = mix(np.uint64(0x20) * _BASE)
                count += 1
            inside = False
        elif kind != SKIPPED:
            out[count] = mix(np.uint64(entry & np.uint32((1 << CLASS_SHIFT) - 1)) * _BASE)
            count += 1
            inside = True
    return count - 1 if count > 0 and not inside else count


@kernel()
def hash_shingles(words, count, ngram, out):  # type: ignore[no-untyped-def]
    """Shingle hashes of `count` unit hashes into `out` (may be `words` itself); returns their number."""
    if count == 0:
        return 0
    length = min(count, ngram)
    top = np.uint64(1)
    for _ in range(length):
        top *= _BASE
    total = np.uint64(0)
    for k in range(length):
        total = total * _BASE + words[k]
    shingles = count - length + 1
    for k in range(shingles):
        first = words[k]
        # with the length, the one shingle of a short document never equals a full one; 0 marks free slots of tables
        out[k] = max(mix(total + np.uint64(ngram - length)), np.uint64(1))
        if k + length < count:
            total = total * _BASE + words[k + length] - first * top
    return shingles


@kernel()
def hash_document(data, start, end, table, unit, ngram, out):  # type: ignore[no-untyped-def]
    if unit == CHARACTERS:
        return hash_shingles(out, hash_characters(data, start, end, table, out), ngram, out)
    return hash_shingles(out, hash_words(data, start, end, table, out, None), ngram, out)


@kernel()
def table_size(values):  # type: ignore[no-untyped-def]
    """Slots of a hash table for that many values: a power of two, at most half full."""
    size = 8
    while size < 2 * values:
        size *= 2
    return size


@kernel()
def insert(slots, mask, value):  # type: ignore[no-untyped-def]
    """Puts a value into the hash table `slots` (0: free), placed by its low bits; returns whether it was new."""
    at = value & mask
    while slots[at] != 0:
        if slots[at] == value:
            return False
        at = (at + np.uint64(1)) & mask
    slots[at] = value
    return True


@kernel()
def distinct(values, count, slots):  # type: ignore[no-untyped-def]
    """Moves the distinct values of values[:count] to the front, in order of first appearance; returns their number.

    `slots`, of at least `table_size(count)`, becomes a hash table of them.
    """
    size = table_size(count)
    mask = np.uint64(size - 1)
    slots[:size] = np.uint64(0)
    n = 0
    for k in range(count):
        if insert(slots, mask, values[k]):
            values[n] = values[k]
            n += 1
    return n


@kernel()
def _flat_shingle_sets(data, offsets, table, unit, ngram):  # type: ignore[no-untyped-def]
    longest = 0
    for k in range(len(offsets) - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    scratch = np.empty(longest + 1, np.uint64)
    slots = np.empty(table_size(0), np.uint64)
    at = np.zeros(len(offsets), np.int64)
    values = np.empty(max(64, (offsets[-1] - offsets[0]) // 4), np.uint64)
    for k in range(len(offsets) - 1):
        n = hash_document(data, offsets[k], offsets[k + 1], table, unit, ngram, scratch)
        if table_size(n) > len(slots):
            slots = np.empty(table_size(n), np.uint64)
        n = distinct(scratch, n, slots)
        if at[k] + n > len(values):
            more = np.empty(max(2 * len(values), at[k] + n), np.uint64)
            more[: at[k]] = values[: at[k]]
            values = more
        values[at[k] : at[k] + n] = scratch[:n]
        at[k + 1] = at[k] + n
    return values[: at[-1]], at


def flat_shingle_sets(texts: pa.Array, ngram: int, unit: int) -> tuple[U64, npt.NDArray[np.int64]]:
    """(values, at): the set of shingles of text k is values[at[k]:at[k + 1]], in order of first appearance."""
    values, at = _flat_shingle_sets(*string_buffers(texts), character_table(), unit, ngram)
    return values, at


def shingle_sets(texts: pa.Array, *, ngram: int = 5, unit: int = WORDS) -> list[U64]:
    """The set of shingles of each text: sorted, each once, uint64."""
    values, at = flat_shingle_sets(texts, ngram, unit)
    return [np.sort(values[at[k] : at[k + 1]]) for k in range(len(texts))]
