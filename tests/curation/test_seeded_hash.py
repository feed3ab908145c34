"""Numbers that are a function of a document, the seed and a purpose."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import xxhash

from curation.seeded_hash import hash_with_seed, prefix, words

IDS = pa.array([i.to_bytes(16, "little") for i in range(20_000)], pa.binary(16))


def test_each_number_depends_on_its_document_alone():
    whole = hash_with_seed(IDS, 17, "order")
    assert (hash_with_seed(IDS[500:900], 17, "order") == whole[500:900]).all()
    assert (hash_with_seed(pa.chunked_array([IDS[:3], IDS[3:10]]), 17, "order") == whole[:10]).all()
    assert hash_with_seed(IDS[:0], 17, "order").shape == (0,)
    assert words(IDS[7:8]).tolist() == [[7, 0]]


def test_the_formula():
    """In Python's integers, and one value written down: no later version may silently reorder every run."""
    mask = 2**64 - 1

    def mix(x):
        x ^= x >> 33
        x = x * 0xFF51AFD7ED558CCD & mask
        x ^= x >> 33
        x = x * 0xC4CEB9FE1A85EC53 & mask
        return x ^ x >> 33

    key = xxhash.xxh3_64_intdigest(b"order", seed=17)
    ids = [xxhash.xxh3_128_digest(bytes([i])) for i in range(50)]
    halves = [(int.from_bytes(i[:8], "little"), int.from_bytes(i[8:], "little")) for i in ids]
    expected = [mix((mix(lo ^ key) + hi * 0x9E3779B97F4A7C15) & mask) for lo, hi in halves]
    assert hash_with_seed(pa.array(ids, pa.binary(16)), 17, "order").tolist() == expected
    assert hex(hash_with_seed(IDS[:1], 17, "order")[0]) == "0x7694dfce00faddb0"


def test_uniform_and_unlike_for_other_seeds_and_purposes():
    seen = [
        hash_with_seed(IDS, 17, "order"),
        hash_with_seed(IDS, 18, "order"),
        hash_with_seed(IDS, 17, "split"),
        hash_with_seed(IDS, -1, "order"),
    ]
    n = len(IDS)
    for number in seen:
        u = np.sort(number / 2.0**64)
        assert np.abs(u - (np.arange(n) + 0.5) / n).max() < 2 / n**0.5
        counts = np.bincount(prefix(number, 4), minlength=16)
        assert abs(counts - n / 16).max() < 5 * (n / 16) ** 0.5
    for i in range(4):
        for j in range(i):
            assert abs(np.corrcoef(seen[i] / 2.0**64, seen[j] / 2.0**64)[0, 1]) < 5 / n**0.5


def test_prefixes_nest():
    number = hash_with_seed(IDS[:100], 1, "order")
    assert (prefix(number, 0) == 0).all()
    for depth in range(32):
        assert (prefix(number, depth + 1) >> 1 == prefix(number, depth)).all()
    assert (prefix(number, 32) == number >> np.uint64(32)).all()
