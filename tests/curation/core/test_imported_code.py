"""What a file depends on: every module it imports that is no distribution's, and the versions of those that are."""

from __future__ import annotations

import importlib.machinery
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.core import imported_code as code
from curation.core.imported_code import imported_code
from tests.conftest import ROOT


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that somebody wrote, on the path of this process."""
    monkeypatch.syspath_prepend(tmp_path / "own")
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def names(folder: Path, file: str) -> set[str]:
    return {str(Path(f).relative_to(folder)) for f in imported_code(str(folder / file)).files}


@pytest.mark.parametrize(
    ("line", "followed"),
    [
        ("import craft.lists", {"craft/__init__.py", "craft/lists.py"}),
        ("from craft import lists", {"craft/__init__.py", "craft/lists.py"}),
        ("from craft.lists import BAD", {"craft/__init__.py", "craft/lists.py"}),
        ("import craft.deep.tables as t", {"craft/__init__.py", "craft/deep/__init__.py", "craft/deep/tables.py"}),
        ("from craft.deep import *", {"craft/__init__.py", "craft/deep/__init__.py", "craft/deep/tables.py"}),
        ("def f():\n    from craft import lists\n    return lists", {"craft/__init__.py", "craft/lists.py"}),
        ("class A:\n    def g(self):\n        import single", {"single.py"}),
        ("try:\n    import single\nexcept ImportError:\n    single = None", {"single.py"}),
        ("import importlib\nx = importlib.import_module('craft.lists')", {"craft/__init__.py", "craft/lists.py"}),
        ("import loose.inner", {"loose/inner.py"}),  # a folder without __init__.py
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import single", set()),
        ("import json, os.path, numpy.random", set()),
        ("x = 'import single'", set()),
    ],
)
def test_every_form_of_import_is_followed(site: Path, line: str, followed: set[str]) -> None:
    write(site, {"craft/__init__.py": "", "craft/lists.py": "BAD = 1", "craft/deep/__init__.py": "", "single.py": ""})
    write(site, {"craft/deep/tables.py": "T = 1", "loose/inner.py": "", "start.py": line})
    assert names(site, "start.py") == {"start.py", *followed}


def test_imports_of_imports_relative_ones_and_the_package_itself(site: Path) -> None:
    write(site, {"p/__init__.py": "from p import setup", "p/setup.py": "", "p/step.py": "from .lists import BAD"})
    write(site, {"p/lists.py": "from ..q import x\nimport q.deep", "q/__init__.py": "", "q/deep.py": "import r"})
    write(site, {"r.py": "from p import step"})  # a circle
    assert names(site, "p/step.py") == {
        "p/__init__.py", "p/setup.py", "p/step.py", "p/lists.py", "q/__init__.py", "q/deep.py", "r.py",
    }  # fmt: skip


def test_prose_does_not_count_and_code_does(site: Path) -> None:
    def sources(text: str) -> list[str]:
        write(site, {"lists.py": text, "step.py": "def f():\n    import lists\n    return lists"})
        os.utime(site / "lists.py", ns=(0, len(text)))
        return imported_code(str(site / "step.py")).sources

    first = sources('"""Words."""\nBAD = 1\n')
    assert sources('"""Other words."""\nBAD = 1  # one\n') == first
    assert sources("BAD = 2\n") != first


def test_a_name_is_looked_for_once_until_a_folder_of_the_path_changes(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan asks for the code of some thirty files, which import the same few hundred names."""
    write(site, {"step.py": "import json, numpy, later_one", "other.py": "import json, numpy, later_one"})
    assert names(site, "step.py") == {"step.py"}
    asked: list[str] = []
    find_spec = importlib.machinery.PathFinder.find_spec
    monkeypatch.setattr(
        importlib.machinery.PathFinder, "find_spec", lambda name, *rest: asked.append(name) or find_spec(name, *rest)
    )
    assert names(site, "other.py") == {"other.py"} and asked == []
    write(site, {"later_one.py": "import json"})
    os.utime(site, ns=(0, 1))  # however coarse the clock of the file system is
    assert names(site, "other.py") == {"other.py", "later_one.py"}


def install(folder: Path, name: str, version: str, files: dict[str, str], requires: tuple[str, ...] = ()) -> None:
    write(folder, files)
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    wanted = "".join(f"Requires-Dist: {r}\n" for r in requires)
    write(folder, {f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wanted}"})
    write(folder, {f"{info}/RECORD": "".join(f"{file},,\n" for file in files)})


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    forget_installed()
    yield folder
    forget_installed()


def forget_installed() -> None:
    for cached in (code._is_site, code._in_site, code._providers, code._distribution):
        cached.cache_clear()


def test_a_distribution_counts_by_its_version_and_that_of_what_it_requires(site: Path, installed: Path) -> None:
    install(
        installed, "Mill-Works", "1.2", {"millworks/__init__.py": "import gears"}, ("gears>=1", "odd; extra == 'x'")
    )
    install(installed, "gears", "3.0", {"gears.py": ""}, ("belts ; python_version > '3'",))
    install(installed, "belts", "0.1", {"belts.py": ""})
    install(installed, "idle", "9.9", {"idle.py": ""})
    write(installed, {"dropped.py": "D = 1"})  # a file that no distribution installed
    write(site, {"step.py": "import millworks, dropped, missing_one"})
    found = imported_code(str(site / "step.py"))
    assert found.distributions == {"mill-works": "1.2", "gears": "3.0", "belts": "0.1", "missing_one": "absent"}
    assert {Path(f).name for f in found.files} == {"step.py", "dropped.py"}


def test_an_editable_distribution_counts_by_its_files(site: Path, installed: Path) -> None:
    write(site, {"checkout/__init__.py": "X = 1", "step.py": "import checkout"})
    install(installed, "checkout", "1.0", {"__editable__.checkout-1.0.pth": str(site)})
    found = imported_code(str(site / "step.py"))
    assert found.distributions == {}
    assert {Path(f).parent.name for f in found.files} == {"checkout", "own"}


def test_a_package_that_is_the_step_itself_counts_by_its_files(installed: Path) -> None:
    install(
        installed, "millsteps", "1.0", {"millsteps/__init__.py": "", "millsteps/step.py": "from millsteps import lists"}
    )
    write(installed, {"millsteps/lists.py": "BAD = 1"})
    found = imported_code(str(installed / "millsteps" / "step.py"))
    assert {Path(f).name for f in found.files} == {"__init__.py", "step.py", "lists.py"}


@pytest.mark.parametrize(("distribution", "never"), [(d, n) for d, ns in code._NEVER_IMPORTED.items() for n in ns])
def test_requirements_that_do_not_count_are_not_imported(distribution: str, never: str) -> None:
    used = [line.strip() for line in _imports_of(distribution)]
    assert used
    program = "\n".join([*used, "import sys", f"print([m for m in sys.modules if m.startswith('{never}')])"])
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def _imports_of(distribution: str) -> list[str]:
    lines = [line for p in (ROOT / "curation").rglob("*.py") for line in p.read_text().splitlines()]
    return sorted(
        {line for line in lines if line.strip().startswith((f"from {distribution}", f"import {distribution}"))}
    )


def test_packages_that_a_package_brings_for_itself_do_not_count(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray prepends a folder of its own to the path when it is imported, and a finished run was no longer unchanged."""
    install(installed, "gears", "3.0", {"gears.py": ""}, ("belts ; sys_platform == 'win32'",))
    write(installed, {"step.py": "import gears"})
    before = imported_code(str(installed / "step.py"))
    install(installed / "mill" / "vendored", "belts", "0.1", {"belts.py": ""})
    install(installed / "mill" / "vendored", "gears", "9.9", {"gears.py": ""})
    monkeypatch.syspath_prepend(installed / "mill" / "vendored")
    forget_installed()
    assert imported_code(str(installed / "step.py")) == before
    assert before.distributions == {"gears": "3.0"}


def test_a_file_is_parsed_once_a_user_not_once_a_process(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(site, {"start.py": "import single\n'text'\nx = 1", "single.py": "y = 2"})
    parsed, parse = [0], code.ast.parse

    def counted(data: bytes) -> object:
        parsed[0] += 1
        return parse(data)

    def another_process() -> None:
        code._read.cache_clear()
        code._directory.cache_clear()
        parsed[0] = 0

    monkeypatch.setattr(code.ast, "parse", counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    another_process()
    first = imported_code(str(site / "start.py"))
    assert parsed == [2]
    another_process()
    assert imported_code(str(site / "start.py")) == first and parsed == [0]
    write(site, {"single.py": "y = 22"})  # another source, another key
    another_process()
    changed = imported_code(str(site / "start.py"))
    assert changed.files != first.files and parsed == [1]
    for file in (tmp_path / "cache/gristmill/imports").iterdir():
        file.write_text(file.read_text()[:9])  # cut off
    another_process()
    assert imported_code(str(site / "start.py")) == changed and parsed == [2]
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")  # nowhere to keep it
    another_process()
    assert imported_code(str(site / "start.py")) == changed and parsed == [2]
    another_process()
