"""Report section: the distribution of every signal, kept and dropped documents stacked, with the rules' thresholds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.curation.report_data import ReportData
from pipelines.report.curation.thresholds import Threshold
from pipelines.report.html import charts
from pipelines.report.html.charts import Mark, number

BINS = 36
MAX_LENGTH = 64  # characters of a string signal; a longer one is free text (such as a title) and gets no chart
VALUES = 8  # most common values shown of a string signal
_ID = re.compile(r"[0-9a-f]{32}")  # the id of a document, such as the one that another is a duplicate of
_NOT_SIGNALS = ("source", "read")
Floats = npt.NDArray[np.float64]


@dataclass
class Histogram:
    """The distribution of a numeric signal. `edges` has one more value than the counts; outer bins include outliers."""

    edges: Floats
    log: bool
    kept: npt.NDArray[np.int64]
    dropped: npt.NDArray[np.int64]
    nulls: int = 0

    @property
    def integer_bins(self) -> bool:
        """Whether there is one bin for each integer."""
        return bool(self.edges[0] % 1 == 0.5 and (np.diff(self.edges) == 1).all())

    @property
    def axis_labels(self) -> tuple[str, str]:
        """The labels at both ends of the axis."""
        off = 0.5 if self.integer_bins else 0.0
        return number(float(self.edges[0]) + off), number(float(self.edges[-1]) - off)

    def bin_label(self, first: int, end: int | None = None) -> str:
        """The range of bins first to end (exclusive), as text."""
        end = first + 1 if end is None else end
        low, high = float(self.edges[first]), float(self.edges[end])
        if self.integer_bins:
            low, high = low + 0.5, high - 0.5
        return number(low) if low == high else f"{number(low)} to {number(high)}"

    def position(self, x: float) -> float:
        """The position of a value on the axis, 0 at the left end to 1."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        if self.log:
            low, high, x = np.log(low), np.log(high), np.log(max(x, low))
        return min(1.0, max(0.0, (x - low) / (high - low)))


def bin_edges(values: Floats, include: Sequence[float] = ()) -> tuple[Floats, bool]:
    """(edges of the bins, whether they are logarithmic): from the 0.5th to the 99.5th percentile and the values of
    `include`; logarithmic for a long tail."""
    low, middle, high = np.quantile(values, [0.005, 0.5, 0.995])
    whole = bool((values == np.round(values)).all())
    near = [v for v in include if low - 3 * (high - low) <= v <= high + 3 * (high - low)]
    low, high = min([low, *near]), max([high, *near])
    log = bool(low > 0 and high > 50 * middle)
    if log:
        return np.geomspace(low, high, BINS + 1), True
    if whole and high - low < BINS:
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + 1), False
    if low == high:
        low, high = low - 0.5, high + 0.5
    below = round((near[0] - low) / (high - low) * BINS) if len(near) == 1 else 0
    if below:  # bins end at the threshold
        step = (near[0] - low) / below
        return low + step * np.arange(np.ceil((high - low) / step - 1e-9) + 1), False
    return np.linspace(low, high, BINS + 1), False


def histogram(values: Floats, is_kept: npt.NDArray[np.bool_], include: Sequence[float] = ()) -> Histogram | None:
    """Counts of kept and dropped documents by bin. NaN counts as missing; None if all values are."""
    finite = np.isfinite(values)
    if not finite.any():
        return None
    edges, log = bin_edges(values[finite], include)
    inside = np.clip(values, edges[0], np.nextafter(edges[-1], edges[0]))
    kept, dropped = (np.histogram(inside[finite & which], edges)[0] for which in (is_kept, ~is_kept))
    return Histogram(edges, log, kept, dropped, int((~finite).sum()))


def html(report: ReportData, thresholds: Sequence[Threshold]) -> str:
    """The section: one chart per signal, grouped by step."""
    is_kept = report.is_kept
    groups = []
    for column in report.rows.schema:
        if not pa.types.is_struct(column.type) or column.name in _NOT_SIGNALS:
            continue
        drawn, always = [], []
        for child in column.type:
            dotted = f"{column.name}.{child.name}"
            mine = [t for t in thresholds if t.signal == dotted]
            values = report.signal(dotted)
            same = None if values is None or mine else _constant(values)
            if same is not None:
                always.append(f"{child.name} {number(same)}")
            elif values is not None:
                drawn.append(_number_chart(dotted, values, is_kept, mine))
            elif pa.types.is_string(child.type) or pa.types.is_boolean(child.type):
                drawn.append(
                    _value_chart(dotted, pc.struct_field(report.rows.column(column.name), child.name), is_kept)
                )
        constant = f"<p class=note>Constant in all documents: {escape(', '.join(always))}.</p>" if always else ""
        if any(drawn) or always:
            grid = f'<div class="grid">{"".join(drawn)}</div>{constant}'
            groups.append(f"<div class=signals><h3>{escape(column.name)}</h3>{grid}</div>")
    if not groups:
        return ""
    counted = f"{report.rows.num_rows:,} of {report.records:,}" if report.scale > 1.001 else f"all {report.records:,}"
    return (
        f"<p>Over {counted} records: <b class=keep>kept</b> at the bottom, <b class=gone>dropped</b> by any rule on "
        "top. Vertical lines are the thresholds of rules. A document has signals only of the steps that it reached.</p>"
        '<div class=fields><label for="find-signal">Search for a signal</label> <input id="find-signal" type="search" '
        'autocomplete="off"> <span id="found-signals" class=note role="status"></span></div>' + "".join(groups)
    )


def _number_chart(name: str, values: Floats, is_kept: npt.NDArray[np.bool_], thresholds: Sequence[Threshold]) -> str:
    data = histogram(values, is_kept, [t.value for t in thresholds])
    if data is None:
        return ""
    total = data.kept + data.dropped
    top = max(1, int(total.max()))
    width = charts.SCALE / len(total)
    shapes = []
    for i, (kept, dropped) in enumerate(zip(data.kept.tolist(), data.dropped.tolist(), strict=True)):
        tall, short = charts.SCALE * (kept + dropped) / top, charts.SCALE * kept / top
        shapes.append(
            f"<g><title>{data.bin_label(i)}: {kept:,} kept, {dropped:,} dropped</title>"
            f'<rect class="d" x="{i * width:.1f}" y="{charts.SCALE - tall:.1f}" width="{width * 0.92:.1f}" '
            f'height="{tall - short:.1f}"/><rect class="k" x="{i * width:.1f}" y="{charts.SCALE - short:.1f}" '
            f'width="{width * 0.92:.1f}" height="{short:.1f}"/></g>'
        )
    rules = "; ".join(dict.fromkeys(f"{t.rule}: {_comparison(t)}" for t in thresholds))
    low, high = data.axis_labels
    label = f"{name}: {low} to {high}, at most {top:,} in a bin" + (f"; thresholds {rules}" if rules else "")
    step = max(1, len(total) // 12)
    rows = [
        [
            data.bin_label(i, min(i + step, len(total))),
            f"{int(data.kept[i : i + step].sum()):,}",
            f"{int(data.dropped[i : i + step].sum()):,}",
        ]
        for i in range(0, len(total), step)
    ]
    below = f"<p class=note>{escape(rules)}</p>" if rules else ""
    numbers = charts.table(["range", "kept", "dropped"], rows, (1, 2), f"histogram of {escape(name)}")
    return charts.plot(
        escape(name.partition(".")[2]),
        "".join(shapes),
        label=label,
        height=110,
        x_ticks=[(0.0, low), (1.0, high + (" log" if data.log else ""))],
        y_ticks=[(0.0, f"{top:,}"), (1.0, "0")],
        marks=_marks(data, thresholds),
        below=below + charts.folded("Table", numbers),
        data=f' data-name="{escape(name)}"',
    )


def _comparison(t: Threshold) -> str:
    return f"{t.op} {t.value:,.6g}" + (f" ({t.group})" if t.group else "")


def _marks(data: Histogram, thresholds: Sequence[Threshold]) -> list[tuple[float, Mark]]:
    """The lines of thresholds; one outside the bins is drawn at the border, with an arrow."""
    out = []
    for i, t in enumerate(thresholds):
        place = data.position(t.value)
        arrow = " →" if t.value > data.edges[-1] else " ←" if t.value < data.edges[0] else ""
        crowded = any(abs(place - data.position(o.value)) < 0.3 for k, o in enumerate(thresholds) if k != i)
        label = "" if t.group or crowded else f"{t.op} {number(t.value)}{arrow}"
        out.append((place, Mark(t.value, f"{t.rule}: {t.signal} {_comparison(t)}", label)))
    return out


def _constant(values: Floats) -> float | None:
    """The value of a signal that is the same in all documents, else None."""
    finite = values[np.isfinite(values)]
    return float(finite[0]) if len(finite) and (finite == finite[0]).all() else None


def _value_chart(name: str, column: pa.ChunkedArray, is_kept: npt.NDArray[np.bool_]) -> str:
    """The most common values of a string or boolean signal."""
    if pa.types.is_string(column.type) and (pc.max(pc.utf8_length(column)).as_py() or 0) > MAX_LENGTH:
        return ""
    counters = []
    for which in (is_kept, ~is_kept):
        counted = pc.value_counts(column.filter(pa.array(which)).drop_null()).to_pylist()
        counters.append(Counter({str(c["values"]): int(c["counts"]) for c in counted}))
    kept, dropped = counters
    total = kept + dropped
    unique = len(total) > 20 and max(total.values()) < 3  # such as titles
    if not total or unique or all(_ID.fullmatch(v) for v in total):
        return ""
    most = sorted(total, key=lambda v: (-total[v], v))[:VALUES]
    more = f" <span class=note>{len(total):,} values, the most common ones</span>" if len(total) > VALUES else ""
    drawn = charts.bars(escape(name.partition(".")[2]) + more, [(v, kept[v], dropped[v]) for v in most])
    return drawn.replace("<figure>", f'<figure data-name="{escape(name)}">', 1)
