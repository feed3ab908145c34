"""Report section: a browser of sample documents, kept and dropped; its data and its HTML panel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from curation.config.where_condition import split_rule
from pipelines.lookup.document_samples import Sample
from pipelines.report.curation.report_data import ReportData

MAX_TEXT = 4_000_000  # characters of text in total: keeps the page below 10 MB
MAX_EVIDENCE = 300  # characters


def sample_data(report: ReportData) -> list[dict[str, Any]]:
    """The samples: dropped ones in the order of the pipeline, then those dropped while reading, then kept ones."""
    order = [(r["step"], r["rule"]) for r in report.run["counts"]["steps"]]
    order.sort(key=lambda key: key[0] == "read")
    dropped = {(r["step"], r["rule"]): r["dropped"] for r in report.run["counts"]["steps"]}
    out = [_entry(s, key, report, dropped[key]) for key in order for s in report.dropped.get(key, ())]
    out += [_entry(s, None, report, 0) for samples in report.kept.values() for s in samples]
    length = sum(len(e["text"] or "") for e in out)
    if length > MAX_TEXT:
        each = MAX_TEXT // len(out)
        for e in out:
            e["text"] = e["text"] and e["text"][:each]
    return out


def _entry(sample: Sample, key: tuple[str, str] | None, report: ReportData, of: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": sample.doc_id, "url": sample.url, "domain": sample.domain or "", "text": sample.text,
        "place": _place(sample.source),
    }  # fmt: skip
    if key is not None:
        sql, only = split_rule(report.rules.get(key[0], {}).get(key[1], ""))
        entry |= {"step": key[0], "rule": key[1], "of": of, "value": plain(sample.value)}
        entry |= {"sql": f"{sql} applies where {only}" if only else sql}
        entry |= {"evidence": (plain(sample.evidence) or "")[:MAX_EVIDENCE]}
    return entry


def _place(source: dict[str, Any] | None) -> str:
    if not source:
        return ""
    where = f"row {source['row']}" if source.get("offset") is None else f"byte {source['offset']:,}"
    return f"{source['file']}, {where}"


def plain(value: str | None) -> str | None:
    """`{"language.score": 0.2}` as language.score = 0.2; a bare JSON string without its quotes."""
    if not value:
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    if isinstance(parsed, dict):
        return ", ".join(f"{k} = {_short(v)}" for k, v in parsed.items())
    return str(parsed)


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


PANEL = """<div class=tool id="sample-browser" hidden><div class=fields>
<div class=grow><label for="sample-fate">Show</label><select id="sample-fate"></select></div>
<div><label for="sample-domain">Domain</label><select id="sample-domain"></select></div>
<div class=grow><label for="sample-find">Search for a word, URL or id</label>
<input id="sample-find" type="search" autocomplete="off"></div></div>
<p id="sample-count" class=note role="status"></p>
<div class=browser><div class=list id="sample-list" role="group" aria-label="Samples"></div>
<div class=reading id="sample-text" aria-live="polite"></div></div></div>
<noscript><p>The samples need JavaScript; <code>gristmill explain RUN ID</code> shows one document.</p></noscript>"""


def html(entries: Sequence[dict[str, Any]]) -> str:
    """The section: a panel that samples.js fills."""
    if not entries:
        return ""
    note = (
        "<p>A random sample: some documents dropped by each rule and some kept ones of each domain. Texts are cut, and "
        "personal data is replaced if the pipeline does so. URLs are not links.</p>"
    )
    return note + PANEL
