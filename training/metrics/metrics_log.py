"""What a run wrote down.

metrics.jsonl is a function of configuration and data and comes out equal to the bit after any interruption: losses,
evaluations, and an event for everything that the guard did. speed.jsonl is what the clock said, sessions.jsonl when the
run was started and how it ended. On resume, and when the guard goes back, the first two are cut back to the checkpoint,
and training writes again what was lost; goodput is the share of the time since the first start that was not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from curation.core import atomic_files
from training.evaluation.validation_loss import ValidationScore

Report = Callable[[dict[str, Any]], None]
METRICS, SPEED, SESSIONS = "metrics.jsonl", "speed.jsonl", "sessions.jsonl"


class Journal:
    """The logs of a run, cut back to step `begin` (-1: to nothing) and then appended to, line by line."""

    def __init__(
        self, run: Path | None, begin: int, report: Report | None = None, *, incidents: int = 0, ranks: int = 1
    ) -> None:
        """`run` None: the log of a rank that keeps none. `report` is called with every entry as well.

        `incidents`: how many the checkpoint knows of; events of later ones are written anew.
        """
        self._run, self._report = run, report
        self.lost = 0.0  # seconds spent on steps that were cut off, in this session
        if run is not None:
            _append(run / SESSIONS, {"event": "start", "time": time.time(), "step": max(begin, 0), "ranks": ranks})
            self.cut(begin, incidents)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._metrics.close()
            self._speed.close()

    def cut(self, step: int, incidents: int) -> None:
        """Forgets what came after a step, and the events of all incidents but the first so many."""
        if self._run is None:
            return
        if hasattr(self, "_metrics"):
            self.__exit__()

        def stays(entry: dict[str, Any]) -> bool:
            return bool(entry["step"] <= step and entry.get("incident", 0) <= incidents)

        _filter(self._run / METRICS, stays)
        lost = sum(e["seconds"] for e in _filter(self._run / SPEED, stays))
        self.lost += lost
        if lost:
            _append(self._run / SESSIONS, {"event": "lost", "seconds": round(lost, 4), "step": step})
        self._metrics = open(self._run / METRICS, "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._speed = open(self._run / SPEED, "a", encoding="utf-8")  # noqa: SIM115

    def write(self, **entry: Any) -> None:
        """An entry of metrics.jsonl; it has a kind (train, validation, event) and a step."""
        if self._run is None:
            return
        self._metrics.write(json.dumps(entry) + "\n")
        self._metrics.flush()
        if self._report is not None:
            self._report(entry)

    def clock(self, step: int, seconds: float, figures: dict[str, float]) -> None:
        """An entry of speed.jsonl; `figures`: those of `forecast.Live`."""
        if self._run is None:
            return
        entry = {"step": step, "seconds": round(seconds, 4), **figures}
        self._speed.write(json.dumps(entry) + "\n")
        self._speed.flush()
        if self._report is not None:
            self._report({"kind": "speed", **entry})

    def end(self, how: str, step: int) -> None:
        """The session is over: done or preempted."""
        if self._run is not None:
            _append(self._run / SESSIONS, {"event": how, "time": time.time(), "step": step, **goodput(self._run)})

    def sync(self) -> None:
        """Before a checkpoint says that these steps are done, their losses must be on disk."""
        if self._run is not None:
            os.fsync(self._metrics.fileno())


def goodput(run: Path) -> dict[str, float]:
    """The share of the time since the first start that went into steps that stand, and the seconds of those.

    Also `lost_seconds`, spent on steps that were done again, and `starts`. Empty before the first start.
    """
    sessions = read(run / SESSIONS)
    starts = [e["time"] for e in sessions if e["event"] == "start"]
    if not starts:
        return {}
    kept = sum(e["seconds"] for e in read(run / SPEED))
    ends = [e["time"] for e in sessions if "time" in e]
    wall = max(time.time() if sessions[-1]["event"] in ("start", "lost") else ends[-1], starts[0]) - starts[0]
    lost = sum(e["seconds"] for e in sessions if e["event"] == "lost")
    share = min(1.0, kept / wall) if wall else 1.0
    return {
        "goodput": round(share, 4),
        "seconds": round(kept, 3),
        "lost_seconds": round(lost, 3),
        "starts": len(starts),
    }


def last_scores(run: Path) -> dict[str, ValidationScore]:
    """The last evaluation in a run's log, by domain."""
    scores: dict[str, ValidationScore] = {}
    for entry in read(run / METRICS):
        if entry["kind"] == "validation":
            scores = {name: ValidationScore(**s) for name, s in entry["domains"].items()}
    return scores


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; what a crash cut off is not one."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def _append(path: Path, entry: dict[str, Any]) -> None:
    whole = path.read_bytes() if path.exists() else b""
    with open(path, "ab") as f:
        if whole and not whole.endswith(b"\n"):  # a crash left half a line
            f.truncate(whole.rfind(b"\n") + 1)
        f.write(json.dumps(entry).encode() + b"\n")


def _filter(path: Path, stays: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Keeps the lines that stay, whole or not at all; returns the others."""
    entries = read(path)
    atomic_files.write(path, "".join(json.dumps(e) + "\n" for e in entries if stays(e)).encode())
    return [e for e in entries if not stays(e)]
