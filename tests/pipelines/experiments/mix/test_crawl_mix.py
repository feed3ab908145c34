"""A search on a real crawl's domains by the command, on Ray: killed, resumed, asked for something else.

Covers: proxy_workers.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.crawl_mix import curated
from pipelines.experiments.mix import proxy_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def crawl_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("crawl") / "run"
    curated(data / "crawl", run, "docs-00.warc.gz", executor="inline")
    return run


def _file(run: Path, folder: Path, **changes: Any) -> Path:
    quiz = [
        {"question": f"What is {i} and {i}?", "choices": [str(2 * i), str(2 * i + 1)], "answer": 0} for i in range(8)
    ]
    (folder / "quiz.jsonl").write_text("".join(json.dumps(q) + "\n" for q in quiz))
    proxy = {
        "steps": 12,
        "model": {
            "preset": None,
            "num_layers": 1,
            "hidden_size": 32,
            "num_heads": 2,
            "num_kv_heads": 2,
            "intermediate_size": 64,
            "tie_embeddings": True,
        },
        "data": {"seq_len": 64, "max_epochs": 20, "validation": {"again": str(run)}},
        "batch": {"global_size": 4},
        "precision": "fp32",
        "device": "cpu",
        "evaluate": {"every": 6, "sequences": 4, "tasks": [str(folder / "quiz.jsonl")]},
        "checkpoint": {"every": 4, "keep": 1},
    }
    settings = {
        "data": str(run), "proxy": proxy, "runs": 9, "refine": 0, "resamples": 5, "families": ["mixing_law"],
        "confirm": {"seeds": 2, "against": ["natural"]},
    }  # fmt: skip
    file = folder / "mix.yaml"
    file.write_text(yaml.safe_dump(settings | changes))
    return file


def _sessions(out: Path) -> dict[str, list[str]]:
    """What each proxy's own log says of its starts and ends."""
    return {
        f.parent.name: [json.loads(line)["event"] for line in f.read_text().splitlines()]
        for f in (out / "proxies").glob("*/sessions.jsonl")
    }


def test_killed_for_real_and_resumed(
    crawl_run: Path, tmp_path: Path, gristmill: Callable[..., tuple[int, str, str]]
) -> None:
    file, out = _file(crawl_run, tmp_path), tmp_path / "out"
    command = [sys.executable, "-m", "pipelines.cli", "mix", "search", str(file), "--out", str(out)]
    with open(tmp_path / "log", "wb") as log:
        search = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        while sum(s[-1:] == ["done"] for s in _sessions(out).values()) < 3:
            assert search.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        os.killpg(search.pid, signal.SIGKILL)
        search.wait()
    _until_still(out)
    before = _sessions(out)
    done = {name for name, events in before.items() if events[-1] == "done"}
    written = {name: (out / "proxies" / name / "metrics.jsonl").stat().st_mtime_ns for name in done}
    assert 3 <= len(done) < 9

    code, said, err = gristmill("mix", "search", str(file), "--out", str(out), "--executor", "inline")
    assert code == 0, err
    after = _sessions(out)
    assert len(after) == 9 + 2 * 2
    # one that was killed after its last evaluation, or that is needed up to an earlier one alone, has no "done"
    stop = json.loads((out / "swarm.json").read_text())["stop"]
    assert all(events.count("done") <= 1 for events in after.values())
    assert all(proxy_run.finished(str(out / "proxies" / name), stop) for name in after)
    assert all(after[name] == before[name] for name in done)
    assert written == {name: (out / "proxies" / name / "metrics.jsonl").stat().st_mtime_ns for name in done}
    assert "against natural:" in said
    assert "recommended mix minus the other" in (out / "report.html").read_text()

    _file(crawl_run, tmp_path, objective={"kind": "metric", "metric": "quiz.bits_per_byte"})
    code, _, err = gristmill("mix", "search", str(file), "--out", str(out), "--no-confirm", "--quiet", "--json")
    assert code == 0, err
    _file(crawl_run, tmp_path, objective={"kind": "worst", "weights": {"again/code": 1, "servers": 2}})
    code, said, err = gristmill("mix", "search", str(file), "--out", str(out), "--no-confirm", "--quiet", "--json")
    assert code == 0, err
    found = json.loads(said)
    assert found["trained"] == 0 and {"again/code", "servers", "quiz.bits_per_byte"} <= set(found["metrics"])
    assert _sessions(out) == after


def _until_still(out: Path) -> None:
    """Ray's workers end by themselves when their driver is gone; until then they may still write."""
    seen, since = None, time.monotonic()
    while time.monotonic() - since < 5:
        now = {str(f): f.stat().st_mtime_ns for f in out.rglob("*.jsonl")}
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.2)
