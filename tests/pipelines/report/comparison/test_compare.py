"""`compare`: runs of one kind side by side, on a terminal, as JSON and as a page.

Covers: page.py
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from curation.config.load_pipeline import load_pipeline
from curation.core.errors import UserError
from curation.engine.runtime.run import curate
from pipelines.report.comparison import compare


@pytest.fixture(scope="module")
def strict(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run again, with another threshold."""
    run = tmp_path_factory.mktemp("strict") / "run"
    sets = ["steps.Length.keep.short=length.chars >= 59"]
    pipeline = load_pipeline(str(small_run.parent / "small.yaml"), sets=sets)
    assert curate(pipeline, str(run), executor="inline").exit_code == 0
    return run


def test_curations(small_run, strict, gristmill, tmp_path):
    code, out, _ = gristmill("compare", small_run, strict, "--json")
    found = json.loads(out)
    figures = {(f["group"], f["what"]): f["values"] for f in found["figures"]}
    assert code == 0 and found["kind"] == "curation"
    assert figures["totals", "records read"] == [42, 42]
    assert figures["dropped", "exact_dedup: exact_duplicate"] == [9, None]  # all ten went by length
    assert figures["dropped", "length: short"] == [1, 11]
    assert figures["totals", "documents kept"] == [32, 31]
    assert [s["what"] for s in found["settings"]] == ["steps.length.rules.short"]
    assert found["settings"][0]["values"] == ["length.chars >= 20", "length.chars >= 59"]
    code, out, _ = gristmill("compare", small_run, strict)
    assert "documents kept" in out and "-3.1%" in out and "points" in out and "length.chars >= 59" in out
    code, out, _ = gristmill("compare", small_run, strict, "--out", tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text("utf-8")
    assert code == 0 and "length.chars &gt;= 59" in page and "Content-Security-Policy" in page


def test_trainings(tiny, tmp_path):
    others = [tmp_path / "one", tmp_path / "two"]
    for other in others:
        shutil.copytree(tiny / "train" / "tiny", other)
        (other / "train.yaml").write_text((other / "train.yaml").read_text().replace("lr: 0.1", "lr: 0.2"))
    found = compare.compare_runs([str(tiny / "train" / "tiny"), *map(str, others)])
    assert found.kind == "training" and len(found.sides) == 3
    assert found.settings == [("optimizer.lr", [0.1, 0.2, 0.2])]
    figures = {(g, w): v for g, w, v in found.figures}
    assert figures["validation loss", "web"] == [1.0, 1.0, 1.0]
    from pipelines.report.comparison import page as comparison

    page = comparison.render(found)
    assert page.count("<polyline") == 5 * 3 and "Validation loss: web" in page


def test_what_cannot_be_compared(small_run, tiny, tmp_path):
    for runs, said in (
        ([str(small_run)], "at least two runs"),
        ([str(small_run), str(tiny / "train" / "tiny")], "runs of the same kind"),
        ([str(small_run), str(tmp_path)], "is not a run"),
    ):
        with pytest.raises(UserError, match=said):
            compare.compare_runs(runs)
