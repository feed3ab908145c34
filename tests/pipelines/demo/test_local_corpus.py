"""The embedded default: a real crawl of what is installed, complete or absent, and the same each time.

Covers: pydoc_crawl.py, pydoc_server.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from curation.core.errors import UserError
from curation.sources.text.text import TextReader
from curation.sources.warc.warc import WarcReader
from curation.step import InputSplit
from pipelines.demo import local_corpus, pydoc_crawl

SMALL = {"pages": 30, "web_bytes": 3_000_000, "docs_bytes": 200_000, "code_bytes": 300_000, "licences": 20}


def tree(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def documents(folder: Path, reader: Any, pattern: str) -> list[dict[str, Any]]:
    got = []
    for path in sorted(folder.glob(pattern)):
        if path.is_file():
            piece = InputSplit(str(path.relative_to(folder)), path.stat().st_size, "")
            for batch in reader.read(piece, str(folder), collection="c", domain="d", rows=100):
                got += [row for row in batch.to_pylist() if row["drop"] is None]
    return got


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("default") / "corpus"
    return folder, local_corpus.build(folder, **SMALL)


def test_counts_are_those_of_the_readers(built: tuple[Path, dict[str, Any]]) -> None:
    folder, manifest = built
    domains = manifest["domains"]
    assert len(documents(folder, WarcReader(), "web/*.warc.gz")) == domains["web"]["documents"] == 30
    assert len(documents(folder, TextReader(), "docs/docs-*.jsonl.gz")) == domains["docs"]["documents"] > 10
    assert len(documents(folder, TextReader(), "code/*.jsonl.gz")) == domains["code"]["documents"] > 10
    assert len(documents(folder, TextReader(), "licences/**/*.txt")) == domains["licences"]["documents"] == 20
    languages = documents(folder, TextReader(), "docs/languages-*.jsonl.gz")
    assert len(languages) == domains["languages"]["documents"]
    assert len({json.loads(row["meta"])["language"] for row in languages}) > 40


def test_pages_are_real_and_hide_the_machine(built: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = built
    pages = documents(folder, WarcReader(), "web/*.warc.gz")
    assert all(row["url"].startswith("http://pydoc.localhost/") for row in pages)
    assert all(row["read"]["mime"] == "text/html" and "<html" in row["text"] for row in pages)
    assert not any(" at 0x" in row["text"] or "127.0.0.1:" in row["text"] for row in pages)


def test_building_again_does_nothing_and_anew_gives_the_same(
    built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, manifest = built
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert local_corpus.build(folder, **SMALL) == manifest
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == times
    local_corpus.build(tmp_path / "other", **SMALL)
    assert tree(tmp_path / "other") == tree(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_a_failed_build_leaves_what_was_there(
    built: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = built
    before = tree(folder)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pydoc_crawl, "crawl", fail)
    with pytest.raises(OSError, match="disk full"):
        local_corpus.build(folder, **{**SMALL, "pages": 31})
    assert tree(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_folder_of_somebody_else_is_not_made_anew(tmp_path: Path) -> None:
    (tmp_path / "crawl").mkdir()
    (tmp_path / "crawl" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds files that the demo did not write .*--dir"):
        local_corpus.build(tmp_path / "crawl", **SMALL)
    assert [p.read_text() for p in tmp_path.rglob("*.txt")] == ["mine"] and len(list(tmp_path.iterdir())) == 1


def test_nothing_that_acts_on_import_is_visited() -> None:
    names = pydoc_crawl.modules()
    assert len(names) > 300
    tops = {name.partition(".")[0] for name in names}
    assert not tops & {"this", "antigravity", "idlelib", "tkinter", "turtledemo", "test", "pip"}
    assert not any(part.startswith(("_", "test")) for name in names for part in name.split("."))
