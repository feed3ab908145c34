"""Every command of the guide runs: page by page, in order, in a copy of the workspace, from a clean environment."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import pages, workspace
from tests.docs.pages import ROOT

# Why a block cannot run in a test. Counted below, so that none slips in unseen.
NOT_RUN = {
    "a cluster": 5, "a GPU": 2, "the network": 2, "the checkout itself": 8, "hours": 3, "runs without rules": 1,
    "texts of another language": 1,
}  # fmt: skip


RUNNING = [p for p in pages.pages() if any(b.runs for b in pages.blocks(p))]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace with a finished run and a small training."""
    folder = tmp_path_factory.mktemp("guide") / "space"
    workspace.build(folder)
    for command in ("gristmill curate web.yaml --run runs/web -q", "gristmill train small.yaml --data runs/web -q"):
        ran = workspace.shell(command, folder)
        assert ran.returncode == 0, ran.stdout
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNING, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_of(page: Path, space: Path, tmp_path: Path) -> None:
    folder = workspace.copy(space, tmp_path / "work")
    for block in pages.blocks(page):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
        if not block.runs:
            continue
        for command, shown in pages.commands(block):
            ran = workspace.shell(command, folder)
            told = f"{block.page}:{block.line}\n$ {command}\n{ran.stdout[-4000:]}"
            assert ran.returncode == 0, told
            assert not (lost := pages.missing(shown, ran.stdout)), f"{told}\nnot printed: {lost}"


def test_what_does_not_run_says_why_and_is_counted() -> None:
    found: dict[str, int] = {}
    for page in pages.pages():
        for block in pages.blocks(page):
            assert not block.unmarked, f"{block.page}:{block.line}: commands in a block that is no bash or console"
            if block.needs:
                found[block.needs] = found.get(block.needs, 0) + 1
    assert found == NOT_RUN


@pytest.mark.slow
def test_doctests_of_the_page_on_python(space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.copy(space, tmp_path / "work"))
    tried = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried.attempted > 15 and not tried.failed


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site's builder is in the extra `docs`")
    pytest.importorskip("mkdocstrings", reason="the site's builder is in the extra `docs`")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    assert "Curates what a pipeline file says" in (tmp_path / "site" / "reference" / "runs" / "index.html").read_text()
    html = (tmp_path / "site" / "index.html").read_text()
    assert not re.findall(
        r'(?:src|href)="https?://(?!squidfunk)[^"]*\.(?:js|css|woff2?)"', html
    )  # nothing from elsewhere


def test_links_lead_somewhere() -> None:
    for page in pages.pages():
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_tests_that_pages_name_are_there() -> None:
    """`tests/x/test_y.py::test_z` in a page is a test that exists; the pages on promises name at least one each."""
    for page in pages.pages():
        named = re.findall(r"`(tests/[\w/.]+\.py)(?:::(\w+))?`", page.read_text(encoding="utf-8"))
        for file, test in named:
            assert (ROOT / file).is_file(), f"{page.relative_to(ROOT)} names {file}"
            if test:
                assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {test}"
        if page.parent.name == "promises" and page.name != "index.md":
            assert any(test for _, test in named), f"{page.relative_to(ROOT)} names no test"
