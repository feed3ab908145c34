"""Charts as inline SVG, coloured by the page's style sheet, so that light and dark need no second drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from pipelines.findings import Histogram, Values

WIDTH, HEIGHT = 300.0, 96.0


def number(value: float) -> str:
    """A short number for an axis: 0.25, 1.2k, 3.4M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:.3g}"


def histogram(name: str, data: Histogram) -> str:
    """Kept below, dropped on top of it, one bar a bin; the first and the last hold what lies beyond."""
    total = data.kept + data.dropped
    top = max(1, int(total.max()))
    width = WIDTH / len(total)
    bars = []
    for i, (kept, dropped) in enumerate(zip(data.kept.tolist(), data.dropped.tolist(), strict=True)):
        low, high = number(float(data.edges[i])), number(float(data.edges[i + 1]))
        title = f"<title>{low} to {high}: {kept:,} kept, {dropped:,} dropped</title>"
        tall, short = HEIGHT * (kept + dropped) / top, HEIGHT * kept / top
        bars.append(
            f'<g>{title}<rect class="d" x="{i * width:.2f}" y="{HEIGHT - tall:.2f}" width="{width - 0.6:.2f}" '
            f'height="{tall - short:.2f}"/><rect class="k" x="{i * width:.2f}" y="{HEIGHT - short:.2f}" '
            f'width="{width - 0.6:.2f}" height="{short:.2f}"/></g>'
        )
    low, high = number(float(data.edges[0])), number(float(data.edges[-1]))
    scale = ", logarithmic" if data.log else ""
    nulls = f" · {data.nulls:,} null" if data.nulls else ""
    label = f"{name}: {low} to {high}{scale}, at most {top:,} in a bin"
    return (
        f'<figure><figcaption>{escape(name)}</figcaption><svg role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {WIDTH:.0f} {HEIGHT + 14:.0f}">{"".join(bars)}'
        f'<text x="0" y="{HEIGHT + 12}">{low}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 12}" text-anchor="end">{high}{scale}</text></svg>'
        f'<p class="note">peak {top:,}{nulls}</p></figure>'
    )


def values(name: str, data: Values, most: int = 8) -> str:
    """The commonest values as bars."""
    total = data.kept + data.dropped
    if not total:
        return ""
    largest = max(total.values())
    rows = []
    ordered = sorted(total, key=lambda v: (-total[v], v))
    for value in ordered[:most]:
        kept, dropped = data.kept[value], data.dropped[value]
        rows.append(
            f"<tr><td>{escape(value[:24])}</td><td class=n>{total[value]:,}</td><td class=bar>"
            f'<span class=k style="width:{100 * kept / largest:.1f}%" title="{kept:,} kept"></span>'
            f'<span class=d style="width:{100 * dropped / largest:.1f}%" title="{dropped:,} dropped"></span></td></tr>'
        )
    rest = f'<p class="note">and {len(total) - most:,} more values</p>' if len(total) > most else ""
    return f"<figure><figcaption>{escape(name)}</figcaption><table class=mini>{''.join(rows)}</table>{rest}</figure>"


def curves(
    label: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    width: float = 720.0,
    height: float = 260.0,
    marks: Mapping[float, str] | None = None,
) -> str:
    """Lines over a common x; a logarithm would flatten what a person wants to see of a loss, so none is taken.

    `marks`: what happened at an x, as upright lines with a tooltip.
    """
    points = [p for line in lines.values() for p in line if math.isfinite(p[1])]
    if not points:
        return ""
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    y0, y1 = min(p[1] for p in points), max(p[1] for p in points)
    x1, y1 = (x1 if x1 > x0 else x0 + 1), (y1 if y1 > y0 else y0 + 1)
    left, bottom = 44.0, 22.0

    def at(x: float, y: float) -> str:
        return (
            f"{left + (x - x0) / (x1 - x0) * (width - left - 8):.1f},"
            f"{8 + (y1 - y) / (y1 - y0) * (height - bottom - 16):.1f}"
        )

    parts = []
    for i in range(5):
        y = y0 + (y1 - y0) * i / 4
        height_at = at(x0, y).split(",")[1]
        parts.append(
            f'<line class=grid x1="{left}" x2="{width - 8}" y1="{height_at}" y2="{height_at}"/>'
            f'<text x="{left - 6}" y="{float(height_at) + 4:.1f}" text-anchor="end">{number(y)}</text>'
        )
    for i, line in enumerate(lines.values()):
        path = " ".join(at(x, y) for x, y in thin(line) if math.isfinite(y))
        parts.append(f'<polyline class="line c{i % 8}" points="{path}"/>')
    for x, said in (marks or {}).items():
        place = at(x, y0).split(",")[0]
        parts.append(
            f'<line class=mark x1="{place}" x2="{place}" y1="8" y2="{height - bottom}">'
            f"<title>{escape(said)}</title></line>"
        )
    parts.append(f'<text x="{left}" y="{height - 4}">{number(x0)}</text>')
    parts.append(f'<text x="{width - 8}" y="{height - 4}" text-anchor="end">{number(x1)}</text>')
    legend = "".join(f'<span class="key c{i % 8}">{escape(name)}</span>' for i, name in enumerate(lines))
    return (
        f"<figure class=wide><figcaption>{escape(label)} <span class=legend>{legend}</span></figcaption>"
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}">{"".join(parts)}</svg>'
        "</figure>"
    )


def thin(line: Sequence[tuple[float, float]], most: int = 600) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of its neighbours: a screen shows no more, and the file stays small."""
    if len(line) <= most:
        return list(line)
    step = -(-len(line) // most)
    groups = [line[i : i + step] for i in range(0, len(line), step)]
    return [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]
