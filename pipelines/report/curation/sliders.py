"""What the page's slider knows of each threshold: how many documents would pass at every value worth stopping at.

Counted are the documents that reached the step and whose fate the comparison alone decides (see thresholds.py): those
that are kept in the end, and those that this rule dropped. A tighter threshold takes documents of the first kind away,
for certain. A looser one lets documents of the second kind go on to steps that never saw them: how many of them would
stay is expected from those that pass the rule today. `gristmill what-if` gives the answer over all documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.config import rules
from curation.core.errors import UserError
from pipelines.report.curation import signals
from pipelines.report.curation.report_data import Findings
from pipelines.report.curation.thresholds import Threshold

STOPS = 160
BATCH = 1 << 15


def data(found: Findings, thresholds: Sequence[Threshold]) -> list[dict[str, Any]]:
    """An entry a threshold that can be moved and decides something, in the order of the pipeline."""
    order = {s["name"]: i for i, s in enumerate(found.steps)}
    ended = np.array([order.get(s, -1) if s is not None else len(order) for s in found.rows.column("step").to_pylist()])
    rule = np.array(found.rows.column("rule").to_pylist(), dtype=object)
    out = []
    for step in dict.fromkeys(t.step for t in thresholds):
        mine = [t for t in thresholds if t.step == step and t.movable and found.signal(t.signal) is not None]
        try:
            decides = _alone(found.rows, mine)
        except UserError:  # rules over columns that the ledger does not hold
            continue
        for t, alone in zip(mine, decides, strict=True):
            reached = ended >= order[step]
            values = found.signal(t.signal)
            assert values is not None
            out.append(_entry(found, t, values, reached & alone, (ended == order[step]) & (rule == t.rule) & alone,
                              reached & ~((ended == order[step]) & (rule == t.rule))))  # fmt: skip
    return [e for e in out if len(e["stops"]) > 1]


def _alone(rows: pa.Table, thresholds: Sequence[Threshold]) -> list[np.ndarray[Any, np.dtype[np.bool_]]]:
    """For each threshold the rows on which the comparison alone decides its rule."""
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
    found: Findings, t: Threshold, values: Any, alone: Any, dropped: Any, passes: Any
) -> dict[str, Any]:  # fmt: skip
    kept = alone & found.stays
    some = np.isfinite(values) & (kept | dropped)
    stops = _stops(values[some], t)
    today = int(np.searchsorted(stops, t.value))
    tokens = np.nan_to_num(found.sizes.tokens)
    drawn = signals.histogram(values[kept | dropped], found.stays[kept | dropped], [t.value])
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
        "kept": _passing(values[kept], None, stops, t.op, found.scale),
        "tokens": _passing(values[kept], tokens[kept], stops, t.op, found.scale),
        "back": _passing(values[dropped], None, stops, t.op, found.scale),
        "stay": round(float((passes & found.stays).sum() / counted), 4) if counted else 0.0,
        "edges": [float(f"{e:.6g}") for e in drawn.edges],
        "log": drawn.log,
        "bins": [[int(k), int(d)] for k, d in zip(drawn.kept, drawn.dropped, strict=True)],
    }


def _stops(values: Any, t: Threshold) -> Any:
    """Values of documents, evenly over them and over their range, and the threshold itself; sorted."""
    different = np.unique(values)
    if len(different) > STOPS:
        by_rank = different[np.linspace(0, len(different) - 1, STOPS // 2).round().astype(int)]
        even = np.linspace(different[0], different[-1], STOPS // 2)
        by_value = different[np.minimum(np.searchsorted(different, even), len(different) - 1)]
        different = np.unique(np.concatenate((by_rank, by_value)))
    return np.unique(np.append(different, t.value))


def _passing(values: Any, weights: Any, stops: Any, op: str, scale: float) -> list[int]:
    """At each stop the documents (or their weight) that would pass."""
    order = np.argsort(values)
    sums = np.concatenate(([0.0], np.cumsum(np.ones(len(values)) if weights is None else weights[order])))
    ordered = values[order]
    ordered = ordered[~np.isnan(ordered)]  # sorted to the end; they never pass
    total = sums[len(ordered)]
    below = sums[np.searchsorted(ordered, stops, side="left")]  # of those < stop
    upto = sums[np.searchsorted(ordered, stops, side="right")]  # of those <= stop
    passing = {">=": total - below, ">": total - upto, "<=": upto, "<": below}[op]
    return [round(float(p) * scale) for p in passing]


PANEL = """<div class=tool id="what-if-tool" hidden><div class=fields>
<div class=grow><label for="what-if-rule">Threshold</label><select id="what-if-rule"></select></div>
<button id="what-if-back" type="button">Back to today's</button></div>
<div class="axes bare" style="--h:150px"><div class=field><svg id="what-if-chart" role="img"
aria-label="documents that this threshold decides, by its signal" viewBox="0 0 1000 1000" preserveAspectRatio="none">
</svg></div><div class=xs><span class=first style="left:0" id="what-if-low"></span><span class=last style="left:100%"
id="what-if-high"></span></div></div>
<label for="what-if-value">Move it: <b id="what-if-shown"></b></label>
<input id="what-if-value" type="range" min="0" max="1" step="1">
<p id="what-if-answer" class=answer role="status"></p>
<p class=note>By domain and language, with examples, over all documents:<br><code id="what-if-command"></code></p></div>
<noscript><p>The slider needs JavaScript; <code>gristmill what-if</code> answers on the command line.</p></noscript>"""


def html(entries: Sequence[dict[str, Any]]) -> str:
    """The slider's panel, which a script brings to life."""
    said = (
        "<p>Drawn are the documents whose fate this threshold alone decides: <b class=keep>kept</b> in the end, and "
        "<b class=gone>dropped</b> by this rule. The dashed line is today's threshold.</p>"
    )
    return said + PANEL if entries else ""
