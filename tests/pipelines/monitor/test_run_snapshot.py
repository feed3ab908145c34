"""`watch`: a run at work, finished, killed and quarantined, and a training, each readable in 80 columns.

Covers: terminal_view.py, training_progress.py
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from curation.core.errors import UserError
from curation.engine.execution.progress import Silent
from curation.storage import Storage
from pipelines.monitor import terminal_view
from pipelines.monitor.run_snapshot import take_snapshot
from pipelines.monitor.training_progress import TrainingProgress

LONG = "0: read, extract, language, pii, heuristics, datatrove, perplexity, classifier, toxicity, line_dedup"


def look(folder: Path) -> dict[str, Any]:
    """The state at the moment of the last entry of its log: what is seen depends on no clock."""
    log = folder / "log" / "events.jsonl"
    return take_snapshot(str(folder), (log if log.exists() else folder / "metrics.jsonl").stat().st_mtime)


def drawn(seen: dict[str, Any]) -> list[str]:
    """The lines as a terminal of 80 columns has them; none of them may have needed a second row, or be cut."""
    out = {}
    for width in (80, 400):
        console = Console(file=io.StringIO(), width=width, force_terminal=False)
        console.print(terminal_view.render_snapshot(seen), highlight=False)
        out[width] = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert out[80] == out[400], "in 80 columns it looks otherwise than with all the room it wants"
    assert all(len(line) <= 80 for line in out[80])
    return out[80]


def event(at: float, kind: str, phase: str = LONG, **more: Any) -> str:
    return json.dumps({"at": at, "event": kind, "phase": phase, **more}) + "\n"


def at_work(folder: Path) -> Path:
    """A run of 1,000 tasks, 400 done, one far over its time, one that failed."""
    (folder / "log").mkdir(parents=True)
    Storage(str(folder)).write_json(
        "run.json", {"name": "a rather long name of a run of the year 2026", "unread": [], "counts": {}, "done": None}
    )
    size = 256_000_000
    lines = [event(0, "phase", tasks=1000, left=1000, bytes=1000 * size, sizes=[size] * 1000)]
    for i in range(401):
        start = i // 4 * 10.0
        lines.append(event(start, "start", task=f"task{i:020d}.0123456789abcdef", bytes=size, slots=4))
        if i != 3:
            done = {"seconds": 10.0, "peak_bytes": 1_234_567_890, "in": 123_456, "out": 45_678}
            lines.append(event(start + 10, "done", task=f"task{i:020d}.0123456789abcdef", **done))
    lines.append(event(1001, "failed", task="x", reason="OSError('connection reset by peer\\nand a second line', " * 9))
    (folder / "log" / "events.jsonl").write_text("".join(lines) + '{"at": 1001.5, "ev')
    (folder / "poison.jsonl").write_text('{"doc_id": "00", "file": "a", "reason": "b"}\n')
    return folder


def test_at_work(tmp_path):
    run = at_work(tmp_path / "run")
    seen = take_snapshot(str(run), 1002.0)
    (phase,) = seen["phases"]
    assert (phase["done"], phase["tasks"], phase["documents"]) == (400, 1000, 400 * 123_456)
    # three of four slots are free of the slow one: 599 tasks of 10 s each, and one that hangs
    assert phase["left"] == pytest.approx(600 * 10 / 4, rel=0.1)
    assert [r["task"][:8] for r in seen["running"] if r["slow"]] == ["task0000"]
    lines = drawn(seen)
    text = "\n".join(lines)
    assert "running" in lines[0] and "16 min 42 s" in lines[0]
    assert "400/1,000" in text and "102.2" in text and "37%" in text and "1.2 GB" in text
    assert "40% of this phase, about 25 min" in text
    assert "1 of them slow" in text and "expected 10.0 s" in text
    assert "1 task failures, retried" in text
    assert "1 records left out because they made a step crash (poison.jsonl)" in text
    assert "stopped" in drawn(take_snapshot(str(run), 9000.0))[0]


def test_finished_and_quarantined(tmp_path):
    run = at_work(tmp_path / "run")
    made = json.loads((run / "run.json").read_text())
    counts = {"read": {"records": 123_456_789, "unread_bytes": 7}, "kept": 45_678_901}
    unread = [{"path": f"a/very/long/path/{i:04d}/of/a/file.warc.gz", "reason": "truncated " * 20} for i in range(9)]
    Storage(str(run)).write_json("run.json", made | {"counts": counts, "unread": unread})
    text = "\n".join(drawn(take_snapshot(str(run), 1002.0)))
    assert "quarantined" in text and "not read: a/very/long" in text and "and 6 more files not read" in text
    Storage(str(run)).write_json("run.json", made | {"counts": counts, "done": "x"})
    text = "\n".join(drawn(take_snapshot(str(run), 5000.0)))
    assert "done" in text and "123,456,789 records read, 45,678,901 documents kept (37.0%)" in text


def test_many_phases(tmp_path):
    run = at_work(tmp_path / "run")
    lines = []
    for i in range(30):
        name = f"minhash_dedup: a stage of a long name {i}"
        lines.append(event(2000 + i, "phase", name, tasks=1, left=1, bytes=1, sizes=[1]))
        lines.append(event(2000 + i, "start", name, task="0", bytes=1, slots=1))
        lines.append(event(2000.5 + i, "done", name, task="0", seconds=0.5, peak_bytes=5))
    (run / "log" / "events.jsonl").write_text("".join(lines))
    shown = drawn(take_snapshot(str(run), 2030.0))
    assert len(shown) < 20 and any("and 21 shorter phases, 10.5 s in total" in line for line in shown)


def test_a_real_run_while_it_works(small_run, tmp_path):
    """What watch says is looked at after each task: tasks done never go back, and the end is the run's own."""
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.runtime.run import curate

    said: list[dict[str, Any]] = []

    class Look(Silent):
        def task(self, manifest, size):
            said.append(look(tmp_path / "run"))

    pipeline = load_pipeline(str(small_run.parent / "small.yaml"))
    curate(pipeline, str(tmp_path / "run"), executor="inline", progress=Look())
    assert {s["state"] for s in said} == {"running"}
    done = [sum(p["done"] for p in s["phases"]) for s in said]
    assert done == sorted(done) and done[0] == 1
    for s in said:
        drawn(s)
    last = look(tmp_path / "run")
    assert last["state"] == "done" and last["counts"]["kept"] == 32
    first = last["phases"][0]
    assert (first["documents"], first["kept"], first["done"]) == (42, 41, first["tasks"])


def training(folder: Path, steps: int) -> Path:
    folder.mkdir(parents=True)
    domains = {f"domain_of_a_long_name_{d}": {"loss": 3.25} for d in "abc"}
    entries: list[dict[str, Any]] = []
    for i in range(1, steps + 1):
        step = {"loss": 10 - i / 50, "lr": 1e-3, "grad_norm": 1.5, "domains": {"a": 3.0}}
        entries.append({"kind": "train", "step": i, "tokens": 1024 * i, **step})
        if i % 50 == 0:
            entries.append({"kind": "validation", "step": i, "loss": 3.25, "domains": domains})
    entries.append({"kind": "event", "event": "rollback", "step": 40, "confirmed": 48, "blamed": [1, 2]})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    live = {"mfu": 0.42, "mfu_full": 0.45, "of_plan": 1.05, "memory": 69 * 10**9, "memory_of_plan": 0.98}
    speed = [{"step": i, "seconds": 0.5, "tokens_per_s": 2048.0, **live} for i in range(1, steps + 1)]
    (folder / "speed.jsonl").write_text("".join(json.dumps(e) + "\n" for e in speed))
    (folder / "train.yaml").write_text("steps: 400\n")
    return folder


def test_a_training(tmp_path):
    seen = look(training(tmp_path / "open", 300))
    assert seen["left"] == pytest.approx(50) and seen["tokens_per_s"] == 2048
    text = "\n".join(drawn(seen))
    assert "300 of 400 steps, about 50.0 s left" in text and "▁" in text
    assert "MFU 42.0%, 105% of plan; 69.0 GB memory, 98% of plan" in text
    assert "step 48: loss spike, rolled back to step 40, 2 documents masked" in text
    assert drawn(look(training(tmp_path / "done", 400)))[0].endswith("done  3 min 20 s")


def test_the_command(gristmill, tmp_path, small_run):
    code, out, _ = gristmill("watch", str(small_run), "--once")
    assert code == 0 and "42 records read, 32 documents kept (76.2%)" in out
    code, out, _ = gristmill("watch", str(small_run), "--json")
    assert json.loads(out)["state"] == "done"
    code, _, err = gristmill("watch", str(tmp_path), "--once")
    assert code == 2 and "neither run.json nor metrics.jsonl" in err
    with pytest.raises(UserError):
        take_snapshot(str(tmp_path), 0.0)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0], [3, 1, 2], list(range(1000))])
def test_sparklines(values):
    line = terminal_view.sparkline(values, 30)
    assert len(line) == (30 if values else 0)
    assert not values or len(set(values)) == 1 or {line.index("▁") >= 0, "█" in line} == {True}


def test_a_training_says_how_it_goes():
    """On a terminal of 80 columns a bar that stays on its line; elsewhere lines, with the plan beside them."""
    train = {"kind": "train", "step": 1_000, "loss": 3.0}
    speed = {"kind": "speed", "step": 1_000, "seconds": 0.5, "tokens_per_s": 1_234_567.0, "mfu": 0.42}
    speed |= {"mfu_full": 0.45, "of_plan": 1.05, "memory": 69 * 10**9, "memory_of_plan": 0.98}
    scores = {"kind": "validation", "step": 1_000, "domains": {"web": {"loss": 2.5}}}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=80 if terminal else 400, force_terminal=terminal, color_system=None)
        with TrainingProgress(console, 100_000) as lines:
            lines._last_line -= 60
            for entry in (speed, train, scores):
                lines(entry)
        said = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in console.file.getvalue().splitlines()]
        assert "step 1000/100000: validation loss web 2.500" in said
        text = "\n".join(said)
        assert "loss 3.000, 1,234,567 tokens/s, MFU 42.0%" in text and "13 h 45 min left" in text
        assert ("105% of plan; 69.0 GB memory, 98% of plan" in text) is not terminal
        assert not terminal or all(len(line.split("\r")[-1]) <= 80 for line in said)
