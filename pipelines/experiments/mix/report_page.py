"""Builds the HTML page of a mix search: recommendation, confirming runs, quality of the law, effects, mixes tried."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from pipelines.experiments.mix.mixing_laws import Floats
from pipelines.experiments.mix.results import Outcome
from pipelines.report.html import charts, page
from pipelines.report.html.charts import table

SIZE = 240.0
LINES = 6  # metrics in a chart of effects besides the objective: as many as colours can distinguish


def render(outcome: Outcome, title: str) -> str:
    """The page's HTML."""
    sections = [
        ("recommendation", "Recommendation", _recommendation(outcome)),
        ("confirmed", "Confirming runs", _confirmed(outcome)),
        ("law", "Predicted and observed", _law(outcome)),
        ("effects", "Effect of each domain", _effects(outcome)),
        ("mixes", "The mixes tried", _mixes(outcome)),
    ]
    shown = [page.Section(name, heading, html) for name, heading, html in sections]
    return page.render(title, "Mix search", shown)


def headline(outcome: Outcome) -> str:
    """One sentence: the recommended mix, and what the confirming runs show."""
    mix = ", ".join(f"{name} {share:.0%}" for name, share in outcome.recommended.items())
    results = [f"{v.words} than the {v.against} mix" if v.words in ("better", "worse") else f"{v.against}: {v.words}"
            for v in outcome.verdicts]  # fmt: skip
    tail = "; ".join(results) if results else "not confirmed by runs"
    return (
        f"Recommended: {mix}. Compared with other mixes: {tail}."
        + (" The law ranks unseen runs no better than chance, so this mix is a guess." if outcome.blind else "")
        + (" The optimum is extrapolated." if outcome.extrapolated else "")
    )


def _recommendation(o: Outcome) -> str:
    rows = []
    for name in o.domains:
        low, high = o.low[name], o.high[name]
        interval = f"{low:.3f} to {high:.3f}" if not math.isnan(low) else ""
        bar = f'<div class=bar><span class=k style="width:{100 * o.recommended[name]:.1f}%"></span></div>'
        natural = f"{o.natural[name]:.3f}" if o.natural else ""
        rows.append([escape(name), f"{o.recommended[name]:.3f}", interval, natural, bar])
    notes = "".join(f"<li>{escape(n)}</li>" for n in o.notes)
    blind = (
        "<p><strong>A guess:</strong> the law ranks unseen runs no better than chance, so the mix hardly explains the "
        "differences between the runs. Train proxies for longer, or evaluate on more sequences.</p>"
        if o.blind
        else ""
    )
    far = (
        "<p><strong>Extrapolated:</strong> this mix is outside the region that the runs cover. Add runs before "
        "you trust it.</p>"
        if o.extrapolated
        else ""
    )
    return (
        f"<p>{escape(headline(o))}</p><p>Objective: {escape(o.goal)}.</p>{blind}{far}"
        + table(["domain", "share", "95 % interval", "natural", ""], rows, (1, 2, 3))
        + f"<p>To paste into a pipeline file:</p><pre>{escape(o.mix_block())}</pre>"
        + (f"<ul>{notes}</ul>" if notes else "")
    )


def _confirmed(o: Outcome) -> str:
    if not o.arms:
        return ""
    runs = [
        [escape(a.name), f"{np.mean(a.values):.4f}", f"{np.std(a.values, ddof=1):.4f}" if len(a.values) > 1 else "",
         *(f"{a.losses[m]:.4f}" for m in o.metrics)]
        for a in o.arms
    ]  # fmt: skip
    verdicts = [
        [escape(v.against), f"{v.effect:+.4f}", "" if math.isnan(v.p) else f"{v.low:+.4f} to {v.high:+.4f}",
         "" if math.isnan(v.p) else f"{v.p:.2g}", f"<span class=words>{escape(v.words)}</span>"]
        for v in o.verdicts
    ]  # fmt: skip
    seeds = len(o.arms[0].values)
    return (
        f"<p>{seeds} seeds; with one seed all mixes start from the same weights, so differences are paired.</p>"
        + table(
            ["mix", "objective", "standard deviation over seeds", *map(escape, o.metrics)],
            runs,
            range(1, 3 + len(o.metrics)),
        )
        + f"<p>Effect: recommended mix minus the other; {'above' if o.objective.maximise else 'below'} 0 is better.</p>"
        + table(["against", "effect", "95 % interval", "p", "verdict"], verdicts, (1, 2, 3))
    )


def _law(o: Outcome) -> str:
    scores = "; ".join(f"{name} {rho:.3f}" for name, rho in o.choice.scores.items())
    summary = (
        f"<p>Law: <strong>{o.choice.fitted.name}</strong>, fitted to {len(o.mixes)} runs. Mean rank correlation of "
        f"each family on unseen runs: {scores}. The figures "
        "below are of folds that the selection had not seen.</p>"
    )
    rows = [
        [escape(m), f"{o.choice.rho[i]:.3f}", f"{o.choice.error[i]:.4f}", f"{o.values[:, i].std():.4f}"]
        for i, m in enumerate(o.metrics)
    ]
    seen = o.choice.predictions
    plots = "".join(_scatter(m, o.values[:, i], seen[:, i]) for i, m in enumerate(o.metrics)) if len(seen) else ""
    head = ["metric", "rho", "root mean square error", "standard deviation of the runs"]
    return summary + table(head, rows, (1, 2, 3)) + f'<div class="grid">{plots}</div>'


def _effects(o: Outcome) -> str:
    """Charts of the objective and the metrics of largest weight over the share of one domain, from 0 to the largest
    share of a run, with the others in the recommended proportions. In %, since metrics differ in size."""
    base = np.array([o.recommended[d] for d in o.domains])
    weights = np.array(o.objective.weights)
    heaviest = [int(k) for k in np.argsort(-weights, kind="stable")[:LINES] if weights[k] > 0]
    shown = heaviest if len(heaviest) > 1 else []

    def columns(mixes: Floats) -> Floats:
        predicted = o.choice.fitted.predict(mixes)
        goal = o.objective.value(predicted) * (-1 if o.objective.maximise else 1)
        return np.column_stack([goal, predicted[:, shown]])

    here, names = columns(base)[0], ["objective", *(o.metrics[k] for k in shown)]
    parts = []
    for i, domain in enumerate(o.domains):
        shares = np.linspace(0.0, float(o.mixes[:, i].max()), 41)
        rest = np.delete(base, i)
        rest = rest / rest.sum() if rest.sum() else np.full(len(rest), 1 / len(rest))
        change = 100 * (columns(np.array([np.insert(rest * (1 - s), i, s) for s in shares])) - here) / np.abs(here)
        lines = {n: list(zip(shares.tolist(), change[:, k].tolist(), strict=True)) for k, n in enumerate(names)}
        marks = {float(base[i]): f"recommended: {base[i]:.3f}"} if base[i] <= shares[-1] else {}
        parts.append(charts.curves(f"share of {domain}", lines, width=360.0, height=220.0, marks=marks))
    return (
        "<p>Predicted change, in %, against the recommended mix as the share of one domain moves and the others keep "
        "their proportions; the vertical line is the recommended share.</p>"
        f'<div class="grid">{"".join(parts)}</div>'
    )


def _mixes(o: Outcome) -> str:
    """One line per run over the domains, the best quarter highlighted, the recommended mix as a thick line."""
    value = o.objective.value(o.values)
    good = value <= np.quantile(value, 0.25)
    width, height = 720.0, 260.0
    step = (width - 80) / max(1, len(o.domains) - 1)

    def path(mix: Floats) -> str:
        return " ".join(f"{40 + i * step:.1f},{10 + (1 - r) * (height - 50):.1f}" for i, r in enumerate(mix))

    lines = []
    for i in np.argsort(good, kind="stable"):
        kind = "c1" if good[i] else "c0"
        lines.append(f'<polyline class="line {kind}" style="stroke-opacity:.45" points="{path(o.mixes[i])}"/>')
    best = np.array([o.recommended[d] for d in o.domains])
    lines.append(f'<polyline class="line c2" style="stroke-width:3.5" points="{path(best)}"/>')
    names = "".join(
        f'<line class=grid x1="{40 + i * step:.1f}" x2="{40 + i * step:.1f}" y1="10" y2="{height - 40:.1f}"/>'
        f'<text x="{40 + i * step:.1f}" y="{height - 22:.1f}" text-anchor="middle">{escape(d[:18])}</text>'
        for i, d in enumerate(o.domains)
    )
    scale = f'<text x="4" y="14">100%</text><text x="4" y="{height - 38:.0f}">0%</text>'
    roles = ", ".join(f"{o.roles.count(r)} {r}" for r in sorted(set(o.roles), reverse=True))
    where = f" compared at step {o.stop:,}" if o.stop is not None else ""
    label = f"{len(o.mixes)} mixes ({roles}){where}"
    return (
        f"<figure class=wide><figcaption>{label} <span class=legend><span class='key c2'>recommended</span>"
        "<span class='key c1'>best quarter by the objective</span><span class='key c0'>others</span></span>"
        "</figcaption>"
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}">{names}{scale}'
        f"{''.join(lines)}</svg></figure>"
    )


def _scatter(name: str, observed: Floats, predicted: Floats) -> str:
    low, high = float(min(observed.min(), predicted.min())), float(max(observed.max(), predicted.max()))
    high = high if high > low else low + 1
    room = SIZE - 46

    def at(x: float, y: float) -> tuple[float, float]:
        return 38 + (x - low) / (high - low) * room, 8 + (high - y) / (high - low) * room

    dots = "".join(
        f'<circle class=k r="2.4" cx="{at(x, y)[0]:.1f}" cy="{at(x, y)[1]:.1f}" fill-opacity=".7"/>'
        for x, y in zip(observed.tolist(), predicted.tolist(), strict=True)
    )
    (x0, y0), (x1, y1) = at(low, low), at(high, high)
    ends = (
        f'<text x="{x0}" y="{SIZE - 18}">{charts.number(low)}</text>'
        f'<text x="{x1}" y="{SIZE - 18}" text-anchor="end">{charts.number(high)}</text>'
        f'<text x="{(x0 + x1) / 2}" y="{SIZE - 6}" text-anchor="middle">observed</text>'
        f'<text x="34" y="{y0}" text-anchor="end">{charts.number(low)}</text>'
        f'<text x="34" y="{y1 + 8}" text-anchor="end">{charts.number(high)}</text>'
    )
    label = f"{name}: predicted against observed"
    return (
        f'<figure><figcaption>{escape(label)}</figcaption><svg role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {SIZE:.0f} {SIZE:.0f}"><line class=grid x1="{x0}" y1="{y0}" x2="{x1}" y2="{y1}"/>{dots}{ends}'
        "</svg></figure>"
    )
