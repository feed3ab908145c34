"""The rooms: how many files a folder may hold, how long a file may be, and that every source file has its tests."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("curation", "training", "pipelines")
FILES_IN_A_FOLDER = 16  # "about a dozen"
LINES_IN_A_FILE = 400
ATTICS = {"utils", "util", "common", "helpers", "helper", "misc"}


def _sources() -> list[Path]:
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py") if "__pycache__" not in p.parts)


def _has_logic(path: Path) -> bool:
    """Whether a file defines a function or class with a body (constants, re-exports and `__main__` need no test)."""
    if path.name in ("__init__.py", "__main__.py"):
        return False
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(node, kinds) for node in ast.parse(path.read_text("utf-8")).body)


def test_a_folder_holds_about_a_dozen_files() -> None:
    count = Counter(p.parent for p in _sources() if p.name not in ("__init__.py", "__main__.py"))
    crowded = {str(folder.relative_to(ROOT)): n for folder, n in count.items() if n > FILES_IN_A_FOLDER}
    assert not crowded, crowded


def test_no_file_is_long() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in _sources()}
    assert not {name: n for name, n in lengths.items() if n > LINES_IN_A_FILE}


def test_no_folder_or_file_of_odds_and_ends() -> None:
    names = {part for p in _sources() for part in (*p.parent.relative_to(ROOT).parts, p.stem)}
    assert not names & ATTICS


def _covered() -> set[Path]:
    """Files that a test file has the name of, or lists in its docstring: `Covers: a.py, folder/b.py`, relative to the
    folder that the test mirrors or to the repository."""
    covered: set[Path] = set()
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        mirrored = ROOT / test.parent.relative_to(ROOT / "tests")
        covered.add(mirrored / test.name.removeprefix("test_"))
        text = ast.get_docstring(ast.parse(test.read_text("utf-8"))) or ""
        for listed in re.findall(r"^Covers:\s*((?:.|\n(?!\n))*)", text, re.M):
            for name in re.findall(r"[\w/.-]+\.py", listed):
                places = [mirrored / name, ROOT / name]
                found = [p for p in places if p.is_file()]
                assert found, f"{test.relative_to(ROOT)} covers {name}, which is neither of {places}"
                covered.add(found[0])
    return covered


def test_every_source_file_has_a_test() -> None:
    covered = _covered()
    missing = [p for p in _sources() if _has_logic(p) and p not in covered]
    assert not missing, "\n".join(str(p.relative_to(ROOT)) for p in missing)
