"""Names and format version of a training run's logs, and the refusal of logs that another version wrote.

Imports no torch: reports and the monitor read logs on machines without it.
"""

from __future__ import annotations

from pathlib import Path

from curation.core import jsonl_log
from curation.core.errors import UserError

METRICS, SPEED, SESSIONS = "metrics.jsonl", "speed.jsonl", "sessions.jsonl"
FORMAT = 2  # of all three, written at every start in sessions.jsonl


def check_format(run: Path) -> None:
    """Raises UserError for a run whose logs have another format; a run without sessions.jsonl passes."""
    first = next(jsonl_log.read(run / SESSIONS), None)
    if first is None:  # not started, or its first line is incomplete
        return
    found = first.get("format", 1)
    if found != FORMAT:
        raise UserError(
            f"{run}: its logs have format {found}, this version reads format {FORMAT}; "
            "train it again in a new directory, or use the version that wrote it"
        )
