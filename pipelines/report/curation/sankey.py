"""Report section: the flow of documents through the steps, as a Sankey diagram.

The flow runs from top to bottom, one band per domain; what a step drops leaves to the right. Widths are numbers of
documents at one scale. The SVG contains only shapes of fixed size; the text is a list of the same heights beside it, so
that the diagram fits a phone and a screen reader reads the list.
"""

from __future__ import annotations

from html import escape

from pipelines.report.curation.report_data import ReportData

BAND, WIDE = 150.0, 208.0  # pixels: width of all records, and of the drawing
STEP, PAD = 42.0, 14.0  # minimum height of a step; space above and below a dropped stream
END = 38.0  # height of the start and the end of the bands
SEAM = 0.6  # pixels that bands extend below their step, else a thin gap shows between steps


def html(report: ReportData) -> str:
    """The section; "" for a run without documents."""
    if not report.records:
        return ""
    domains = report.counts.domains
    now = {d: float(sum(n for (_, _, of), n in report.counts.documents.items() if of == d)) for d in domains}
    steps = list(dict.fromkeys(r["step"] for r in report.run["counts"]["steps"]))
    unit = BAND / report.records
    shapes, words, y = [], [], END
    shapes.append(_ends(now, unit, 0.0, y))
    words.append((y, "<b>crawl</b>", f"{report.records:,} records", ""))
    for step in steps:
        after = {d: n - report.counts.of(step, d) for d, n in now.items()}
        gone = sum(now.values()) - sum(after.values())
        height = max(STEP, gone * unit + 2 * PAD)
        shapes.append(_step(now, after, unit, y, height, domains))
        share = gone / report.records
        words.append((height, f"<b>{escape(step)}</b>", f"−{gone:,.0f} · {share:.1%} of records", _rules(report, step)))
        now, y = after, y + height
    shapes.append(_ends(now, unit, y, END))
    kept = sum(now.values())
    words.append((END, "<b class=keep>kept</b>", f"{kept:,.0f} documents · {kept / report.records:.1%}", ""))
    items = "".join(
        f'<li style="height:{h:.1f}px"><div>{a}<span>{b}</span></div><span>{c}</span></li>' for h, a, b, c in words
    )
    legend = "".join(f'<span class="key c{i % 8}">{escape(d or "none")}</span>' for i, d in enumerate(domains))
    label = f"Sankey diagram: {report.records:,} records, {kept:,.0f} kept; the list beside it has the same figures"
    return (
        f"<figure class=wide><figcaption>Documents from the crawl to the result <span class=legend>{legend}</span>"
        f'</figcaption><div class=flow><svg role="img" aria-label="{label}" width="{WIDE:.0f}" height="{y + END:.0f}" '
        f'viewBox="0 0 {WIDE:.0f} {y + END:.0f}" preserveAspectRatio="none">{"".join(shapes)}</svg>'
        f"<ol>{items}</ol></div></figure>"
    )


def _rules(report: ReportData, step: str, most: int = 3) -> str:
    """The rules of a step that dropped the most."""
    mine = [r for r in report.run["counts"]["steps"] if r["step"] == step]
    shown = sorted(mine, key=lambda r: (-r["dropped"], r["rule"]))[:most]
    text = ", ".join(f"{r['rule']} {r['dropped']:,}" for r in shown)
    return escape(text + (f", {len(mine) - most} more" if len(mine) > most else ""))


def _ends(now: dict[str, float], unit: float, y: float, height: float) -> str:
    """The bands at the start or at the end of the diagram."""
    at, out = 0.0, []
    for i, n in enumerate(now.values()):
        out.append(
            f'<rect class="join c{i % 8}" x="{at:.2f}" y="{y:.1f}" width="{n * unit:.2f}" height="{height:.1f}"/>'
        )
        at += n * unit
    return "".join(out)


def _step(
    before: dict[str, float], after: dict[str, float], unit: float, y: float, height: float, names: list[str]
) -> str:
    """The bands through one step, and the stream of dropped documents."""
    a = b = 0.0
    end, middle, out = y + height, y + height / 2, []
    for i, name in enumerate(names):
        a2, b2 = a + before[name] * unit, b + after[name] * unit
        out.append(
            f'<path class="band c{i % 8}" d="M{a:.2f},{y:.1f} C{a:.2f},{middle:.1f} {b:.2f},{middle:.1f} '
            f"{b:.2f},{end:.1f} v{SEAM} H{b2:.2f} v-{SEAM} C{b2:.2f},{middle:.1f} {a2:.2f},{middle:.1f} "
            f'{a2:.2f},{y:.1f} Z"/>'
        )
        a, b = a2, b2
    thick = a - b
    if thick > 0:  # drawn first, so that the bands cover its origin
        top = y + (height - thick) / 2
        bottom, bend = top + thick, a + 0.55 * (WIDE - a)
        out.insert(
            0,
            f'<path class="off" d="M{a:.2f},{y:.1f} C{a:.2f},{top:.1f} {a:.1f},{top:.1f} {bend:.1f},{top:.1f} '
            f"L{WIDE:.1f},{top:.1f} L{WIDE:.1f},{bottom:.1f} L{bend:.1f},{bottom:.1f} "
            f'C{b:.1f},{bottom:.1f} {b:.2f},{bottom:.1f} {b:.2f},{y:.1f} Z"/>',
        )
    return "".join(out)
