"""Permutes range(n) by a key, for any n up to 2^63, by arithmetic: no table, and both directions.

A balanced Feistel network over the next even number of bits; an image outside the range is sent through again until it
is inside (cycle walking: Black & Rogaway, "Ciphers with arbitrary finite domains", 2002), fewer than four times on
average. Walking backwards undoes it, since it stays on the same cycle.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]

ROUNDS = 6


def derive_key(*parts: object) -> int:
    """A 64-bit key of a tuple of ints and strings (BLAKE2b of its repr, so that parts cannot be confused)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def _mix64(x: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _round_keys(permutation: int) -> list[np.uint64]:
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is intended
        steps = np.arange(1, ROUNDS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return list(_mix64(np.uint64(permutation) + steps))


def permute(positions: Ints, size: int, permutation: int) -> Ints:
    """The images of `positions` under the keyed permutation of range(size), size up to 2^63."""
    return _walk(positions, size, permutation, forward=True)


def unpermute(images: Ints, size: int, permutation: int) -> Ints:
    """The positions that `permute` sends to `images`."""
    return _walk(images, size, permutation, forward=False)


def _walk(positions: Ints, size: int, permutation: int, *, forward: bool) -> Ints:
    if size <= 1:
        return np.zeros_like(positions)
    half = np.uint64(((size - 1).bit_length() + 1) // 2)
    low = np.uint64((1 << int(half)) - 1)
    limit = np.uint64(size)
    keys = _round_keys(permutation)
    with np.errstate(over="ignore"):
        x = positions.astype(np.uint64)
        todo = np.arange(len(x))
        while len(todo):
            left, right = x[todo] >> half, x[todo] & low
            if forward:
                for round_key in keys:
                    left, right = right, left ^ (_mix64(right ^ round_key) & low)
            else:
                for round_key in reversed(keys):
                    left, right = right ^ (_mix64(left ^ round_key) & low), left
            x[todo] = left << half | right
            todo = todo[x[todo] >= limit]
    return x.astype(np.int64)
