"""`gristmill report`: one HTML file about a run that opens anywhere, with no network and nothing crawled that can run.

Everything a crawl said goes through `html.escape` on its way in, addresses are shown and never linked, and the page's
own policy (Content-Security-Policy) forbids it every request. Charts are inline SVG.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

from curation.storage import Storage, is_remote
from pipelines import figures
from pipelines.findings import Findings, Histogram, Sample, Training, gather
from pipelines.progress import duration, size


def write(run_dir: str, out: str | None = None) -> str:
    """Writes the report of a run and returns its path: RUN/report.html, or `out`."""
    page = render(gather(run_dir)).encode("utf-8", "replace")
    if out is None and is_remote(run_dir):
        Storage(run_dir).write_bytes("report.html", page)
        return f"{run_dir.rstrip('/')}/report.html"
    path = os.path.abspath(out or os.path.join(run_dir, "report.html"))
    Storage(os.path.dirname(path)).write_bytes(os.path.basename(path), page)
    return path


def render(found: Findings) -> str:
    """The page."""
    sections = [
        ("overview", "", _overview(found)),
        ("funnel", "What became of every record", _funnel(found)),
        ("domains", "Domains", _domains(found)),
        ("trainings", "Training", "".join(_training(t) for t in found.trainings)),
        ("signals", "Signals", _signals(found)),
        ("clusters", "Largest clusters", _clusters(found)),
        ("samples", "Samples", _samples(found)),
        ("run", "The run", _run(found)),
    ]
    body, nav = [], []
    for name, title, html in sections:
        if not html:
            continue
        heading = f"<h2>{title}</h2>" if title else ""
        body.append(f'<section id="{name}" aria-label="{title or name}">{heading}{html}</section>')
        nav.append(f'<a href="#{name}">{title}</a>' if title else "")
    template = resources.files("pipelines").joinpath("report.html").read_text("utf-8")
    # the page's own words first: what a crawl said may hold anything, "@nav@" too
    for key, value in (("title", escape(f"{found.name}: curation report")), ("nav", "".join(nav))):
        template = template.replace(f"@{key}@", value)
    before, after = template.split("@body@")
    return before + "".join(body) + after


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """A table of cells that are HTML already."""
    kind = ["class=n" if i in numbers else "" for i in range(len(head))]
    top = "".join(f'<th scope="col" {k}>{h}</th>' for h, k in zip(head, kind, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td {k}>{c}</td>" for c, k in zip(row, kind, strict=True)) + "</tr>" for row in rows
    )
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _overview(found: Findings) -> str:
    counts = found.run.get("counts", {})
    records, kept = counts.get("read", {}).get("records", 0), counts.get("kept", 0)
    shown = [("records read", f"{records:,}"), ("documents kept", f"{kept:,}")]
    if records:
        shown.append(("kept", f"{kept / records:.1%}"))
    if "text_bytes" in counts:
        shown.append(("text kept", size(counts["text_bytes"])))
    splits = (found.manifest or {}).get("splits", {})
    for split, domains in splits.items():
        shown.append((f"{split} tokens", f"{sum(d['tokens'] for d in domains.values()):,}"))
    shown.append(("seed", str(found.run.get("seed", ""))))
    return "<dl class=figures>" + "".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in shown) + "</dl>"


def _funnel(found: Findings) -> str:
    counts = found.run.get("counts", {})
    records = left = counts.get("read", {}).get("records", 0)
    rows = []
    for row in counts.get("steps", []):
        left -= row["dropped"]
        sql = found.rules.get(row["step"], {}).get(row["rule"], "")
        bar = (
            f'<span class=k style="width:{100 * left / max(1, records):.2f}%"></span>'
            f'<span class=d style="width:{max(0.4, 100 * row["dropped"] / max(1, records)):.2f}%"></span>'
        )
        rows.append(
            [
                escape(row["step"]),
                escape(row["rule"]) + (f"<br><code>{escape(sql)}</code>" if sql else ""),
                f"{row['dropped']:,}",
                f"{left:,}",
                f"<div class=bar>{bar}</div>",
            ]
        )
    unread = found.run.get("unread", [])
    missing = "".join(f"<li>{escape(str(u.get('path')))}: {escape(str(u.get('reason')))}</li>" for u in unread)
    note = f"<p>Not read:</p><ul>{missing}</ul>" if missing else ""
    said = f"<p>{records:,} records read = {left:,} documents kept + {records - left:,} dropped.</p>"
    return said + table(["step", "rule", "dropped", "left", ""], rows, (2, 3)) + note


def _domains(found: Findings) -> str:
    kept = found.run.get("counts", {}).get("domains", {})
    splits = (found.manifest or {}).get("splits", {})
    mix = (found.manifest or {}).get("mix", {})
    names = list(dict.fromkeys([*kept, *(d for s in splits.values() for d in s)]))
    if not names:
        return ""
    head = ["domain", "documents kept", *(f"{s} tokens" for s in splits), "bytes a token", "weight", "epochs"]
    rows = []
    for name in names:
        parts = [s.get(name, {}) for s in splits.values()]
        tokens, text = sum(p.get("tokens", 0) for p in parts), sum(p.get("text_bytes", 0) for p in parts)
        weight, epochs = _of(mix.get("weights"), name), _of(mix.get("epochs"), name)
        rows.append(
            [
                escape(name),
                f"{kept.get(name, 0):,}",
                *(f"{p.get('tokens', 0):,}" for p in parts),
                f"{text / tokens:.2f}" if tokens else "",
                f"{weight:.3f}" if weight is not None else "",
                f"{epochs:.2f}" if epochs is not None else "",
            ]
        )
    return table(head, rows, range(1, len(head)))


def _of(values: Any, name: str) -> float | None:
    value = values.get(name) if isinstance(values, dict) else None
    return float(value) if value is not None else None


def _signals(found: Findings) -> str:
    parts = [
        f"<p>Counted over {found.counted:,} records; <b class=kept>kept</b> below, <b class=gone>dropped</b> (by "
        "whatever rule) on top. A document that a step never saw has no signal of it.</p>"
    ]
    for step, signals in found.signals.items():
        drawn = "".join(
            figures.histogram(name, data) if isinstance(data, Histogram) else figures.values(name, data)
            for name, data in signals.items()
        )
        if drawn:
            parts.append(f"<h3>{escape(step)}</h3><div class=grid-figures>{drawn}</div>")
    return "".join(parts) if len(parts) > 1 else ""


def _samples(found: Findings) -> str:
    parts = ['<label for="find">Find in samples: a rule, a word, an address</label><input id="find" type="search">']
    order = [(r["step"], r["rule"]) for r in found.run.get("counts", {}).get("steps", [])]
    for key in [k for k in order if k in found.dropped] + [k for k in found.dropped if k not in order]:
        title = f"<b class=gone>dropped</b> by {escape(key[0])}: {escape(key[1])}"
        parts.append(_group(title, f"{key[0]} {key[1]}", found.dropped[key]))
    for domain, samples in found.kept.items():
        parts.append(_group(f"<b class=kept>kept</b> in {escape(domain)}", f"kept {domain}", samples))
    return "".join(parts) if found.dropped or found.kept else ""


def _clusters(found: Findings) -> str:
    """Kept documents that stand for most, each with some of its duplicates."""
    parts = []
    for cluster in found.clusters:
        shown = f"{cluster.copies:,} documents, {len(cluster.members)} of the duplicates shown"
        title = f"{escape(cluster.step)}: <b class=kept>one</b> stands for {shown}"
        parts.append(_group(title, f"cluster {cluster.step}", [cluster.kept, *cluster.members]))
    return "".join(parts)


def _group(title: str, name: str, samples: Sequence[Sample]) -> str:
    documents = "".join(_document(s) for s in samples)
    return f'<details class=rule data-name="{escape(name.lower())}"><summary>{title}</summary>{documents}</details>'


def _document(sample: Sample) -> str:
    facts = [f"<code>{sample.doc_id}</code>"]
    facts += [escape(s) for s in (sample.domain, sample.url) if s]
    lines = [f"<p>{' · '.join(facts)}</p>"]
    for label, value in (("decided by", sample.value), ("evidence", sample.evidence)):
        if value:
            lines.append(f"<p>{label} <code>{escape(_plain(value))}</code></p>")
    if sample.text:
        lines.append(f'<pre tabindex="0">{escape(sample.text)}</pre>')
    return f"<div class=doc>{''.join(lines)}</div>"


def _plain(value: str) -> str:
    """`{"language.score": 0.2}` as language.score = 0.2; a bare JSON string without its quotes."""
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    if isinstance(parsed, dict):
        return ", ".join(f"{k} = {v}" for k, v in parsed.items())
    return str(parsed)


def _training(training: Training) -> str:
    lines: dict[str, Sequence[tuple[float, float]]] = {"training": training.train}
    lines |= {f"validation {d}": v for d, v in training.validation.items()}
    rows = []
    for domain, score in training.last.items():
        first = training.validation[domain][0][1]
        bits = score.get("bits_per_byte")
        shown = [f"{first:.3f}", f"{score['loss']:.3f}", f"{score['perplexity']:,.1f}"]
        rows.append([escape(domain), *shown, f"{bits:.3f}" if bits is not None else ""])
    marks = {e.get("confirmed", e["iteration"]): _happened(e) for e in training.events}
    told = "".join(f"<li>{escape(m)}</li>" for m in marks.values())
    speed = f", {training.tokens / training.seconds:,.0f} tokens/s" if training.seconds else ""
    said = f"<p>It says:</p><pre>{escape(training.said)}</pre>" if training.said else ""
    head = ["validation", "loss at first", "loss", "perplexity", "bits per byte"]
    return (
        f"<h3>{escape(training.name)}</h3><p>{len(training.train):,} iterations, {training.tokens:,} tokens in "
        f"{duration(training.seconds)}{speed}</p>{figures.curves('loss over iterations', lines, marks=marks)}"
        f"{f'<ul>{told}</ul>' if told else ''}"
        f"{table(head, rows, (1, 2, 3, 4))}{said}"
    )


def _happened(event: dict[str, Any]) -> str:
    """What the guard did, for a tooltip and the list below the curves."""
    if event["event"] == "rollback":
        return (
            f"iteration {event['confirmed']}: spike; back to iteration {event['iteration']}, "
            f"{len(event['blamed'])} documents masked"
        )
    what = {"skip": "update skipped", "anomaly": "out of the frame", "overflow": "fp16 overflow, update skipped"}
    return f"iteration {event['iteration']}: {what[event['event']]}"


def _run(found: Findings) -> str:
    run = found.run
    inputs = [
        [escape(i["source"]), escape(str(i.get("root", ""))), f"{i['files']:,}", size(i["bytes"])]
        for i in run.get("inputs", [])
    ]
    phases = [
        [
            escape(p["phase"]),
            f"{p['tasks']:,}",
            duration(p.get("seconds", 0)),
            duration(p.get("cpu_seconds", 0)),
            size(p.get("peak_bytes", 0)),
        ]
        for p in run.get("phases", [])
    ]
    quantiles = [
        [
            escape(f"{q['signal']} at {q['p']}" + (f" by {q['by']}" if q.get("by") else "")),
            escape(json.dumps(q["value"], ensure_ascii=False)),
        ]
        for q in run.get("quantiles", [])
    ]
    versions = json.dumps(run.get("versions", {}), indent=1, ensure_ascii=False)
    parts = [
        table(["source", "root", "files", "bytes"], inputs, (2, 3)) if inputs else "",
        "<h3>Phases</h3>" + table(["phase", "tasks", "time", "CPU", "peak memory"], phases, (1, 2, 3, 4))
        if phases
        else "",
        "<h3>Quantiles</h3>" + table(["of", "value"], quantiles) if quantiles else "",
        f"<details><summary>Versions</summary><pre>{escape(versions)}</pre></details>",
    ]
    return "".join(parts)
