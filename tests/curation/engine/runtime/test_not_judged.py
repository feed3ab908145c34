"""What steps cannot judge is counted in run.json, and shown by status, curate and the report.

Covers: curation/engine/runtime/not_judged.py.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from curation import models
from curation.engine.runtime.status import run_status
from pipelines.cli.text_output import show_status
from pipelines.report.write_report import write_report
from tests.curation.engine import runs

ENGLISH = "The mill turns with the water of the brook, and the miller has ground rye and wheat for the village."
CHINESE = "磨坊在春天洪水之后重建，新的水车在一个寒冷的早晨第一次转动，村里大多数人都来观看。"
MANX = "Ta mwyllin er y cheu hoar jeh'n awin, as ta'n wyllar cur lesh arran da'n balley."
ITEMS = ["水车什么时候转动了第一次呢？", "几点？", "Why?", "What turns the wheel of the old mill?"]


def pipeline(folder: Path) -> dict[str, Any]:
    texts = [ENGLISH, f"Menu\nHome\n\n{ENGLISH}", CHINESE, MANX, "!!! ???", "— — —"]
    runs.write_jsonl(folder / "texts" / "a.jsonl", [{"text": text} for text in texts])
    (folder / "items.jsonl").write_text("".join(json.dumps({"question": q}) + "\n" for q in ITEMS))
    steps: list[Any] = [
        {"language": {"paragraphs": True}},
        {"heuristics": {"sets": ["c4"], "thresholds": "by_language"}, "keep": {"c4_sentences": None}},
        {"toxicity": {"by_language": {"en": "toxicity-en"}}},
        {"decontaminate": {"against": [str(folder / "items.jsonl")]}},
        "minhash_dedup",
    ]
    return runs.text_pipeline(folder, steps=steps)


def test_what_steps_cannot_judge_is_counted_and_shown(tmp_path: Path) -> None:
    models.pull("lid.176")
    tree = pipeline(tmp_path)
    made = runs.curate(tmp_path, tree)
    rows = {(row["step"], row["what"]): (row["count"], row["of"]) for row in made.counts["not_judged"]}
    assert rows == {
        ("language", "documents without a line long enough to label"): (2, 6),
        ("language", "lines too short to label"): (4, None),
        ("toxicity", "documents in a language without a model"): (3, 6),
        ("decontaminate", "evaluation items too short to look for"): (2, 4),
        ("minhash_dedup", "documents without a word, which are compared with none"): (2, None),
    }
    console = Console(file=io.StringIO(), width=200)
    show_status(console, run_status(str(tmp_path / "run")))
    assert "not judged by decontaminate: 2 of 4 evaluation items" in console.file.getvalue()  # type: ignore[attr-defined]
    report = Path(write_report(str(tmp_path / "run"))).read_text(encoding="utf-8")
    assert "<h3>Not judged</h3>" in report and "evaluation items too short to look for" in report

    tree["steps"][0] = {"language": {"paragraphs": True}, "keep": {"lines": "language.short_lines < 2"}}
    again = runs.curate(tmp_path, tree)  # with the stored signals, of the documents that reach each step now
    rows = {(row["step"], row["what"]): (row["count"], row["of"]) for row in again.counts["not_judged"]}
    assert not again.computed
    assert rows["language", "lines too short to label"] == (4, None)
    assert rows["toxicity", "documents in a language without a model"] == (3, 5)
