"""Kernels that hash words and lines, and an open-addressing hash table that finds repeated ones.

A hash has 64 bits: three characters at a time (21 bits hold a code point) are multiplied in, and MurmurHash3's
finalizer mixes the result. The probability that any two different lines of a document with 10^6 lines collide is under
10^-7.
"""

from __future__ import annotations

import numpy as np

from curation.kernels import kernel

_M1 = np.uint64(0xFF51AFD7ED558CCD)  # the finalizer of MurmurHash3 (Appleby, public domain)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(32)
ONE = np.uint64(1)


@kernel("uint64(uint64)")
def mix_hash(h):  # type: ignore[no-untyped-def]
    """MurmurHash3's finalizer; never 0, which marks a free slot."""
    h = (h ^ (h >> _SHIFT)) * _M1
    h = (h ^ (h >> _SHIFT)) * _M2
    return (h ^ (h >> _SHIFT)) | ONE


@kernel("uint64(uint64, uint64)")
def combine_hash(h, item):  # type: ignore[no-untyped-def]
    """Adds one item to a hash, which `mix_hash` finalizes."""
    h = (h ^ item) * HASH_MULTIPLIER
    return h ^ (h >> _SHIFT)


@kernel("uint64(int32[::1], int64, int64)")
def hash_characters(code, lo, hi):  # type: ignore[no-untyped-def]
    h = np.uint64(hi - lo)
    i = lo
    while i + 3 <= hi:
        three = np.uint64(code[i]) | np.uint64(code[i + 1]) << np.uint64(21) | np.uint64(code[i + 2]) << np.uint64(42)
        h = combine_hash(h, three)
        i += 3
    if i < hi:
        rest = np.uint64(code[i])
        if i + 1 < hi:
            rest |= np.uint64(code[i + 1]) << np.uint64(21)
        h = combine_hash(h, rest)
    return mix_hash(h)


@kernel("boolean(uint64, uint64[::1], uint64)")
def seen_before(h, table, mask):  # type: ignore[no-untyped-def]
    """Whether h is in the table already; inserts it if not."""
    slot = (h >> ONE) & mask  # the lowest bit is always set
    while table[slot]:
        if table[slot] == h:
            return True
        slot = (slot + ONE) & mask
    table[slot] = h
    return False


@kernel("uint64(int64, uint64[::1])")
def clear_table(entries, table):  # type: ignore[no-untyped-def]
    """Empties the first slots of the table, at least twice as many as `entries`; returns their index mask."""
    size = 16
    while size < 2 * entries:
        size *= 2
    table[:size] = 0
    return np.uint64(size - 1)
