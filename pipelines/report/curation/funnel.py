"""Report section: what each step and rule dropped, in documents, bytes of text and tokens.

Documents are exact counts. Bytes and tokens of dropped documents are estimated from the sampled rows of the ledger;
those of kept documents are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from curation.config.where_condition import split_rule
from pipelines.number_format import format_bytes, format_count
from pipelines.report.curation.report_data import ReportData
from pipelines.report.html.charts import table


@dataclass(frozen=True)
class Drop:
    """What a rule dropped."""

    step: str
    rule: str
    documents: int
    bytes: float
    tokens: float


def dropped_by_rule(report: ReportData) -> list[Drop]:
    """What each rule dropped, in the order of the pipeline."""
    steps = np.array(report.rows.column("step").to_pylist(), dtype=object)
    rules = np.array(report.rows.column("rule").to_pylist(), dtype=object)
    out = []
    for row in report.run["counts"]["steps"]:
        mine = (steps == row["step"]) & (rules == row["rule"])
        out.append(Drop(row["step"], row["rule"], row["dropped"], *_estimate_sizes(report, mine, row["dropped"])))
    return out


def _estimate_sizes(report: ReportData, rows: npt.NDArray[np.bool_], documents: int) -> tuple[float, float]:
    """Bytes and tokens of a number of documents, from the sampled rows among them."""
    rows = rows if rows.any() else np.ones(len(rows), bool)  # a rare rule of a large run: estimated from all documents
    return tuple(float(documents * values[rows].mean()) for values in (report.sizes.bytes, report.sizes.tokens))  # type: ignore[return-value]


def html(report: ReportData) -> str:
    """The section."""
    dropped = dropped_by_rule(report)
    kept = int(report.run["counts"]["kept"])
    total = sum(d.documents for d in dropped)
    unread = report.run.get("unread", [])
    missing = "".join(f"<li>{escape(str(u.get('path')))}: {escape(str(u.get('reason')))}</li>" for u in unread)
    bytes_missing = int(report.run["counts"]["read"].get("unread_bytes", 0))
    summary = f"{report.records:,} records read = {kept:,} documents kept + {total:,} dropped"
    summary += f"; {format_bytes(bytes_missing)} in {len(unread)} files could not be read" if unread else ""
    return (
        f"<p>{summary}.</p>" + (f"<ul>{missing}</ul>" if missing else "") + _table(report, dropped, kept)
        + _not_judged(report)
        + f"<p class=note>Bytes of text, and tokens of this run's tokenizer: {escape(report.sizes.method)}"
        + (f"; sizes of dropped documents estimated from {report.rows.num_rows:,} of {report.records:,} records"
           if report.scale > 1.001 else "") + ".</p>"
    )  # fmt: skip


def _not_judged(report: ReportData) -> str:
    """A table of what the steps could not judge, if anything."""
    rows = [
        [escape(row["step"]), escape(row["what"]), f"{row['count']:,}", f"{row['of']:,}" if row["of"] else ""]
        for row in report.run["counts"].get("not_judged", [])
    ]
    return "<h3>Not judged</h3>" + table(["step", "what", "count", "of"], rows, (2, 3), "not judged") if rows else ""


def _table(report: ReportData, dropped: list[Drop], kept: int) -> str:
    left = report.records
    rows: list[list[str]] = []
    kinds: list[str] = []
    for step in dict.fromkeys(d.step for d in dropped):
        mine = [d for d in dropped if d.step == step]
        total = Drop(step, "", *(sum(getattr(d, k) for d in mine) for k in ("documents", "bytes", "tokens")))
        left -= total.documents
        ruled = {d.rule: split_rule(report.rules.get(step, {}).get(d.rule, "")) for d in mine}
        only = {o for _, o in ruled.values()}
        where = f"<br><code>applies where {escape(only.pop())}</code>" if len(only) == 1 and only != {""} else ""
        rows.append(_row(report, escape(step) + where, total, left))
        kinds.append("step")
        for d in mine:
            sql, limit = ruled[d.rule]
            sql += f" applies where {limit}" if limit and not where else ""
            name = escape(d.rule) + (f"<br><code>{escape(sql)}</code>" if sql else "")
            rows.append(_row(report, name, d, None))
            kinds.append("rule")
    tokens = sum(d.get("tokens", 0) for s in (report.manifest or {}).get("splits", {}).values() for d in s.values())
    end = Drop(
        "",
        "",
        kept,
        report.run["counts"].get("text_bytes", 0),
        tokens or report.sizes.tokens[report.is_kept].sum() * report.scale,
    )
    rows.append(_row(report, "<span class=keep>kept</span>", end, None, kept=True))
    kinds.append("sum")
    head = ["step and rule", "documents", "share of records", "bytes", "tokens", "left", ""]
    html_table = table(head, rows, (1, 2, 3, 4, 5), "documents dropped by step and rule")
    before, body = html_table.split("<tbody>")
    for kind in kinds:
        body = body.replace("<tr>", f'<tr class="{kind}">', 1)
    return f"{before}<tbody>{body}"


def _row(report: ReportData, name: str, d: Drop, left: int | None, *, kept: bool = False) -> list[str]:
    share = d.documents / max(1, report.records)
    remaining = 0.0 if left is None else left / max(1, report.records)
    bar = (f'<span class=k style="width:{100 * (share if kept else remaining):.2f}%"></span>'
           f'<span class=d style="width:{0 if kept else max(0.4, 100 * share):.2f}%"></span>')  # fmt: skip
    sign = "" if kept else "−"
    return [
        name,
        f"{sign}{d.documents:,}",
        f"{share:.1%}",
        format_bytes(d.bytes),
        format_count(d.tokens),
        f"{left:,}" if left is not None else "",
        f"<div class=bar>{bar}</div>" if left is not None or kept else "",
    ]
