"""The decision by rounds against the walk down the priority order, however the edges are dealt out."""

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

from curation.dedup.minhash import again, duplicate_edges, independent_set, resolve_duplicates
from curation.step import StageResult

SEED = 7


def ids_of(n):
    return pa.array([xxhash.xxh3_128_digest(b"%d" % i) for i in range(n)], pa.binary(16))


def order_of(ids, level):
    return independent_set.order(independent_set.rank(np.array(level, np.uint8), ids, SEED), ids).tolist()


def table_of(found, ids, level):
    """Edges (u, v): (both, size of u, size of v) as a table, better documents first. Addresses are positions."""
    place = {v: k for k, v in enumerate(order_of(ids, level))}
    rows = [(u, v, both, a, b) if place[u] < place[v] else (v, u, both, b, a) for (u, v), (both, a, b) in found.items()]
    r = np.array(rows, np.int64).reshape(-1, 5)
    level = np.array(level, np.uint8)
    return pa.table(
        {
            "better": r[:, 0], "worse": r[:, 1], "better_id": ids.take(pa.array(r[:, 0])),
            "worse_id": ids.take(pa.array(r[:, 1])), "better_level": level[r[:, 0]], "worse_level": level[r[:, 1]],
            "both": r[:, 2].astype(np.uint32), "better_size": r[:, 3].astype(np.uint32),
            "worse_size": r[:, 4].astype(np.uint32),
        }
    )  # fmt: skip


def decided(table, homes, rounds=resolve_duplicates.ROUNDS, measure="jaccard"):
    """(duplicate -> (kept, similarity), names of stages) by the stages of decide.py, rows dealt out as `to` says."""

    def dealt(batches, n):
        t = pa.Table.from_batches(batches, duplicate_edges.EDGES)
        return [t.filter(pa.array(t["to"].to_numpy() == p)).to_batches(max_chunksize=3 + n) for p in range(n)]

    sent = dealt(list(duplicate_edges.twice(table, homes)), homes)
    plan = resolve_duplicates.stages(resolve_duplicates.Order(SEED, measure), homes, 1, rounds)
    stage, names = next(plan), []
    while stage.name != "report":
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
        assert row["kind"] == duplicate_edges.RESULT and row["worse"] not in found
        whole = independent_set.whole(measure, row["better_size"], row["worse_size"], row["both"])
        found[row["worse"]] = (row["better"], Fraction(row["both"], whole))
    return found, names


def walked(found, order, measure="jaccard"):
    """The plain reference: down the priority order; equal sets are one document, their neighbours those of its best."""
    place = {v: k for k, v in enumerate(order)}
    near: dict[int, list[tuple[int, Fraction]]] = {v: [] for v in order}
    leader = {}
    for (u, v), (both, a, b) in found.items():
        if place[u] > place[v]:
            u, v, a, b = v, u, b, a
        if both == a == b:
            leader[v] = u
        near[v].append((u, Fraction(both, independent_set.whole(measure, a, b, both))))
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
    """Random graphs with copies hanging on some documents, as candidates.py finds them: stars around their best."""
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
        better = [u for u in order[: order.index(v)] if u not in copied]
        if better:
            u = rng.choice(better)
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
    assert "forward" not in names


def test_a_chain_in_order_of_priority_is_left_to_the_forward_walk(monkeypatch):
    monkeypatch.setattr(resolve_duplicates, "OPEN_PER_RANGE", 1000)
    n = 20_000
    ids, level = ids_of(n), [0] * n
    order = order_of(ids, level)
    found = chain(order)
    got, names = decided(table_of(found, ids, level), 16)
    assert names[-3:] == ["round 8", "deal", "forward"]
    assert got == {order[k]: (order[k - 1], Fraction(9, 11)) for k in range(1, n, 2)}


def test_one_home_needs_one_round():
    n = 3000
    ids, level = ids_of(n), [0] * n
    assert decided(table_of(chain(order_of(ids, level)), ids, level), 1)[1] == ["round 1"]


def closed(found, order):
    """Every edge there is among documents of equal sets and their neighbours, where stars leave most out."""
    place = {v: k for k, v in enumerate(order)}
    leader = {}
    for (u, v), (both, a, b) in found.items():
        if both == a == b:
            u, v = sorted((u, v), key=place.__getitem__)
            leader[v] = u
    members: dict[int, list[int]] = {v: [v] for v in order if v not in leader}
    for v, u in leader.items():
        members[u].append(v)
    near: dict[int, set[int]] = {v: set() for v in order}
    for u, v in found:
        for x in members[leader.get(u, u)]:
            for y in members[leader.get(v, v)]:
                near[x] |= {y} - {x}
                near[y] |= {x} - {y}
    return near


@settings(max_examples=300, deadline=None)
@given(graphs(), st.integers(0, 2**32))
def test_decided_again_without_some_documents(graph, seed):
    found, ids, level, order = graph
    without = {v for v in order if random.Random(seed + v).random() < 0.3}
    table = pa.Table.from_batches(duplicate_edges.twice(table_of(found, ids, level), 3), duplicate_edges.EDGES)
    rows = again.again(
        table, resolve_duplicates.Order(SEED, "jaccard"), ids.take(pa.array(sorted(without), pa.int64()))
    )
    got = {r["worse"]: r for r in rows.to_pylist()}
    near, kept = closed(found, order), []
    for v in order:
        if v not in without and not any(u in near[v] for u in kept):
            kept.append(v)
    assert set(got) == set(order) - without - set(kept)
    for v, row in got.items():
        assert row["better"] in kept and row["better"] in near[v]
        assert row["better_id"] == ids[row["better"]].as_py()
    if not without:
        assert {v: r["better"] for v, r in got.items()} == {
            v: u for v, (u, _) in decided(table_of(found, ids, level), 2)[0].items()
        }
