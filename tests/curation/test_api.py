"""The Python API: a pipeline runs, and its result is read back as Arrow tables, SQL and explanations."""

from __future__ import annotations

from pathlib import Path

import pytest

import curation
from curation.core.errors import UserError
from tests.curation.engine import runs


def test_a_run_from_python(tmp_path: Path) -> None:
    rows = [{"url": f"http://e.org/{i}", "text": text} for i, text in enumerate(("one text", "another", "one text"))]
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", rows)
    runs.load(tmp_path, runs.text_pipeline(tmp_path, steps=["exact_dedup"]))
    run = curation.run(str(tmp_path / "pipeline.yaml"), str(tmp_path / "run"), executor="inline")
    assert run.counts["kept"] == run.documents().num_rows == 2
    assert run.ledger(["url", "step"]).column("step").to_pylist().count("exact_dedup") == 1
    assert run.sql("SELECT count(*) AS n FROM ledger WHERE step IS NULL").to_pydict() == {"n": [2]}
    assert run.explain("http://e.org/1")["url"] == "http://e.org/1"
    with pytest.raises(UserError, match="has no column 'nothing'"):
        run.ledger(["nothing"])
    with pytest.raises(UserError, match="is not a finished run"):
        curation.Run(str(tmp_path))
