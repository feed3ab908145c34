"""The page of a comparison: figures and differing settings side by side, mixes below each other, curves in one."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipelines.report.comparison import compare
from pipelines.report.comparison.compare import Comparison
from pipelines.report.html import charts as figures
from pipelines.report.html import page
from pipelines.report.html.page import Section
from pipelines.report.training.page import smooth


def render(found: Comparison) -> str:
    """The page's HTML."""
    names = compare.short_names(found.sides)
    sections = [
        *_charts(found, names),
        *(Section(g.replace(" ", "-"), g.capitalize(), _table(found, g, names)) for g in _groups(found)),
        Section("settings", "Settings that differ", _settings(found, names)),
    ]
    legend = ", ".join(f"{escape(n)} <code>{escape(s.run)}</code>" for n, s in zip(names, found.sides, strict=True))
    return page.render(" / ".join(names), f"Comparison of {found.kind} runs · {legend}", sections)


def _groups(found: Comparison) -> list[str]:
    return list(dict.fromkeys(g for g, _, _ in found.figures))


def _table(found: Comparison, group: str, names: Sequence[str]) -> str:
    rows = []
    for g, what, values in found.figures:
        if g == group:
            more = [compare.difference(values, what)] if len(values) == 2 else []
            rows.append([escape(what), *(compare.shown(v, what) for v in values), *more])
    head = ["", *map(escape, names), *(["difference"] if len(names) == 2 else [])]
    return figures.table(head, rows, range(1, len(head)), escape(group))


def _settings(found: Comparison, names: Sequence[str]) -> str:
    rows = [
        [f"<code>{escape(what)}</code>", *(f"<code>{escape('' if v is None else str(v))}</code>" for v in values)]
        for what, values in found.settings
    ]
    return figures.table(["", *map(escape, names)], rows, (), "settings") if rows else "<p>None.</p>"


def _charts(found: Comparison, names: Sequence[str]) -> list[Section]:
    if found.kind == "curation":
        domains = list(dict.fromkeys(w for g, w, _ in found.figures if g == "documents kept"))
        mixes = [(n, {d: s.figures.get(("documents kept", d), 0.0) for d in domains})
                 for n, s in zip(names, found.sides, strict=True)]  # fmt: skip
        return [Section("mix-of", "Documents by domain", figures.stack(mixes, domains, "Documents kept by domain"))]
    trainings = [(n, s.training) for n, s in zip(names, found.sides, strict=True) if s.training is not None]
    charts: list[tuple[str, dict[str, figures.Points]]] = [
        ("Training loss", {n: smooth(t.train) for n, t in trainings})
    ]
    for domain in dict.fromkeys(d for _, t in trainings for d in t.validation):
        lines = {n: t.validation[domain] for n, t in trainings if domain in t.validation}
        charts.append((f"Validation loss: {domain}", dict(lines)))
    charts.append(("Gradient norm", {n: smooth(t.grad_norm) for n, t in trainings}))
    charts.append(("Learning rate", {n: t.lr for n, t in trainings}))
    charts.append(("Tokens a second", {n: smooth(t.speed) for n, t in trainings}))
    drawn = "".join(figures.curves(title, lines, over="step") for title, lines in charts)
    return [Section("curves", "Curves", f"<div class=pair>{drawn}</div>" if drawn else "")]
