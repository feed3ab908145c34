"""Near-duplicate removal, through the stages: what is removed, what is kept, and why.

Covers: candidate_pairs.py, verify_candidates.py
"""

from __future__ import annotations

import pickle
import random
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.dedup.minhash import candidate_pairs, duplicate_edges, independent_set, minhash_dedup, verify_candidates
from curation.dedup.minhash.jaccard import jaccard_similarity
from curation.dedup.minhash.minhash_dedup import MinHashDedup
from curation.dedup.minhash.signatures import candidate_probability, choose_bands
from tests.curation.stages import TaskDocuments, corpus_of, cut, documents, run, signals


def decide(table, tasks=1, shuffle=None, seed=17, **options):
    parts = cut(table, tasks, shuffle)
    return signals(run_step(MinHashDedup(**options), parts, seed), parts)


def run_step(step, parts, seed=17):
    return run(step.stages(corpus_of(parts, seed)), parts, expressions=dict(step.expressions()))


def prose(rng, words=120):
    return [f"w{rng.randrange(50_000)}" for _ in range(words)]


def planted(families=30, seed=1):
    """Texts in families: an original and versions with a few words replaced, shuffled together."""
    rng = random.Random(seed)
    texts = []
    for _ in range(families):
        base = prose(rng)
        texts.append(" ".join(base))
        for _ in range(rng.randrange(4)):
            version = list(base)
            for _ in range(rng.randrange(1, 5)):
                version[rng.randrange(len(version))] = "changed"
            texts.append(" ".join(version))
    rng.shuffle(texts)
    return texts


def check(table, found, threshold=0.72):
    """Every removal points at a kept document at exactly the similarity it claims; copies add up."""
    texts = dict(zip((v.hex() for v in table["doc_id"].to_pylist()), table["text"].to_pylist(), strict=True))
    assert set(found) == set(texts)
    stands = dict.fromkeys((k for k, s in found.items() if not s["duplicate"]), 1)
    for name, s in found.items():
        if s["duplicate"]:
            assert not found[s["of"]]["duplicate"]
            exact = jaccard_similarity(texts[name], texts[s["of"]])
            assert exact >= Fraction(str(threshold))
            assert s["similarity"] == exact.numerator / exact.denominator
            assert s["copies"] is None
            stands[s["of"]] += 1
        else:
            assert s["of"] is None and s["similarity"] is None
    assert stands == {k: s["copies"] for k, s in found.items() if not s["duplicate"]}


def brute(texts, ids, seed, threshold):
    """The slow, obvious reference: all pairs, then the walk down the priority order."""
    level = independent_set.priority_levels(independent_set.length_priority(np.array([len(t.encode()) for t in texts])))
    ids_array = pa.array(ids, pa.binary(16))
    order = independent_set.priority_order(independent_set.priority_rank(level, ids_array, seed), ids_array).tolist()
    kept: list[int] = []
    gone = set()
    for i in order:
        if any(jaccard_similarity(texts[i], texts[j]) >= Fraction(str(threshold)) for j in kept):
            gone.add(ids[i].hex())
        else:
            kept.append(i)
    return gone


def test_planted_families_as_all_pairs_would_decide():
    texts = planted()
    table = documents(texts)
    found = decide(
        table, num_bands=40, rows_per_band=2
    )  # so wide that the LSH misses nothing: s = 0.72 meets with 1 - 10^-12
    check(table, found)
    expected = brute(texts, table["doc_id"].to_pylist(), 17, 0.72)
    assert {k for k, s in found.items() if s["duplicate"]} == expected
    assert len(expected) > 10


@pytest.mark.parametrize(("tasks", "shuffle"), [(1, 5), (3, None), (7, 2), (20, 11)])
def test_any_layout_and_order_decides_the_same(tasks, shuffle, monkeypatch):
    table = documents(planted(12, seed=3))
    once = decide(table)
    monkeypatch.setattr(minhash_dedup, "ROWS_PER_PARTITION", 100)
    monkeypatch.setattr(verify_candidates, "DOCUMENTS_AT_ONCE", 3)
    monkeypatch.setattr(verify_candidates, "PENDING_BYTES", 2000)
    monkeypatch.setattr(verify_candidates, "PENDING_PAIRS", 5)
    monkeypatch.setattr(duplicate_edges, "EDGES_PER_PARTITION", 4)
    monkeypatch.setattr(candidate_pairs, "PAIRS_AT_ONCE", 4)
    assert decide(table, tasks, shuffle) == once


def test_no_chains():
    """Neighbours of a chain are similar, its ends are not: nobody goes because of a removed one."""
    words = [f"w{i}" for i in range(400)]
    texts = [" ".join(words[20 * k : 20 * k + 200]) for k in range(10)]  # neighbours 0.81, next but one 0.66
    table = documents(texts)
    found = decide(table, num_bands=40, rows_per_band=2)
    check(table, found)
    kept = [k for k, s in found.items() if not s["duplicate"]]
    assert 4 <= len(kept) <= 5  # connected components would have kept one


def test_templates_do_not_chain_unrelated_documents():
    """Pages of one template, their own text the smaller part: all are candidates of each other, none is a duplicate."""
    rng = random.Random(4)
    template = prose(rng, 120)
    table = documents([" ".join([*template[:60], *prose(rng, 50), *template[60:]]) for _ in range(120)])
    parts = cut(table, 3)
    ran = run_step(MinHashDedup(num_bands=40, rows_per_band=2), parts)
    assert not any(s["duplicate"] for s in signals(ran, parts).values())
    pairs = ran.results[ran.names.index("pairs")].counters["met"]
    assert pairs > 120 * 119 / 2  # unverified, they would be one cluster
    assert ran.results[ran.names.index("edges")].counters == {}


@pytest.mark.parametrize("changed", [2, 5, 9])
def test_recall_is_that_of_the_theory(changed):
    """Isolated pairs of known similarity: found as often as 1 - (1 - s^8)^14 says, within 3 sigma."""
    rng = random.Random(changed)
    pairs, words = 400, 204
    texts = []
    for _ in range(pairs):
        base = prose(rng, words)
        version = list(base)
        for k in range(changed):  # far enough apart that each breaks its own 5 shingles
            version[10 + 20 * k] = "changed"
        texts += [" ".join(base), " ".join(version)]
    exact = jaccard_similarity(texts[0], texts[1])
    assert exact == Fraction(200 - 5 * changed, 200 + 5 * changed)
    assert {jaccard_similarity(a, b) for a, b in zip(texts[::2], texts[1::2], strict=True)} == {exact}
    found = decide(documents(texts), threshold=0.5)
    removed = sum(s["duplicate"] for s in found.values())
    chance = candidate_probability(float(exact), 14, 8)
    assert abs(removed - pairs * chance) <= 3 * max(1.0, pairs * chance * (1 - chance)) ** 0.5


def test_each_band_carries_the_key_of_another_for_sub_buckets():
    table = documents(planted(4))
    stage = next(MinHashDedup(num_bands=3, rows_per_band=2).stages(corpus_of([table])))
    rows = pa.Table.from_batches(stage.run(iter(()), TaskDocuments(0, table, features=stage.features)))
    assert rows.num_rows == 3 * table.num_rows
    for start in range(0, rows.num_rows, 3):
        keys, others, band = (rows[c][start : start + 3].to_pylist() for c in ("key", "other", "band"))
        assert others == keys[1:] + keys[:1] and len(set(keys)) == 3 and band == [0, 1, 2]
        assert len(set(rows["content"][start : start + 3].to_pylist())) == 1


def test_partitions_grow_in_number_then_in_size():
    assert [minhash_dedup.partition_count(n) for n in (0, 1, 1 << 20, (1 << 20) + 1, 1 << 32)] == [1, 1, 1, 2, 4096]
    assert minhash_dedup.partition_count((1 << 32) + 1) == 2049
    assert minhash_dedup.partition_count(14 * 10**10) == 8345


def test_options_come_from_a_pipeline_file():
    from pydantic import TypeAdapter

    step = TypeAdapter(MinHashDedup).validate_python(
        {"threshold": 0.8, "num_bands": None, "rows_per_band": None, "scope": "domain"}
    )
    step.check()
    assert step.expressions() == {"@scope": "CAST((domain\n) AS VARCHAR)"} and step.lsh_shape() == choose_bands(
        0.8, 112
    )
    assert pickle.loads(pickle.dumps(step)) == step
    assert step.rules() == {"near_duplicate": "NOT minhash_dedup.duplicate"}
    assert MinHashDedup(name="near").rules() == {"near_duplicate": "NOT near.duplicate"}


def test_short_and_odd_documents():
    texts = ["one two", "One, two!", "two one", "", "", "...", "\0", "日本語の文章です。" * 3, "日本語の文章です。" * 3]
    table = documents(texts)
    ids = [v.hex() for v in table["doc_id"].to_pylist()]
    found = decide(table)
    gone = [i for i, name in enumerate(ids) if found[name]["duplicate"]]
    # the same few words are duplicates, other ones and documents without words never
    assert len(gone) == 2 and len(set(gone) & {0, 1}) == 1 and len(set(gone) & {7, 8}) == 1


def test_the_longer_document_stays():
    base = [f"w{i}" for i in range(100)]
    table = documents([" ".join(base), " ".join(base + [f"x{i}" for i in range(30)])])
    found = decide(table, num_bands=40, rows_per_band=2, threshold=0.6)
    names = [v.hex() for v in table["doc_id"].to_pylist()]
    assert found[names[0]]["of"] == names[1]
    assert found[names[1]]["copies"] == 2


def test_scope_compares_only_within_it():
    text = " ".join(f"w{i}" for i in range(50))
    language = [{"code": "en"}, {"code": "de"}, {"code": "en"}]
    source = [{"file": f, "kind": "warc"} for f in ("2023/a.warc", "2024/a.warc", "2024/b.warc")]
    table = documents([text] * 3, domain=["web", "web", "code"], source=source, language=language)
    names = [v.hex() for v in table["doc_id"].to_pylist()]

    def gone(scope):
        found = decide(table, 2, scope=scope)
        return {names.index(k) for k, s in found.items() if s["duplicate"]}

    assert len(gone("all")) == 2
    assert len(gone("domain") & {0, 1}) == 1 and 2 not in gone("domain")
    assert len(gone("language.code") & {0, 2}) == 1 and 1 not in gone("language.code")
    assert gone("language") == gone("language.code")
    assert gone("source") == set()
    assert len(gone("source.file LIKE '2024%'") & {1, 2}) == 1
    assert len(gone("CASE WHEN domain = 'web' THEN 1 END")) == 1


def priority_order(table, values, seed=17):
    ids = table["doc_id"].combine_chunks()
    return independent_set.priority_order(
        independent_set.priority_rank(independent_set.priority_levels(np.array(values, float)), ids, seed), ids
    ).tolist()


def test_priority_is_sql():
    text = " ".join(f"w{i}" for i in range(50))
    quality = [0.2, 0.9, 0.9, None, float("nan"), 0.5]
    table = documents([text] * 6, quality=[{"score": q} for q in quality])
    names = [v.hex() for v in table["doc_id"].to_pylist()]
    found = decide(table, 3, priority="10 * quality.score")
    (kept,) = [k for k, s in found.items() if not s["duplicate"]]
    assert names.index(kept) == priority_order(table, [2, 9.9, 9, 0, 0, 5])[0] in (1, 2)
    assert found[kept]["copies"] == 6
    assert {s["of"] for s in found.values()} == {kept, None}


def test_a_document_inside_a_longer_one():
    words = [f"w{i}" for i in range(300)]
    texts = [" ".join(words), " ".join(words[40:200]), " ".join(words[250:] + [f"x{i}" for i in range(60)])]
    table = documents(texts)
    names = [v.hex() for v in table["doc_id"].to_pylist()]
    assert not any(s["duplicate"] for s in decide(table, num_bands=60, rows_per_band=1).values())
    found = decide(table, 3, num_bands=60, rows_per_band=1, similarity="containment", threshold=0.9)
    assert [k for k, s in found.items() if s["duplicate"]] == [names[1]]
    assert found[names[1]]["of"] == names[0] and found[names[1]]["similarity"] == 1.0
    # the longer one is not inside the shorter, whichever is preferred
    assert not any(
        s["duplicate"] for s in decide(table, 3, num_bands=60, rows_per_band=1, similarity="containment", threshold=0.9,
                                       priority="CASE WHEN length(text) < 1000 THEN 9 ELSE 0 END").values()
    )  # fmt: skip


def large_bucket(n, seed=0):
    """Documents that share one band and are not alike: a template, half of the words their own."""
    rng = random.Random(seed)
    template = [f"w{i}" for i in range(60)]
    return [" ".join([*template, *(f"d{rng.randrange(1 << 40)}" for _ in range(40))]) for _ in range(n)]


def test_a_large_bucket_stays_linear_and_says_what_did_not_meet():
    n, first = 500, 16
    key = np.zeros(n, np.uint64)
    content = np.arange(n, dtype=np.uint64)
    buckets = candidate_pairs.Buckets(key, key, content, key, np.zeros(n, np.uint8), max_partners=first)
    pairs = [p for b, w in buckets.pairs() for p in zip(b.tolist(), w.tolist(), strict=True)]
    met = first * (first - 1) // 2 + (n - first) * first
    rest = n - first
    again = first * (first - 1) // 2 + (rest - first) * first
    assert len(pairs) == len(set(pairs)) == met + again
    assert buckets.counts == {
        "met": met + again, "skipped": 0, "unmet": n * (n - 1) // 2 - met - again, "copies": 0,
    }  # fmt: skip


def test_copies_cost_one_pair_each():
    text = " ".join(f"w{i}" for i in range(50))
    near_text = text + " and one more"
    table = documents([text] * 500 + [near_text] * 300)
    parts = cut(table, 3, 1)
    ran = run_step(MinHashDedup(), parts)
    found = signals(ran, parts)
    check(table, found)
    assert sum(not s["duplicate"] for s in found.values()) == 1
    counters = ran.results[ran.names.index("pairs")].counters
    assert counters["copies"] == 798 and counters["met"] <= 14 and counters["unmet"] == 0
    assert ran.results[ran.names.index("edges")].counters == {"edges": 799}


def met(key, other, first):
    n = len(key)
    buckets = candidate_pairs.Buckets(
        key, other, np.arange(n, dtype=np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.uint8), max_partners=first
    )
    parts = [zip(b.tolist(), w.tolist(), strict=True) for b, w in buckets.pairs()]
    return sorted(pair for part in parts for pair in part), buckets.counts["unmet"]


def test_candidates_meet_as_documented(monkeypatch):
    key = np.array([1, 1, 1, 1, 1, 2, 3, 3], np.uint64)
    other = np.array([0, 0, 7, 8, 7, 0, 0, 0], np.uint64)
    # each meets the first two of its bucket; 2 and 4 are beyond and share the other key; 3 is alone there
    expected = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 4), (6, 7)]
    assert met(key, other, 2) == (expected, 2)
    monkeypatch.setattr(candidate_pairs, "PAIRS_AT_ONCE", 1)
    assert met(key, other, 2) == (expected, 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=40), st.integers(1, 5))
def test_candidates_against_the_rule_and_what_a_later_document_changes(rows, first):
    rows.sort(key=lambda r: r[0])
    key, other = (np.array([r[k] for r in rows], np.uint64) for k in (0, 1))
    expected, total = set(), 0
    for k in set(key.tolist()):
        bucket = np.flatnonzero(key == k).tolist()
        total += len(bucket) * (len(bucket) - 1) // 2
        expected |= {(bucket[i], w) for n, w in enumerate(bucket) for i in range(min(n, first))}
        for o in range(3):
            sub = [d for d in bucket[first:] if other[d] == o]
            expected |= {(sub[i], w) for n, w in enumerate(sub) for i in range(min(n, first))}
    found, lost = met(key, other, first)
    assert found == sorted(expected)
    assert lost == total - len(found)
    if rows:  # without the last document: the same pairs among the others
        assert met(key[:-1], other[:-1], first)[0] == [p for p in found if len(rows) - 1 not in p]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=30), st.integers(1, 3))
def test_of_equal_sets_the_best_stands_for_all(rows, first):
    rows.sort(key=lambda r: r[0])
    key, content = (np.array([r[k] for r in rows], np.uint64) for k in (0, 1))
    n = len(rows)
    zeros = np.zeros(n, np.uint64)
    for band in (0, 1):
        buckets = candidate_pairs.Buckets(key, zeros, content, zeros, np.full(n, band, np.uint8), max_partners=first)
        found = {p for b, w in buckets.pairs() for p in zip(b.tolist(), w.tolist(), strict=True)}
        leader = {r: i for i, r in reversed(list(enumerate(rows)))}
        stars = {(leader[r], i) for i, r in enumerate(rows) if leader[r] != i}
        best = np.array(sorted(leader.values()), np.int64)
        among, _ = met(key[best], zeros[best], first)
        assert found == {(best[a], best[b]) for a, b in among} | (stars if band == 0 else set())
        assert buckets.counts["copies"] == (len(stars) if band == 0 else 0)


def test_pairs_whose_sketches_differ_too_much_are_skipped():
    zeros = np.zeros(3, np.uint64)
    sketch = np.array([0, 0b111, 0b1111], np.uint64)
    buckets = candidate_pairs.Buckets(
        zeros, zeros, np.arange(3, dtype=np.uint64), sketch, np.zeros(3, np.uint8), max_sketch_distance=3
    )
    assert [(b.tolist(), w.tolist()) for b, w in buckets.pairs()] == [([0, 1], [1, 2])]
    assert buckets.counts == {"met": 3, "skipped": 1, "unmet": 0, "copies": 0}


@pytest.mark.parametrize("size", [1000, 2500])
def test_truth_pairs_of_the_articles(data, size):
    lines = (data / "near_dup" / f"articles_{size}.train").read_text().splitlines()
    names, texts = zip(*(line.split(" ", 1) for line in lines), strict=True)
    table = documents(texts)
    found = decide(table, 4, 1)
    check(table, found)
    ids = dict(zip(names, (v.hex() for v in table["doc_id"].to_pylist()), strict=True))
    truth = [line.split() for line in (data / "near_dup" / f"articles_{size}.truth").read_text().splitlines()]
    for left, right in truth:
        one, two = found[ids[left]], found[ids[right]]
        assert one["of"] == ids[right] or two["of"] == ids[left]
    assert sum(s["duplicate"] for s in found.values()) == len(truth)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threshold": 1.2}, "threshold is 1.2"),
        ({"threshold": 1 / 3}, "at most 6 decimals"),
        ({"ngram": 0}, "ngram is 0"),
        ({"num_bands": None}, "both num_bands and rows_per_band"),
        ({"rows_per_band": 0}, "of at least 1 row"),
        ({"scope": " "}, "scope is empty"),
        ({"num_bands": 256, "rows_per_band": 1}, "give 1 to 255"),
    ],
)
def test_options_that_are_refused(options, says):
    with pytest.raises(UserError, match=says.replace(".", r"\.")):
        MinHashDedup(**options).check()
