"""Report section: the largest duplicate clusters, each with its kept document and some of the dropped ones."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipelines.lookup.document_samples import Sample
from pipelines.lookup.duplicate_pairs import Cluster
from pipelines.report.curation.report_data import ReportData
from pipelines.report.curation.samples import plain
from pipelines.report.html.charts import table

TEXT_LENGTH = 600  # characters shown of each document


def html(report: ReportData) -> str:
    """The section: a table for each deduplication step, and a fold-out for each cluster."""
    if not report.clusters:
        return ""
    parts = []
    for step in dict.fromkeys(c.step for c in report.clusters):
        mine = sorted((c for c in report.clusters if c.step == step), key=lambda c: -c.copies)
        rows = [[escape(_name(c.kept)), escape(c.kept.domain or ""), f"{c.copies:,}"] for c in mine]
        parts.append(
            f"<h3>{escape(step)}</h3>"
            + table(["kept document", "domain", "documents in cluster"], rows, (2,), f"{step}: largest clusters")
        )
        parts += [_cluster(c) for c in mine]
    return "<p>Of each cluster of duplicates one document is kept. The counts include it.</p>" + "".join(parts)


def _name(sample: Sample) -> str:
    return sample.url or (sample.source or {}).get("file") or sample.doc_id


def _cluster(c: Cluster) -> str:
    return (
        f"<details><summary>{c.copies:,} documents: {escape(_name(c.kept)[:90])}</summary>"
        + _document(c.kept, "kept", "keep")
        + "".join(_document(m, "dropped", "gone") for m in _sorted(c.members))
        + (f"<p class=note>and {c.copies - 1 - len(c.members):,} more</p>" if c.copies - 1 > len(c.members) else "")
        + "</details>"
    )


def _sorted(members: Sequence[Sample]) -> Sequence[Sample]:
    return sorted(members, key=lambda m: m.doc_id)


def _document(s: Sample, what: str, kind: str) -> str:
    facts = " · ".join(escape(f) for f in (s.domain, s.url) if f)
    why = f" <code>{escape((plain(s.evidence) or '')[:200])}</code>" if s.evidence else ""
    text = f'<pre tabindex="0" aria-label="text of the document">{escape(s.text[:TEXT_LENGTH])}</pre>' if s.text else ""
    return f'<div class=doc><p><b class="{kind}">{what}</b> {facts}{why}</p>{text}</div>'
