"""Report section: core-hours and memory by phase, the slowest tasks, and the cost at a price per core-hour.

The figures come from the manifests of the tasks. A task that was reused from an earlier run counts with its time then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.checked_parquet import CheckedFile
from curation.engine.manifests import phase_records
from curation.storage import Storage
from pipelines.number_format import format_bytes, format_duration
from pipelines.report.curation import cpu_profile
from pipelines.report.curation.cpu_profile import CpuProfile
from pipelines.report.curation.report_data import ReportData
from pipelines.report.html import charts

SLOWEST = 10


@dataclass
class Phase:
    """The cost of a phase: the sum of its tasks."""

    name: str
    tasks: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    longest: float = 0.0
    median: float = 0.0


@dataclass
class Cost:
    """The cost of all phases in the cache; from run.json if the cache is gone."""

    phases: list[Phase]
    slowest: list[tuple[str, str, dict[str, Any]]]  # phase, files read, cost of the task
    cpu: CpuProfile = field(default_factory=CpuProfile)

    @property
    def core_hours(self) -> float:
        return sum(p.seconds for p in self.phases) / 3600


def gather(report: ReportData) -> Cost:
    """Reads the manifests of the finished phases, one at a time."""
    store = Storage(report.run_dir)
    phases, slow, cpu = [], list[tuple[float, str, dict[str, Any]]](), CpuProfile()
    for path in phase_records.paths(store):
        record = phase_records.read(store, path)
        tasks = [t for t in record.tasks.values() if "cost" in t]
        if not tasks:
            continue
        cpu.add(record.name, tasks)
        taken = [float(t["cost"]["seconds"]) for t in tasks]
        phases.append(
            Phase(
                record.name, len(tasks), sum(taken), sum(t["cost"]["cpu_seconds"] for t in tasks),
                max(t["cost"]["peak_bytes"] or 0 for t in tasks), max(taken), float(np.median(taken)),
            )
        )  # fmt: skip
        slow += [(t["cost"]["seconds"], record.name, t) for t in tasks]
        slow = sorted(slow, key=lambda s: -s[0])[:SLOWEST]
    if not phases:
        phases = [
            Phase(p["phase"], p["tasks"], p["seconds"], p["cpu_seconds"], p["peak_bytes"]) for p in report.run["phases"]
        ]
    phases.sort(key=lambda p: -p.seconds)
    named = [
        (phase, ", ".join(_files_read(store, t)) or f"task {t.get('index', t.get('key'))}", t["cost"])
        for _, phase, t in slow
    ]
    return Cost(phases, named, cpu)


def _files_read(store: Storage, task: dict[str, Any], most: int = 2) -> Iterator[str]:
    """The files that a map task read, from the source column of its documents."""
    files = task.get("state", {}).get("base", [])[:1]
    if not files or not store.exists(files[0]):
        return
    with CheckedFile(store, files[0]) as f:
        column = pq.read_table(f, columns=["source"], use_threads=False).column("source")
    names = pc.unique(pc.struct_field(column, "file")).to_pylist()
    yield from names[:most]
    if len(names) > most:
        yield f"{len(names) - most:,} more"


def html(report: ReportData, cost: Cost, price: float | None) -> str:
    """The section. `price`: of a core-hour, in any currency."""
    total = sum(p.seconds for p in cost.phases)
    read = sum(i["bytes"] for i in report.run.get("inputs", []))
    summary = f"{cost.core_hours:.3g} core-hours for {format_bytes(read)} of input files"
    summary += f", {format_bytes(read / total)}/s per core" if total else ""
    if price is not None:
        money = cost.core_hours * price
        each = report.run["counts"].get("text_bytes", 0) / 1e12
        summary += f"; {money:,.2f} at {price:g} per core-hour" + (
            f", {money / each:,.0f} per TB of kept text" if each else ""
        )
    rows = [
        [escape(p.name), f"{p.tasks:,}", format_duration(p.seconds), f"{p.cpu / p.seconds:.0%}" if p.seconds else "",
         format_duration(p.longest) if p.longest else "", f"{p.longest / p.median:.1f}×" if p.median else "",
         format_bytes(p.peak) if p.peak else ""]
        for p in cost.phases
    ]  # fmt: skip
    head = ["phase", "tasks", "task time", "CPU", "slowest task", "slowest / median", "peak memory"]
    shown = rows[:12]
    parts = [f"<p>{summary}.</p>", charts.table(head, shown, range(1, 7), "phases by task time")]
    if len(rows) > len(shown):
        parts.append(
            charts.folded(
                f"{len(rows) - len(shown)} more phases", charts.table(head, rows[12:], range(1, 7), "further phases")
            )
        )
    if cost.cpu.tasks:
        parts.append(cpu_profile.html(cost.cpu))
    if cost.slowest:
        slow = [[escape(what), escape(phase), format_duration(c["seconds"]), format_duration(c["cpu_seconds"]),
                 format_bytes(c["peak_bytes"]) if c["peak_bytes"] else ""]
                for phase, what, c in cost.slowest]  # fmt: skip
        parts.append("<h3>Slowest tasks</h3>" + charts.table(
            ["input", "phase", "time", "CPU", "peak memory"], slow, (2, 3, 4), "slowest tasks"))  # fmt: skip
    return "".join(parts)
