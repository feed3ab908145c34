"""No test asserts how long something took: on a busy machine it fails, and on a fast one it proves nothing.

Work is counted instead, and speed is for benchmarks. Found in the syntax trees: assertions on what a clock gave, and
limits on waiting that more than a hang could reach.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HANG, ROOT

CLOCKS = {
    *("time", "monotonic", "perf_counter", "process_time", "thread_time", "getrusage", "cpu_times", "timeit"),
    *("time_ns", "monotonic_ns", "perf_counter_ns", "process_time_ns", "now", "utcnow", "today"),
}
# Waiting that decides nothing: what is left after it is killed, or drawn.
NO_VERDICT = {"wait_procs", "wait_for_timeout"}


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_timed(node: ast.AST, timed: set[str]) -> bool:
    """Whether a value comes from a clock: it calls one, or names what was assigned from one."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and _name(inner.func) in CLOCKS and not inner.args:
            return True
        if isinstance(inner, (ast.Name, ast.Attribute)) and _name(inner) in timed:
            return True
    return False


def _assignments(function: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """(target, value) of everything that puts a value under a name."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value] * len(names)
                yield from zip(names, values, strict=False)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, (ast.For, ast.comprehension)):
            yield node.target, node.iter
        elif isinstance(node, ast.Call) and _name(node.func) == "append" and isinstance(node.func, ast.Attribute):
            yield node.func.value, node.args[0]


def timed_assertions(source: str) -> list[int]:
    """Lines of assertions on what a clock gave."""
    found: set[int] = set()
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        timed: set[str] = set()
        while True:
            more = {n for t, v in _assignments(function) if _is_timed(v, timed) and (n := _name(t))} - timed
            if not more:
                break
            timed |= more
        found |= {n.lineno for n in ast.walk(function) if isinstance(n, ast.Assert) and _is_timed(n.test, timed)}
    return sorted(found)


def short_waits(source: str) -> list[int]:
    """Lines that give up waiting after a time that more than a hang can take."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _name(node.func) not in NO_VERDICT
        for keyword in node.keywords
        if keyword.arg == "timeout" and isinstance(keyword.value, ast.Constant) and (keyword.value.value or HANG) < HANG
    ]


def _tests() -> list[Path]:
    return sorted(p for p in (ROOT / "tests").rglob("*.py") if "__pycache__" not in p.parts)


def test_no_assertion_on_a_clock() -> None:
    found = [f"{p.relative_to(ROOT)}:{line}" for p in _tests() for line in timed_assertions(p.read_text("utf-8"))]
    assert found == []


def test_no_wait_that_a_busy_machine_could_exceed() -> None:
    found = [f"{p.relative_to(ROOT)}:{line}" for p in _tests() for line in short_waits(p.read_text("utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("body", "timed"),
    [
        ("start = time.monotonic()\n    f()\n    assert time.monotonic() - start < 5", True),
        ("start = perf_counter()\n    took = perf_counter() - start\n    assert took < 5", True),
        ("a = time.time()\n    b = []\n    b.append(time.time() - a)\n    assert max(b) < 1", True),
        ("self.end = datetime.now()\n    assert self.end < x", True),
        ("until = time.monotonic() + 9\n    while g():\n        assert time.monotonic() < until", True),
        ("for t in [time.process_time()]:\n        assert t < 1", True),
        ("start = time.monotonic()\n    print(time.monotonic() - start)\n    assert f() == 3", False),
        ("assert f(time) == 3", False),
    ],
)
def test_what_is_found(body: str, timed: bool) -> None:
    assert bool(timed_assertions(f"def test():\n    {body}\n")) is timed


def test_a_short_wait_is_found() -> None:
    assert short_waits("run(x, timeout=60)\nrun(x, timeout=HANG)\nrun(x, timeout=None)") == [1]
