"""Takes a stored rule apart into the SQL its author wrote and the condition that its step's `where` added.

The pipeline loader stores a rule of a step with `where` as `NOT coalesce((where), FALSE) OR (rule)`.
"""

from __future__ import annotations

import re

LIMITED_RULE = re.compile(r"(NOT coalesce\(\(.*?\), FALSE\) OR )\((.*)\)", re.DOTALL)


def split_rule(sql: str) -> tuple[str, str]:
    """(the rule as written, the condition that limits it, "" without one), both on one line."""
    found = LIMITED_RULE.fullmatch(sql)
    if not found:
        return " ".join(sql.split()), ""
    where = found[1].removeprefix("NOT coalesce((").removesuffix("), FALSE) OR ")
    return " ".join(found[2].split()), " ".join(where.split())
