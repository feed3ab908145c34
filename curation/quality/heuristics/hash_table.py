"""Hashes of words and lines, and the open-addressing table that tells which occurred before.

A hash is 64 bits, multiplied and shifted by three characters at a time (21 bits hold a code point) and finished with
MurmurHash3's mixer; two different lines of a document with 10^6 of them share one with a probability under 10^-7.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel

_M1 = np.uint64(0xFF51AFD7ED558CCD)  # the finalizer of MurmurHash3 (Appleby, public domain)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
BASE = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
ONE = np.uint64(1)


@kernel("uint64(uint64)")
def mix(h):  # type: ignore[no-untyped-def]
    """Spreads a hash over all 64 bits; never 0, which marks a free slot."""
    h = (h ^ (h >> _SHIFT)) * _M1
    h = (h ^ (h >> _SHIFT)) * _M2
    return (h ^ (h >> _SHIFT)) | ONE


@kernel("uint64(uint64, uint64)")
def fold(h, item):  # type: ignore[no-untyped-def]
    """A hash of one item more; `mix` finishes it."""
    h = (h ^ item) * BASE
    return h ^ (h >> _SHIFT)


@kernel("uint64(int32[::1], int64, int64)")
def hash_range(code, lo, hi):  # type: ignore[no-untyped-def]
    h = np.uint64(hi - lo)
    i = lo
    while i + 3 <= hi:
        three = np.uint64(code[i]) | np.uint64(code[i + 1]) << np.uint64(21) | np.uint64(code[i + 2]) << np.uint64(42)
        h = fold(h, three)
        i += 3
    if i < hi:
        rest = np.uint64(code[i])
        if i + 1 < hi:
            rest |= np.uint64(code[i + 1]) << np.uint64(21)
        h = fold(h, rest)
    return mix(h)


@kernel("boolean(uint64, uint64[::1], uint64)")
def seen(h, table, mask):  # type: ignore[no-untyped-def]
    """Whether h is in the open-addressing table; it is afterwards."""
    slot = (h >> ONE) & mask  # the lowest bit is always set
    while table[slot]:
        if table[slot] == h:
            return True
        slot = (slot + ONE) & mask
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
