"""Signatures against a slow, obvious reference, and their error against the binomial bound.

Covers: shingles.py, signature_kernel.py
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import words
from curation.dedup.minhash import shingles
from curation.dedup.minhash import signatures as minhash
from curation.dedup.minhash.signatures import (
    candidate_probability,
    choose_bands,
    from_datasketch,
    signatures,
    to_datasketch,
)

M = 2**64 - 1


def mix(x):
    x ^= x >> 33
    x = x * 0xFF51AFD7ED558CCD & M
    x ^= x >> 33
    x = x * 0xC4CEB9FE1A85EC53 & M
    return x ^ x >> 33


def reference_shingles(text, ngram, unit="words"):
    """The definition in the module's words, character by character."""
    units, word, chars = [], [], []

    def fnv(codes):
        h = 0xCBF29CE484222325
        for c in codes:
            h = (h ^ c) * 0x100000001B3 & M
        return mix(h)

    table = words.character_table()
    alone = False
    for char in text:
        kind, code = words.entry(table, ord(char))
        if kind == words.SKIPPED:
            continue
        chars.append(" " if kind == words.SPACE else chr(code))
        if kind == words.MARK or (kind == words.PART and not alone):
            word.append(code)
            continue
        if word:
            units.append(fnv(word))
        alone = kind == words.ALONE
        word = [code] if alone or kind == words.PART else []
    if word:
        units.append(fnv(word))
    if unit == "characters":
        collapsed = []
        for c in chars:
            if c == " " and (not collapsed or collapsed[-1] == " "):
                continue
            collapsed.append(c)
        if collapsed and collapsed[-1] == " ":
            collapsed.pop()
        units = [mix(ord(c) * 0x9E3779B97F4A7C15 & M) for c in collapsed]
    length = min(ngram, len(units))
    if not units:
        return set()
    found = set()
    for k in range(len(units) - length + 1):
        total = 0
        for u in units[k : k + length]:
            total = (total * 0x9E3779B97F4A7C15 + u) & M
        found.add(mix((total + ngram - length) & M))
    return found


def reference_signature(found, num_perm, seed):
    a, b = (x.tolist() for x in minhash.permutations(num_perm, seed))
    low = [s >> 32 for s in found]
    return [min(((a[i] * x + b[i]) % 2**32 for x in low), default=2**32 - 1) for i in range(num_perm)]


texts = st.text(
    alphabet=st.sampled_from("ab Zé\u0301ß\n\u3000日本ーけがｶﾞ\u00ad\u200bกั😀👍🏽_-.1１٣\0Ω\u2028𝒳"), max_size=60
)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=4), st.integers(1, 6), st.sampled_from(["words", "characters"]), st.integers(1, 40))
def test_signatures_are_those_of_the_definition(batch, ngram, unit, num_perm):
    got = signatures(pa.array(batch, pa.large_string()), ngram=ngram, num_perm=num_perm, seed=5, unit=unit)
    assert got.shape == (len(batch), num_perm) and got.dtype == np.uint32
    for text, row in zip(batch, got, strict=True):
        assert row.tolist() == reference_signature(reference_shingles(text, ngram, unit), num_perm, 5)


def test_what_a_word_is():
    def sets(*batch, ngram=2):
        return [set(s.tolist()) for s in shingles.shingle_sets(pa.array(batch, pa.large_string()), ngram=ngram)]

    plain, other = sets("Hello, World! again", "hello world — AGAIN")
    assert plain == other and len(plain) == 2
    assert [len(s) for s in sets("", "?!", "one", "one two", "日本語", "a日b")] == [0, 0, 1, 1, 2, 2]
    one, full = sets("same", "same same")
    assert not one & full
    assert sets("one", ngram=1) != sets("one", ngram=2)


def test_characters_nobody_sees_and_width_do_not_change_a_set():
    text = "Die Genossenschaft baut eine neue Mühle, ガラス 水車 한국어 12"
    hidden = "Die Ge\u00adnos\u00adsen\u00adschaft baut eine\u200b neue Mühle, ｶﾞﾗｽ 水\ufe0f車 한국어 １２\ufeff"
    one, other = shingles.shingle_sets(pa.array([text, hidden], pa.large_string()))
    assert one.tolist() == other.tolist()


def test_slices_nulls_and_other_string_types():
    batch = pa.array(["x y z a b c", None, "p q r s t u v", "x y z a b c"], pa.large_string())
    all_rows = signatures(batch)
    assert (all_rows[1] == minhash.EMPTY).all()
    assert (all_rows[0] == all_rows[3]).all() and (all_rows[0] != all_rows[2]).any()
    assert (signatures(batch[2:]) == all_rows[2:]).all()
    assert (signatures(batch.cast(pa.string())) == all_rows).all()
    assert (signatures(pa.chunked_array([batch[:2], batch[2:]])) == all_rows).all()
    assert (signatures(batch, num_perm=64) == all_rows[:, :64]).all()
    assert signatures(pa.array([], pa.large_string())).shape == (0, 112)


@pytest.mark.parametrize(("size", "shared"), [(12, 6), (100, 80), (400, 300), (3000, 600)])
def test_error_within_the_binomial_bound(size, shared):
    """Bias and variance over 600 pairs of random documents of known Jaccard, at 112 permutations."""
    rng = np.random.default_rng(size)
    pairs, k = 600 if size < 1000 else 150, 112
    left, right = [], []
    for _ in range(pairs):
        common, one, two = np.split(rng.integers(0, 2**40, 2 * size - shared), [shared, size])
        left.append(" ".join(f"w{x}" for x in [*common, *one]))
        right.append(" ".join(f"w{x}" for x in [*common, *two]))
    a, b = (signatures(pa.array(t, pa.large_string()), ngram=1, num_perm=k) for t in (left, right))
    estimates = (a == b).mean(axis=1)
    j = shared / (2 * size - shared)
    sigma = (j * (1 - j) / k) ** 0.5
    assert abs(estimates.mean() - j) < 4 * sigma / pairs**0.5
    # the sample variance of n normal values lies within 1 +- 4 sqrt(2/n) of the true one
    assert estimates.var(ddof=1) / sigma**2 < 1 + 4 * (2 / pairs) ** 0.5


def test_minima_are_uniform():
    """No overflow bias: over many documents each position's minimum, as a quantile, is uniform."""
    rng = np.random.default_rng(0)
    n, size = 2000, 20
    batch = [" ".join(f"w{x}" for x in rng.integers(0, 2**40, size)) for _ in range(n)]
    u = 1 - (1 - signatures(pa.array(batch, pa.large_string()), ngram=1) / 2**32) ** size
    u.sort(axis=0)
    distance = np.abs(u - (np.arange(n) + 0.5)[:, None] / n).max(axis=0)
    assert distance.max() < 2.5 / n**0.5  # Kolmogorov: beyond 2.5 once in 130,000, times 112 positions


def test_bands_chosen_for_a_threshold():
    for threshold in (0.5, 0.72, 0.9):
        bands, rows = choose_bands(threshold, 112)
        theirs = MinHashLSH(threshold=threshold, num_perm=112)
        assert bands * rows <= 112
        assert abs(rows - theirs.r) <= 1 and abs(bands - theirs.b) <= 6
    assert choose_bands(1.0, 1) == (1, 1)
    assert candidate_probability(0.5, 2, 1) == 0.75
    with pytest.raises(ValueError, match="threshold 0"):
        choose_bands(0, 112)


def test_datasketch_takes_them_and_gives_them_back():
    base = [f"w{i}" for i in range(200)]
    batch = pa.array([" ".join(base), " ".join([*base[:-4], "x"]), " ".join(reversed(base))], pa.large_string())
    ours = signatures(batch)
    objects = to_datasketch(ours)
    assert isinstance(objects[0], MinHash)
    assert objects[0].jaccard(objects[1]) == minhash.estimate_jaccard(ours[0], ours[1])
    lsh = MinHashLSH(threshold=0.7, num_perm=112)
    lsh.insert("a", objects[0])
    assert lsh.query(objects[1]) == ["a"] and lsh.query(objects[2]) == []
    assert (from_datasketch(objects) == ours).all()
    assert from_datasketch([]).shape == (0, 0)


def test_ten_megabytes_in_one_line():
    signatures(pa.array(["warm up"], pa.large_string()))
    big = pa.array(["ab " * 3_500_000, "x" * 10_500_000, "é" * 5_000_000], pa.large_string())
    got = signatures(big)
    assert (got[0] == signatures(pa.array(["ab " * 5], pa.large_string()))[0]).all()  # the one shingle of both
    assert got.shape == (3, 112)


@settings(max_examples=100, deadline=None)
@given(st.lists(texts, max_size=8), st.integers(1, 4))
def test_contents_are_equal_for_equal_sets_and_change_no_signature(batch, ngram):
    array = pa.array(batch, pa.large_string())
    signature, content = minhash.signatures_and_contents(array, ngram=ngram, num_perm=20)
    assert (signature == signatures(array, ngram=ngram, num_perm=20)).all()
    found = [frozenset(reference_shingles(t, ngram)) for t in batch]
    assert len(set(found)) == len(set(content.tolist()))
    for s, c in zip(found, content.tolist(), strict=True):
        assert (c == 0) == (not s)
        assert all(c == other for other, t in zip(content.tolist(), found, strict=True) if t == s)


def test_repeated_shingles_count_once():
    once, often = "a b c d e f", "a b c d e f " * 5
    array = pa.array([often, f"{often} a b", once], pa.large_string())
    _, content = minhash.signatures_and_contents(array, ngram=2)
    assert content[0] == content[1] != content[2]


def test_sketches_agree_in_half_of_what_differs():
    rng = np.random.default_rng(1)
    left, right = (rng.integers(0, 2**20, (4000, 112), dtype=np.uint32) for _ in range(2))  # minima are small numbers
    same = rng.random((4000, 112)) < 0.6
    right[same] = left[same]
    a, b = minhash.sketches(left), minhash.sketches(right)
    share = np.bitwise_count(a ^ b).mean() / 64
    assert abs(share - 0.2) < 4 * (0.2 * 0.8 / 64 / 4000) ** 0.5
    assert (minhash.sketches(left[:, :7]) < 2**7).all()
    assert minhash.sketches(left[:0]).shape == (0,)
    assert minhash.max_sketch_distance(1.0, 112) == 0 and minhash.max_sketch_distance(0.72, 112) == 21
    beyond = np.bitwise_count(a ^ b) > minhash.max_sketch_distance(0.6, 112)
    assert beyond.mean() < 1e-3


def test_datasketch_lsh_finds_what_our_bands_find():
    """In memory; its other storages take the same objects."""
    rng = np.random.default_rng(4)
    batch = []
    for _ in range(60):
        words = [f"w{x}" for x in rng.integers(0, 2**40, 60)]
        batch += [" ".join(words), " ".join([*words[: rng.integers(30, 60)], "and", "more"])]
    ours = signatures(pa.array(batch, pa.large_string()))
    lsh = MinHashLSH(params=(14, 8), num_perm=112)
    for k, sketch in enumerate(to_datasketch(ours)):
        lsh.insert(k, sketch)
    theirs = {(k, other) for k, sketch in enumerate(to_datasketch(ours)) for other in lsh.query(sketch)}
    keys = minhash.band_keys(ours, 14, 8)
    mine = {(a, b) for a in range(len(batch)) for b in range(len(batch)) if (keys[a] == keys[b]).any()}
    assert theirs == mine and len(mine) > len(batch)
