"""The default install, the extras and where their packages are imported.

Covers: curation/core/packages.py
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.core import packages
from curation.core.errors import UserError
from tests.conftest import HANG

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# What a module may import at its top: needed by every use of the package, and loaded in well under a second.
LIGHT = {
    "curation": {"fsspec", "numpy", "psutil", "pyarrow", "pydantic", "xxhash", "yaml", "zstandard"},
    "training": {"numpy", "pyarrow", "pydantic", "safetensors", "torch", "yaml"},
    "pipelines": {"numpy", "pyarrow", "pydantic", "rich", "typer", "yaml"},
}
# Modules of compiled kernels, imported inside functions of the module that runs them (a second to import numba).
KERNELS = {
    "curation/kernels.py", "curation/word_hashes.py",
    "curation/quality/heuristics/character_classes.py", "curation/safety/pii/candidate_windows.py",
    "curation/safety/pii/number_context.py", "curation/safety/pii/telephone/phone_candidates.py",
    "curation/safety/pii/telephone/phone_decision.py",
}  # fmt: skip


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(requirements: list[str]) -> set[str]:
    return {normal(re.match(r"[\w.-]+", r)[0]) for r in requirements}  # type: ignore[index]


def imports(tree: ast.AST, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Top-level names of what a module imports, and whether a function does it. Not what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((a.name.partition(".")[0], inside) for a in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0], inside
        yield from imports(node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


@pytest.mark.parametrize("package", LIGHT)
def test_packages_are_imported_where_they_are_used(package: str) -> None:
    known = {*packages.DEFAULT, *(m for modules in packages.EXTRAS.values() for m in modules), "phonenumbers", "spacy"}
    undeclared, heavy = [], []
    for path in sorted((ROOT / package).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        allowed = LIGHT[package] | ({"numba"} if name in KERNELS or "kernel" in path.stem else set())
        for module, inside in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if module in sys.stdlib_module_names or module in LIGHT:
                continue
            if module not in known:
                undeclared.append((name, module))
            elif not inside and module not in allowed:
                heavy.append((name, module))
    assert not undeclared, "in no install: add them to pyproject.toml and curation/core/packages.py"
    assert not heavy, "import them inside the function that uses them"


def test_the_lists_are_those_of_the_project_file() -> None:
    given = {normal(re.match(r"[\w.\[\]-]+", r)[0]) for r in PROJECT["dependencies"]}  # type: ignore[index]
    assert given == {normal(name) for name in packages.DEFAULT.values()}
    extras = PROJECT["optional-dependencies"]
    assert set(packages.EXTRAS) == set(extras) - {"all", "bench", "dev", "docs"}
    assert extras["all"] == [f"gristmill[{','.join(sorted(packages.EXTRAS))}]"]
    other_names = {"mlflow": "mlflow-skinny"}
    for extra, modules in packages.EXTRAS.items():
        brought = distributions(extras[extra])
        assert brought - {"ray"} == {normal(other_names.get(m, m)) for m in modules}, extra


def test_everything_that_is_installed_is_pinned() -> None:
    pins = {normal(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    wanted = distributions(PROJECT["dependencies"])
    for extra, requirements in PROJECT["optional-dependencies"].items():
        wanted |= set() if extra == "bench" else distributions(requirements)
    assert wanted - {"gristmill"} <= pins
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def test_the_command_names_extras_and_packages() -> None:
    command = packages.pip_command(["trafilatura", "lxml_html_clean", "kenlm", "spacy", "ray", "s3fs"])
    assert command == 'pip install "gristmill[trafilatura,s3]" kenlm presidio-analyzer "ray[default]"'
    assert packages.pip_command(["yaml", "somebody_elses"]) == "pip install pyyaml somebody_elses"
    packages.require("this test", ["pyarrow", "json"])
    with pytest.raises(UserError, match=r"^this test: no_such is not installed\n  install with: pip install no_such$"):
        packages.require("this test", ["pyarrow", "no_such"])


def test_import_errors_are_explained() -> None:
    missing = ModuleNotFoundError("No module named 'lightgbm.basic'", name="lightgbm.basic")
    assert packages.explain_import_error(missing) == (
        'lightgbm is not installed\n  install with: pip install "gristmill[mix]"'
    )
    for other in (ModuleNotFoundError("no", name="my_steps"), ImportError("cannot import name", name="torch")):
        assert packages.explain_import_error(other) is None


CATALOGUE = (
    "import importlib, curation.api, curation.config.load_pipeline\n"
    "from curation.config.catalogue import READERS, STEPS\n"
    "[importlib.import_module(t.partition(':')[0]) for t in (*READERS.values(), *STEPS.values())]"
)
HELP = "import sys; sys.argv = ['gristmill', '--help']; from pipelines.cli.main import main; main()"


@pytest.mark.parametrize(
    ("program", "allowed", "most"),
    [
        pytest.param("import curation", set(), 120, id="import curation"),
        pytest.param(HELP, {"rich", "typer"}, 400, id="gristmill --help"),
        pytest.param(CATALOGUE, LIGHT["curation"] | {"lz4"}, 2000, id="all steps"),
    ],
)
def test_what_an_import_loads(program: str, allowed: set[str], most: int) -> None:
    """`import curation` and `gristmill --help` answer in 0.3 s: nothing of weight is loaded. Counted, not timed."""
    watched = {*packages.DEFAULT, *(m for modules in packages.EXTRAS.values() for m in modules), "pandas", "spacy"}
    report = (
        f"import atexit, sys; atexit.register(lambda: print('loaded', len(sys.modules), *sorted({watched!r} & "
        "set(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", report + program], capture_output=True, text=True, cwd=ROOT, check=True, timeout=HANG
    )
    _, count, *loaded = done.stdout.splitlines()[-1].split()
    assert set(loaded) <= allowed
    assert int(count) < most
