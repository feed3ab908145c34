"""Takes a stored rule apart into the SQL its author wrote and the condition that its step's `only` added.

The pipeline loader stores a rule of a step with `only` as `NOT coalesce((only), FALSE) OR (rule)`.
"""

from __future__ import annotations

import re

LIMITED_RULE = re.compile(r"(NOT coalesce\(\(.*?\), FALSE\) OR )\((.*)\)", re.DOTALL)


def split_rule(sql: str) -> tuple[str, str]:
    """(the rule as written, the condition that limits it, "" without one), both on one line."""
    found = LIMITED_RULE.fullmatch(sql)
    if not found:
        return " ".join(sql.split()), ""
    only = found[1].removeprefix("NOT coalesce((").removesuffix("), FALSE) OR ")
    return " ".join(found[2].split()), " ".join(only.split())
