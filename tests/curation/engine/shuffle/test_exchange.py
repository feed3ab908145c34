"""Exchanges between stages: every consumer finds every row, and opens grow with tasks, not with their square."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.engine.shuffle import exchange
from curation.engine.shuffle.exchange import Inputs


def work(producers: int, consumers: int, one_file: bool = False) -> tuple[int, int, int]:
    """(opens, merge tasks, files that a consumer opens at most) of an exchange."""
    plan = exchange.plan_merge(producers, consumers, one_file=one_file)
    if plan is None:
        return producers * consumers, 0, producers
    groups, ranges = len(plan.groups) - 1, len(plan.ranges) - 1
    return ranges * producers + groups * consumers, groups * ranges, groups


@given(st.integers(1, 3000), st.integers(1, 3000), st.booleans())
def test_every_consumer_gets_every_producer_once_and_in_order(producers: int, consumers: int, one_file: bool) -> None:
    plan = exchange.plan_merge(producers, consumers, one_file=one_file)
    if plan is None:
        assert exchange.direct(["a", "b"], consumers).of(consumers - 1) == ["a", "b"]
        return
    tasks = list(product(pairwise(plan.ranges), pairwise(plan.groups)))
    inputs = plan.inputs([str(i) for i in range(len(tasks))])
    for consumer in {0, consumers // 3, consumers - 1}:
        merged = [tasks[int(name)] for name in inputs.of(consumer)]
        assert all(first <= consumer < last for (first, last), _ in merged)
        assert [p for _, (first, last) in merged for p in range(first, last)] == list(range(producers))
        assert not one_file or len(merged) == 1
    assert list(inputs.of(consumers)) == [], "a task that the exchange did not know"
    assert Inputs.from_dict(inputs.as_dict()).of(consumers - 1) == inputs.of(consumers - 1)


@pytest.mark.parametrize("tasks", [64, 65, 320, 640, 1024, 4096, 100_000])
def test_opens_of_an_exchange_are_a_number_a_task(tasks: int) -> None:
    opens, merges, files = work(tasks, tasks)
    print(f"{tasks:,} x {tasks:,}: {opens / tasks:.1f} opens a task, {merges:,} merge tasks")
    assert opens <= 128 * tasks and files <= 64


def test_merging_has_work_for_a_cluster_whatever_the_number_of_shards() -> None:
    """16,384 shards had 61 merge tasks, since all consumers together were to open 10^6 files."""
    assert [work(4096, shards)[1] for shards in (1024, 4096, 16_384)] == [4096, 4096, 4096]


def test_a_consumer_of_signals_opens_one_file() -> None:
    assert work(40, 4096, one_file=True)[2] == 1
    assert work(1, 4096, one_file=True) == (4096, 0, 1)
