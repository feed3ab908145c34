"""Limits a rule to the documents for which its step's `where` is TRUE, and takes a stored rule apart again."""

from __future__ import annotations

import re

LIMITED_RULE = re.compile(r"(NOT coalesce\(\(.*?\), FALSE\) OR )\((.*)\)", re.DOTALL)


def limit_rule(sql: str, condition: str) -> str:
    """The rule as it is stored and evaluated: all documents for which the condition is not TRUE pass."""
    return f"NOT coalesce(({condition}), FALSE) OR ({sql})"


def split_rule(sql: str) -> tuple[str, str]:
    """(the rule as written, the condition that limits it, "" without one), both on one line."""
    found = LIMITED_RULE.fullmatch(sql)
    if not found:
        return " ".join(sql.split()), ""
    where = found[1].removeprefix("NOT coalesce((").removesuffix("), FALSE) OR ")
    return " ".join(found[2].split()), " ".join(where.split())
