"""What became of every record: by step and by rule, in documents, bytes of text and tokens.

Documents are counts of the whole run. Bytes and tokens of what was dropped are those of the rows of the ledger that the
report holds, times the records that each of them stands for; of what was kept they are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from pipelines.monitor.progress import size
from pipelines.report.curation.report_data import Findings
from pipelines.report.html.charts import table


@dataclass(frozen=True)
class Drop:
    """What a rule took away."""

    step: str
    rule: str
    documents: int
    bytes: float
    tokens: float


def drops(found: Findings) -> list[Drop]:
    """By step and rule, in the order of the pipeline."""
    steps = np.array(found.rows.column("step").to_pylist(), dtype=object)
    rules = np.array(found.rows.column("rule").to_pylist(), dtype=object)
    out = []
    for row in found.run["counts"]["steps"]:
        mine = (steps == row["step"]) & (rules == row["rule"])
        out.append(Drop(row["step"], row["rule"], row["dropped"], *_amount(found, mine, row["dropped"])))
    return out


def _amount(found: Findings, rows: npt.NDArray[np.bool_], documents: int) -> tuple[float, float]:
    """Bytes and tokens of so many documents, of which these rows are a sample."""
    rows = rows if rows.any() else np.ones(len(rows), bool)  # a rare rule of a large run: as all documents are
    return tuple(float(documents * values[rows].mean()) for values in (found.sizes.bytes, found.sizes.tokens))  # type: ignore[return-value]


def html(found: Findings) -> str:
    """The sum, and the table."""
    made = drops(found)
    kept = int(found.run["counts"]["kept"])
    gone = sum(d.documents for d in made)
    unread = found.run.get("unread", [])
    missing = "".join(f"<li>{escape(str(u.get('path')))}: {escape(str(u.get('reason')))}</li>" for u in unread)
    bytes_missing = int(found.run["counts"]["read"].get("unread_bytes", 0))
    said = f"{found.records:,} records read = {kept:,} documents kept + {gone:,} dropped"
    said += f", and {size(bytes_missing)} in {len(unread)} files not read" if unread else ""
    return (
        f"<p>{said}.</p>" + (f"<ul>{missing}</ul>" if missing else "") + _table(found, made, kept)
        + f"<p class=note>Bytes are of text, tokens of this run's tokenizer: {escape(found.sizes.how)}"
        + (f"; sizes of dropped documents from {found.rows.num_rows:,} of {found.records:,} records"
           if found.scale > 1.001 else "") + ".</p>"
    )  # fmt: skip


def _table(found: Findings, made: list[Drop], kept: int) -> str:
    left = found.records
    rows: list[list[str]] = []
    kinds: list[str] = []
    for step in dict.fromkeys(d.step for d in made):
        mine = [d for d in made if d.step == step]
        total = Drop(step, "", *(sum(getattr(d, k) for d in mine) for k in ("documents", "bytes", "tokens")))
        left -= total.documents
        ruled = {d.rule: written(found.rules.get(step, {}).get(d.rule, "")) for d in mine}
        only = {o for _, o in ruled.values()}
        where = f"<br><code>only where {escape(only.pop())}</code>" if len(only) == 1 and only != {""} else ""
        rows.append(_row(found, escape(step) + where, total, left))
        kinds.append("step")
        for d in mine:
            sql, limit = ruled[d.rule]
            sql += f" only where {limit}" if limit and not where else ""
            name = escape(d.rule) + (f"<br><code>{escape(sql)}</code>" if sql else "")
            rows.append(_row(found, name, d, None))
            kinds.append("rule")
    tokens = sum(d.get("tokens", 0) for s in (found.manifest or {}).get("splits", {}).values() for d in s.values())
    end = Drop(
        "",
        "",
        kept,
        found.run["counts"].get("text_bytes", 0),
        tokens or found.sizes.tokens[found.stays].sum() * found.scale,
    )
    rows.append(_row(found, "<span class=keep>kept</span>", end, None, kept=True))
    kinds.append("sum")
    head = ["step and rule", "documents", "of all", "bytes", "tokens", "left", ""]
    made_table = table(head, rows, (1, 2, 3, 4, 5), "documents dropped by step and rule")
    before, body = made_table.split("<tbody>")
    for kind in kinds:
        body = body.replace("<tr>", f'<tr class="{kind}">', 1)
    return f"{before}<tbody>{body}"


def _row(found: Findings, name: str, d: Drop, left: int | None, *, kept: bool = False) -> list[str]:
    share = d.documents / max(1, found.records)
    stands = 0.0 if left is None else left / max(1, found.records)
    bar = (f'<span class=k style="width:{100 * (share if kept else stands):.2f}%"></span>'
           f'<span class=d style="width:{0 if kept else max(0.4, 100 * share):.2f}%"></span>')  # fmt: skip
    sign = "" if kept else "−"
    return [
        name,
        f"{sign}{d.documents:,}",
        f"{share:.1%}",
        size(d.bytes),
        short(d.tokens),
        f"{left:,}" if left is not None else "",
        f"<div class=bar>{bar}</div>" if left is not None or kept else "",
    ]


def short(count: float) -> str:
    """A count of tokens: 950, 12.3k, 4.56M, 1.2B."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= limit:
            return f"{count / limit:.3g}{unit}"
    return f"{count:.0f}"


def written(sql: str) -> tuple[str, str]:
    """A rule as it was written, and the condition that its step's `only` laid over it ("" without)."""
    from pipelines.what_if.what_if import LIMITED

    found = LIMITED.fullmatch(sql)
    if not found:
        return " ".join(sql.split()), ""
    only = found[1].removeprefix("NOT coalesce((").removesuffix("), FALSE) OR ")
    return " ".join(found[2].split()), " ".join(only.split())
