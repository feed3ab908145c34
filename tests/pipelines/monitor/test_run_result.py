"""What a run's end and `status` print of its counts."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from pipelines.monitor.run_result import funnel_table, steps_table, verdict


def printed(table: Any) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def counts(**dropped: int) -> dict[str, Any]:
    rows = [{"step": k.partition("__")[0], "rule": k.partition("__")[2], "dropped": n} for k, n in dropped.items()]
    return {"read": {"records": 1000}, "steps": rows, "kept": 1000 - sum(dropped.values())}


COUNTS = counts(
    read__record_type=300, language__english=50, heuristics__short=20, heuristics__alpha=200, heuristics__long=3
)


def test_the_verdict_counts_documents_and_names_the_rule_that_dropped_most() -> None:
    assert verdict(COUNTS) == "427 of 700 documents kept; heuristics.alpha dropped most: 200"
    assert verdict(counts()) == "1,000 of 1,000 documents kept"
    assert verdict({}) == "0 of 0 documents kept"


def test_rules_stay_in_the_order_of_the_run() -> None:
    assert printed(funnel_table(COUNTS)) == [
        "step rule dropped left", "read 1,000", "read record_type 300 700", "language english 50 650",
        "heuristics short 20 630", "heuristics alpha 200 430", "heuristics long 3 427", "kept 427",
    ]  # fmt: skip


def test_a_step_has_one_line_and_names_the_rules_that_dropped_most() -> None:
    assert printed(steps_table(COUNTS)) == [
        "step rule dropped left", "read 1,000", "read record_type 300 700", "language english 50 650",
        "heuristics alpha 200, short 20, 1 more 223 427", "kept 427",
    ]  # fmt: skip
