"""Files that are one file twice are refused when they are listed: no input is read, and both are named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard

from curation.core.errors import UserError
from curation.engine.planning.plan import make_plan
from tests.curation.engine import runs

LINES = b"".join(b'{"text": "The brook turns the mill of page %d."}\n' % i for i in range(3))


def _said(folder: Path, tree: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        make_plan(runs.load(folder, tree))
    return str(caught.value)


def test_one_file_in_two_compressions_is_named_before_anything_is_read(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.jsonl.gz").write_bytes(gzip.compress(LINES))
    (texts / "a.jsonl.zst").write_bytes(zstandard.compress(LINES))
    (texts / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    tree = runs.text_pipeline(tmp_path)
    tree["sources"][0]["path"] = "*.jsonl*"
    assert _said(tmp_path, tree) == (
        f"source 'texts': {texts}/a.jsonl.gz and {texts}/a.jsonl.zst differ only in their compression, so that their "
        "documents would have the same ids. Remove one of them, or change `path` so that it matches only one."
    )
    (texts / "b.jsonl").write_bytes(LINES)
    assert "a.jsonl.zst (2 such pairs) differ" in _said(tmp_path, tree)
    assert not (tmp_path / "run").exists()
    (texts / "b.jsonl").unlink()
    tree["sources"][0]["path"] = "*.jsonl.gz"
    assert len(make_plan(runs.load(tmp_path, tree)).files[0]) == 2


def test_ids_of_records_may_differ_below_two_roots_of_one_collection(tmp_path: Path) -> None:
    for year in ("2023", "2024"):
        folder = tmp_path / year
        folder.mkdir()
        (folder / "a.jsonl").write_text(json.dumps({"id": year, "text": "The brook turns the mill."}) + "\n")
    source = {"domain": "web", "read": "text", "path": "*.jsonl", "collection": "crawl"}
    sources = [source | {"name": f"crawl-{year}", "root": year} for year in ("2023", "2024")]
    tree = runs.text_pipeline(tmp_path, sources=sources)
    assert "have the same path in one collection" in _said(tmp_path, tree)
    with_ids = runs.text_pipeline(tmp_path, sources=[s | {"id": "id"} for s in sources])
    assert runs.curate(tmp_path, with_ids).counts["kept"] == 2
