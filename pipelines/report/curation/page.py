"""Builds the report page of a curation run from its sections."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from pipelines.number_format import format_bytes, format_count, format_duration
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
from pipelines.report.curation.report_data import ReportData
from pipelines.report.html import page
from pipelines.report.html.charts import table
from pipelines.report.html.page import Section
from pipelines.report.training import page as training


def render(report: ReportData, price: float | None = None) -> str:
    """The page's HTML. `price`: of a core-hour."""
    found_thresholds = thresholds.find_thresholds(report.rules, report.run.get("quantiles", []))
    slider_data = sliders.slider_data(report, found_thresholds)
    sample_data = samples.sample_data(report)
    run_cost = cost.gather(report)
    sections = [
        Section("overview", "Overview", page.tiles(_overview(report, run_cost))),
        Section("flow", "Documents from crawl to result", sankey.html(report)),
        Section("funnel", "Dropped by step and rule", funnel.html(report)),
        Section("domains", "Domain mix", domains.html(report)),
        Section("languages", "Languages", domains.languages(report)),
        Section("what-if", "What if a threshold changes", sliders.html(slider_data)),
        Section("samples", "Samples", samples.html(sample_data)),
        Section("signals", "Signals and thresholds", signals.html(report, found_thresholds)),
        Section("clusters", "Largest duplicate clusters", clusters.html(report)),
        Section("safety", "Personal data, toxicity, benchmark leaks", safety.html(report)),
        *(Section(f"training-{i}", f"Training: {t.name}", training.html(t)) for i, t in enumerate(report.trainings)),
        Section("cost", "Time and cost", cost.html(report, run_cost, price)),
        Section("run", "Run configuration", _run(report)),
    ]
    data = {
        "run": report.run_dir,
        "kept": report.run["counts"]["kept"],
        "thresholds": slider_data,
        "samples": sample_data,
    }
    inputs = sum(i["files"] for i in report.run.get("inputs", []))
    fingerprint = escape(str(report.run.get("fingerprint", ""))[:12])
    subtitle = f"Curation report · {inputs:,} input files · fingerprint <code>{fingerprint}</code>"
    if stopped := report.run.get("stopped"):
        subtitle += f" · <b>stopped</b>: {escape(stopped.partition(chr(10))[0])}"
    return page.render(report.name, subtitle, sections, data)


def _overview(report: ReportData, run_cost: cost.Cost) -> list[tuple[str, str, str]]:
    counts = report.run["counts"]
    figures = [
        (
            "records read",
            f"{report.records:,}",
            format_bytes(sum(i["bytes"] for i in report.run.get("inputs", []))) + " of input files",
        ),
        ("documents kept", f"{counts['kept']:,}", f"{counts['kept'] / max(1, report.records):.1%} of records"),
        ("text kept", format_bytes(counts.get("text_bytes", 0)), ""),
    ]
    for split, by in (report.manifest or {}).get("splits", {}).items():
        vocabulary = counts.get("tokenizer", {}).get("vocab")
        note = f"vocabulary {vocabulary:,}" if vocabulary and split == "train" else ""
        figures.append((f"{split} tokens", format_count(sum(d["tokens"] for d in by.values())), note))
    figures.append(
        ("core-hours", f"{run_cost.core_hours:.3g}", f"{format_duration(sum(p.cpu for p in run_cost.phases))} of CPU")
    )
    if report.run.get("unread"):
        figures.append(
            ("files not read", f"{len(report.run['unread']):,}", format_bytes(counts["read"].get("unread_bytes", 0)))
        )
    return figures


def _run(report: ReportData) -> str:
    run = report.run
    inputs = [
        [escape(i["source"]), escape(str(i.get("root", ""))), f"{i['files']:,}", format_bytes(i["bytes"])]
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
        for s in report.steps
    ]
    versions = [[escape(k), escape(str(v))] for k, v in run.get("versions", {}).items()]
    settings = [f"seed {run.get('seed')}"] + [f"{k} {run[k]}" for k in ("limit", "sample") if run.get(k) is not None]
    return (
        f"<p>{', '.join(settings)}. Run it again with <code>gristmill curate {escape(str(run.get('file', 'FILE')))} "
        f"--run {escape(report.run_dir)}</code></p>"
        + table(["source", "root", "files", "bytes"], inputs, (2, 3), "inputs")
        + "<h3>Steps</h3>" + table(["name", "step", "options"], options, (), "steps and their options")
        + ("<h3>Quantiles</h3>" + table(["signal", "value"], quantiles, (), "quantiles") if quantiles else "")
        + f"<details><summary>Versions</summary>{table(['package', 'version'], versions, (), 'versions')}</details>"
    )  # fmt: skip


def _value(value: Any) -> str:
    """A quantile as text: a number, or one for each group."""
    if isinstance(value, dict):
        return ", ".join(f"{group} {_value(v)}" for group, v in value.items())
    return "none" if value is None else f"{value:.6g}"
