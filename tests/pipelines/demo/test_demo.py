"""The demo on its whole corpus: from the crawl to a report, and nothing is done twice.

A smaller corpus leaves no documentation to train on, so it takes minutes: nightly.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.demo.demo import run_demo

TRAIN = "model: {preset: toy}\nsteps: 2\nbatch: {global_size: 2}\ndata: {seq_len: 32}\n"


@pytest.mark.nightly
def test_the_demo_runs_from_crawl_to_report(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(TRAIN)
    out = io.StringIO()
    report = Path(run_demo(str(tmp_path), executor="inline", console=Console(file=out, width=200)))
    assert report == tmp_path / "run" / "report.html" and report.stat().st_size > 10_000
    assert (tmp_path / "run" / "card.md").exists() and (tmp_path / "run" / "train" / "demo" / "sample.txt").exists()
    assert "5 of 5  write the report" in out.getvalue() and "validation loss" in out.getvalue()
    made = (tmp_path / "prepared" / "reference.arpa").stat().st_mtime_ns
    run_demo(str(tmp_path), executor="inline", console=Console(file=(again := io.StringIO()), width=200))
    assert "nothing to do" in again.getvalue()
    assert (tmp_path / "prepared" / "reference.arpa").stat().st_mtime_ns == made
