"""The command `forget`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from pipelines.cli.main import app
from tests.curation.engine import runs


def test_forget_as_it_is_typed(tmp_path: Path) -> None:
    rows = [{"text": f"The brook turns the mill, page {i}.", "url": f"http://e.org/{i}"} for i in range(6)]
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", rows)
    steps = [{"toxicity": {}, "keep": {"toxicity": None}}]
    runs.curate(tmp_path, runs.text_pipeline(tmp_path, steps=steps))
    run_dir = str(tmp_path / "run")
    typed = ["delete", run_dir, "--url", "http://e.org/2", "--reason", "asked to", "--executor", "inline", "--json"]
    done = CliRunner().invoke(app, typed)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (answer["kept"], answer["generation"]) == (5, 1)
    assert answer["entries"] == [{"url": "http://e.org/2", "by": "delete", "reason": "asked to"}]
    assert CliRunner().invoke(app, ["delete", run_dir]).exit_code == 2
