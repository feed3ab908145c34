"""Writes the logs of a training run: metrics.jsonl, speed.jsonl and sessions.jsonl.

metrics.jsonl is a function of configuration and data and comes out equal to the bit after any interruption: losses,
evaluations, and an event for everything that the guard did. speed.jsonl holds times and throughput; sessions.jsonl
says when the run was started and how it ended. On resume, and on a rollback, the first two are cut back to the
checkpoint, and training writes again what was lost; goodput is the share of the time since the first start that was
not lost.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from curation.core import atomic_files
from curation.core.jsonl_log import append, read
from training.evaluation.validation_loss import ValidationScore
from training.metrics.log_format import FORMAT, METRICS, SESSIONS, SPEED, check_format

Report = Callable[[dict[str, Any]], None]


class MetricsLog:
    """The logs of a run, cut back to `step` (-1: to nothing) and then appended to, line by line."""

    def __init__(
        self,
        run: Path | None,
        step: int,
        report: Report | None = None,
        *,
        incidents: int = 0,
        ranks: int = 1,
        notes: Sequence[str] = (),
    ) -> None:
        """`run` None: for a rank that keeps no log. `report` is called with every entry as well.

        `notes`: what the user should know of this start; kept with it in sessions.jsonl.

        `incidents`: how many the checkpoint has seen; events of later ones are written again.
        Raises UserError for a run whose logs have another format.
        """
        self._run, self._report = run, report
        self.lost = 0.0  # seconds spent on steps that were cut off, in this session
        if run is not None:
            check_format(run)
            start = {"event": "start", "format": FORMAT, "time": time.time(), "step": max(step, 0), "ranks": ranks}
            append(run / SESSIONS, start | ({"notes": list(notes)} if notes else {}))
            self.truncate(step, incidents)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._metrics.close()
            self._speed.close()

    def truncate(self, step: int, incidents: int) -> None:
        """Removes what came after a step, and the events of all incidents after the first `incidents`."""
        if self._run is None:
            return
        if hasattr(self, "_metrics"):
            self.__exit__()

        def kept(entry: dict[str, Any]) -> bool:
            return bool(entry["step"] <= step and entry.get("incident", 0) <= incidents)

        _filter(self._run / METRICS, kept)
        lost = sum(e["seconds"] for e in _filter(self._run / SPEED, kept))
        self.lost += lost
        if lost:
            append(self._run / SESSIONS, {"event": "lost", "seconds": round(lost, 4), "step": step})
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

    def write_speed(self, step: int, seconds: float, figures: dict[str, float]) -> None:
        """An entry of speed.jsonl; `figures`: those of `cost_model.LiveStats`."""
        if self._run is None:
            return
        entry = {"step": step, "seconds": round(seconds, 4), **figures}
        self._speed.write(json.dumps(entry) + "\n")
        self._speed.flush()
        if self._report is not None:
            self._report({"kind": "speed", **entry})

    def end_session(self, event: str, step: int) -> None:
        """Writes that the session is over: done or preempted."""
        if self._run is not None:
            append(self._run / SESSIONS, {"event": event, "time": time.time(), "step": step, **goodput(self._run)})

    def flush(self) -> None:
        """Puts the metrics on disk: before a checkpoint says that these steps are done."""
        if self._run is not None:
            os.fsync(self._metrics.fileno())


def goodput(run: Path) -> dict[str, float]:
    """The share of the time since the first start that went into steps that were kept, and their seconds.

    Also `lost_seconds`, spent on steps that were done again, and `starts`. Empty before the first start.
    """
    sessions = list(read(run / SESSIONS))
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


def is_evaluated(run: Path, step: int) -> bool:
    """Whether a run's log has the evaluation after a step."""
    return any(e["kind"] == "validation" and e["step"] == step for e in read(run / METRICS))


def last_scores(run: Path) -> dict[str, ValidationScore]:
    """The last evaluation in a run's log, by domain."""
    scores: dict[str, ValidationScore] = {}
    for entry in read(run / METRICS):
        if entry["kind"] == "validation":
            scores = {name: ValidationScore(**s) for name, s in entry["domains"].items()}
    return scores


def _filter(path: Path, kept: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Keeps some of the lines, in one atomic write; returns the others."""
    entries = list(read(path))
    atomic_files.write(path, "".join(json.dumps(e) + "\n" for e in entries if kept(e)).encode())
    return [e for e in entries if not kept(e)]
