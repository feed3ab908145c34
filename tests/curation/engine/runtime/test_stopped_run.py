"""A run that stops after it has decided about documents: ledger, explain and counts say what was decided and why.

Covers: curation/engine/results/build_result.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation.api import Run
from curation.core.errors import UserError
from curation.engine.execution.executors import RunFailed
from curation.engine.results import explain
from curation.engine.runtime import stopped_run
from curation.engine.runtime.status import run_status
from tests.curation.engine import runs

LONG = {"language": {}, "keep": {"long": "length(text) > 1000"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = "The brook turns the mill, and the miller sings of page"
    pages = [{"text": f"{text} {i}.", "url": f"u{i}"} for i in range(20)]
    runs.write_jsonl(tmp_path / "texts" / "a.jsonl", [*pages, {"words": "no text"}, {"text": ""}])
    return tmp_path


def stopped(folder: Path, tree: dict[str, Any], kind: type[Exception] = UserError, **more: Any) -> str:
    with pytest.raises(kind) as error:
        runs.curate(folder, tree, **more)
    return str(error.value)


def test_rules_that_drop_everything_are_shown_with_reasons(folder: Path) -> None:
    keep = {"quick": "language.score <= 2", "french": "language.code = 'fr'"}
    said = stopped(folder, runs.text_pipeline(folder, steps=[{"language": {}, "keep": keep}]))
    lines = [line.split(maxsplit=4) for line in said.splitlines()]
    assert said.startswith("no documents are left: all were dropped by rules or could not be read.")
    assert ["read", "unreadable", "1", "20", "no field 'text'; it has words (1)"] in lines
    assert ["language", "french", "20", "0", 'language.code = "en" (20)'] in lines
    status = run_status(str(folder / "run"))
    assert (status["state"], status["counts"]["kept"], status["stopped"]) == ("stopped", 0, said)
    answer = explain.explain(str(folder / "run"), "u3")
    assert (answer["outcome"]["rule"], answer["outcome"]["value"]) == ("french", {"language.code": "en"})
    run = Run(str(folder / "run"))
    assert run.ledger().num_rows == 22
    assert run.sql("SELECT count(*) AS n FROM ledger WHERE rule = 'french'").column("n")[0].as_py() == 20
    with pytest.raises(UserError, match="has no documents: the run stopped"):
        run.documents()


def test_a_numeric_signal_is_shown_as_a_range(folder: Path) -> None:
    keep = {"sure": "language.score > 2"}
    said = stopped(folder, runs.text_pipeline(folder, steps=[{"language": {}, "keep": keep}]))
    assert "language.score = 0." in said


def test_a_failure_behind_the_rules_keeps_the_decisions(folder: Path) -> None:
    """Here: the mix cannot be filled, after documents and tokens were made."""
    tree = runs.text_pipeline(folder, tokenizer={"train": {"vocab": 300}}, mix={"budget": 10**9, "max_epochs": 2})
    said = stopped(folder, tree)
    assert said.startswith("mix: a budget of")
    assert explain.explain(str(folder / "run"), "u3")["outcome"] == {"kept": True}
    assert run_status(str(folder / "run"))["counts"]["kept"] == 20
    done = runs.curate(folder, {k: v for k, v in tree.items() if k != "mix"})
    assert done.status == "done" and not (folder / "run" / "decided").exists()
    assert "stopped" not in json.loads((folder / "run" / "run.json").read_text())


def test_a_run_that_stops_before_its_end_says_what_is_undecided(folder: Path) -> None:
    """A file cannot be read: the run stops before the next global step, with the decisions until then."""
    (folder / "texts" / "b.parquet").write_bytes(b"no Parquet at all")
    source = {"name": "texts", "domain": "web", "read": "text", "root": "texts", "path": "*.*"}
    keep = {"early": "language.score > 2 OR url <> 'u3'"}
    steps = [{"language": {}, "keep": keep}, "exact_dedup"]
    tree = runs.text_pipeline(folder, sources=[source], steps=steps)
    assert runs.curate(folder, tree).exit_code == 3
    assert explain.explain(str(folder / "run"), "u3")["outcome"]["rule"] == "early"
    outcome = explain.explain(str(folder / "run"), "u4")["outcome"]
    assert outcome == {"kept": True, "undecided": ["exact_dedup"]}
    assert runs.curate(folder, tree, allow_missing=True).counts["kept"] == 19
    assert explain.explain(str(folder / "run"), "u4")["outcome"] == {"kept": True}


def test_a_bug_in_a_later_step_keeps_what_was_decided_before(folder: Path) -> None:
    (folder / "steps.py").write_text(
        "from dataclasses import dataclass\n"
        "import pyarrow as pa\n"
        "from curation.step import MapStep\n\n\n"
        "@dataclass(frozen=True)\nclass Late(MapStep):\n    name: str = 'late'\n\n"
        "    @property\n    def signals(self):\n        return pa.schema([('x', pa.int64())])\n\n"
        "    def __call__(self, batch):\n        raise MemoryError\n"
    )
    keep = {"early": "language.score > 2 OR url <> 'u3'"}
    steps = [{"language": {}, "keep": keep}, "exact_dedup", {"./steps.py:Late": {}}]
    stopped(folder, runs.text_pipeline(folder, steps=steps), RunFailed)
    assert explain.explain(str(folder / "run"), "u3")["outcome"]["rule"] == "early"
    assert explain.explain(str(folder / "run"), "u4")["outcome"]["undecided"] == ["exact_dedup", "late"]


def test_a_finished_result_stays_when_a_later_attempt_stops(folder: Path) -> None:
    tree = runs.text_pipeline(folder)
    runs.curate(folder, tree)
    before = runs.tree_bytes(folder / "run")
    assert before
    stopped(folder, tree | {"steps": [LONG]})
    assert runs.tree_bytes(folder / "run") == before
    assert explain.explain(str(folder / "run"), "u3")["outcome"]["rule"] == "long"
    runs.curate(folder, tree)
    assert explain.explain(str(folder / "run"), "u3")["outcome"] == {"kept": True}
    assert runs.tree_bytes(folder / "run") == before


def test_an_error_in_keeping_the_decisions_does_not_hide_the_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(stopped_run.publish, "publish", broken)
    said = stopped(folder, runs.text_pipeline(folder, steps=[LONG]))
    assert said.startswith("no documents are left") and ["language", "long", "20", "0"] in [
        line.split() for line in said.splitlines()
    ]
