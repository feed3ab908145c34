"""Limits a rule to the documents for which its step's `where` is TRUE, and takes a stored rule apart again.

Each part ends with a line break, so that a comment at its end does not swallow what comes after it, and the parts are
found again by counting parentheses outside of strings and comments.
"""

from __future__ import annotations

from itertools import pairwise

from curation.config.sql_restrictions import tokens

_BEFORE, _BETWEEN, _AFTER = "NOT coalesce((", "), FALSE) OR (", ")"


def limit_rule(sql: str, condition: str) -> str:
    """The rule as it is stored and evaluated: all documents for which the condition is not TRUE pass.

    Both must be expressions that `rules.parse` accepts.
    """
    return f"{_BEFORE}{condition}\n{_BETWEEN}{sql}\n{_AFTER}"


def parts_of_rule(sql: str) -> tuple[str, str]:
    """(the rule as written, the condition that limits it, "" without one) of a stored rule."""
    if not sql.startswith(_BEFORE) or not sql.endswith(_AFTER):
        return sql, ""
    closing = _closing(sql, len(_BEFORE))
    rule = closing + len(_BETWEEN)
    if not sql.startswith(_BETWEEN, closing) or _closing(sql, rule) != len(sql) - len(_AFTER):
        return sql, ""
    return sql[rule : -len(_AFTER)].strip(), sql[len(_BEFORE) : closing].strip()


def _closing(sql: str, start: int) -> int:
    """Where the parenthesis is closed that was opened right before `start`; the end of the text if it is not."""
    depth = 1
    for kind, text, at, _ in tokens(sql[start:]):
        if kind == "other" and text in "()":
            depth += 1 if text == "(" else -1
            if depth == 0:
                return start + at
    return len(sql)


def split_rule(sql: str) -> tuple[str, str]:
    """As `parts_of_rule`, both on one line and without comments, to be shown."""
    rule, condition = parts_of_rule(sql)
    return one_line(rule), one_line(condition)


def one_line(sql: str) -> str:
    """The same expression on one line (but for line breaks in its strings), without comments."""
    words = [" " if kind == "comment" or text.isspace() else text for kind, text, _, _ in tokens(sql)]
    blanks = [a == " " and b in (" ", ")") for a, b in pairwise([*words, " "])]  # those that nothing needs
    return "".join(word for word, blank in zip(words, blanks, strict=True) if not blank).strip()
