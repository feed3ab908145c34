"""Where the CPU time of a run went: every second once, under the name of what used it.

Covers: pipelines/report/curation/cpu_profile.py
"""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.core.errors import UserError
from pipelines.report.curation.cpu_profile import CpuProfile, cpu_profile, html


def task(seconds: float, **parts: float) -> dict[str, object]:
    return {"cost": {"seconds": 2 * seconds, "cpu_seconds": seconds, "parts": parts, "peak_bytes": None}}


def test_seconds_go_to_steps_results_and_the_engine() -> None:
    found = CpuProfile()
    found.add("0: read, language", [task(10.0, **{"step language": 4.0, "read": 3.0}), {"files": []}])
    found.add("minhash_dedup: bands", [task(5.0, read=1.0)])
    found.add("shards: tokenize", [task(2.0)])
    found.add("quantiles of language.score, round 1", [task(1.0)])
    assert found.tasks == 4 and found.total == 18.0
    assert dict(found.seconds) == {
        "step language": 4.0, "read": 4.0, "engine": 3.0, "step minhash_dedup": 4.0, "shards": 2.0,
        "quantiles of rules": 1.0,
    }  # fmt: skip
    assert found.rows()[0][2] == pytest.approx(4 / 18)
    assert "step language" in html(found) and "22.2%" in html(found)


def test_a_directory_without_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished phase"):
        cpu_profile(str(tmp_path))
