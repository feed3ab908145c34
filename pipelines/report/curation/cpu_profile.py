"""Says where the CPU time of a curation run went: by step, rules, reading, writing, scrubbing, start-up and the engine.

The figures are counters in the manifests of tasks (engine/tasks/task_cost.py). A task that was reused from an earlier
run counts with its time then; what the driver does between tasks is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from curation.core.errors import UserError
from curation.engine.manifests import phase_records
from curation.storage import Storage
from pipelines.number_format import format_duration
from pipelines.report.html import charts

# Parts that are no steps, and what each is
PARTS = {
    "read": "reading and decoding of input and of stored columns",
    "write": "encoding and writing of stored columns",
    "rules": "evaluation of rules",
    "scrub": "personal data in URLs, metadata and reasons",
    "start-up": "loading of models and imports of steps, once a worker process",
    "engine": "the rest of the tasks: joins, hashes, manifests",
    "tokenizer": "samples and training of the tokenizer",
    "documents": "files of kept documents",
    "shards": "tokenizing, order and files of shards",
    "ledger": "the ledger and its indexes",
}
RESULT = ("tokenizer", "documents", "shards", "ledger")  # names before a colon that are no steps


@dataclass
class CpuProfile:
    """CPU seconds of the tasks of a run, by part of the work."""

    seconds: Counter[str] = field(default_factory=Counter)
    tasks: int = 0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    def add(self, phase: str, tasks: Iterable[Mapping[str, Any]]) -> None:
        """Adds the tasks of a phase. A stage of a global step (`minhash_dedup: bands`) counts for its step."""
        step, colon, _ = phase.partition(": ")
        of_step = (step if step in RESULT else f"step {step}") if colon and not step.isdigit() else ""
        of_step = "quantiles of rules" if phase.startswith("quantiles of ") else of_step
        for task in tasks:
            cost = task.get("cost")
            if cost is None:
                continue
            self.tasks += 1
            parts = dict(cost.get("parts", {}))
            rest = max(0.0, cost["cpu_seconds"] - sum(parts.values()))
            self.seconds.update(parts)
            self.seconds[of_step or "engine"] += rest

    def rows(self) -> list[tuple[str, float, float]]:
        """(part, CPU seconds, share of all), the largest first."""
        total = self.total or 1.0
        return [(name, s, s / total) for name, s in self.seconds.most_common() if s > 0]


def cpu_profile(run_dir: str) -> CpuProfile:
    """Reads the manifests of the finished phases, one at a time. Raises UserError where the run has none."""
    store, found = Storage(run_dir), CpuProfile()
    for path in phase_records.paths(store):
        record = phase_records.read(store, path)
        found.add(record.name, record.tasks.values())
    if not found.tasks:
        raise UserError(
            f"{run_dir} has no finished phase with figures of cost: expected the directory of a curation run whose "
            "cache is still there"
        )
    return found


def html(profile: CpuProfile) -> str:
    """The table of the report."""
    rows = [[escape(name), f"{format_duration(s)}", f"{share:.1%}", PARTS.get(name, "")]
            for name, s, share in profile.rows()]  # fmt: skip
    return "<h3>CPU time by part</h3>" + charts.table(["part", "CPU", "share", ""], rows, (1, 2), "CPU time by part")
