"""The decision by rounds against a plain walk down the priority order, for any partitioning of the edges.

Covers: independent_set.py, independent_set_kernel.py, duplicate_edges.py
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.dedup.minhash import duplicate_edges, independent_set, resolve_duplicates
from curation.step import StageResult

SEED = 7


def ids_of(n):
    return pa.array([xxhash.xxh3_128_digest(b"%d" % i) for i in range(n)], pa.binary(16))


def order_of(ids, level):
    return independent_set.priority_order(
        independent_set.priority_rank(np.array(level, np.uint8), ids, SEED), ids
    ).tolist()


def table_of(found, ids, level):
    """Edges (u, v): (intersection, sizes of u and v) as a table, by priority. Addresses are positions."""
    place = {v: k for k, v in enumerate(order_of(ids, level))}
    rows = [
        (u, v, intersection, a, b) if place[u] < place[v] else (v, u, intersection, b, a)
        for (u, v), (intersection, a, b) in found.items()
    ]
    r = np.array(rows, np.int64).reshape(-1, 5)
    level = np.array(level, np.uint8)
    return pa.table(
        {
            "higher": r[:, 0], "lower": r[:, 1], "higher_id": ids.take(pa.array(r[:, 0])),
            "lower_id": ids.take(pa.array(r[:, 1])), "higher_level": level[r[:, 0]], "lower_level": level[r[:, 1]],
            "intersection": r[:, 2].astype(np.uint32), "higher_size": r[:, 3].astype(np.uint32),
            "lower_size": r[:, 4].astype(np.uint32),
        }
    )  # fmt: skip


def decided(table, homes, rounds=resolve_duplicates.ROUNDS, measure="jaccard"):
    """(duplicate -> (kept, similarity), names of stages) by the stages, with rows partitioned by `to`."""

    def dealt(batches, n):
        t = pa.Table.from_batches(batches, duplicate_edges.EDGES)
        return [t.filter(pa.array(t["to"].to_numpy() == p)).to_batches(max_chunksize=3 + n) for p in range(n)]

    sent = dealt(list(duplicate_edges.to_both_owners(table, homes)), homes)
    plan = resolve_duplicates.resolve_stages(resolve_duplicates.ResolveOptions(SEED, measure), homes, 1, rounds)
    stage, names = next(plan), []
    while stage.name != "decisions":
        groups = stage.groups if stage.groups is not None else [[p] for p in range(len(sent))]
        out, counters = [], Counter()
        for group in groups:
            for batch in stage.run(iter([b for p in group for b in sent[p]])):
                assert batch.schema.equals(duplicate_edges.EDGES)
                counters.update(stage.counters(batch) if stage.counters else {})
                out.append(batch)
        names.append(stage.name)
        sent = dealt(out, stage.partitions)
        assert sum(b.num_rows for p in sent for b in p) == sum(b.num_rows for b in out)
        stage = plan.send(StageResult(dict(counters), []))
    found = {}
    for row in (r for p in sent for b in p for r in b.to_pylist()):
        assert row["kind"] == duplicate_edges.RESULT and row["lower"] not in found
        denominator = independent_set.similarity_denominator(
            measure, row["higher_size"], row["lower_size"], row["intersection"]
        )
        found[row["lower"]] = (row["higher"], Fraction(row["intersection"], denominator))
    return found, names


def walked(found, order, measure="jaccard"):
    """The plain reference: down the priority order; equal sets are one document, their neighbours those of its best."""
    place = {v: k for k, v in enumerate(order)}
    near: dict[int, list[tuple[int, Fraction]]] = {v: [] for v in order}
    leader = {}
    for (u, v), (intersection, a, b) in found.items():
        if place[u] > place[v]:
            u, v, a, b = v, u, b, a
        if intersection == a == b:
            leader[v] = u
        near[v].append((u, Fraction(intersection, independent_set.similarity_denominator(measure, a, b, intersection))))
    gone = {}
    for v in order:
        if v in leader:
            gone[v] = gone.get(leader[v], (leader[v], Fraction(1)))
            continue
        kept = [(s, -place[u], u) for u, s in near[v] if u not in gone]
        if kept:
            s, _, u = max(kept)
            gone[v] = (u, s)
    return gone


@st.composite
def graphs(draw):
    """Random graphs in which some documents have copies, as candidate_pairs.py finds them."""
    n = draw(st.integers(1, 25))
    rng = random.Random(draw(st.integers(0, 2**32)))
    level = [rng.randrange(draw(st.sampled_from([1, 2, 32]))) for _ in range(n)]
    p = draw(st.sampled_from([0.05, 0.15, 0.5]))
    copied = {v for v in range(n) if rng.random() < 0.2}
    ids = ids_of(n)
    order = order_of(ids, level)
    size = [10 + rng.randrange(2) for _ in range(n)]
    found, others = {}, [v for v in order if v not in copied]
    for i, u in enumerate(others):
        for v in others[i + 1 :]:
            if rng.random() < p:
                found[u, v] = (rng.randint(7, 9), size[u], size[v])
    for v in copied:
        higher = [u for u in order[: order.index(v)] if u not in copied]
        if higher:
            u = rng.choice(higher)
            found[u, v] = (size[u], size[u], size[u])
    return found, ids, level, order


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(1, 9), st.integers(0, 8), st.sampled_from(["jaccard", "containment"]))
def test_rounds_reach_the_first_maximal_independent_set(graph, homes, rounds, measure):
    found, ids, level, order = graph
    assert decided(table_of(found, ids, level), homes, rounds, measure)[0] == walked(found, order, measure)


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(1, 5), st.integers(0, 2**32))
def test_edges_found_twice_and_in_any_order_change_nothing(graph, homes, seed):
    found, ids, level, _ = graph
    table = table_of(found, ids, level)
    rows = [i for i in range(table.num_rows) for _ in range(1 + (i + seed) % 3)]
    random.Random(seed).shuffle(rows)
    assert decided(table.take(pa.array(rows, pa.int64())), homes) == decided(table, homes)


def chain(order):
    return dict.fromkeys(itertools.pairwise(order), (9, 10, 10))


@pytest.mark.parametrize("levels", [1, 32])
def test_a_chain_of_versions_takes_few_rounds(levels):
    n = 20_000
    ids, level = ids_of(n), [i * levels // n for i in range(n)]
    found = chain(list(range(n)))
    got, names = decided(table_of(found, ids, level), 16)
    assert got == walked(found, order_of(ids, level))
    assert "walk_ranges" not in names


def test_a_chain_in_order_of_priority_is_left_to_the_forward_walk(monkeypatch):
    monkeypatch.setattr(resolve_duplicates, "OPEN_PER_RANGE", 1000)
    n = 20_000
    ids, level = ids_of(n), [0] * n
    order = order_of(ids, level)
    found = chain(order)
    got, names = decided(table_of(found, ids, level), 16)
    assert names[-3:] == ["round 8", "split_ranges", "walk_ranges"]
    assert got == {order[k]: (order[k - 1], Fraction(9, 11)) for k in range(1, n, 2)}


def test_one_home_needs_one_round():
    n = 3000
    ids, level = ids_of(n), [0] * n
    assert decided(table_of(chain(order_of(ids, level)), ids, level), 1)[1] == ["round 1"]
