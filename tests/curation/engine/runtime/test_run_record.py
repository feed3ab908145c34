"""run.json: records of another version are refused by name; status and plan read a run without running anything.

Covers: status.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.core.errors import UserError
from curation.engine.runtime.run_record import FORMAT, read_run
from curation.engine.runtime.status import plan_run, run_status
from curation.storage import Storage
from tests.curation.engine import runs


def test_a_run_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"name": "tested", "done": "x", "unread": [], "counts": {}}))
    with pytest.raises(UserError, match=rf"another version of gristmill.*format 1, this version reads {FORMAT}"):
        read_run(Storage(str(tmp_path / "run")))
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", [{"text": "some text in English, of one document"}])
    with pytest.raises(UserError, match="another version of gristmill"):
        runs.curate(tmp_path, runs.text_pipeline(tmp_path))


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run directory: it has no run\.json"):
        run_status(str(tmp_path))


def test_plan_before_and_status_after_a_run(tmp_path: Path) -> None:
    runs.write_jsonl(
        tmp_path / "texts" / "a.jsonl", [{"text": f"this is text number {i} in plain English"} for i in range(20)]
    )
    tree = runs.text_pipeline(tmp_path)
    before = plan_run(runs.load(tmp_path, tree), str(tmp_path / "run"))
    assert not before["unchanged"] and before["tasks"] == 1 and before["input_bytes"] > 0
    assert before["phases"][-1]["phase"] == "tokenizer, shards, documents, ledger"
    runs.curate(tmp_path, tree)
    assert plan_run(runs.load(tmp_path, tree), str(tmp_path / "run"))["unchanged"]
    status = run_status(str(tmp_path / "run"))
    assert status["state"] == "done" and status["open"] == {}
    assert all(p["tasks"] >= 1 for p in status["finished"])
