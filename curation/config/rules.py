"""Parses rules (named SQL predicates over signals) and evaluates them with DuckDB.

A step computes signals; a rule is a condition on them: `language.score > 0.65`.
A rule must be TRUE for a document to stay. NULL and FALSE drop it, and so does a row on which the expression fails
(a cast that cannot be made), because a bad record is data and never ends a run. NaN counts as NULL, and so does a
division by zero.

`sql_restrictions.py` checks what SQL may say, before any work starts. All rules of one decision are one query on one
thread of a locked-down connection.

`quantile(signal, p [, by column])` is a number that depends on the whole corpus. It is cut out of the text before
parsing, computed by the engine, and put back as an exact literal.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.config.rule_trial import try_rule
from curation.config.sql_restrictions import columns as columns_of
from curation.config.sql_restrictions import connect, expression, refuse, tokens

_SHOWN = 200  # characters of a string in a drop's value: enough to see why, never a document in the ledger


@functools.lru_cache(maxsize=4096)
def _as_written(p: float) -> tuple[int, int]:
    return Fraction(repr(float(p))).as_integer_ratio()


@dataclass(frozen=True, order=True)
class Quantile:
    """The nearest-rank quantile `p` of a signal over the documents that reach a step, for all or by a column."""

    signal: str
    p: float
    by: str | None = None

    def rank(self, n: int) -> int:
        """The position of the quantile among n values in ascending order, from 1: ceil(p * n), the first for p = 0.

        p counts as the decimal that it was written as: 0.07 * 100 in floats is above 7.
        """
        numerator, denominator = _as_written(self.p)
        return max(1, -(-numerator * n // denominator))

    def __str__(self) -> str:
        """As a rule writes it."""
        return f"quantile({self.signal}, {self.p:g}{f', by {self.by}' if self.by else ''})"


@dataclass(frozen=True)
class ParsedRule:
    """A rule whose SQL was understood: what it reads, and which corpus figures it needs."""

    name: str
    sql: str
    columns: tuple[str, ...]  # "language.code", "url", in order of appearance
    quantiles: tuple[Quantile, ...]
    where: str = field(default="", compare=False)


def _cut_quantiles(where: str, name: str, sql: str) -> tuple[list[tuple[int, int]], list[Quantile]]:
    """Positions of the `quantile(...)` calls in the text, and the quantile of each. Parentheses must balance."""
    spans: list[tuple[int, int]] = []
    found: list[Quantile] = []
    depth, begin, inside, cuts = 0, -1, 0, [0]  # the call being read starts at `begin`, its arguments at depth `inside`
    previous: tuple[str, int] | None = None  # a word `quantile` that waits for its parenthesis
    for kind, text, start, end in tokens(sql):
        if kind == "other" and text in "()":
            depth += 1 if text == "(" else -1
            if depth < 0:
                raise refuse(where, name, "has an unmatched ')'", sql, "expected one SQL expression")
            if text == "(" and previous and begin < 0:
                begin, inside, cuts = previous[1], depth, [end]
            elif text == ")" and begin >= 0 and depth == inside - 1:
                arguments = [_without_comments(sql[a:b].lstrip(",")) for a, b in pairwise([*cuts, start])]
                found.append(_quantile(where, name, sql, arguments))
                spans.append((begin, end))
                begin = -1
        elif kind == "other" and text == "," and begin >= 0 and depth == inside:
            cuts.append(start)
        if not text.isspace() and kind != "comment":
            previous = (text, start) if kind == "word" and text.lower() == "quantile" else None
    return spans, found


def _without_comments(sql: str) -> str:
    return "".join(" " if kind == "comment" else text for kind, text, _, _ in tokens(sql)).strip()


def _quantile(where: str, name: str, sql: str, parts: list[str]) -> Quantile:
    expected = "expected quantile(step.signal, p) with p from 0 to 1, or quantile(step.signal, p, by step.signal)"
    by = None
    if len(parts) == 3 and (match := re.fullmatch(r"by\s+(.+)", parts[2], re.IGNORECASE | re.DOTALL)):
        by = match[1].strip()
    elif len(parts) != 2:
        raise refuse(where, name, f"has a quantile with arguments {parts}", sql, expected)
    columns = []
    for text in [parts[0]] + ([by] if by else []):
        node = expression(where, name, text, text)
        if node.get("class") != "COLUMN_REF":
            raise refuse(where, name, f"asks for the quantile of {text!r}, which is not a signal", sql, expected)
        columns.append(".".join(node["column_names"]))
    try:
        p = float(parts[1])
    except ValueError:
        p = math.nan
    if not 0.0 <= p <= 1.0:
        raise refuse(where, name, f"asks for the quantile {parts[1]!r}", sql, expected)
    return Quantile(columns[0], p, columns[1] if by else None)


def _splice(sql: str, spans: Sequence[tuple[int, int]], texts: Sequence[str]) -> str:
    for (start, end), text in reversed(list(zip(spans, texts, strict=True))):
        sql = f"{sql[:start]}{text}{sql[end:]}"
    return sql


def parse(name: str, sql: str, where: str) -> ParsedRule:
    """Understands a rule. `where` (file, line, key) opens the message of the UserError that refuses it.

    Refused: what does not parse, more than one expression, subqueries, aggregates, windows, functions that
    do not give the same value for the same row on every run, functions that DuckDB does not know.
    """
    if not isinstance(sql, str) or not sql.strip():
        raise refuse(where, name, "is empty", str(sql), "expected an SQL expression such as language.score >= 0.65")
    spans, quantiles = _cut_quantiles(where, name, sql)
    node = expression(where, name, _splice(sql, spans, ["CAST(NULL AS DOUBLE)"] * len(spans)), sql)
    columns: dict[str, int] = {}
    for column, location in columns_of(node, where, name, sql, frozenset()):
        columns[column] = min(location, columns.get(column, location))
    ordered = sorted(columns, key=lambda c: columns[c])
    for q in quantiles:
        ordered += [c for c in (q.signal, q.by) if c is not None and c not in ordered]
    if not ordered:
        raise refuse(
            where, name, "looks at no signal", sql, "expected an expression over signals such as language.score"
        )
    return ParsedRule(name, sql, tuple(ordered), tuple(dict.fromkeys(quantiles)), where)


def flatten(schema: pa.Schema) -> dict[str, pa.DataType]:
    """The names a rule may use for a schema: base columns, and `step.signal` for the fields of structs."""
    names: dict[str, pa.DataType] = {}
    for column in schema:
        if pa.types.is_struct(column.type):
            names.update({f"{column.name}.{child.name}": child.type for child in column.type})
        else:
            names[column.name] = column.type
    return names


def check_columns(rule: ParsedRule, available: Mapping[str, pa.DataType], *, any_type: bool = False) -> None:
    """Raises UserError for a signal that no step so far computes (suggesting near names) and for type errors.

    `available` maps dotted names ("language.score", "url") to Arrow types; see `flatten`. With `any_type` the value
    need not be true or false.
    """
    for column in rule.columns:
        if column in available:
            continue
        leaf = column.rsplit(".", 1)[-1].lower()
        close = [n for n in available if n.lower() == column.lower()]
        close += [n for n in available if n.rsplit(".", 1)[-1].lower() == leaf]
        close += [n for n in available if n.startswith(f"{column}.")]
        close += difflib.get_close_matches(column, available, n=3, cutoff=0.6)
        hint = ", ".join(list(dict.fromkeys(close))[:5])
        advice = f"did you mean {hint}?" if hint else f"signals so far: {', '.join(sorted(available))}"
        raise refuse(rule.where, rule.name, f"names {column}, which no step so far computes", rule.sql, advice)
    for q in rule.quantiles:
        kind = available[q.signal]
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            advice = "expected a signal that is a number"
            raise refuse(rule.where, rule.name, f"asks for a quantile of {q.signal}, a {kind}", rule.sql, advice)
        if q.by is not None and pa.types.is_floating(available[q.by]):
            advice = "expected a column of strings, integers or truth values to group by"
            raise refuse(rule.where, rule.name, f"asks for a quantile by {q.by}, a number", rule.sql, advice)
    sql = substitute(rule, {q: 0.0 if q.by is None else {"": 0.0} for q in rule.quantiles})
    schema = _schema({c: available[c] for c in rule.columns})
    kind, error = try_rule(sql, schema)
    if error:
        raise refuse(rule.where, rule.name, f"does not fit its signals: {error}", rule.sql, _types(rule, available))
    if not any_type and kind.upper() not in ("BOOLEAN", "BOOL"):
        advice = "expected an expression that is true or false, such as language.score >= 0.65"
        raise refuse(rule.where, rule.name, f"is a {kind.lower()}", rule.sql, advice)


def _types(rule: ParsedRule, available: Mapping[str, pa.DataType]) -> str:
    return "signals: " + ", ".join(f"{c} is {available[c]}" for c in rule.columns)


def _schema(columns: Mapping[str, pa.DataType]) -> pa.Schema:
    """The reverse of `flatten`: dotted names back into structs."""
    structs: dict[str, list[pa.Field]] = {}
    for name, kind in columns.items():
        head, dot, leaf = name.partition(".")
        structs.setdefault(head, []).append(pa.field(leaf if dot else "", kind))
    return pa.schema(
        [pa.field(n, f[0].type if not f[0].name else pa.struct(f)) for n, f in structs.items()],
    )


def substitute(rule: ParsedRule, values: Mapping[Quantile, float | Mapping[str, float] | None]) -> str:
    """The rule's SQL with every `quantile(...)` replaced by its value: a DOUBLE, exactly, or a CASE by group.

    Groups are matched on the column's value cast to VARCHAR; a group without a value is NULL, as is None.
    """
    spans, found = _cut_quantiles(rule.where, rule.name, rule.sql)
    return _splice(rule.sql, spans, [_literal(q, values[q]) for q in found])


def _literal(q: Quantile, value: float | Mapping[str, float] | None) -> str:
    if value is None or isinstance(value, (int, float)):
        return "CAST(NULL AS DOUBLE)" if value is None or math.isnan(value) else f"CAST('{float(value)!r}' AS DOUBLE)"
    by = ".".join('"' + part.replace('"', '""') + '"' for part in (q.by or "").split("."))
    cases = " ".join(
        "WHEN '" + group.replace("'", "''") + f"' THEN CAST('{float(value[group])!r}' AS DOUBLE)"
        for group in sorted(value)
        if not math.isnan(value[group])
    )
    return f"(CASE CAST({by} AS VARCHAR) {cases} END)" if cases else "CAST(NULL AS DOUBLE)"


class Decider:
    """The rules of one decision, ready to judge batches: one query, one open connection, one thread.

    rules   name -> SQL without quantiles (see `substitute`), in the order in which they are asked
    schema  of the batches: base columns and the structs of signals
    """

    def __init__(self, rules: Mapping[str, str], schema: pa.Schema) -> None:
        available = flatten(schema)
        self.names = list(rules)
        self.columns: list[tuple[str, ...]] = []
        for name, sql in rules.items():
            rule = parse(name, sql, "")
            check_columns(rule, available)
            self.columns.append(rule.columns)
        self._needed = list(dict.fromkeys(c for columns in self.columns for c in columns))
        # TRY makes a row on which the expression fails NULL, and leaves the other rows of the batch alone
        cases = " ".join(f"WHEN TRY(({sql}\n)) IS NOT TRUE THEN {i}" for i, sql in enumerate(rules.values()))
        self._query = f"SELECT CAST(CASE {cases} ELSE -1 END AS INTEGER) AS failed FROM documents"
        self._connection = connect("1GB") if rules else None

    def decide(self, batch: pa.RecordBatch) -> tuple[np.ndarray, list[str | None]]:
        """For each row the index of the first rule that is not TRUE (int32, -1: it stays), and what decided it.

        The second is a JSON object of the columns that this rule refers to, None where the row stays.
        """
        if self._connection is None or batch.num_rows == 0:
            return np.full(batch.num_rows, -1, dtype=np.int32), [None] * batch.num_rows
        arrays = {name: _column(batch, name) for name in self._needed}
        self._connection.register("documents", _table(arrays))
        try:
            failed = np.asarray(self._connection.execute(self._query).fetchnumpy()["failed"], dtype=np.int32)
        finally:
            self._connection.unregister("documents")
        values: list[str | None] = [None] * batch.num_rows
        for index in np.unique(failed[failed >= 0]).tolist():
            rows = np.flatnonzero(failed == index)
            picked = {c: arrays[c].take(pa.array(rows)).to_pylist() for c in self.columns[index]}
            for k, row in enumerate(rows.tolist()):
                shown = {c: _shown(picked[c][k]) for c in self.columns[index]}
                values[row] = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
        return failed, values

    def close(self) -> None:
        """Closes the connection; the decider is of no use afterwards."""
        if self._connection is not None:
            self._connection.close()


@functools.lru_cache(maxsize=64)
def _decider(rules: tuple[tuple[str, str], ...], schema: pa.Schema) -> Decider:
    return Decider(dict(rules), schema)


def decider(rules: Mapping[str, str], schema: pa.Schema) -> Decider:
    """The decider of these rules, made once a process: parsing and checking 25 rules takes 0.6 s of CPU."""
    return _decider(tuple(rules.items()), schema)


class Expressions:
    """SQL expressions of any type, ready to be computed on batches: one query, one open connection, one thread."""

    def __init__(self, expressions: Mapping[str, str], available: Mapping[str, pa.DataType]) -> None:
        self.names = list(expressions)
        columns: dict[str, None] = {}
        for name, sql in expressions.items():
            rule = parse(name, sql, "")
            check_columns(rule, available, any_type=True)
            columns |= dict.fromkeys(rule.columns)
        self.columns = list(columns)
        values = ", ".join(f"TRY(({sql}\n)) AS v{i}" for i, sql in enumerate(expressions.values()))
        self._query = f"SELECT {values} FROM documents"
        self._connection = connect("1GB")

    def compute(self, batch: pa.RecordBatch) -> list[pa.Array]:
        """The values of each expression, in order; `batch` has the heads of `columns`."""
        self._connection.register("documents", _table({name: _column(batch, name) for name in self.columns}))
        try:
            table = self._connection.sql(self._query).to_arrow_table().combine_chunks()
        finally:
            self._connection.unregister("documents")
        return [c.chunk(0) if c.num_chunks else pa.array([], c.type) for c in table.columns]


def _table(arrays: Mapping[str, pa.Array]) -> pa.Table:
    """Columns by dotted name as a table with structs."""
    schema = _schema({name: array.type for name, array in arrays.items()})
    columns = []
    for column in schema:
        if column.name in arrays:
            columns.append(arrays[column.name])
        else:
            fields = [arrays[f"{column.name}.{f.name}"] for f in column.type]
            columns.append(pa.StructArray.from_arrays(fields, fields=list(column.type)))
    return pa.Table.from_arrays(columns, schema=schema)


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column by dotted name, a null struct's fields null, NaN as null."""
    head, dot, leaf = name.partition(".")
    array = batch.column(head)
    if dot:
        array = array.flatten()[array.type.get_field_index(leaf)]
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array


def _shown(value: Any) -> Any:
    """A value as the ledger keeps it: short, and the same on every run."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else repr(value)
    if isinstance(value, bytes):
        return value[: _SHOWN // 2].hex()
    if isinstance(value, list):
        return [_shown(v) for v in value[:20]]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)
