"""A step of twenty lines in a file outside of the package: it runs, on Ray too, and shows wherever others do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import curation
from pipelines.cards.write_cards import write_cards
from tests.curation.engine import tiny
from tests.docs.pages import ROOT, blocks

PIPELINE = """
name: own
sources:
  - {name: texts, read: text, path: "*.jsonl"}
steps:
  - elsewhere/my_steps.py:Shout: {limit: 0.4}
  - exact_dedup: {}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The pipeline, with the step exactly as the page shows it."""
    step = next(b for b in blocks(ROOT / "docs" / "step.md") if b.file == "my_steps.py").text
    code = [line for line in step.splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(code) <= 20
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "my_steps.py").write_text(step)
    texts = ["a quiet line of text", "VERY LOUD INDEED", "Some Capitals", "a quiet line of text"]
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": t, "url": f"https://x.y/{i}"}) + "\n" for i, t in enumerate(texts))
    )
    (tmp_path / "own.yaml").write_text(PIPELINE)
    return tmp_path / "own.yaml"


def test_it_shows_in_ledger_report_card_and_explain(file: Path, gristmill) -> None:
    run = curation.run(str(file), str(file.parent / "run"), executor="inline")
    rows = {r["url"]: r for r in run.ledger(["url", "step", "rule", "value", "shout"]).to_pylist()}
    loud = rows["https://x.y/1"]
    assert (loud["step"], loud["rule"]) == ("shout", "shouting") and loud["shout"]["share"] == 14 / 16
    assert json.loads(loud["value"]) == {"shout.share": 14 / 16}
    assert rows["https://x.y/2"]["shout"]["share"] == 2 / 13 and rows["https://x.y/2"]["step"] is None
    write_cards(run.path)
    card = (file.parent / "run" / "card.md").read_text()
    assert "| shout (elsewhere/my_steps.py:Shout) | shouting | `coalesce(shout.share, 0) < 0.4` | 1 | 3 |" in card
    assert "| shout.share | 4 |" in card
    assert "shout: 4 documents in, 3 left; shouting dropped 1" in (file.parent / "run" / "croissant.json").read_text()
    assert gristmill("report", run.path)[0] == 0
    report = (file.parent / "run" / "report.html").read_text()
    assert "shouting" in report and "shout" in report and "share" in report and "VERY LOUD INDEED" in report
    code, out, _ = gristmill("explain", run.path, "https://x.y/1")
    assert code == 0 and "dropped by shout, rule shouting" in out


def test_an_edited_file_is_another_step_in_the_same_session(file: Path) -> None:
    run = curation.run(str(file), str(file.parent / "run"), executor="inline")
    before = run.info["steps"]["shout"]
    step = file.parent / "elsewhere" / "my_steps.py"
    step.write_text(step.read_text().replace("[^A-Z]", "[^a-z]"))
    run = curation.run(str(file), str(file.parent / "run"), executor="inline")
    assert run.info["steps"]["shout"] != before
    assert run.sql("SELECT count(*) AS n FROM ledger WHERE step = 'shout'").column("n")[0].as_py() == 3
    step.write_text("# another comment is no other step\n" + step.read_text())
    assert curation.run(str(file), str(file.parent / "run"), executor="inline").info["steps"] == run.info["steps"]


@pytest.mark.slow
def test_it_runs_on_ray_as_in_one_process(file: Path) -> None:
    curation.run(str(file), str(file.parent / "inline"), executor="inline")
    curation.run(str(file), str(file.parent / "ray"), executor="ray", workers=2)
    assert tiny.tree(file.parent / "ray") == tiny.tree(file.parent / "inline")
