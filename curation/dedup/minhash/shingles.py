"""Hashes the shingles (word or character n-grams) of documents; a document is compared by its set of them.

A *word* is a maximal run of letters, marks, digits and underscores, in lower case. Ideographs, kana and emoji, which
are written without spaces, are words by themselves; all other characters separate words. (Thai and similar alphabets
written without spaces have phrases as words.) A *shingle* is n consecutive words, or n consecutive characters of the
text in lower case with each run of whitespace as one space. So with words, punctuation, case and layout are ignored. A
document of fewer than n words has one shingle, of all its words, so it equals only documents of the same words; a
document without words has none, and is similar to nothing.

The kernel reads UTF-8 bytes from the Arrow buffer in one pass, without string objects:

    word     w = mix(... (h ^ c) * FNV_PRIME ... over its characters c)            FNV-1a over code points, then mixed
    shingle  s = mix(w_1 B^(n-1) + w_2 B^(n-2) + ... + w_n)  modulo 2^64           rolling, two multiplications each

Word hashes are mixed before they enter the polynomial, so two different shingles of a corpus have equal hashes with a
probability of about 2^-64. Character classes and case are from `unicodedata` for the basic plane, and ranges above it.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.kernels import kernel

U64 = npt.NDArray[np.uint64]

WORDS, CHARACTERS = 0, 1  # units of an n-gram
UNITS = {"words": WORDS, "characters": CHARACTERS}
SEPARATOR, WORD_PART, WORD_ALONE, SPACE = 0, 1, 2, 3  # classes of characters; SPACE separates words too

_FNV = np.uint64(0x100000001B3)
_START = np.uint64(0xCBF29CE484222325)
_BASE = np.uint64(0x9E3779B97F4A7C15)


@functools.cache
def character_tables() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]:
    """(class, lower-case) of each code point of the basic plane: arrays of 65536."""
    kinds = np.zeros(65536, np.uint8)
    lower = np.arange(65536, dtype=np.uint32)
    for code in range(65536):
        char = chr(code)
        category = unicodedata.category(char)
        if char.isspace():
            kinds[code] = SPACE
        elif category[0] in "LMN" or char == "_":
            ideograph = category == "Lo" and (0x2E80 <= code < 0xA000 or 0xF900 <= code < 0xFB00)
            kinds[code] = WORD_ALONE if ideograph else WORD_PART
        elif category == "So" and code >= 0x2600:
            kinds[code] = WORD_ALONE  # dingbats and the like
        small = char.lower()
        if len(small) == 1:
            lower[code] = ord(small)
    kinds[0xFE00:0xFE10] = SEPARATOR  # variation selectors: other renderings of the same character
    return kinds, lower


@kernel()
def mix(x):  # type: ignore[no-untyped-def]
    """MurmurHash3's 64-bit finaliser."""
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


@kernel()
def _decode(data, i, end):  # type: ignore[no-untyped-def]
    """(code point, bytes) of the valid UTF-8 sequence of two or more bytes at i; if truncated, one byte at a time."""
    first = np.uint32(data[i])
    if first < 0xE0 and i + 1 < end:
        return (first & 0x1F) << 6 | (data[i + 1] & 0x3F), 2
    if first < 0xF0 and i + 2 < end:
        return (first & 0x0F) << 12 | np.uint32(data[i + 1] & 0x3F) << 6 | (data[i + 2] & 0x3F), 3
    if i + 3 < end:
        code = (first & 0x07) << 18 | np.uint32(data[i + 1] & 0x3F) << 12
        return code | np.uint32(data[i + 2] & 0x3F) << 6 | (data[i + 3] & 0x3F), 4
    return first, 1


@kernel()
def hash_units(data, start, end, kinds, lower, unit, out):  # type: ignore[no-untyped-def]
    """Hashes of the words (or characters) of data[start:end] into `out`; returns their number."""
    count = 0
    h = _START
    inside = False  # in a word; for characters: the last one was not a space
    i = start
    while i < end:
        byte = data[i]
        if byte < 0x80:
            code = np.uint32(byte)
            i += 1
            kind = kinds[code]
            code = lower[code]
        else:
            decoded, size = _decode(data, i, end)
            code = np.uint32(decoded)
            i += size
            if code < 65536:
                kind = kinds[code]
                code = lower[code]
            elif 0x1F000 <= code < 0x20000 or 0x20000 <= code < 0x40000:
                kind = np.uint8(WORD_ALONE)  # pictographs, ideographs
            else:
                kind = np.uint8(WORD_PART)
        if unit == CHARACTERS:
            if kind == SPACE:
                if inside:
                    out[count] = mix(np.uint64(0x20) * _BASE)
                    count += 1
                inside = False
            else:
                out[count] = mix(np.uint64(code) * _BASE)
                count += 1
                inside = True
        elif kind == WORD_PART:
            h = (h ^ np.uint64(code)) * _FNV
            inside = True
        else:
            if inside:
                out[count] = mix(h)
                count += 1
                h = _START
                inside = False
            if kind == WORD_ALONE:
                out[count] = mix((_START ^ np.uint64(code)) * _FNV)
                count += 1
    if unit == CHARACTERS:
        if count > 0 and not inside:
            count -= 1  # space at the end
    elif inside:
        out[count] = mix(h)
        count += 1
    return count


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


def string_buffers(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """(bytes, n + 1 offsets) of a large_string array, no copy; nulls are empty. Other strings are cast."""
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    if texts.type != pa.large_string():
        texts = texts.cast(pa.large_string())
    if texts.null_count:
        texts = texts.fill_null("")
    _, offsets, data = texts.buffers()
    n = len(texts)
    if n == 0 or offsets is None:
        return np.zeros(0, np.uint8), np.zeros(n + 1, np.int64)
    ends = np.frombuffer(offsets, np.int64, count=n + 1, offset=8 * texts.offset)
    return (np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)), ends


@kernel()
def hash_document(data, start, end, kinds, lower, unit, ngram, out):  # type: ignore[no-untyped-def]
    return hash_shingles(out, hash_units(data, start, end, kinds, lower, unit, out), ngram, out)


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
def _flat_shingle_sets(data, offsets, kinds, lower, unit, ngram):  # type: ignore[no-untyped-def]
    longest = 0
    for k in range(len(offsets) - 1):
        longest = max(longest, offsets[k + 1] - offsets[k])
    scratch = np.empty(longest + 1, np.uint64)
    slots = np.empty(table_size(0), np.uint64)
    at = np.zeros(len(offsets), np.int64)
    values = np.empty(max(64, (offsets[-1] - offsets[0]) // 4), np.uint64)
    for k in range(len(offsets) - 1):
        n = hash_document(data, offsets[k], offsets[k + 1], kinds, lower, unit, ngram, scratch)
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
    values, at = _flat_shingle_sets(*string_buffers(texts), *character_tables(), unit, ngram)
    return values, at


def shingle_sets(texts: pa.Array, *, ngram: int = 5, unit: int = WORDS) -> list[U64]:
    """The set of shingles of each text: sorted, each once, uint64."""
    values, at = flat_shingle_sets(texts, ngram, unit)
    return [np.sort(values[at[k] : at[k + 1]]) for k in range(len(texts))]
