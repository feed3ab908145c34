"""Computes MinHash signatures of texts, whose share of equal positions estimates the Jaccard similarity.

For k random permutations the signature holds the smallest permuted shingle hash. Two sets agree at a position with a
probability equal to their Jaccard similarity J (Broder 1997), so the share of equal positions estimates J with the
variance J (1 - J) / k.

    x = the upper half of the shingle's 64-bit hash               (curation/dedup/minhash/shingles.py)
    signature[i] = min over shingles of (a_i x + b_i) mod 2^32,   a_i odd

With a_i odd this is a permutation of the 32-bit numbers, computed in 32-bit arithmetic whose overflow is the modulus.
(Products modulo a prime overflow elsewhere, which biases estimates.) The x are well mixed, so each minimum is uniform
over the set; the tests compare bias and variance with the binomial bound. Two shingles of one document share an x with
a probability of n / 2^32, which changes J by less than 10^-4 below 400,000 shingles.

A text without shingles has a signature of all ones (2^32 - 1), as an empty set has.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from curation.document import string_buffers

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

EMPTY = 2**32 - 1


def signatures(
    texts: pa.LargeStringArray, *, ngram: int = 5, num_perm: int = 112, seed: int = 1, unit: str = "words"
) -> U32:
    """The MinHash signature of each text: (len(texts), num_perm) uint32.

    ngram     words per shingle (or characters, with unit="characters")
    num_perm  number of permutations; a shorter signature with the same seed is a prefix of a longer one
    seed      of the permutations; only signatures with the same seed are comparable
    """
    return _compute(texts, ngram, num_perm, seed, unit, np.zeros(0, np.uint64))


def signatures_and_contents(
    texts: pa.Array, *, ngram: int = 5, num_perm: int = 112, seed: int = 1, unit: str = "words"
) -> tuple[U32, U64]:
    """The signatures, and a 64-bit hash of each text's set of shingles: equal for equal sets."""
    contents = np.zeros(len(texts), np.uint64)
    return _compute(texts, ngram, num_perm, seed, unit, contents), contents


def _compute(texts: pa.Array, ngram: int, num_perm: int, seed: int, unit: str, contents: U64) -> U32:
    from curation.dedup.minhash import shingles, signature_kernel
    from curation.words import character_table

    if ngram < 1 or num_perm < 1:
        raise ValueError(f"ngram ({ngram}) and num_perm ({num_perm}) must be at least 1")
    data, offsets = string_buffers(texts)
    a, b = permutations(num_perm, seed)
    # rows of 16 lanes, so that the kernel's inner loop has no remainder; the padding is removed below
    out = np.full((len(texts), len(a)), EMPTY, np.uint32)
    signature_kernel.sign(data, offsets, character_table(), shingles.UNITS[unit], ngram, a, b, out, contents)
    return out[:, :num_perm] if len(a) == num_perm else np.ascontiguousarray(out[:, :num_perm])


def permutations(num_perm: int, seed: int) -> tuple[U32, U32]:
    """(a, b), padded to a multiple of 16: a_i odd; b_i: outputs 2 i and 2 i + 1 of splitmix64 (Steele et al. 2014)."""
    n = -(-num_perm // 16) * 16
    z = np.uint64(seed % 2**64) + np.arange(1, 2 * n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    high = ((z ^ (z >> np.uint64(31))) >> np.uint64(32)).astype(np.uint32)
    return high[0::2] | np.uint32(1), np.ascontiguousarray(high[1::2])


def estimate_jaccard(left: U32, right: U32) -> float:
    """The share of equal positions of two signatures: the estimate of their Jaccard similarity."""
    return float((left == right).mean())


@functools.cache
def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """(bands, rows) with bands * rows <= num_perm that has the fewest errors of both kinds at `threshold`.

    A pair of similarity s becomes a candidate with probability P(s) = 1 - (1 - s^rows)^bands. Minimized is the area of
    P below the threshold plus that of 1 - P above it (as datasketch does with equal weights), on a grid of 1,000
    points.
    """
    if not 0 < threshold <= 1 or num_perm < 1:
        raise ValueError(f"threshold {threshold} must be in (0, 1] and num_perm {num_perm} at least 1")
    s = (np.arange(1000) + 0.5) / 1000
    below = s < threshold
    best = (np.inf, 1, 1)
    for bands in range(1, num_perm + 1):
        for rows in range(1, num_perm // bands + 1):
            p = 1 - (1 - s**rows) ** bands
            best = min(best, (float(p[below].sum() + (1 - p[~below]).sum()), bands, rows))
    return best[1], best[2]


def candidate_probability(similarity: float, bands: int, rows: int) -> float:
    """The probability that two documents of this Jaccard similarity share a band: 1 - (1 - s^rows)^bands."""
    return float(1 - (1 - similarity**rows) ** bands)


def band_keys(signature: U32, bands: int, rows: int) -> Any:
    """A 64-bit key of each band of each signature: uint64 [n, bands]."""
    from curation.seeded_hash import mix64

    n = len(signature)
    keys = np.empty((n, bands), np.uint64)
    for band in range(bands):
        h = np.full(n, band + 1, np.uint64)
        for row in range(rows):
            h = mix64(h * np.uint64(0x9E3779B97F4A7C15) + signature[:, band * rows + row])
        keys[:, band] = h
    return keys


SKETCH = 64  # positions of a signature that have a bit in its sketch


def sketches(signature: U32) -> U64:
    """One bit of each of the first 64 positions of each signature: uint64 (Li and Koenig 2010, b-bit minwise hashing).

    Equal positions give equal bits, others in half of the cases: two documents of similarity s agree in a share of
    (1 + s) / 2 of the bits. Missing positions count as equal.
    """
    # a minimum's own high bits are mostly zero: the top bit after multiplication depends on all of them
    bits = (signature[:, :SKETCH] * np.uint32(0x9E3779B1)) >> np.uint32(31)
    packed = np.zeros((len(signature), 8), np.uint8)
    some = np.packbits(bits.astype(np.uint8), axis=1, bitorder="little")
    packed[:, : some.shape[1]] = some
    return packed.view("<u8").reshape(-1)


def max_sketch_distance(similarity: float, num_perm: int) -> int:
    """The bits in which the sketches of two documents of at least this similarity may differ, at 4 sigma."""
    n, p = min(num_perm, SKETCH), (1 - similarity) / 2
    return int(np.ceil(n * p + 4 * (n * p * (1 - p)) ** 0.5))


def to_datasketch(signature: U32, *, seed: int = 1) -> list[Any]:
    """`datasketch.MinHash` objects with these signatures, for its LSH and storage.

    The scheme is datasketch's "affine32" with our permutations and shingle hashes, so they are comparable with each
    other but not with objects that datasketch has hashed.
    """
    from datasketch import MinHash

    pair = permutations(signature.shape[1], seed)
    ours = tuple(x[: signature.shape[1]] for x in pair)
    return [MinHash(seed=seed, hashvalues=row, permutations=ours, scheme="affine32") for row in signature]


def from_datasketch(objects: Sequence[Any]) -> U32:
    """The signatures of objects with `hashvalues`, as `signatures` gives them."""
    if not objects:
        return np.zeros((0, 0), np.uint32)
    return np.stack([np.asarray(o.hashvalues) for o in objects]).astype(np.uint32)
