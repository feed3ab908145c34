"""The mix, before and after: what was crawled, what was kept, what training is to read; fertility; languages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from pipelines.report.curation.funnel import short
from pipelines.report.curation.report_data import Findings
from pipelines.report.html import charts

LANGUAGES = 12  # shown; the rest is one line


def html(found: Findings) -> str:
    """Stacked bars of each mix, and the table by domain."""
    splits = (found.manifest or {}).get("splits", {})
    mix = (found.manifest or {}).get("mix", {})
    kept = found.run["counts"].get("domains", {})
    names = list(dict.fromkeys([*found.counts.domains, *kept, *(d for s in splits.values() for d in s)]))
    read = {d: sum(n for (_, _, of), n in found.counts.documents.items() if of == d) for d in names}
    tokens = {d: sum(s.get(d, {}).get("tokens", 0) for s in splits.values()) for d in names}
    size = {d: sum(s.get(d, {}).get("text_bytes", 0) for s in splits.values()) for d in names}
    weights = {d: float(w) for d, w in (mix.get("weights") or {}).items()}
    rows: list[tuple[str, Mapping[str, float]]] = [("records read", read), ("documents kept", kept)]
    rows += [("tokens kept", tokens)] if any(tokens.values()) else []
    rows += [("mix to train on", weights)] if weights else []
    head = ["domain", "read", "kept", "kept of read", "tokens", "bytes a token", "tokens a word", "weight", "epochs"]
    cells = []
    for d in names:
        words = found.words.get(d, 0) * size[d]
        cells.append(
            [
                escape(d or "(none)"),
                f"{read[d]:,}" if read[d] else "",
                f"{kept.get(d, 0):,}" if d in kept or read[d] else "",
                f"{kept.get(d, 0) / read[d]:.1%}" if read[d] else "",
                short(tokens[d]) if tokens[d] else "",
                f"{size[d] / tokens[d]:.2f}" if tokens[d] else "",
                f"{tokens[d] / words:.2f}" if words and tokens[d] else "",
                f"{weights[d]:.3f}" if d in weights else "",
                _epochs(mix, d),
            ]
        )
    said = (
        "<p class=note>Tokens a word is the tokenizer's fertility: tokens of the kept text over its words, which are "
        "counted by white space. Epochs: how often the mix reads the domain.</p>"
    )
    return charts.stack(rows, names, "Domain mix before and after") + charts.table(
        head, cells, range(1, len(head)), "domains"
    ) + said  # fmt: skip


def _epochs(mix: Mapping[str, Any], domain: str) -> str:
    value = (mix.get("epochs") or {}).get(domain)
    return f"{float(value):.2f}" if value is not None else ""


def languages(found: Findings) -> str:
    """Documents by the code that the first language step gave them; "" without one."""
    counted = sorted(found.counts.languages.items(), key=lambda t: (-sum(t[1]), t[0]))
    if not counted:
        return ""
    rows = [(code, float(k), float(d)) for code, (k, d) in counted[:LANGUAGES]]
    rest = counted[LANGUAGES:]
    if rest:
        k, d = (sum(values[i] for _, values in rest) for i in (0, 1))
        rows.append((f"{len(rest)} more", float(k), float(d)))
    total = sum(sum(v) for _, v in counted)
    said = f"<p>{len(counted)} languages among the {total:,} documents that got as far.</p>"
    return said + charts.bars("Documents by language", rows, unit="language")
