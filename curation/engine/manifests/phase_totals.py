"""Sums what the manifests of a map phase count, so that a driver need not keep them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Cost:
    """Seconds and CPU seconds of tasks, summed, and the largest peak memory in bytes; 0 where there is no figure."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0

    def add(self, manifest: Mapping[str, Any]) -> None:
        """Adds the cost of a task, if its manifest has one."""
        cost = manifest.get("cost")
        if cost is not None:
            self.seconds += cost["seconds"]
            self.cpu_seconds += cost["cpu_seconds"]
            self.peak_bytes = max(self.peak_bytes, cost["peak_bytes"] or 0)

    def as_dict(self) -> dict[str, Any]:
        """As it is in run.json."""
        seconds, cpu_seconds = round(self.seconds, 3), round(self.cpu_seconds, 3)
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": self.peak_bytes}


def total_cost(manifests: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The cost of tasks, as `Cost.as_dict`."""
    total = Cost()
    for manifest in manifests:
        total.add(manifest)
    return total.as_dict()


@dataclass
class PhaseTotals:
    """What the tasks of a map phase counted, summed."""

    tasks: int = 0
    rows_in: int = 0
    rows_out: int = 0
    text_bytes: int = 0
    drops: Counter[tuple[str, str]] = field(default_factory=Counter)  # by step and rule
    computed: Counter[str] = field(default_factory=Counter)  # by step, as the following
    replayed: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)
    not_judged: Counter[tuple[str, str]] = field(default_factory=Counter)  # by step and signal
    judged_of: Counter[tuple[str, str]] = field(default_factory=Counter)  # of how many documents
    unread: list[dict[str, Any]] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    # of the phase that reads, by number of the source: records, those that could not be read, and files
    records: Counter[int] = field(default_factory=Counter)
    unreadable: Counter[int] = field(default_factory=Counter)
    unread_files: Counter[int] = field(default_factory=Counter)

    def add(self, manifest: Mapping[str, Any], source: int) -> None:
        """Adds a task; `source`: the number of the source that it reads."""
        self.tasks += 1
        self.rows_in += manifest["in"]
        self.rows_out += manifest["out"]
        self.text_bytes += manifest["text_bytes"]
        for step, rule, n in manifest["drops"]:
            self.drops[step, rule] += n
            if rule == "unreadable":
                self.unreadable[source] += n
        for total, mine in (
            (self.computed, manifest.get("computed")),
            (self.replayed, manifest.get("replayed")),
            (self.domains, manifest["domains"]),
        ):
            if mine:
                total.update(mine)
        for step, signals in manifest.get("not_judged", {}).items():
            for signal, (count, documents) in signals.items():
                self.not_judged[step, signal] += count
                self.judged_of[step, signal] += documents
        self.unread += manifest["unread"]
        self.cost.add(manifest)
        self.records[source] += manifest["in"]
        self.unread_files[source] += len(manifest["unread"])
