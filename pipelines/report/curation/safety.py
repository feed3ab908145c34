"""Personal data, toxicity, leaks of benchmarks: how much there was, and what was done about it."""

from __future__ import annotations

from html import escape

import numpy as np

from pipelines.report.curation.report_data import Findings
from pipelines.report.html.charts import table


def html(found: Findings) -> str:
    """The three tables, each with its heading, as far as the pipeline has such steps."""
    return _pii(found) + _toxicity(found) + _leaks(found)


def _dropped(found: Findings, steps: list[str]) -> int:
    return sum(r["dropped"] for r in found.run["counts"]["steps"] if r["step"] in steps)


def _pii(found: Findings) -> str:
    steps = found.named("pii")
    if not steps or not found.counts.pii:
        return ""
    entities = {k: v for k, v in found.counts.pii.items() if k not in ("total", "spared")}
    rows = [[escape(k.replace("_", " ")), f"{d:,}", f"{n:,}"] for k, (d, n) in entities.items()]
    for key, what in (("total", "replaced in all"), ("spared", "left alone: nobody's")):
        if key in found.counts.pii:
            d, n = found.counts.pii[key]
            rows.append([f"<b>{what}</b>", f"<b>{d:,}</b>", f"<b>{n:,}</b>"])
    gone = _dropped(found, steps)
    said = f"<p>{gone:,} documents were dropped for having too many.</p>" if gone else ""
    return f"<h3>Personal data</h3>{said}" + table(
        ["kind", "documents", "values"], rows, (1, 2), "personal data by kind"
    )


def _toxicity(found: Findings) -> str:
    steps = found.named("toxicity")
    rows = []
    for step in steps:
        values = found.signal(f"{step}.score")
        if values is None or not np.isfinite(values).any():
            continue
        some = values[np.isfinite(values)]
        middle, most, top = np.quantile(some, [0.5, 0.99, 1.0])
        judged = len(some) * found.scale
        gone = _dropped(found, [step])
        rows.append([escape(step), f"{judged:,.0f}", f"{gone:,}", f"{gone / max(1, judged):.2%}",
                     f"{middle:.3f}", f"{most:.3f}", f"{top:.3f}"])  # fmt: skip
    if not rows:
        return ""
    head = ["step", "judged", "dropped", "of judged", "median score", "99 %", "highest"]
    return "<h3>Toxicity</h3>" + table(head, rows, range(1, 7), "toxicity")


def _leaks(found: Findings) -> str:
    steps = found.named("decontaminate")
    if not steps:
        return ""
    rows = [
        [escape(name), escape(part), f"{docs:,.0f}", f"{gone:,.0f}", f"{items:,.0f}", f"{share:.0%}"]
        for (name, part), (docs, gone, items, share) in sorted(found.counts.leaks.items())
    ]
    if not rows:
        return "<h3>Benchmarks</h3><p>No document shares an n-gram with an evaluation set.</p>"
    head = ["benchmark", "field", "documents that overlap", "dropped", "items found", "largest share of an item"]
    return "<h3>Benchmarks</h3>" + table(head, rows, (2, 3, 4, 5), "decontamination by benchmark")
