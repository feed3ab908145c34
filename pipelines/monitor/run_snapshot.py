"""Takes a snapshot of a run, finished or running, from the files that it writes (`gristmill watch`).

For a curation run these are run.json and the log of events (a phase begins; a task starts, is done, or failed), for a
training run its logs. A snapshot is plain data; terminal_view.py draws it. The run is never contacted or delayed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.core.errors import UserError
from curation.engine.execution import event_log
from curation.engine.execution.poison_list import FILE as POISON
from curation.storage import Storage
from pipelines.lookup import training_run
from pipelines.monitor.eta import Estimate

SLOW = 3.0  # a task is slow if it takes this many times what its size suggests
QUIET = 600.0  # seconds without a line in the log: the run was stopped, or is in one very long task
RECENT = 5  # failures and events shown


@dataclass
class PhaseState:
    """The state of a phase, from the log."""

    name: str
    tasks: int
    done: int
    began: float
    estimate: Estimate
    seconds: float = 0.0  # of its tasks
    read: int = 0
    kept: int = 0
    peak: int = 0
    last: float = 0.0

    def as_dict(self, now: float) -> dict[str, Any]:
        spent = max(1e-3, (now if self.done < self.tasks else self.last) - self.began)
        return {
            "phase": self.name, "tasks": self.tasks, "done": self.done, "seconds": round(spent, 3),
            "task_seconds": round(self.seconds, 3),
            "bytes": self.estimate.bytes if self.estimate.total > self.estimate.count else None,
            "of_bytes": self.estimate.total if self.estimate.total > self.estimate.count else None,
            "documents": self.read, "kept": self.kept, "peak_bytes": self.peak,
            "left": self.estimate.left(now) if self.done < self.tasks else 0.0,
        }  # fmt: skip


@dataclass
class Log:
    """The driver's events, summed up."""

    phases: list[PhaseState] = field(default_factory=list)
    failed: list[dict[str, Any]] = field(default_factory=list)
    last: float = 0.0

    def add(self, e: Mapping[str, Any]) -> None:
        """Adds one event of the log."""
        at = float(e["at"])
        self.last = max(self.last, at)
        if e["event"] == "phase":
            estimate = Estimate(e["sizes"], e["bytes"], e["left"])
            self.phases.append(PhaseState(e["phase"], e["tasks"], e["tasks"] - e["left"], at, estimate, last=at))
        elif not self.phases or self.phases[-1].name != e["phase"]:
            return  # from a driver that did not log the start of phases
        elif e["event"] == "start":
            self.phases[-1].estimate.start(e["task"], e["bytes"], e["slots"], at)
        elif e["event"] == "done":
            phase = self.phases[-1]
            phase.done, phase.last = phase.done + 1, at
            phase.seconds += e.get("seconds", 0.0)
            phase.read += e.get("in", 0)
            phase.kept += e.get("out", 0)
            phase.peak = max(phase.peak, e.get("peak_bytes") or 0)
            phase.estimate.done(e["task"], 0, e.get("seconds"), at)
        elif e["event"] == "failed":
            self.failed.append({"phase": e["phase"], "task": e["task"], "reason": e.get("reason"), "at": at})


def take_snapshot(run_dir: str, now: float) -> dict[str, Any]:
    """The state of a run. `now`: seconds since 1970. Raises UserError for a directory without a run."""
    if Storage(run_dir).exists("run.json"):
        return _snapshot_curation(run_dir, now)
    if training_run.is_training(run_dir):
        return _snapshot_training(run_dir, now)
    raise UserError(
        f"{run_dir} is not a run: it has neither run.json nor metrics.jsonl\n"
        "  give the output directory of gristmill curate or gristmill train"
    )


def _snapshot_curation(run_dir: str, now: float) -> dict[str, Any]:
    """The state of a curation run. Shows the phases of the newest session in the log."""
    store = Storage(run_dir)
    run = store.read_json("run.json")
    log = Log()
    for e in event_log.read(store):
        log.add(e)
    finished = run.get("done") is not None
    ended = "quarantined" if run.get("unread") else "stopped" if run.get("stopped") else ""
    state = "done" if finished else ended or "running"
    if state == "running" and now - log.last > QUIET:
        state = "stopped, or in a long task"
    at = log.last if finished else now
    # a phase that an earlier session left unfinished is done by now, or no longer in the plan
    newest = {p.name: p for p in log.phases if p.done == p.tasks or p is log.phases[-1]}
    phases = [p.as_dict(at) for p in newest.values()] or [_finished_phase(p) for p in run.get("phases", [])]
    return {
        "kind": "curation",
        "name": run.get("name", ""),
        "run": run_dir,
        "state": state,
        "seconds": round(at - log.phases[0].began, 3) if log.phases else 0.0,
        "phases": phases,
        "running": _running(log, at) if not finished and not ended else [],
        "failed": log.failed[-RECENT:],
        "failures": len(log.failed),
        "unread": run.get("unread", []),
        "stopped": run.get("stopped"),
        "poison": store.read_bytes(POISON).count(b"\n") if store.exists(POISON) else 0,
        "peak_bytes": max((p.peak for p in newest.values()), default=0),
        "counts": run.get("counts") or {},
    }


def _finished_phase(p: Mapping[str, Any]) -> dict[str, Any]:
    """A phase as run.json has it, for a run whose log is gone."""
    return {
        "phase": p["phase"], "tasks": p["tasks"], "done": p["tasks"], "seconds": p["seconds"],
        "task_seconds": p["seconds"], "bytes": None, "of_bytes": None, "documents": 0, "kept": 0,
        "peak_bytes": p["peak_bytes"], "left": 0.0,
    }  # fmt: skip


def _running(log: Log, now: float) -> list[dict[str, Any]]:
    """The running tasks, slow ones first; `slow`: it takes far longer than its size suggests."""
    if not log.phases or log.phases[-1].done == log.phases[-1].tasks:
        return []
    rows = [
        {"task": str(task), "seconds": round(took, 1), "expected": None if expected is None else round(expected, 1),
         "slow": expected is not None and took > SLOW * max(expected, 1.0)}
        for task, took, expected in log.phases[-1].estimate.running(now)
    ]  # fmt: skip
    return sorted(rows, key=lambda r: (not r["slow"], -float(str(r["seconds"]))))


def _mean_rate(values: Sequence[float]) -> float:
    """The harmonic mean, which is that of what is done over the time it takes; 0 for none, or where one is 0."""
    return len(values) / sum(1 / v for v in values) if values and all(values) else 0.0


def _snapshot_training(folder: str, now: float) -> dict[str, Any]:
    """The state of a training run."""
    t = training_run.read(folder)
    ended = bool(t.planned) and t.step >= (t.planned or 0)
    recent = [v for _, v in t.speed[-50:]]
    rate = _mean_rate(recent)
    of = zip(("mfu", "mfu_full", "of_plan"), zip(*t.efficiency[-50:], strict=True), strict=False)
    efficiency = {key: round(_mean_rate(values), 4) for key, values in of}  # over the same steps as the rate
    each = t.tokens / t.step if t.step else 0
    left = None if not (t.planned and rate) else max(0, t.planned - t.step) * each / rate
    touched = os.path.getmtime(os.path.join(folder, "metrics.jsonl")) if t.train or t.scores else now
    quiet = now - touched > QUIET
    return {
        "kind": "training",
        "name": t.name,
        "run": folder,
        "state": "done" if ended else "stopped, or in a long evaluation" if quiet else "running",
        "step": t.step,
        "planned": t.planned,
        "tokens": t.tokens,
        "tokens_per_s": round(rate, 1),
        **{key: efficiency.get(key) for key in ("mfu", "mfu_full", "of_plan")},
        **{key: t.latest_speed.get(key) for key in ("memory", "memory_of_plan")},
        "seconds": round(t.seconds, 3),
        "left": 0.0 if ended else left,
        "curves": {
            "loss": _curve(t.train), **{f"validation {d}": _curve(v) for d, v in sorted(t.validation.items())},
            "gradient norm": _curve(t.grad_norm), "learning rate": _curve(t.lr), "tokens/s": _curve(t.speed),
            "MFU": _curve(t.mfu), "update ratio": _curve(t.update_ratio),
        },
        "events": [training_run.describe_event(e) for e in t.events[-RECENT:]],
        "masked": max((len(i["masked"]) for i in t.incidents), default=0),
    }  # fmt: skip


def _curve(line: Iterable[tuple[int, float]], most: int = 400) -> list[float]:
    """A curve as at most `most` values."""
    from pipelines.report.html.charts import downsample

    return [float(f"{y:.6g}") for _, y in downsample(list(line), most)]
