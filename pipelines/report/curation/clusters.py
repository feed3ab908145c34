"""The largest clusters of duplicates: the document that stands for most others, and some of those."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipelines.lookup.document_samples import Sample
from pipelines.lookup.duplicate_pairs import Cluster
from pipelines.report.curation.report_data import Findings
from pipelines.report.curation.samples import plain
from pipelines.report.html.charts import table

TEXT = 600


def html(found: Findings) -> str:
    """By step of deduplication, a cluster a fold."""
    if not found.clusters:
        return ""
    parts = []
    for step in dict.fromkeys(c.step for c in found.clusters):
        mine = sorted((c for c in found.clusters if c.step == step), key=lambda c: -c.copies)
        rows = [[escape(_name(c.kept)), escape(c.kept.domain or ""), f"{c.copies:,}"] for c in mine]
        parts.append(
            f"<h3>{escape(step)}</h3>"
            + table(["kept document", "domain", "stands for"], rows, (2,), f"{step}: largest clusters")
        )
        parts += [_cluster(c) for c in mine]
    return "<p>One document stays and stands for all that are like it, itself included.</p>" + "".join(parts)


def _name(sample: Sample) -> str:
    return sample.url or (sample.source or {}).get("file") or sample.doc_id


def _cluster(c: Cluster) -> str:
    return (
        f"<details><summary>{c.copies:,} documents: {escape(_name(c.kept)[:90])}</summary>"
        + _document(c.kept, "kept", "keep")
        + "".join(_document(m, "dropped", "gone") for m in _shown(c.members))
        + (f"<p class=note>and {c.copies - 1 - len(c.members):,} more</p>" if c.copies - 1 > len(c.members) else "")
        + "</details>"
    )


def _shown(members: Sequence[Sample]) -> Sequence[Sample]:
    return sorted(members, key=lambda m: m.doc_id)


def _document(s: Sample, what: str, kind: str) -> str:
    facts = " · ".join(escape(f) for f in (s.domain, s.url) if f)
    why = f" <code>{escape((plain(s.evidence) or '')[:200])}</code>" if s.evidence else ""
    text = f'<pre tabindex="0" aria-label="text">{escape(s.text[:TEXT])}</pre>' if s.text else ""
    return f'<div class=doc><p><b class="{kind}">{what}</b> {facts}{why}</p>{text}</div>'
