"""Tries a rule on one row of NULLs before any work starts: does it fit its signals, and what type is it?

DuckDB computes what is constant in an expression when it prepares it, whatever the row: `repeat('a', 3000000000)`
takes 3 GB and minutes, and no setting of DuckDB's limits either. So an expression that calls only functions whose
results are no larger than their arguments is tried here, and any other in a process of its own, whose memory and CPU
time the system limits. The limits only refuse: no result depends on how fast a machine is.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
from typing import Any

import pyarrow as pa

from curation.config.sql_restrictions import connect, expression, parser

CPU_SECONDS = 20  # an ordinary rule takes a thousandth of a second
MEMORY = 1 << 30  # as a task's connection has; above what the process holds before the trial

# Functions of DuckDB whose work and result are bounded by their arguments. Operators are too.
_BOUNDED = {
    *("abs", "age", "array_length", "ascii", "bit_count", "ceil", "ceiling", "contains", "date_diff"),
    *("date_part", "date_trunc", "day", "ends_with", "epoch", "exp", "floor", "greatest", "hash", "hour"),
    *("ifnull", "instr", "isfinite", "isinf", "isnan", "json_extract", "json_extract_string", "least", "left"),
    *("len", "length", "like_escape", "list_contains", "list_value", "ln", "log", "log10", "log2", "lower"),
    *("ltrim", "md5", "month", "nullif", "position", "pow", "power", "prefix", "regexp_extract"),
    *("regexp_full_match", "regexp_matches", "right", "round", "row", "rtrim", "sign", "split_part", "sqrt"),
    *("starts_with", "strlen", "strpos", "struct_extract", "substr", "substring", "suffix", "trim", "trunc"),
    *("upper", "year"),
}  # fmt: skip
_REPLACING = {"replace", "regexp_replace", "translate"}  # bounded, unless one is applied to the result of another


@functools.lru_cache(maxsize=1024)
def try_rule(sql: str, schema: pa.Schema) -> tuple[str, str]:
    """(type of the expression, "") over columns of the schema, or ("", why DuckDB refuses it)."""
    return _evaluate(parser(), sql, schema) if _is_bounded(sql) else _in_own_process(sql, schema)


def _is_bounded(sql: str) -> bool:
    def replaces(node: Any, below: bool) -> bool:
        """Whether all functions at and below a node are bounded; `below` a replacement."""
        if isinstance(node, list):
            return all(replaces(child, below) for child in node)
        if not isinstance(node, dict):
            return True
        if node.get("class") == "LAMBDA":
            return False
        if node.get("class") == "FUNCTION" and not node.get("is_operator"):
            called = node["function_name"].lower()
            if called in _REPLACING and not below:
                below = True
            elif called not in _BOUNDED:
                return False
        return all(replaces(value, below) for value in node.values())

    return replaces(expression("", "", sql, sql), False)


def _evaluate(connection: Any, sql: str, schema: pa.Schema) -> tuple[str, str]:
    import duckdb

    for rows in (0, 1):  # one row of NULLs as well: a malformed pattern shows only when it is compiled
        table = schema.empty_table() if not rows else pa.table([pa.nulls(1, f.type) for f in schema], schema=schema)
        connection.register("documents", table)
        try:
            result = connection.execute(f"SELECT ({sql}\n) FROM documents")
            kind = str(result.description[0][1])
            result.fetchall()
        except duckdb.Error as error:
            return "", str(error).split("\n")[0]
        finally:
            connection.unregister("documents")
    return kind, ""


def _in_own_process(sql: str, schema: pa.Schema) -> tuple[str, str]:
    ended = subprocess.run(
        [sys.executable, "-c", "from curation.config import rule_trial; rule_trial.limited()"],
        input=json.dumps([sql, schema.serialize().to_pybytes().hex()]).encode(), capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    try:
        kind, error = json.loads(ended.stdout)
    except ValueError:  # the system ended it
        kind, error = "", "Out of Memory"
    # DuckDB has several words for it; "INTERNAL Error" where no memory is left for the message either
    if any(word in error for word in ("Out of Memory", "Allocation failure", "bad_alloc", "INTERNAL Error")):
        error = f"it takes more than {MEMORY >> 20:,} MB of memory or {CPU_SECONDS} s of CPU time for one row of NULLs"
    return kind, error


def limited() -> None:
    """The process's part: reads [SQL, schema] and writes [type, error]."""
    sql, schema = json.load(sys.stdin)
    connection = connect("1GB")
    with open("/proc/self/statm") as f:
        held = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    json.dump(_evaluate(connection, sql, pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(schema)))), sys.stdout)
