"""The page of what happens when something goes wrong: each of its lines names the tests that run it, and they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "what-happens-when.md"


def rows() -> list[str]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("|") and "---" not in line and "| what happens |" not in line]


def test_each_line_is_run_by_a_test() -> None:
    assert len(rows()) >= 30
    for row in rows():
        (named,) = re.findall(r"<!-- (.*?) -->", row)
        for test in named.split(", "):
            file, _, function = test.partition("::")
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
