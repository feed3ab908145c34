"""Checks the SQL of a rule: one expression over one row that has the same value on every run.

DuckDB's own parser takes the text apart (`json_serialize_sql`), and this file walks the tree. What could make two runs
differ is refused by name: clocks, random numbers, sessions (by the stability in DuckDB's catalogue of functions), and
what looks beyond the row: subqueries, aggregates, windows. Macros are followed into their bodies.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from curation.core.errors import UserError

# Functions that read a clock though DuckDB's catalogue calls them consistent (2.0: current_localtime(); age(x) is
# measured from today), and names that parse as columns but mean the clock or the session.
_CLOCKS = {"age", "current_localtime", "current_localtimestamp", "localtime", "localtimestamp", "ago"}
_CLOCK_NAMES = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
_REFUSED = {
    "SUBQUERY": "has a subquery",
    "WINDOW": "uses a window function",
    "STAR": "uses * or COLUMNS()",
    "PARAMETER": "has a parameter",
    "POSITIONAL_REFERENCE": "refers to a column by number",
    "DEFAULT": "uses DEFAULT",
}
# As DuckDB's lexer has it: a comment ends at a carriage return too, block comments nest (see `tokens`), and in a string
# with an E before it a backslash hides a quote.
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n\r]*|/\*)"""
    r"""|(?P<skip>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)"""
    r"""|(?P<word>[^\W\d][\w$]*)|(?P<other>.)""",
    re.DOTALL,
)
_BLOCK = re.compile(r"/\*|\*/")


def refuse(where: str, name: str, problem: str, sql: str, advice: str) -> UserError:
    """The error about a rule: place, name, what is wrong with it, its SQL and what to do."""
    place = f"{where}: " if where else ""
    return UserError(f"{place}rule {name!r} {problem}\n  rule: {sql.strip()}\n  {advice}")


@functools.lru_cache(maxsize=1)
def parser() -> Any:
    """A connection for parsing and binding alone."""
    return connect("64MB")


def connect(memory: str) -> Any:
    """A DuckDB connection for rules: in memory, one thread, no access to files or the network."""
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": memory,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    # 1/0 and ln(-1) are NULL rather than infinities and NaN: a figure that does not exist satisfies no rule
    connection.execute("SET ieee_floating_point_ops = false")
    connection.execute("SET error_on_division_by_zero = false")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


@functools.lru_cache(maxsize=1)
def _functions() -> dict[str, tuple[set[str], set[str], list[str]]]:
    """DuckDB's catalogue: name -> (kinds, stabilities, macro bodies)."""
    rows = (
        parser()
        .execute("SELECT lower(function_name), function_type, stability, macro_definition FROM duckdb_functions()")
        .fetchall()
    )
    catalogue: dict[str, tuple[set[str], set[str], list[str]]] = {}
    for name, kind, stability, macro in rows:
        kinds, stabilities, macros = catalogue.setdefault(name, (set(), set(), []))
        kinds.add(kind)
        if stability:
            stabilities.add(stability)
        if kind == "macro" and macro:
            macros.append(macro)
    return catalogue


def tokens(sql: str) -> Iterator[tuple[str, str, int, int]]:
    """(kind, text, start, end) of kind "comment", "skip" (a string or quoted name), "word" or "other" (a character)."""
    at = 0
    while match := _TOKEN.match(sql, at):
        at = _end_of_block(sql, match.end()) if match.group() == "/*" else match.end()
        kind = match.lastgroup if match.lastgroup != "tag" else "skip"
        yield kind or "skip", sql[match.start() : at], match.start(), at


def _end_of_block(sql: str, at: int) -> int:
    """Where a block comment ends whose text begins at `at`; the end of the text if nothing ends it."""
    depth = 1
    for found in _BLOCK.finditer(sql, at):
        depth += 1 if found.group() == "/*" else -1
        if depth == 0:
            return found.end()
    return len(sql)


def expression(where: str, name: str, sql: str, shown: str) -> Any:
    """The syntax tree of one expression, as DuckDB's parser gives it."""
    text = parser().execute("SELECT json_serialize_sql(?::VARCHAR)", [f"SELECT ({sql}\n)"]).fetchall()[0][0]
    tree = json.loads(text)
    if tree["error"]:
        raise refuse(where, name, f"is not SQL: {tree['error_message']}", shown, "expected one SQL expression")
    statements = tree["statements"]
    node = statements[0]["node"]
    if (
        len(statements) != 1
        or node["type"] != "SELECT_NODE"
        or len(node["select_list"]) != 1
        or node["from_table"]["type"] != "EMPTY"
        or any(node[k] for k in ("where_clause", "having", "qualify", "sample", "group_expressions", "modifiers"))
    ):
        raise refuse(
            where, name, "is more than one expression", shown, "expected one SQL expression that is true or false"
        )
    return node["select_list"][0]


def columns(node: Any, where: str, name: str, sql: str, bound: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Column references below a node as (dotted name, position); raises UserError for what a rule may not hold."""
    if isinstance(node, list):
        for child in node:
            yield from columns(child, where, name, sql, bound)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind in _REFUSED:
        raise refuse(where, name, _REFUSED[kind], sql, "expected an expression over the signals of one document")
    if kind == "COLUMN_REF":
        names = node["column_names"]
        if names[0] in bound:
            return
        if len(names) == 1 and names[0].lower() in _CLOCK_NAMES:
            raise refuse(where, name, f"reads the clock ({names[0]})", sql, "expected the same answer on every run")
        yield ".".join(names), node["query_location"]
        return
    if kind == "LAMBDA":
        parameters = {n for ref in _references(node["lhs"]) for n in ref}
        yield from columns(node["expr"], where, name, sql, bound | parameters)
        return
    if kind == "FUNCTION":
        _check_function(node, where, name, sql)
    for value in node.values():
        yield from columns(value, where, name, sql, bound)


def _references(node: Any) -> Iterator[list[str]]:
    if isinstance(node, list):
        for child in node:
            yield from _references(child)
    elif isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield node["column_names"]
        for value in node.values():
            yield from _references(value)


def _check_function(node: Mapping[str, Any], where: str, name: str, sql: str) -> None:
    called = node["function_name"].lower()
    if node.get("schema"):
        path = ".".join(node["qualified_name"]["path"])
        advice = f"write {called}({node['schema']}, ...) for a function of a column"
        raise refuse(where, name, f"calls {path}(), a function with a qualified name", sql, advice)
    if node.get("filter") or node.get("distinct") or node["order_bys"]["orders"]:
        raise refuse(where, name, f"aggregates ({called})", sql, "a rule looks at one document at a time")
    known = _functions().get(called)
    if known is None:
        if node.get("is_operator"):
            return
        close = difflib.get_close_matches(called, _functions(), n=3)
        advice = f"did you mean {', '.join(close)}?" if close else "expected a scalar function of DuckDB"
        raise refuse(where, name, f"calls {called}(), which DuckDB does not know", sql, advice)
    kinds, stabilities, macros = known
    if not kinds & {"scalar", "macro"}:
        what = "aggregates" if "aggregate" in kinds else "calls a function that does not give one value a row"
        raise refuse(where, name, f"{what} ({called})", sql, "a rule looks at one document at a time")
    if stabilities - {"CONSISTENT"} or (called in _CLOCKS and not (called == "age" and len(node["arguments"]) == 2)):
        advice = "expected functions that give the same value for the same row on every run"
        raise refuse(where, name, f"calls {called}(), which varies from run to run", sql, advice)
    for body in macros if "scalar" not in kinds else []:
        for _ in columns(expression(where, name, body, sql), where, name, sql, frozenset()):
            pass
