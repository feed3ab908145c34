"""Report sections: the domain mix before and after curation, tokenizer fertility, and languages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from pipelines.number_format import format_count
from pipelines.report.curation.report_data import ReportData
from pipelines.report.html import charts

LANGUAGES = 12  # shown one by one; the others are summed


def html(report: ReportData) -> str:
    """The section: stacked bars of the mix at each stage, and a table by domain."""
    splits = (report.manifest or {}).get("splits", {})
    mix = (report.manifest or {}).get("mix", {})
    kept = report.run["counts"].get("domains", {})
    names = list(dict.fromkeys([*report.counts.domains, *kept, *(d for s in splits.values() for d in s)]))
    read = {d: sum(n for (_, _, of), n in report.counts.documents.items() if of == d) for d in names}
    tokens = {d: sum(s.get(d, {}).get("tokens", 0) for s in splits.values()) for d in names}
    size = {d: sum(s.get(d, {}).get("text_bytes", 0) for s in splits.values()) for d in names}
    weights = {d: float(w) for d, w in (mix.get("weights") or {}).items()}
    rows: list[tuple[str, Mapping[str, float]]] = [("records read", read), ("documents kept", kept)]
    rows += [("tokens kept", tokens)] if any(tokens.values()) else []
    rows += [("training mix", weights)] if weights else []
    head = ["domain", "read", "kept", "share kept", "tokens", "bytes per token", "tokens per word", "weight", "epochs"]
    cells = []
    for d in names:
        words = report.words.get(d, 0) * size[d]
        cells.append(
            [
                escape(d or "(none)"),
                f"{read[d]:,}" if read[d] else "",
                f"{kept.get(d, 0):,}" if d in kept or read[d] else "",
                f"{kept.get(d, 0) / read[d]:.1%}" if read[d] else "",
                format_count(tokens[d]) if tokens[d] else "",
                f"{size[d] / tokens[d]:.2f}" if tokens[d] else "",
                f"{tokens[d] / words:.2f}" if words and tokens[d] else "",
                f"{weights[d]:.3f}" if d in weights else "",
                _epochs(mix, d),
            ]
        )
    note = (
        "<p class=note>Tokens per word is the fertility of the tokenizer; words of scripts without "
        "spaces are estimated. Epochs: how often the mix reads the domain.</p>"
    )
    return charts.stack(rows, names, "Domain mix before and after") + charts.table(
        head, cells, range(1, len(head)), "domains"
    ) + note  # fmt: skip


def _epochs(mix: Mapping[str, Any], domain: str) -> str:
    value = (mix.get("epochs") or {}).get(domain)
    return f"{float(value):.2f}" if value is not None else ""


def languages(report: ReportData) -> str:
    """The section of documents by language, as the first language step classified them; "" without one."""
    counted = sorted(report.counts.languages.items(), key=lambda t: (-sum(t[1]), t[0]))
    if not counted:
        return ""
    rows = [(code, float(k), float(d)) for code, (k, d) in counted[:LANGUAGES]]
    rest = counted[LANGUAGES:]
    if rest:
        k, d = (sum(values[i] for _, values in rest) for i in (0, 1))
        rows.append((f"{len(rest)} others", float(k), float(d)))
    total = sum(sum(v) for _, v in counted)
    summary = f"<p>{len(counted)} languages in the {total:,} documents that reached the language step.</p>"
    return summary + charts.bars("Documents by language", rows, unit="language")
