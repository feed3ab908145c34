"""Hashes document ids with a seed: pseudo-random numbers for priority, sampling and the order of shards.

There is no generator and no state. A number is the hash of 16 bytes (a doc_id or a content hash) with a key made
of the seed and a purpose, so it is the same on any machine, in any order, however the documents are cut into tasks,
and numbers for two purposes are independent.

    key    = xxh3_64(purpose, seed)
    number = mix64(mix64(lo ^ key) + hi * 0x9E3779B97F4A7C15)        all modulo 2^64, lo and hi little-endian

`mix64` is the finaliser of MurmurHash3 (Appleby 2011), a bijection whose every output bit depends on every input bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

U64 = npt.NDArray[np.uint64]


def mix64(x: U64) -> U64:
    """MurmurHash3's 64-bit finaliser, elementwise."""
    x = x ^ (x >> np.uint64(33))
    x = x * np.uint64(0xFF51AFD7ED558CCD)
    x = x ^ (x >> np.uint64(33))
    x = x * np.uint64(0xC4CEB9FE1A85EC53)
    return x ^ (x >> np.uint64(33))


def words(ids: pa.Array) -> U64:
    """A fixed_size_binary[16] array without nulls as (n, 2) little-endian words, no copy."""
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    if len(ids) == 0:
        return np.zeros((0, 2), np.uint64)
    data = np.frombuffer(ids.buffers()[1], "<u8", count=2 * len(ids), offset=16 * ids.offset)
    return data.reshape(-1, 2)


def hash_with_seed(ids: pa.Array, seed: int, purpose: str) -> U64:
    """A number in [0, 2^64) for each 16-byte id: uniform, independent between seeds and purposes."""
    key = np.uint64(xxhash.xxh3_64_intdigest(purpose.encode(), seed=seed % 2**64))
    pair = words(ids)
    return mix64(mix64(pair[:, 0] ^ key) + pair[:, 1] * np.uint64(0x9E3779B97F4A7C15))


def prefix(numbers: U64, bits: int) -> npt.NDArray[np.uint32]:
    """The first `bits` (0 to 32) bits of each number: which of 2^bits equal parts of the order it is in."""
    if bits == 0:
        return np.zeros(len(numbers), np.uint32)
    return (numbers >> np.uint64(64 - bits)).astype(np.uint32)
