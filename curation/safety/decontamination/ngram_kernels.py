"""Kernels of decontamination: hash the tokens and n-grams of a text, and look them up in the index.

A token is a run of letters, marks and digits of any script; letters count in lower case (one code point to one, by
Unicode's simple mapping), everything else separates tokens. So case, punctuation and white space do not matter.
An n-gram's hash is a polynomial over its tokens' hashes, rolled along: H' = (H - t_old * B^(n-1)) * B + t_new mod 2^64,
mixed before use.
"""

from __future__ import annotations

import functools
import sys
import unicodedata
from typing import Any

import numba as nb
import numpy as np

from curation.kernels import BYTES, OFFSETS, kernel

_M1 = np.uint64(0xFF51AFD7ED558CCD)  # MurmurHash3's finalizer (Appleby, public domain)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
_BASE = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
_ONE = np.uint64(1)

HASHES = nb.types.Array(nb.uint64, 1, "C", readonly=True)
ITEMS = nb.types.Array(nb.int32, 1, "C", readonly=True)


@functools.cache
def folding() -> np.ndarray[Any, np.dtype[np.int32]]:
    """For each code point its lower-case form, or 0 if it separates tokens."""
    table = np.zeros(sys.maxunicode + 1, np.int32)
    for block in (range(0x40000), range(0xE0000, 0xE0200)):
        for code in block:
            c = chr(code)
            if unicodedata.category(c)[0] in "LMN":
                low = c.lower()
                table[code] = ord(low) if len(low) == 1 else code
    return table


@kernel("uint64(uint64)")
def mix(h):  # type: ignore[no-untyped-def]
    """MurmurHash3's finalizer; never 0, which marks a free slot."""
    h = (h ^ (h >> _SHIFT)) * _M1
    h = (h ^ (h >> _SHIFT)) * _M2
    return (h ^ (h >> _SHIFT)) | _ONE


@kernel((BYTES, nb.int64, nb.int64, ITEMS, nb.uint64[::1], nb.int64[:, ::1]))
def tokens(data, lo, hi, fold, out, bounds):  # type: ignore[no-untyped-def]
    """Hashes of the tokens of the UTF-8 bytes [lo, hi) into `out`; returns how many.

    bounds   filled with (first byte, byte after the last) of each token, unless it has no rows
    """
    n = 0
    begin = lo
    h = np.uint64(0)
    inside = False
    i = lo
    while i < hi:
        at = i
        c = np.int64(data[i])
        if c < 0x80:
            i += 1
        elif c < 0xE0:
            c = ((c & 31) << 6) | (np.int64(data[i + 1]) & 63)
            i += 2
        elif c < 0xF0:
            c = ((c & 15) << 12) | ((np.int64(data[i + 1]) & 63) << 6) | (np.int64(data[i + 2]) & 63)
            i += 3
        else:
            c = ((c & 7) << 18) | ((np.int64(data[i + 1]) & 63) << 12)
            c |= ((np.int64(data[i + 2]) & 63) << 6) | (np.int64(data[i + 3]) & 63)
            i += 4
        folded = fold[c]
        if folded:
            h = (h ^ np.uint64(folded)) * _BASE
            h ^= h >> _SHIFT
            if not inside:
                begin = at
            inside = True
        elif inside:
            out[n] = mix(h)
            if len(bounds):
                bounds[n, 0] = begin
                bounds[n, 1] = at
            n += 1
            h = np.uint64(0)
            inside = False
    if inside:
        out[n] = mix(h)
        if len(bounds):
            bounds[n, 0] = begin
            bounds[n, 1] = hi
        n += 1
    return n


@kernel("int64(uint64[::1], int64, int64, uint64[::1])")
def ngrams(token, count, size, out):  # type: ignore[no-untyped-def]
    """Hashes of all runs of `size` tokens into `out`; returns how many."""
    if count < size:
        return 0
    power = _ONE
    h = np.uint64(0)
    for k in range(size):
        h = h * _BASE + token[k]
        if k:
            power *= _BASE
    out[0] = mix(h)
    for k in range(size, count):
        h = (h - token[k - size] * power) * _BASE + token[k]
        out[k - size + 1] = mix(h)
    return count - size + 1


@kernel((HASHES, nb.uint64[::1], nb.int32[::1]))
def fill(grams, table, slot_of):  # type: ignore[no-untyped-def]
    """Puts distinct hashes into an empty open-addressing table, its length a power of two; slot -> index of a hash."""
    mask = np.uint64(len(table) - 1)
    for g in range(len(grams)):
        slot = grams[g] & mask
        while table[slot]:
            slot = (slot + _ONE) & mask
        table[slot] = grams[g]
        slot_of[slot] = g


@kernel((BYTES, OFFSETS, ITEMS, HASHES, ITEMS, ITEMS, ITEMS, ITEMS, ITEMS, nb.int64, nb.int64[:, ::1]))
def search(data, offsets, fold, table, slot_of, first, unit_of, totals, sizes, longest, out):  # type: ignore[no-untyped-def]
    """Looks up every n-gram of every document; fills `out`, one row per document.

    table, slot_of   from `fill`: the distinct n-grams of all units (fields of evaluation items)
    first, unit_of   n-gram g is in the units unit_of[first[g]:first[g + 1]]
    totals           distinct n-grams of each unit
    sizes            the n-gram lengths in use; all n-grams of a unit have the same length
    out              (n-grams of the document that some unit has; the unit with the largest share of its n-grams found,
                     the first of equals, or -1; how many of its distinct n-grams were found)
    """
    token = np.empty(longest + 1, np.uint64)
    gram = np.empty(longest + 1, np.uint64)
    bounds = np.empty((0, 2), np.int64)
    mask = np.uint64(len(table) - 1)
    seen = np.full(len(first), -1, np.int64)  # the last document that had this n-gram
    hits = np.zeros(len(totals), np.int64)
    touched = np.empty(len(totals), np.int64)
    for d in range(len(offsets) - 1):
        count = tokens(data, offsets[d], offsets[d + 1], fold, token, bounds)
        overlap = 0
        units = 0
        for s in range(len(sizes)):
            for k in range(ngrams(token, count, np.int64(sizes[s]), gram)):
                h = gram[k]
                slot = h & mask
                while table[slot] and table[slot] != h:
                    slot = (slot + _ONE) & mask
                if not table[slot]:
                    continue
                overlap += 1
                g = slot_of[slot]
                if seen[g] == d:
                    continue
                seen[g] = d
                for e in range(first[g], first[g + 1]):
                    unit = unit_of[e]
                    if hits[unit] == 0:
                        touched[units] = unit
                        units += 1
                    hits[unit] += 1
        best: Any = -1
        for k in range(units):
            unit = np.int64(touched[k])
            if best < 0:
                best = unit
            else:
                ours = hits[unit] * totals[best]
                theirs = hits[best] * totals[unit]
                if ours > theirs or (ours == theirs and unit < best):
                    best = unit
        out[d, 0] = overlap
        out[d, 1] = best
        out[d, 2] = hits[best] if best >= 0 else 0
        for k in range(units):
            hits[touched[k]] = 0


@kernel((BYTES, OFFSETS, ITEMS, HASHES, ITEMS, ITEMS, nb.int64, nb.int64[::1]))
def count_documents(data, offsets, fold, table, slot_of, sizes, longest, counts):  # type: ignore[no-untyped-def]
    """Adds to `counts[g]` the number of documents that have n-gram g. The arrays as in `search`."""
    token = np.empty(longest + 1, np.uint64)
    gram = np.empty(longest + 1, np.uint64)
    bounds = np.empty((0, 2), np.int64)
    mask = np.uint64(len(table) - 1)
    seen = np.full(len(counts), -1, np.int64)
    for d in range(len(offsets) - 1):
        count = tokens(data, offsets[d], offsets[d + 1], fold, token, bounds)
        for s in range(len(sizes)):
            for k in range(ngrams(token, count, np.int64(sizes[s]), gram)):
                slot = gram[k] & mask
                while table[slot] and table[slot] != gram[k]:
                    slot = (slot + _ONE) & mask
                if table[slot] and seen[slot_of[slot]] != d:
                    seen[slot_of[slot]] = d
                    counts[slot_of[slot]] += 1


@kernel((BYTES, ITEMS, HASHES, ITEMS, ITEMS, ITEMS, ITEMS, ITEMS, nb.float64, nb.boolean[::1], nb.int64[:, ::1]))
def cover(data, fold, table, slot_of, first, unit_of, totals, sizes, share, covered, bounds):  # type: ignore[no-untyped-def]
    """Marks the tokens of one text that belong to a unit with `share` of its n-grams found; returns how many tokens
    there are. Tokens between two n-grams of one unit up to an n-gram's length apart (a word was changed there) belong
    to it too. The arrays as in `search`; `covered` must be zeros, `bounds` is filled as by `tokens`."""
    token = np.empty(len(data) + 1, np.uint64)
    gram = np.empty(len(data) + 1, np.uint64)
    mask = np.uint64(len(table) - 1)
    seen = np.zeros(len(first), np.bool_)
    hits = np.zeros(len(totals), np.int64)
    behind = np.full(len(totals), -1, np.int64)  # the token after the unit's last n-gram
    count = tokens(data, 0, len(data), fold, token, bounds)
    for again in range(2):  # first count, then mark
        for s in range(len(sizes)):
            size = np.int64(sizes[s])
            for k in range(ngrams(token, count, size, gram)):
                slot = gram[k] & mask
                while table[slot] and table[slot] != gram[k]:
                    slot = (slot + _ONE) & mask
                if not table[slot]:
                    continue
                g = slot_of[slot]
                for e in range(first[g], first[g + 1]):
                    unit = unit_of[e]
                    if not again:
                        hits[unit] += 0 if seen[g] else 1
                    elif hits[unit] >= share * totals[unit]:
                        near = behind[unit] >= 0 and k - behind[unit] <= size
                        for t in range(min(k, behind[unit]) if near else k, k + size):
                            covered[t] = True
                        behind[unit] = k + size
                seen[g] = True
    return count
