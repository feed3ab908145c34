"""A source whose records cannot be read: an error with the reason and the fields there are, and not a loss.

Covers: curation/engine/tasks/input_rows.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.core.errors import UserError
from curation.engine.runtime.status import plan_run
from tests.curation.engine import runs, tiny


def wrong_field(folder: Path, records: int = 45, files: int = 1, bad: int | None = None) -> dict[str, Any]:
    """A good source and one of `records` records with `body` instead of `text`; `bad`: only so many of them."""
    runs.write_jsonl(folder / "good" / "g.jsonl", [{"text": f"a good page {i}"} for i in range(30)])
    rows: list[dict[str, Any]] = [
        {"body" if bad is None or i < bad else "text": f"page {i} of the mill", "lang": "en"} for i in range(records)
    ]
    for n in range(files):
        runs.write_jsonl(folder / "odd" / f"{n:03}.jsonl", rows[n::files])
    sources = [
        {"name": name, "read": "text", "root": name, "path": "*.jsonl", "domain": name} for name in ("good", "odd")
    ]
    return runs.text_pipeline(folder, sources=sources, steps=[], engine={"task_bytes": 1024})


def refused(folder: Path, tree: dict[str, Any], **more: Any) -> str:
    with pytest.raises(UserError) as error:
        runs.curate(folder, tree, **more)
    return str(error.value)


@pytest.mark.parametrize("files", [1, 40])  # read in a few tasks; looked at before
def test_a_wrong_field_name_is_an_error_that_names_the_fields(tmp_path: Path, files: int) -> None:
    tree = wrong_field(tmp_path, 45 * files, files)
    said = refused(tmp_path, tree)
    assert said.startswith("source 'odd': ") and "records cannot be read" in said
    assert "no field 'text'; it has body, lang" in said
    assert "`text: NAME`" in said and "--allow-unreadable" in said
    assert not (tmp_path / "run" / "result").exists()
    done = runs.curate(tmp_path, tree, allow_unreadable=True)
    assert (done.exit_code, done.counts["kept"]) == (0, 30)
    tree["sources"][1]["text"] = "body"
    assert runs.curate(tmp_path, tree).counts["kept"] == 30 + 45 * files


def test_a_large_source_is_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    refused(tmp_path, wrong_field(tmp_path, 1800, 40))
    phases = [e["phase"] for e in tiny.events(tmp_path / "run") if e["event"] == "phase"]
    assert phases == ["split files", "first records"]


def test_a_small_source_is_just_read(tmp_path: Path) -> None:
    refused(tmp_path, wrong_field(tmp_path, 45, 1))
    phases = [e["phase"] for e in tiny.events(tmp_path / "run") if e["event"] == "phase"]
    assert phases[:2] == ["split files", "0: read"] and "first records" not in phases


def test_plan_says_so_before_any_work(tmp_path: Path) -> None:
    tree = wrong_field(tmp_path)
    with pytest.raises(
        UserError, match="source 'odd': 32 of the first 32 records cannot be read: no field 'text'; it has"
    ):
        plan_run(runs.load(tmp_path, tree), str(tmp_path / "run"))
    assert plan_run(runs.load(tmp_path, tree), str(tmp_path / "run"), allow_unreadable=True)["tasks"] > 0
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())


def test_plan_says_that_a_table_lacks_the_column(tmp_path: Path) -> None:
    tree = wrong_field(tmp_path)
    pq.write_table(pa.table({"body": ["a"], "lang": ["en"]}), tmp_path / "odd" / "t.parquet")
    tree["sources"][1]["path"] = "*.parquet"
    with pytest.raises(UserError, match="none of 1 files looked at can be read: no column 'text'; it has body, lang"):
        plan_run(runs.load(tmp_path, tree), str(tmp_path / "run"))


def test_half_of_the_records_is_not_more_than_half(tmp_path: Path) -> None:
    tree = wrong_field(tmp_path, 40, bad=20)
    assert runs.curate(tmp_path, tree).counts["kept"] == 50
    tree = wrong_field(tmp_path, 40, bad=21)
    assert "21 of 40 records cannot be read" in refused(tmp_path, tree)


def test_one_odd_file_among_many_is_no_error(tmp_path: Path) -> None:
    """Looked at are several files, spread over the source."""
    tree = wrong_field(tmp_path, 1800, 40, bad=0)
    runs.write_jsonl(tmp_path / "odd" / "000.jsonl", [{"body": "x"}] * 45)
    assert runs.curate(tmp_path, tree).counts["steps"][0] == {"step": "read", "rule": "unreadable", "dropped": 45}


def test_the_ledger_has_the_reasons_after_such_an_error(tmp_path: Path) -> None:
    refused(tmp_path, wrong_field(tmp_path))
    made = json.loads((tmp_path / "run" / "run.json").read_text())
    assert made["stopped"].startswith("source 'odd': 45 of 45 records cannot be read")
    assert made["counts"]["steps"] == [{"step": "read", "rule": "unreadable", "dropped": 45}]
