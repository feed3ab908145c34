"""Finds the thresholds in the SQL of rules: comparisons of a signal with a number.

DuckDB's parser parses the rule. A comparison of a signal with a constant is a threshold anywhere under ANDs and ORs;
`x BETWEEN a AND b` is two. A `quantile(...)` counts as the number that the run computed; by groups it is one number per
group, drawn but not movable.

Each threshold comes with two more expressions: the rule with the comparison replaced by TRUE, and by FALSE. Where the
first is true and the second is not, the comparison alone decides, whatever else the rule says.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.config import rules, sql_restrictions
from curation.config.rules import Quantile
from curation.config.where_condition import parts_of_rule
from curation.core.errors import UserError

_OPS = {
    "COMPARE_GREATERTHANOREQUALTO": ">=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_LESSTHAN": "<",
}
_SWAPPED = {">=": "<=", ">": "<", "<=": ">=", "<": ">"}
_PLACEHOLDER = "918273645.5"  # marks the number in the SQL, to be replaced by `{}`


@dataclass(frozen=True)
class Threshold:
    """`signal op value` in a rule of a step. `alone`: SQL that is TRUE where this comparison decides the rule;
    `template`: the rule with `{}` instead of the number."""

    step: str
    rule: str
    signal: str  # dotted, as in SQL
    op: str
    value: float
    alone: str = ""
    template: str = ""
    group: str | None = None  # for a quantile by groups

    @property
    def movable(self) -> bool:
        return bool(self.alone)

    def passes(self, x: Any) -> Any:
        """Whether each value passes; NaN does not."""
        if self.op == ">=":
            return x >= self.value
        if self.op == ">":
            return x > self.value
        return x <= self.value if self.op == "<=" else x < self.value


def find_thresholds(
    step_rules: Mapping[str, Mapping[str, str]], quantiles: Sequence[Mapping[str, Any]]
) -> list[Threshold]:  # fmt: skip
    """All thresholds of a run's rules (step -> rule -> SQL); `quantiles` as in run.json."""
    computed = {}
    for q in quantiles:
        value = q["value"]
        value = {g: v for g, v in value.items() if v is not None} if isinstance(value, dict) else value
        computed[Quantile(q["signal"], q["p"], q["by"])] = value
    found: list[Threshold] = []
    for step, by_rule in step_rules.items():
        for name, text in by_rule.items():
            try:
                found += _of_rule(step, name, text, computed)
            except UserError:  # a rule that this version cannot parse: it gets no threshold
                continue
    return found


def _of_rule(step: str, name: str, text: str, computed: Mapping[Quantile, Any]) -> Iterator[Threshold]:
    parsed = rules.parse(name, text, "")
    for q in parsed.quantiles:
        if q.by is not None and isinstance(computed.get(q), dict):
            op = _direction(parsed.sql, q)
            for group, value in computed[q].items():
                yield Threshold(step, name, q.signal, op, float(value), group=group)
    filled = rules.substitute(parsed, {q: computed.get(q) for q in parsed.quantiles})
    tree = _tree(f"({filled}\n)")
    root = tree["statements"][0]["node"]["select_list"]
    for path, node, side in list(_comparisons(root[0], [0])):
        if node["class"] == "BETWEEN":
            signal, op, constant = node["input"], ">=" if side == "lower" else "<=", node[side]
        else:
            op = _OPS[node["type"]]
            signal, constant = (node["left"], node["right"]) if side == "right" else (node["right"], node["left"])
            op = op if side == "right" else _SWAPPED[op]
        value = _constant(constant)
        if value is None or signal.get("class") != "COLUMN_REF":
            continue
        dotted = ".".join(signal["column_names"])
        holds, fails = (_with(tree, path, _put(node, side, _node(b))) for b in ("TRUE", "FALSE"))
        with_placeholder = copy.deepcopy(node)
        with_placeholder[side] = _node(_PLACEHOLDER)
        yield Threshold(
            step,
            name,
            dotted,
            op,
            value,
            f"({_with(tree, [0], signal)} IS NOT NULL) AND (({holds}) IS TRUE) AND (({fails}) IS NOT TRUE)",
            _as_written(filled, constant) or _with(tree, path, with_placeholder).replace(_PLACEHOLDER, "{}"),
        )


def _as_written(text: str, constant: Mapping[str, Any]) -> str | None:
    """The rule as written with `{}` instead of the number, without the condition that `where` added: changing the rule
    adds it again. None if this version of the parser does not give the length of the number."""
    if "query_location_length" not in constant:
        return None
    raw = text.encode()
    at = int(constant["query_location"]) - len("SELECT (")
    spliced = (raw[:at] + b"{}" + raw[at + int(constant["query_location_length"]) :]).decode()
    return parts_of_rule(spliced)[0]


def _put(node: dict[str, Any], side: str, truth: dict[str, Any]) -> dict[str, Any]:
    """A comparison replaced by TRUE or FALSE; of BETWEEN only one half is replaced."""
    if node["class"] != "BETWEEN":
        return truth
    other = "lower" if side == "upper" else "upper"
    kind = "COMPARE_GREATERTHANOREQUALTO" if other == "lower" else "COMPARE_LESSTHANOREQUALTO"
    half = {**_base("COMPARISON", kind), "left": node["input"], "right": node[other]}
    return {**_base("CONJUNCTION", "CONJUNCTION_AND"), "children": [half, truth]}


def _base(kind: str, type_: str) -> dict[str, Any]:
    return {"class": kind, "type": type_, "alias": "", "query_location": 0}


def _tree(text: str) -> dict[str, Any]:
    return dict(json.loads(_query("SELECT json_serialize_sql(?::VARCHAR)", f"SELECT {text}")))


def _node(text: str) -> dict[str, Any]:
    """The syntax tree of a literal, as this version of the parser represents it."""
    return dict(_tree(text)["statements"][0]["node"]["select_list"][0])


def _with(tree: Mapping[str, Any], path: Sequence[Any], node: Mapping[str, Any]) -> str:
    """The SQL of the tree with the node at a path replaced."""
    changed = copy.deepcopy(dict(tree))
    place: Any = changed["statements"][0]["node"]["select_list"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = node
    text = _query("SELECT json_deserialize_sql(?::JSON)", json.dumps(changed))
    return str(text).removeprefix("SELECT ").strip()


def _query(query: str, text: str) -> Any:
    return sql_restrictions.parser().execute(query, [text]).fetchall()[0][0]


def _comparisons(node: Any, path: list[Any]) -> Iterator[tuple[list[Any], dict[str, Any], str]]:
    """(path, node, side of the number) of comparisons that are only under ANDs and ORs."""
    kind = node.get("class")
    if kind == "CONJUNCTION":
        for i, child in enumerate(node["children"]):
            yield from _comparisons(child, [*path, "children", i])
    elif kind == "COMPARISON" and node["type"] in _OPS:
        yield path, node, "right" if node["left"].get("class") == "COLUMN_REF" else "left"
    elif kind == "BETWEEN":
        yield path, node, "lower"
        yield path, node, "upper"


def _constant(node: Mapping[str, Any]) -> float | None:
    """The number of a constant node, also inside a cast; None for others."""
    if node.get("class") == "CAST":
        return _constant(node["child"])
    if node.get("class") != "CONSTANT":
        return None
    tree = _tree("1")
    text = _with(tree, [0], node)
    try:
        value = float(text.strip("()' "))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _direction(text: str, q: Quantile) -> str:
    """The comparison with a quantile: the operator right before it in the rule, else `<=`."""
    before = text[: text.lower().find("quantile")].rstrip()
    return next((op for op in (">=", "<=", ">", "<") if before.endswith(op)), "<=")
