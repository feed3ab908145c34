"""Every signal's distribution, what was kept below what was dropped, with the thresholds of the rules drawn in."""

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

from pipelines.report.curation.report_data import Findings
from pipelines.report.curation.thresholds import Threshold
from pipelines.report.html import charts as figures
from pipelines.report.html.charts import Mark, number

BINS = 36
LONGEST = 64  # characters of a word; beyond, a signal is text (a title, what was cut) and has no distribution
VALUES = 8  # of a word, shown
_ID = re.compile(r"[0-9a-f]{32}")  # of a document that another is a duplicate of
_NOT_SIGNALS = ("source", "read")
Floats = npt.NDArray[np.float64]


@dataclass
class Histogram:
    """A number's distribution. `edges` has a value more than the counts; the outer bins hold what lies beyond."""

    edges: Floats
    log: bool
    kept: npt.NDArray[np.int64]
    dropped: npt.NDArray[np.int64]
    nulls: int = 0

    @property
    def whole(self) -> bool:
        """A bin for each whole number."""
        return bool(self.edges[0] % 1 == 0.5 and (np.diff(self.edges) == 1).all())

    @property
    def ends(self) -> tuple[str, str]:
        """What the axis says at its ends."""
        off = 0.5 if self.whole else 0.0
        return number(float(self.edges[0]) + off), number(float(self.edges[-1]) - off)

    def bin(self, first: int, end: int | None = None) -> str:
        """Bins first to end (without it), in words."""
        end = first + 1 if end is None else end
        low, high = float(self.edges[first]), float(self.edges[end])
        if self.whole:
            low, high = low + 0.5, high - 0.5
        return number(low) if low == high else f"{number(low)} to {number(high)}"

    def place(self, x: float) -> float:
        """Where a value stands, from 0 at the left to 1."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        if self.log:
            low, high, x = np.log(low), np.log(high), np.log(max(x, low))
        return min(1.0, max(0.0, (x - low) / (high - low)))


def edges(values: Floats, include: Sequence[float] = ()) -> tuple[Floats, bool]:
    """Bins: 0.5 % to 99.5 % of the values and what is to be included, by logarithm where a long tail would hide all."""
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


def histogram(values: Floats, stays: npt.NDArray[np.bool_], include: Sequence[float] = ()) -> Histogram | None:
    """Counts of kept and dropped documents; NaN is no value. None without any."""
    finite = np.isfinite(values)
    if not finite.any():
        return None
    found, log = edges(values[finite], include)
    inside = np.clip(values, found[0], np.nextafter(found[-1], found[0]))
    kept, dropped = (np.histogram(inside[finite & which], found)[0] for which in (stays, ~stays))
    return Histogram(found, log, kept, dropped, int((~finite).sum()))


def html(found: Findings, thresholds: Sequence[Threshold]) -> str:
    """A chart a signal, by step."""
    stays = found.stays
    groups = []
    for column in found.rows.schema:
        if not pa.types.is_struct(column.type) or column.name in _NOT_SIGNALS:
            continue
        drawn, always = [], []
        for child in column.type:
            dotted = f"{column.name}.{child.name}"
            mine = [t for t in thresholds if t.signal == dotted]
            values = found.signal(dotted)
            same = None if values is None or mine else _constant(values)
            if same is not None:
                always.append(f"{child.name} {number(same)}")
            elif values is not None:
                drawn.append(_numbers(dotted, values, stays, mine))
            elif pa.types.is_string(child.type) or pa.types.is_boolean(child.type):
                drawn.append(_words(dotted, pc.struct_field(found.rows.column(column.name), child.name), stays))
        constant = f"<p class=note>The same in all documents: {escape(', '.join(always))}.</p>" if always else ""
        if any(drawn) or always:
            charts = f'<div class="grid">{"".join(drawn)}</div>{constant}'
            groups.append(f"<div class=signals><h3>{escape(column.name)}</h3>{charts}</div>")
    if not groups:
        return ""
    counted = f"{found.rows.num_rows:,} of {found.records:,}" if found.scale > 1.001 else f"all {found.records:,}"
    return (
        f"<p>Over {counted} records: <b class=keep>kept</b> below, <b class=gone>dropped</b> by any rule on top. "
        "Upright lines are rules' thresholds. A document that a step never saw has no signal of it.</p>"
        '<div class=fields><label for="find-signal">Find a signal</label> <input id="find-signal" type="search" '
        'autocomplete="off"> <span id="found-signals" class=note role="status"></span></div>' + "".join(groups)
    )


def _numbers(name: str, values: Floats, stays: npt.NDArray[np.bool_], thresholds: Sequence[Threshold]) -> str:
    data = histogram(values, stays, [t.value for t in thresholds])
    if data is None:
        return ""
    total = data.kept + data.dropped
    top = max(1, int(total.max()))
    width = figures.SCALE / len(total)
    shapes = []
    for i, (kept, dropped) in enumerate(zip(data.kept.tolist(), data.dropped.tolist(), strict=True)):
        tall, short = figures.SCALE * (kept + dropped) / top, figures.SCALE * kept / top
        shapes.append(
            f'<g><title>{data.bin(i)}: {kept:,} kept, {dropped:,} dropped</title><rect class="d" x="{i * width:.1f}" '
            f'y="{figures.SCALE - tall:.1f}" width="{width * 0.92:.1f}" height="{tall - short:.1f}"/><rect class="k" '
            f'x="{i * width:.1f}" y="{figures.SCALE - short:.1f}" width="{width * 0.92:.1f}" height="{short:.1f}"/></g>'
        )
    rules = "; ".join(dict.fromkeys(f"{t.rule}: {_says(t)}" for t in thresholds))
    low, high = data.ends
    label = f"{name}: {low} to {high}, at most {top:,} in a bin" + (f"; thresholds {rules}" if rules else "")
    step = max(1, len(total) // 12)
    rows = [
        [
            data.bin(i, min(i + step, len(total))),
            f"{int(data.kept[i : i + step].sum()):,}",
            f"{int(data.dropped[i : i + step].sum()):,}",
        ]
        for i in range(0, len(total), step)
    ]
    below = f"<p class=note>{escape(rules)}</p>" if rules else ""
    numbers = figures.table(["from, to", "kept", "dropped"], rows, (1, 2), f"{escape(name)} in numbers")
    return figures.plot(
        escape(name.partition(".")[2]),
        "".join(shapes),
        label=label,
        height=110,
        x_ticks=[(0.0, low), (1.0, high + (" log" if data.log else ""))],
        y_ticks=[(0.0, f"{top:,}"), (1.0, "0")],
        marks=_marks(data, thresholds),
        below=below + figures.folded("Table", numbers),
        data=f' data-name="{escape(name)}"',
    )


def _says(t: Threshold) -> str:
    return f"{t.op} {t.value:,.6g}" + (f" ({t.group})" if t.group else "")


def _marks(data: Histogram, thresholds: Sequence[Threshold]) -> list[tuple[float, Mark]]:
    """The thresholds' lines; one that lies beyond the bins stands at the border, with an arrow."""
    out = []
    for i, t in enumerate(thresholds):
        place = data.place(t.value)
        arrow = " →" if t.value > data.edges[-1] else " ←" if t.value < data.edges[0] else ""
        crowded = any(abs(place - data.place(o.value)) < 0.3 for k, o in enumerate(thresholds) if k != i)
        label = "" if t.group or crowded else f"{t.op} {number(t.value)}{arrow}"
        out.append((place, Mark(t.value, f"{t.rule}: {t.signal} {_says(t)}", label)))
    return out


def _constant(values: Floats) -> float | None:
    """The one value that a signal has in all documents, if it has one."""
    finite = values[np.isfinite(values)]
    return float(finite[0]) if len(finite) and (finite == finite[0]).all() else None


def _words(name: str, column: pa.ChunkedArray, stays: npt.NDArray[np.bool_]) -> str:
    """The commonest values of a word or truth value."""
    if pa.types.is_string(column.type) and (pc.max(pc.utf8_length(column)).as_py() or 0) > LONGEST:
        return ""
    counters = []
    for which in (stays, ~stays):
        counted = pc.value_counts(column.filter(pa.array(which)).drop_null()).to_pylist()
        counters.append(Counter({str(c["values"]): int(c["counts"]) for c in counted}))
    kept, dropped = counters
    total = kept + dropped
    unlike = len(total) > 20 and max(total.values()) < 3  # titles and the like
    if not total or unlike or all(_ID.fullmatch(v) for v in total):
        return ""
    most = sorted(total, key=lambda v: (-total[v], v))[:VALUES]
    more = f" <span class=note>{len(total):,} values, the commonest</span>" if len(total) > VALUES else ""
    drawn = figures.bars(escape(name.partition(".")[2]) + more, [(v, kept[v], dropped[v]) for v in most])
    return drawn.replace("<figure>", f'<figure data-name="{escape(name)}">', 1)
