"""When failures of code end a run: the same verdict whatever the order in which tasks are done."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from curation.engine.execution.failure_limit import MAX_RECORDS, FailureLimit
from curation.engine.planning.map_spec import FailedRecord


def failures(n: int, at: str = "steps.py:1") -> list[FailedRecord]:
    return [FailedRecord(f"{i:032x}", "a", "mine", "ValueError: x", "ValueError", at, "trace") for i in range(n)]


def verdict(
    rows: list[int], failed: Mapping[int, int], order: list[int] | None = None, sizes: list[int] | None = None
) -> tuple[str | None, int]:
    """(why it ends, tasks tried until then)."""
    limit = FailureLimit(["web"], [0] * len(rows), sizes or [100] * len(rows), {})
    for tried, task in enumerate(order or range(len(rows)), 1):
        if message := limit.tried(task, rows[task], failures(failed.get(task, 0))):
            return message, tried
    return limit.all_tried([]), len(rows)


@pytest.mark.parametrize(
    ("records", "failed", "ends"),
    [(100, 20, False), (100, 21, True), (2000, 20, False), (2000, 21, True), (5000, 50, False), (5000, 51, True)],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_limit_is_exact(records: int, failed: int, ends: bool, first: bool) -> None:
    tasks = 10
    message, tried = verdict([records // tasks] * tasks, {0 if first else tasks - 1: failed})
    assert (message is not None, tried) == (ends, tasks)
    assert not ends or f"{failed:,} of {records:,} records of source 'web'" in str(message)


def test_no_order_of_tasks_changes_the_verdict() -> None:
    rng = random.Random(1)
    ended = 0
    for _ in range(300):
        tasks = rng.randrange(1, 40)
        rows = [rng.randrange(0, 300) for _ in range(tasks)]
        spread = rng.choice([1, 2, 8, 300])
        failed = {t: rng.randrange(0, 1 + min(rows[t], spread)) for t in range(tasks)}
        sizes = [rng.randrange(1, 5) * max(1, n) for n in rows]
        found = set()
        for _ in range(4):
            order = list(range(tasks))
            rng.shuffle(order)
            found.add(verdict(rows, failed, order, sizes)[0])
        assert len(found) == 1
        ended += found != {None}
    assert 50 < ended < 250


def test_a_bug_that_hits_everything_is_found_out_early() -> None:
    message, tried = verdict([250] * 1000, dict.fromkeys(range(1000), 250))
    assert message is not None and tried == 21  # more than 2 % of the source
    assert "of the first 5,250 records" in message


def test_different_failures_are_counted_apart() -> None:
    limit = FailureLimit(["web"], [0], [1], {})
    mixed = [*failures(MAX_RECORDS, "a.py:1"), *failures(MAX_RECORDS, "b.py:9")]
    assert limit.tried(0, 100, mixed) is None and limit.all_tried([]) is None


def test_what_is_on_the_list_counts_too() -> None:
    entry = {
        "source": "web",
        "file": "a",
        "doc_id": "00",
        "reason": "its worker dies",
        "step": "",
        "error": "",
        "at": "",
    }
    limit = FailureLimit(["web"], [0], [1], {})
    limit.tried(0, 100)
    assert limit.all_tried([entry] * 20) is None
    message = limit.all_tried([entry] * 21)
    assert message is not None and "a worker dies on 21 of 100 records" in message


def test_records_found_twice_are_counted_once() -> None:
    """Found in a first round, they go to the list; a second round of the same phase does not count them again."""
    limit = FailureLimit(["web"], [0], [1], {})
    found = failures(15)
    limit.tried(0, 100, found)
    assert limit.all_tried([]) is None
    listed = [{"source": "web", "step": r.step, "error": r.error, "at": r.at, "file": "a", "doc_id": r.doc_id,
               "reason": r.reason} for r in found]  # fmt: skip
    limit.tried(0, 100)
    assert limit.all_tried(listed) is None
