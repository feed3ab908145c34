"""Report section: sliders that show how many documents would pass at other thresholds.

Counts the documents that reached the step and for which the comparison alone decides (see thresholds.py): those kept in
the end, and those that this rule dropped. A tighter threshold drops documents of the first kind, for certain. A looser
one lets documents of the second kind reach steps that have not seen them: the number that would be kept is estimated
from those that pass the rule today. `gristmill what-if` gives the answer over all documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.config import rules
from curation.core.errors import UserError
from pipelines.report.curation import signals
from pipelines.report.curation.report_data import ReportData
from pipelines.report.curation.thresholds import Threshold

STOPS = 160  # positions of a slider
BATCH = 1 << 15


def slider_data(report: ReportData, thresholds: Sequence[Threshold]) -> list[dict[str, Any]]:
    """An entry for each threshold that can be moved and decides for some document, in the order of the pipeline."""
    order = {s["name"]: i for i, s in enumerate(report.steps)}
    ended = np.array(
        [order.get(s, -1) if s is not None else len(order) for s in report.rows.column("step").to_pylist()]
    )
    rule = np.array(report.rows.column("rule").to_pylist(), dtype=object)
    out = []
    for step in dict.fromkeys(t.step for t in thresholds):
        mine = [t for t in thresholds if t.step == step and t.movable and report.signal(t.signal) is not None]
        try:
            decides = _decided_alone(report.rows, mine)
        except UserError:  # a rule on columns that the ledger does not have
            continue
        for t, alone in zip(mine, decides, strict=True):
            reached = ended >= order[step]
            values = report.signal(t.signal)
            assert values is not None
            out.append(_entry(report, t, values, reached & alone, (ended == order[step]) & (rule == t.rule) & alone,
                              reached & ~((ended == order[step]) & (rule == t.rule))))  # fmt: skip
    return [e for e in out if len(e["stops"]) > 1]


def _decided_alone(rows: pa.Table, thresholds: Sequence[Threshold]) -> list[np.ndarray[Any, np.dtype[np.bool_]]]:
    """For each threshold the rows for which its comparison alone decides the rule."""
    if not thresholds:
        return []
    asked = rules.Expressions({f"t{i}": t.alone for i, t in enumerate(thresholds)}, rules.flatten(rows.schema))
    heads = list(dict.fromkeys(c.partition(".")[0] for c in asked.columns))
    parts: list[list[Any]] = [[] for _ in thresholds]
    for batch in rows.select(heads).to_batches(max_chunksize=BATCH):
        for part, array in zip(parts, asked.compute(batch), strict=True):
            part.append(np.asarray(array.fill_null(False)))
    return [np.concatenate(p) if p else np.zeros(0, bool) for p in parts]


def _entry(
    report: ReportData, t: Threshold, values: Any, alone: Any, dropped: Any, passes: Any
) -> dict[str, Any]:  # fmt: skip
    kept = alone & report.is_kept
    some = np.isfinite(values) & (kept | dropped)
    stops = _stops(values[some], t)
    today = int(np.searchsorted(stops, t.value))
    tokens = np.nan_to_num(report.sizes.tokens)
    drawn = signals.histogram(values[kept | dropped], report.is_kept[kept | dropped], [t.value])
    if drawn is None:
        return {"stops": []}
    counted = passes.sum()
    return {
        "step": t.step,
        "rule": t.rule,
        "signal": t.signal,
        "op": t.op,
        "value": t.value,
        "template": t.template,
        "stops": stops.tolist(),
        "today": today,
        "kept": _passing(values[kept], None, stops, t.op, report.scale),
        "tokens": _passing(values[kept], tokens[kept], stops, t.op, report.scale),
        "back": _passing(values[dropped], None, stops, t.op, report.scale),
        "stay": round(float((passes & report.is_kept).sum() / counted), 4) if counted else 0.0,
        "edges": [float(f"{e:.6g}") for e in drawn.edges],
        "log": drawn.log,
        "bins": [[int(k), int(d)] for k, d in zip(drawn.kept, drawn.dropped, strict=True)],
    }


def _stops(values: Any, t: Threshold) -> Any:
    """Slider positions: values spread evenly by rank and by range, and the threshold itself; sorted."""
    different = np.unique(values)
    if len(different) > STOPS:
        by_rank = different[np.linspace(0, len(different) - 1, STOPS // 2).round().astype(int)]
        even = np.linspace(different[0], different[-1], STOPS // 2)
        by_value = different[np.minimum(np.searchsorted(different, even), len(different) - 1)]
        different = np.unique(np.concatenate((by_rank, by_value)))
    return np.unique(np.append(different, t.value))


def _passing(values: Any, weights: Any, stops: Any, op: str, scale: float) -> list[int]:
    """The documents (or their weight) that would pass at each stop."""
    order = np.argsort(values)
    sums = np.concatenate(([0.0], np.cumsum(np.ones(len(values)) if weights is None else weights[order])))
    ordered = values[order]
    ordered = ordered[~np.isnan(ordered)]  # NaN sorts to the end and never passes
    total = sums[len(ordered)]
    below = sums[np.searchsorted(ordered, stops, side="left")]  # of those < stop
    upto = sums[np.searchsorted(ordered, stops, side="right")]  # of those <= stop
    passing = {">=": total - below, ">": total - upto, "<=": upto, "<": below}[op]
    return [round(float(p) * scale) for p in passing]


PANEL = """<div class=tool id="what-if-tool" hidden><div class=fields>
<div class=grow><label for="what-if-rule">Threshold</label><select id="what-if-rule"></select></div>
<button id="what-if-back" type="button">Reset</button></div>
<div class="axes bare" style="--h:150px"><div class=field><svg id="what-if-chart" role="img"
aria-label="documents that this threshold decides, by signal value" viewBox="0 0 1000 1000" preserveAspectRatio="none">
</svg></div><div class=xs><span class=first style="left:0" id="what-if-low"></span><span class=last style="left:100%"
id="what-if-high"></span></div></div>
<label for="what-if-value">New threshold: <b id="what-if-shown"></b></label>
<input id="what-if-value" type="range" min="0" max="1" step="1">
<p id="what-if-answer" class=answer role="status"></p>
<p class=note>Over all documents, by domain and language, with examples:<br><code id="what-if-command"></code></p></div>
<noscript><p>The sliders need JavaScript; <code>gristmill what-if</code> is the same in a terminal.</p></noscript>"""


def html(entries: Sequence[dict[str, Any]]) -> str:
    """The section: a panel that what_if.js fills."""
    note = (
        "<p>The chart shows the documents for which this threshold alone decides: <b class=keep>kept</b> in the end, "
        "and <b class=gone>dropped</b> by this rule. The dashed line is the current threshold.</p>"
    )
    return note + PANEL if entries else ""
