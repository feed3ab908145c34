"""Hashes the words of UTF-8 text, as curation/words.py cuts and folds them, straight from Arrow's buffer.

word    w = mix(... (h ^ c) * FNV_PRIME ... over its folded characters c)    FNV-1a over code points, then mixed
"""

from __future__ import annotations

import numba as nb
import numpy as np

from curation.kernels import BYTES, kernel
from curation.words import ALONE, CLASS_SHIFT, MARK, PART, SKIPPED, TABLE_SIZE

_FNV = np.uint64(0x100000001B3)
_START = np.uint64(0xCBF29CE484222325)
_SHIFT, _FOLDED = np.uint32(CLASS_SHIFT), np.uint32((1 << CLASS_SHIFT) - 1)


_LETTER = np.uint32(PART << CLASS_SHIFT)


@kernel("uint64(uint64)")
def mix(x):  # type: ignore[no-untyped-def]
    """MurmurHash3's 64-bit finalizer (Appleby, public domain)."""
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xFF51AFD7ED558CCD)
    x ^= x >> np.uint64(33)
    x *= np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


@kernel((BYTES, nb.int64, nb.int64))
def decode(data, i, end):  # type: ignore[no-untyped-def]
    """(code point, bytes) of the valid UTF-8 sequence of two or more bytes at i; if truncated, one byte at a time."""
    first = np.uint32(data[i])
    if first < 0xE0 and i + 1 < end:
        return (first & np.uint32(0x1F)) << np.uint32(6) | np.uint32(data[i + 1] & 0x3F), np.int64(2)
    if first < 0xF0 and i + 2 < end:
        code = (first & np.uint32(0x0F)) << np.uint32(12) | np.uint32(data[i + 1] & 0x3F) << np.uint32(6)
        return code | np.uint32(data[i + 2] & 0x3F), np.int64(3)
    if i + 3 < end:
        code = (first & np.uint32(0x07)) << np.uint32(18) | np.uint32(data[i + 1] & 0x3F) << np.uint32(12)
        return code | np.uint32(data[i + 2] & 0x3F) << np.uint32(6) | np.uint32(data[i + 3] & 0x3F), np.int64(4)
    return first, np.int64(1)


@kernel((BYTES, nb.int64, nb.int64, nb.uint32[::1]))
def look_up(data, i, end, table):  # type: ignore[no-untyped-def]
    """(table entry, bytes) of the character at i."""
    if data[i] < 0x80:
        return table[data[i]], np.int64(1)
    code, size = decode(data, i, end)
    return (table[code] if code < TABLE_SIZE else np.uint32(0)), size


_WORDS = (BYTES, nb.int64, nb.int64, nb.uint32[::1], nb.uint64[::1])


@kernel([(*_WORDS, nb.int64[:, ::1]), (*_WORDS, nb.none)])
def hash_words(data, start, end, table, out, bounds):  # type: ignore[no-untyped-def]
    """Hashes of the words of data[start:end] into `out`; returns their number.

    table    from curation.words.character_table
    bounds   filled with (first byte, byte after the last) of each word, unless None: which is compiled by itself, since
             keeping places costs two fifths more on English
    """
    count = 0
    h = _START
    inside = False
    i = start
    while i < end:
        at = i
        if data[i] < 0x80:  # most of any text; none of it is skipped, a mark, or a word by itself
            letter = table[data[i]] ^ _LETTER  # the folded letter, if it is one
            i += 1
            if letter <= _FOLDED:
                if bounds is not None and not inside:
                    bounds[count, 0] = at
                inside = True
                h = (h ^ np.uint64(letter)) * _FNV
            elif inside:
                out[count] = mix(h)
                if bounds is not None:
                    bounds[count, 1] = at
                count += 1
                h = _START
                inside = False
            continue
        entry, size = look_up(data, i, end, table)
        i += size
        kind = entry >> _SHIFT
        if kind == SKIPPED:
            continue
        if kind in (MARK, PART):
            if bounds is not None and not inside:
                bounds[count, 0] = at
            inside = True
            h = (h ^ np.uint64(entry & _FOLDED)) * _FNV
            continue
        if inside:
            out[count] = mix(h)
            if bounds is not None:
                bounds[count, 1] = at
            count += 1
            h = _START
            inside = False
        if kind == ALONE:  # only marks continue a letter that is a word by itself
            h = (h ^ np.uint64(entry & _FOLDED)) * _FNV
            while i < end:
                entry, size = look_up(data, i, end, table)
                kind = entry >> _SHIFT
                if kind == MARK:
                    h = (h ^ np.uint64(entry & _FOLDED)) * _FNV
                elif kind != SKIPPED:
                    break
                i += size
            out[count] = mix(h)
            if bounds is not None:
                bounds[count, 0] = at
                bounds[count, 1] = i
            count += 1
            h = _START
    if inside:
        out[count] = mix(h)
        if bounds is not None:
            bounds[count, 1] = end
        count += 1
    return count
