"""Draws charts and tables as HTML with inline SVG: lines, histograms, bars, stacked shares.

The SVG contains only shapes and stretches to the width available. Text and numbers are HTML, so that they keep the font
size of the page at any width, can be selected, and are read by a screen reader. Colours come from the style sheet, so
one drawing serves light and dark mode. Each chart has its figures as a table, folded below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

SCALE = 1000.0  # width and height of a plot in its own coordinates
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """A vertical line at an x: a threshold or an event."""

    x: float
    tooltip: str
    label: str = ""  # text beside the line; without one the line is dashed


def number(value: float) -> str:
    """A short number for an axis: 0.25, 12k, 3.4M."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` round numbers from low to high, at steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1.0, 2.0, 5.0, 10.0) if s * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), caption: str = "") -> str:
    """A table; cells are HTML. The columns `numbers` are right-aligned."""
    kind = [" class=n" if i in numbers else "" for i in range(len(head))]
    top = "".join(f'<th scope="col"{k}>{h or "<span class=unseen>share</span>"}</th>'
                  for h, k in zip(head, kind, strict=True))  # fmt: skip
    body = []
    for row in rows:
        first, *rest = [f"{k}>{c}" for c, k in zip(row, kind, strict=True)]
        body.append(f'<tr><th scope="row"{first}</th>' + "".join(f"<td{c}</td>" for c in rest) + "</tr>")
    named = f"<caption class=unseen>{caption}</caption>" if caption else ""
    return (
        f'<div class=scroll tabindex="0" role="region" aria-label="{caption or "table"}"><table>{named}<thead><tr>{top}'
        f"</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def folded(title: str, html: str) -> str:
    """HTML that is hidden until the reader opens it."""
    return f"<details class=alt><summary>{title}</summary>{html}</details>"


def plot(
    caption: str,
    shapes: str,
    *,
    label: str,
    height: int,
    x_ticks: Sequence[tuple[float, str]],
    y_ticks: Sequence[tuple[float, str]],
    marks: Sequence[tuple[float, Mark]] = (),
    below: str = "",
    wide: bool = False,
    data: str = "",
) -> str:
    """Axes around shapes drawn in a square of SCALE units. Ticks and marks have positions from 0 to 1, from the left
    and from the top."""
    grid = "".join(f'<line class=grid x1="0" x2="{SCALE:.0f}" y1="{y * SCALE:.1f}" y2="{y * SCALE:.1f}"/>'
                   for y, _ in y_ticks)  # fmt: skip
    upright = "".join(
        f'<line class="mark{" at" if m.label else ""}" x1="{x * SCALE:.1f}" x2="{x * SCALE:.1f}" y1="0" '
        f'y2="{SCALE:.0f}"><title>{escape(m.tooltip)}</title></line>'
        for x, m in marks
    )
    left = "".join(f'<span style="top:{y * 100:.1f}%">{t}</span>' for y, t in y_ticks)
    under = "".join(f'<span style="left:{_within(x) * 100:.1f}%" class="{_side(x)}">{t}</span>' for x, t in x_ticks)
    named = "".join(
        f'<span style="left:{_within(x) * 100:.1f}%" class="{_side(x)}">{escape(m.label)}</span>'
        for x, m in marks
        if m.label
    )
    return (
        f'<figure class="plot{" wide" if wide else ""}"{data}><figcaption>{caption}</figcaption>'
        f'<div class=axes style="--h:{height}px"><div class=ys aria-hidden=true>{left}</div><div class=field>'
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {SCALE:.0f} {SCALE:.0f}" '
        f'preserveAspectRatio="none">{grid}{shapes}{upright}</svg>'
        f"{f'<div class=named aria-hidden=true>{named}</div>' if named else ''}</div>"
        f"<div class=xs aria-hidden=true>{under}</div></div>{below}</figure>"
    )


def _within(share: float) -> float:
    return min(1.0, max(0.0, share))


def _side(share: float) -> str:
    """The alignment of a label that keeps it inside the plot."""
    return "first" if share < 0.12 else "last" if share > 0.88 else ""


def curves(
    label: str,
    lines: Mapping[str, Points],
    width: float = 720.0,
    height: float = 260.0,
    marks: Mapping[float, str] | None = None,
    unit: str = "",
    over: str = "",
) -> str:
    """Lines over a common x, on a linear scale: a logarithmic one would flatten the part of a loss that matters.

    `marks`: x -> tooltip of a vertical line there. `over`: the name of x, for the table.
    """
    kept = {name: [p for p in line if math.isfinite(p[1])] for name, line in lines.items()}
    points = [p for line in kept.values() for p in line]
    if not points:
        return ""
    x0, x1 = min(p[0] for p in points), max(p[0] for p in points)
    y0, y1 = min(p[1] for p in points), max(p[1] for p in points)
    if y1 - y0 < 1e-9 * max(1.0, abs(y1)):
        y0, y1 = y0 - 0.5 * max(abs(y0), 1e-3), y1 + 0.5 * max(abs(y1), 1e-3)
    x1 = x1 if x1 > x0 else x0 + 1
    room = 0.04 * (y1 - y0)
    y0, y1 = (0.0 if 0 <= y0 < 0.3 * y1 else y0 - room), y1 + room

    def at(x: float, y: float) -> tuple[float, float]:
        return (x - x0) / (x1 - x0), (y1 - y) / (y1 - y0)

    shapes = []
    for i, line in enumerate(kept.values()):
        places = [at(*p) for p in downsample(line)]
        if len(places) == 1:  # one point is a dash
            places = [(max(0.0, places[0][0] - 0.01), places[0][1]), (places[0][0] + 0.01, places[0][1])]
        path = " ".join(f"{u * SCALE:.1f},{v * SCALE:.1f}" for u, v in places)
        shapes.append(f'<polyline class="line c{i % 8}" points="{path}"/>')
    legend = "".join(f'<span class="key c{i % 8}">{escape(name)}</span>' for i, name in enumerate(kept))
    shown = f" <span class=legend>{legend}</span>" if len(kept) > 1 else ""
    wide = width > 400
    return plot(
        f"{escape(label)}{shown}",
        "".join(shapes),
        label=label + (f", in {unit}" if unit else ""),
        height=round(height),
        x_ticks=[(at(x, y0)[0], number(x)) for x in ticks(x0, x1, 6 if wide else 3)],
        y_ticks=[(at(x0, y)[1], number(y)) for y in ticks(y0, y1, 5 if height > 150 else 3)],
        marks=[(at(x, y0)[0], Mark(x, tooltip)) for x, tooltip in (marks or {}).items()],
        below=folded("Table", _numbers(kept, over)),
        wide=wide,
    )


def _numbers(lines: Mapping[str, Points], over: str, most: int = 24) -> str:
    """The lines as a table of at most `most` rows."""
    places = sorted({x for line in lines.values() for x, _ in line})
    chosen = places if len(places) <= most else [places[round(i * (len(places) - 1) / (most - 1))] for i in range(most)]
    at = [dict(line) for line in lines.values()]
    rows = [[number(x), *(f"{a[x]:.4g}" if x in a else "" for a in at)] for x in chosen]
    return table([over or "x", *map(escape, lines)], rows, range(len(lines) + 1), "values of the curves")


def downsample(line: Points, most: int = 600) -> list[tuple[float, float]]:
    """At most `most` points, each a mean of neighbours: a screen shows no more, and the file stays small."""
    if len(line) <= most:
        return list(line)
    step = -(-len(line) // most)
    groups = [line[i : i + step] for i in range(0, len(line), step)]
    return [(g[-1][0], sum(y for _, y in g) / len(g)) for g in groups]


def bars(
    caption: str,
    rows: Sequence[tuple[str, float, float]],
    *,
    first: str = "kept",
    second: str = "dropped",
    unit: str = "",
) -> str:
    """Horizontal bars of two parts, with their figures; rows are (name, first part, second part)."""
    largest = max((a + b for _, a, b in rows), default=0) or 1
    lines = []
    for name, a, b in rows:
        lines.append(
            f"<tr><th scope=row>{escape(name[:60])}</th><td class=n>{a:,.0f}</td><td class=n>{b:,.0f}</td>"
            f'<td class=bar><span class=k style="width:{100 * a / largest:.1f}%" title="{a:,.0f} {first}"></span>'
            f'<span class=d style="width:{100 * b / largest:.1f}%" title="{b:,.0f} {second}"></span></td></tr>'
        )
    head = (
        f"<thead><tr><th scope=col>{unit or 'value'}</th><th scope=col class=n>{first}</th>"
        f"<th scope=col class=n>{second}</th><td></td></tr></thead>"
    )
    body = f"<table class=mini>{head}<tbody>{''.join(lines)}</tbody></table>"
    return f"<figure><figcaption>{caption}</figcaption>{body}</figure>"


def stack(rows: Sequence[tuple[str, Mapping[str, float]]], names: Sequence[str], caption: str) -> str:
    """Stacked bars of shares, one per row, with the same colours in each: a domain mix at several stages."""
    lines = []
    for title, parts in rows:
        total = sum(parts.values()) or 1
        cells = "".join(
            f'<span class="fill c{i % 8}" style="width:{100 * parts.get(name, 0) / total:.2f}%" '
            f'title="{escape(name)}: {parts.get(name, 0) / total:.1%}"></span>'
            for i, name in enumerate(names)
        )
        shares = ", ".join(f"{name} {parts.get(name, 0) / total:.1%}" for name in names)
        lines.append(f'<div class=row><span class=what>{escape(title)}</span><div class=stack role="img" '
                     f'aria-label="{escape(title)}: {escape(shares)}">{cells}</div></div>')  # fmt: skip
    legend = "".join(f'<span class="key c{i % 8}">{escape(name)}</span>' for i, name in enumerate(names))
    titled = f"<figcaption>{caption} <span class=legend>{legend}</span></figcaption>"
    return f"<figure class=wide>{titled}{''.join(lines)}</figure>"
