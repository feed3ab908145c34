"""The page of a curation run: which parts it has, and in which order."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from pipelines.monitor.progress import duration, size
from pipelines.report.curation import (
    clusters,
    cost,
    domains,
    funnel,
    safety,
    samples,
    sankey,
    signals,
    sliders,
    thresholds,
)
from pipelines.report.curation.report_data import Findings
from pipelines.report.html import page
from pipelines.report.html.charts import table
from pipelines.report.html.page import Section
from pipelines.report.training import page as training


def render(found: Findings, price: float | None = None) -> str:
    """The page's HTML. `price`: of a core-hour."""
    marks = thresholds.find(found.rules, found.run.get("quantiles", []))
    moved = sliders.data(found, marks)
    shown = samples.data(found)
    took = cost.gather(found)
    sections = [
        Section("overview", "Overview", page.tiles(_overview(found, took))),
        Section("flow", "From crawl to result", sankey.html(found)),
        Section("funnel", "Funnel by step and rule", funnel.html(found)),
        Section("domains", "Domain mix", domains.html(found)),
        Section("languages", "Languages", domains.languages(found)),
        Section("what-if", "What if a threshold moved", sliders.html(moved)),
        Section("samples", "Samples", samples.html(shown, found)),
        Section("signals", "Signals and thresholds", signals.html(found, marks)),
        Section("clusters", "Largest duplicate clusters", clusters.html(found)),
        Section("safety", "Personal data, toxicity, benchmarks", safety.html(found)),
        *(Section(f"training-{i}", f"Training: {t.name}", training.html(t)) for i, t in enumerate(found.trainings)),
        Section("cost", "Time and cost", cost.html(found, took, price)),
        Section("run", "The run", _run(found)),
    ]
    data = {"run": found.run_dir, "kept": found.run["counts"]["kept"], "thresholds": moved, "samples": shown}
    inputs = sum(i["files"] for i in found.run.get("inputs", []))
    fingerprint = escape(str(found.run.get("fingerprint", ""))[:12])
    said = f"Curation report · {inputs:,} input files · fingerprint <code>{fingerprint}</code>"
    return page.render(found.name, said, sections, data)


def _overview(found: Findings, took: cost.Cost) -> list[tuple[str, str, str]]:
    counts = found.run["counts"]
    shown = [
        (
            "records read",
            f"{found.records:,}",
            size(sum(i["bytes"] for i in found.run.get("inputs", []))) + " as stored",
        ),
        ("documents kept", f"{counts['kept']:,}", f"{counts['kept'] / max(1, found.records):.1%} of records"),
        ("text kept", size(counts.get("text_bytes", 0)), ""),
    ]
    for split, by in (found.manifest or {}).get("splits", {}).items():
        vocabulary = counts.get("tokenizer", {}).get("vocab")
        note = f"vocabulary {vocabulary:,}" if vocabulary and split == "train" else ""
        shown.append((f"{split} tokens", funnel.short(sum(d["tokens"] for d in by.values())), note))
    shown.append(("core-hours", f"{took.core_hours:.3g}", f"{duration(sum(p.cpu for p in took.phases))} of CPU"))
    if found.run.get("unread"):
        shown.append(("files not read", f"{len(found.run['unread']):,}", size(counts["read"].get("unread_bytes", 0))))
    return shown


def _run(found: Findings) -> str:
    run = found.run
    inputs = [
        [escape(i["source"]), escape(str(i.get("root", ""))), f"{i['files']:,}", size(i["bytes"])]
        for i in run.get("inputs", [])
    ]
    quantiles = [
        [escape(f"{q['signal']} at {q['p']}" + (f" by {q['by']}" if q.get("by") else "")), escape(_value(q["value"]))]
        for q in run.get("quantiles", [])
    ]
    options = [
        [
            escape(s["name"]),
            escape(s["step"]),
            f"<code>{escape(json.dumps(s.get('options', {}), ensure_ascii=False))}</code>",
        ]
        for s in found.steps
    ]
    versions = [[escape(k), escape(str(v))] for k, v in run.get("versions", {}).items()]
    some = [f"seed {run.get('seed')}"] + [f"{k} {run[k]}" for k in ("limit", "sample") if run.get(k) is not None]
    return (
        f"<p>{', '.join(some)}. Run again with <code>gristmill curate {escape(str(run.get('file', 'FILE')))} --run "
        f"{escape(found.run_dir)}</code></p>"
        + table(["source", "root", "files", "bytes"], inputs, (2, 3), "inputs")
        + "<h3>Steps</h3>" + table(["name", "step", "options"], options, (), "steps and their options")
        + ("<h3>Quantiles</h3>" + table(["of", "value"], quantiles, (), "quantiles") if quantiles else "")
        + f"<details><summary>Versions</summary>{table(['package', 'version'], versions, (), 'versions')}</details>"
    )  # fmt: skip


def _value(value: Any) -> str:
    """A quantile: a number, one a group, or none."""
    if isinstance(value, dict):
        return ", ".join(f"{group} {_value(v)}" for group, v in value.items())
    return "none" if value is None else f"{value:.6g}"
