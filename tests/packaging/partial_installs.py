"""Runs programs in which only some of the installed distributions can be imported.

A `sitecustomize.py` on PYTHONPATH refuses, in the process and in all that it starts, every top-level module that no
allowed distribution (or one that it requires) provides. It shows in a minute what a real environment shows in ten;
test_real_environments.py (nightly) builds those.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.conftest import HANG

ROOT = Path(__file__).resolve().parents[2]
HOOK = """
import json, os, sys
from importlib.machinery import PathFinder

refused = frozenset(json.loads(open(os.environ["REFUSED_MODULES"]).read()))

class OnlyThese(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in refused else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [OnlyThese if finder is PathFinder else finder for finder in sys.meta_path]
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: Iterable[str]) -> set[str]:
    """The distributions that pip would install for some requirements, extras such as ray[default] included."""
    found: set[tuple[str, str]] = set()
    todo = [pair for line in requirements for pair in _wanted(Requirement(line))]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += _wanted(requirement)
    return {name for name, _ in found}


def _wanted(requirement: Requirement) -> list[tuple[str, str]]:
    name = normal(requirement.name)
    return [(name, ""), *((name, extra) for extra in requirement.extras)]


def refused_modules(requirements: Iterable[str]) -> list[str]:
    """Installed top-level modules that none of the requirements brings."""
    allowed = closure(requirements)
    ours = {"curation", "training", "pipelines", "benchmarks", "tests"}
    return sorted(
        module
        for module, names in metadata.packages_distributions().items()
        if not {normal(n) for n in names} & allowed and module not in ours
    )


def run(
    requirements: Iterable[str], program: str, folder: Path, arguments: Iterable[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs a program in `folder` with nothing importable but the requirements and what they require."""
    hook = folder / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    (hook / "refused.json").write_text(json.dumps(refused_modules(requirements)), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{hook}{os.pathsep}{ROOT}",
        "REFUSED_MODULES": str(hook / "refused.json"),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
