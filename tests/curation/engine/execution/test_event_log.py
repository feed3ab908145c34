"""The log of a run on an object store: numbered objects, read as one log; `watch` shows open tasks there too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.engine.execution import event_log
from curation.engine.execution.event_log import EventLog
from curation.engine.execution.progress import Silent
from curation.storage import Storage
from pipelines.monitor.run_snapshot import take_snapshot
from tests.curation.engine import tiny
from tests.curation.engine.runtime.test_s3 import bucket, server

__all__ = ["bucket", "server"]


def test_sessions_go_on_where_the_last_one_ended(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same events on a disk and on S3. On S3 a session makes an object at once, and then every ten seconds."""
    clock = [100.0]
    monkeypatch.setattr(event_log.time, "monotonic", lambda: clock[0])
    seen = {}
    for root in (str(tmp_path), f"{bucket}/run"):
        store = Storage(root)
        (tmp_path / "log").mkdir(exist_ok=True)
        assert list(event_log.read(store)) == []
        for session in range(2):
            log = EventLog(store)
            for task in range(40):
                log.add("start", task=f"{session}.{task}", reason="https://me:secret@example.org/ fails")
                clock[0] += 1.0
                log.flush()
            log.close()
        seen[root] = [(e["event"], e["task"], e["reason"]) for e in event_log.read(store)]
    here, there = seen.values()
    assert here == there and len(there) == 80 and "secret" not in str(there)
    names = Storage(f"{bucket}/run").names("log")
    assert [name.split("-")[1] for name in names] == [f"{i:06d}" for i in range(len(names))]
    assert len(names) == 2 * 5, "at once, after 10, 20 and 30 seconds, and at the end"


def test_two_drivers_at_once_overwrite_nothing_of_each_others_log(bucket: str) -> None:
    """As when one was believed dead and goes on."""
    store = Storage(f"{bucket}/run")
    first, second = EventLog(store), EventLog(store)
    for number in range(3):
        for name, log in (("first", first), ("second", second)):
            log.add("start", task=f"{name} {number}")
            log.flush(now=True)
    assert len({e["task"] for e in event_log.read(store)}) == 6


def test_a_store_that_refuses_the_log_does_not_end_the_run(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Storage(f"{bucket}/run")
    log = EventLog(store)
    write, refused = Storage.write_bytes, [1]

    def refuse(self: Storage, path: str, data: bytes) -> Any:
        if refused:
            refused.pop()
            raise OSError("SlowDown: Please reduce your request rate")
        return write(self, path, data)

    monkeypatch.setattr(Storage, "write_bytes", refuse)
    log.add("phase", phase="x")
    log.close()
    assert [e["event"] for e in event_log.read(store)] == ["phase"]
    monkeypatch.setattr(Storage, "write_bytes", lambda *given: 1 / 0)
    log.add("phase", phase="y")
    with pytest.raises(ZeroDivisionError):
        log.close()


def test_watch_shows_a_run_on_s3_while_it_works(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Phases, what is running and for how long, and the same end as on a disk."""
    monkeypatch.setattr(event_log, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(event_log, "SHARE", 0.0)
    tiny.write_input(tmp_path / "in", documents=8)
    run, said, looked = f"{bucket}/run", [], [0]

    class Look(Silent):
        def start(self, task: int, size: int, slots: int) -> None:
            looked[0] += 1
            if looked[0] % 7:
                return
            last = max(e["at"] for e in event_log.read(Storage(run)))
            said.append(take_snapshot(run, last + 100.0))

    file = tiny.write_pipeline(tmp_path)
    lines = [line for line in file.read_text().splitlines(True) if not line.startswith(("tokenizer", "shards"))]
    file.write_text("".join(lines))
    tiny.run(file, run, progress=Look())
    assert {s["state"] for s in said} == {"running"}
    assert all(len(s["running"]) == 1 and s["running"][0]["seconds"] == 100.0 for s in said)
    assert len(said) >= 2
    tiny.run(file, tmp_path / "run")
    ends = [take_snapshot(str(r), 0.0) for r in (run, tmp_path / "run")]
    for end in ends:
        assert end["state"] == "done"
    shown = [[(p["phase"], p["tasks"], p["done"], p["documents"], p["kept"]) for p in e["phases"]] for e in ends]
    assert shown[0] == shown[1] and len(shown[0]) > 8
