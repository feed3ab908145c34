"""The commands on a run whose rules dropped everything: status, report, explain, watch, what-if."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.pipelines.conftest import write_inputs


@pytest.fixture
def dropped(gristmill, tmp_path: Path) -> Path:
    write_inputs(tmp_path)
    code, _, error = gristmill(
        "curate", tmp_path / "small.yaml", "--run", tmp_path / "run", "--executor", "inline",
        "--set", "steps.Length.keep.short=length.chars > 9999",
    )  # fmt: skip
    assert code == 2 and "length  short" in error and "length.chars = " in error
    return tmp_path / "run"


def test_commands_work_on_what_was_decided(gristmill, dropped: Path) -> None:
    code, out, _ = gristmill("status", dropped)
    assert code == 0 and "small: stopped" in out and "no documents are left" in out
    code, out, _ = gristmill("watch", dropped, "--once")
    assert code == 0 and "stopped" in out and "no documents are left" in out
    assert json.loads(gristmill("watch", dropped, "--json")[1])["state"] == "stopped"
    code, out, _ = gristmill("explain", dropped, "http://example.com/3?q=<b>&amp;")
    assert code == 0 and "dropped by length, rule short" in out
    code, out, error = gristmill("report", dropped)
    assert code == 0, error
    page = (dropped / "report.html").read_text()
    assert "<b>stopped</b>: no documents are left" in page
    assert "says something of its own" in page  # samples of what was dropped
    code, out, error = gristmill("what-if", dropped, "--set", "short=length.chars >= 20")
    assert code == 0 and "kept after" in out, error
