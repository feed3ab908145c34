"""Steps in files outside of the package, a class of twenty lines and two functions: they run, on Ray too, and show
wherever others do."""

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


@pytest.fixture
def functions(file: Path) -> Path:
    """As `file`, with the functions of the page."""
    page = blocks(ROOT / "docs" / "step.md")
    (file.parent / "my_functions.py").write_text(next(b for b in page if b.file == "my_functions.py").text)
    steps = """
  - my_functions.py:capitals: {}
    keep: {shouting: "capitals.capitals < 0.4"}
  - my_functions.py:long_enough: {words: 3, name: long}
"""
    file.write_text(PIPELINE.partition("steps:")[0] + "steps:" + steps)
    return file


def test_functions_show_in_ledger_report_card_and_explain(functions: Path, gristmill) -> None:
    run = curation.run(str(functions), str(functions.parent / "run"), executor="inline")
    rows = {
        r["url"]: r for r in run.ledger(["url", "step", "rule", "value", "evidence", "capitals", "long"]).to_pylist()
    }
    assert [rows[f"https://x.y/{i}"]["rule"] for i in range(4)] == [None, "shouting", "keep", None]
    assert json.loads(rows["https://x.y/1"]["value"]) == {"capitals.capitals": 14 / 16}
    assert rows["https://x.y/2"]["long"] == {"keep": False, "reason": "2 words"}
    assert json.loads(rows["https://x.y/2"]["evidence"]) == {"reason": "2 words"}
    write_cards(run.path)
    card = (functions.parent / "run" / "card.md").read_text()
    assert "| capitals (my_functions.py:capitals) | shouting | `capitals.capitals < 0.4` | 1 | 3 |" in card
    assert "| long (my_functions.py:long_enough) | keep | `long.keep` | 1 | 2 |" in card
    assert gristmill("report", run.path)[0] == 0
    report = (functions.parent / "run" / "report.html").read_text()
    assert "VERY LOUD INDEED" in report and "Some Capitals" in report and "long_enough" in report
    code, out, _ = gristmill("explain", run.path, "https://x.y/2")
    assert code == 0 and "dropped by long, rule keep" in out and "2 words" in out


def test_an_exception_in_a_function_names_its_line(functions: Path, gristmill) -> None:
    code = functions.parent / "my_functions.py"
    code.write_text(code.read_text().replace("    found =", "    assert 'LOUD' not in text\n    found ="))
    functions.write_text(functions.read_text().replace('{shouting: "capitals.capitals < 0.4"}', "{}"))
    line = 1 + code.read_text().splitlines().index("    assert 'LOUD' not in text")
    status, told, _ = gristmill("curate", functions, "--run", functions.parent / "run", "--executor", "inline")
    assert status == 3 and f"my_functions.py:{line}" in told and "AssertionError" in told


@pytest.mark.slow
def test_they_run_on_ray_as_in_one_process(file: Path, request: pytest.FixtureRequest) -> None:
    own = file.read_text()
    functions = request.getfixturevalue("functions").read_text()
    file.write_text(own.replace("  - exact_dedup: {}\n", "") + functions.partition("steps:\n")[2])
    curation.run(str(file), str(file.parent / "inline"), executor="inline")
    curation.run(str(file), str(file.parent / "ray"), executor="ray", workers=2)
    assert tiny.tree(file.parent / "ray") == tiny.tree(file.parent / "inline")
