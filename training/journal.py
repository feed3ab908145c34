"""What a run wrote down: metrics.jsonl, a function of configuration and data, and speed.jsonl, what the clock said.

They are two files because the first must come out equal to the bit after any interruption. On resume both are cut back
to the checkpoint, and training writes again what was lost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .evaluate import Score

Report = Callable[[dict[str, Any]], None]


class Journal:
    """The two logs of a run, cut back to iteration `begin` (-1: to nothing) and then appended to, line by line."""

    def __init__(self, run: Path, begin: int, report: Report | None = None) -> None:
        """`report` is called with every entry as well."""
        self._report = report
        for name in ("metrics.jsonl", "speed.jsonl"):
            _truncate(run / name, begin)
        self._metrics = open(run / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._speed = open(run / "speed.jsonl", "a", encoding="utf-8")  # noqa: SIM115

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        self._speed.close()

    def write(self, **entry: Any) -> None:
        """An entry of metrics.jsonl; it has a kind (train, validation) and an iteration."""
        self._metrics.write(json.dumps(entry) + "\n")
        self._metrics.flush()
        if self._report is not None:
            self._report(entry)

    def clock(self, iteration: int, tokens: int, seconds: float) -> None:
        """An entry of speed.jsonl."""
        entry = {"iteration": iteration, "seconds": round(seconds, 4), "tokens_per_s": round(tokens / seconds, 1)}
        self._speed.write(json.dumps(entry) + "\n")
        self._speed.flush()
        if self._report is not None:
            self._report({"kind": "speed", **entry})

    def sync(self) -> None:
        """Before a checkpoint says that these iterations are done, their losses must be on disk."""
        os.fsync(self._metrics.fileno())


def last_scores(run: Path) -> dict[str, Score]:
    """The last evaluation in a run's log, by domain."""
    scores: dict[str, Score] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["kind"] == "validation":
            scores = {name: Score(**s) for name, s in entry["domains"].items()}
    return scores


def _truncate(path: Path, iteration: int) -> None:
    """Keeps the lines up to an iteration, whole or not at all; a last line that a crash cut off goes with the rest."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1].splitlines(keepends=True)
    temporary = path.with_suffix(".tmp")
    with open(temporary, "w", encoding="utf-8") as f:
        f.writelines(line for line in whole if json.loads(line)["iteration"] <= iteration)
        f.flush()
        os.fsync(f.fileno())
    temporary.rename(path)
