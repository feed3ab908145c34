"""Report section: personal data, toxicity and benchmark leaks: what was found and what was done about it."""

from __future__ import annotations

from html import escape

import numpy as np

from pipelines.report.curation.report_data import ReportData
from pipelines.report.html.charts import table


def html(report: ReportData) -> str:
    """The section: a table for each of the three kinds of step that the pipeline has."""
    return _pii(report) + _toxicity(report) + _leaks(report)


def _dropped(report: ReportData, steps: list[str]) -> int:
    return sum(r["dropped"] for r in report.run["counts"]["steps"] if r["step"] in steps)


def _pii(report: ReportData) -> str:
    steps = report.steps_of_kind("pii")
    if not steps or not report.counts.pii:
        return ""
    entities = {k: v for k, v in report.counts.pii.items() if k not in ("total", "spared")}
    rows = [[escape(k.replace("_", " ")), f"{d:,}", f"{n:,}"] for k, (d, n) in entities.items()]
    for key, what in (("total", "replaced in total"), ("spared", "left in place: identifies no person")):
        if key in report.counts.pii:
            d, n = report.counts.pii[key]
            rows.append([f"<b>{what}</b>", f"<b>{d:,}</b>", f"<b>{n:,}</b>"])
    dropped = _dropped(report, steps)
    note = f"<p>{dropped:,} documents were dropped for containing too much personal data.</p>" if dropped else ""
    return f"<h3>Personal data</h3>{note}" + table(
        ["kind", "documents", "values"], rows, (1, 2), "personal data by kind"
    )


def _toxicity(report: ReportData) -> str:
    steps = report.steps_of_kind("toxicity")
    rows = []
    for step in steps:
        values = report.signal(f"{step}.score")
        if values is None or not np.isfinite(values).any():
            continue
        some = values[np.isfinite(values)]
        middle, most, top = np.quantile(some, [0.5, 0.99, 1.0])
        scored = len(some) * report.scale
        gone = _dropped(report, [step])
        rows.append([escape(step), f"{scored:,.0f}", f"{gone:,}", f"{gone / max(1, scored):.2%}",
                     f"{middle:.3f}", f"{most:.3f}", f"{top:.3f}"])  # fmt: skip
    if not rows:
        return ""
    head = ["step", "scored", "dropped", "share dropped", "median score", "99th percentile", "maximum"]
    return "<h3>Toxicity</h3>" + table(head, rows, range(1, 7), "toxicity")


def _leaks(report: ReportData) -> str:
    steps = report.steps_of_kind("decontaminate")
    if not steps:
        return ""
    rows = [
        [escape(name), escape(part), f"{docs:,.0f}", f"{gone:,.0f}", f"{items:,.0f}", f"{share:.0%}"]
        for (name, part), (docs, gone, items, share) in sorted(report.counts.leaks.items())
    ]
    if not rows:
        return "<h3>Benchmark leaks</h3><p>No document shares an n-gram with an evaluation set.</p>"
    head = ["benchmark", "field", "documents with overlap", "dropped", "items found", "largest share of an item"]
    return "<h3>Benchmark leaks</h3>" + table(head, rows, (2, 3, 4, 5), "decontamination by benchmark")
