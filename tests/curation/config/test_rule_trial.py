"""A rule is tried within limits of memory and CPU time before any work starts."""

from __future__ import annotations

import subprocess
from typing import Any

import pyarrow as pa
import pytest

from curation.config import rule_trial, rules
from curation.core.errors import UserError

AVAILABLE = {"text": pa.large_string(), "s.x": pa.float64()}


def check(sql: str) -> None:
    rule_trial.try_rule.cache_clear()
    rules.check_columns(rules.parse("r", sql, "p.yaml:3"), AVAILABLE)


@pytest.mark.parametrize(
    "sql",
    [
        "s.x > 1 AND length(text) > 3",
        "lower(text) LIKE '%a%' OR regexp_matches(text, '^a')",
        "replace(text, 'a', 'b') = 'b'",
        "CASE WHEN text IS NULL THEN TRUE ELSE s.x BETWEEN 1 AND 2 END",
        "coalesce(s.x, 0) * 2 + 1 > 3",
    ],
)
def test_ordinary_rules_start_no_process(sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    check(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "length(repeat('a', 3000000000)) > s.x",
        "list_sum(range(400000000)) > s.x",
        "length(lpad('a', 2000000000, 'b')) > s.x",
        "length(" + "replace(" * 12 + "'a'" + ", 'a', 'aaaaaaaaaa')" * 12 + ") > s.x",
        "len(list_resize([1], 900000000)) > s.x",
    ],
)
def test_what_takes_too_much_is_refused(sql: str) -> None:
    with pytest.raises(UserError, match=r"p\.yaml:3: rule 'r' does not fit its signals: it takes more than 1,024 MB"):
        check(sql)


def test_too_much_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit of a second: of the CPU's time, so that others at work on the machine do not decide."""
    run = subprocess.run

    def hurried(command: list[str], **options: Any) -> Any:
        program = command[2].replace("rule_trial.limited", "rule_trial.CPU_SECONDS = 1; rule_trial.limited")
        return run([*command[:2], program], **options)

    monkeypatch.setattr(subprocess, "run", hurried)
    with pytest.raises(UserError, match="CPU time"):
        check("list_sum(list_transform(range(100000), lambda q: list_sum(range(q)))) > s.x")


def test_other_functions_are_tried_within_the_limits() -> None:
    check("list_bool_or(list_transform([1.0, 2.0], lambda q: q > s.x))")
    check("length(repeat(text, 3)) > s.x")
    with pytest.raises(UserError, match=r"does not fit its signals: .*repeat"):
        check("repeat(s.x, text) = 'a'")
