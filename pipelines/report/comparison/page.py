"""Builds the page of a comparison: figures and differing settings side by side, domain mixes, overlaid curves."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipelines.report.comparison.compare import Comparison, difference, format_figure, short_names
from pipelines.report.html import charts, page
from pipelines.report.html.page import Section
from pipelines.report.training.page import smooth


def render(comparison: Comparison) -> str:
    """The page's HTML."""
    names = short_names(comparison.sides)
    sections = [
        *_charts(comparison, names),
        *(Section(g.replace(" ", "-"), g.capitalize(), _table(comparison, g, names)) for g in _groups(comparison)),
        Section("settings", "Settings that differ", _settings(comparison, names)),
    ]
    legend = ", ".join(
        f"{escape(n)} <code>{escape(s.run)}</code>" for n, s in zip(names, comparison.sides, strict=True)
    )
    return page.render(" / ".join(names), f"Comparison of {comparison.kind} runs · {legend}", sections)


def _groups(comparison: Comparison) -> list[str]:
    return list(dict.fromkeys(g for g, _, _ in comparison.figures))


def _table(comparison: Comparison, group: str, names: Sequence[str]) -> str:
    rows = []
    for g, what, values in comparison.figures:
        if g == group:
            more = [difference(values, what)] if len(values) == 2 else []
            rows.append([escape(what), *(format_figure(v, what) for v in values), *more])
    head = ["", *map(escape, names), *(["difference"] if len(names) == 2 else [])]
    return charts.table(head, rows, range(1, len(head)), escape(group))


def _settings(comparison: Comparison, names: Sequence[str]) -> str:
    rows = [
        [f"<code>{escape(what)}</code>", *(f"<code>{escape('' if v is None else str(v))}</code>" for v in values)]
        for what, values in comparison.settings
    ]
    return charts.table(["", *map(escape, names)], rows, (), "settings") if rows else "<p>None.</p>"


def _charts(comparison: Comparison, names: Sequence[str]) -> list[Section]:
    if comparison.kind == "curation":
        domains = list(dict.fromkeys(w for g, w, _ in comparison.figures if g == "documents kept"))
        mixes = [(n, {d: s.figures.get(("documents kept", d), 0.0) for d in domains})
                 for n, s in zip(names, comparison.sides, strict=True)]  # fmt: skip
        return [Section("mix-of", "Documents by domain", charts.stack(mixes, domains, "Documents kept by domain"))]
    trainings = [(n, s.training) for n, s in zip(names, comparison.sides, strict=True) if s.training is not None]
    drawn: list[tuple[str, dict[str, charts.Points]]] = [("Training loss", {n: smooth(t.train) for n, t in trainings})]
    for domain in dict.fromkeys(d for _, t in trainings for d in t.validation):
        lines = {n: t.validation[domain] for n, t in trainings if domain in t.validation}
        drawn.append((f"Validation loss: {domain}", dict(lines)))
    drawn.append(("Gradient norm", {n: smooth(t.grad_norm) for n, t in trainings}))
    drawn.append(("Learning rate", {n: t.lr for n, t in trainings}))
    drawn.append(("Tokens per second", {n: smooth(t.speed) for n, t in trainings}))
    curves = "".join(charts.curves(title, lines, over="step") for title, lines in drawn)
    return [Section("curves", "Curves", f"<div class=pair>{curves}</div>" if curves else "")]
