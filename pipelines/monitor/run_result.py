"""Prints the result of a curation run: the funnel of records, and the files that could not be read."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.number_format import format_duration

MOST_LINES = 20  # files printed where records were left out
MOST_RULES = 2  # rules of a step that `status` names: a step has one line of 80 columns


def print_result(console: Console, result: Any) -> None:
    """Prints a `curation.engine.runtime.run.Result`; says so if there was nothing to do."""
    if result.status == "unchanged":
        time = format_duration(result.seconds)
        console.print(f"nothing to do: {result.run_dir} is up to date ({time})", highlight=False)
    elif result.counts:
        console.print(funnel_table(result.counts))
        print_not_judged(console, result.counts)
        console.print(verdict(result.counts), highlight=False, soft_wrap=True)
        console.print(f"{result.run_dir}: {result.status} in {format_duration(result.seconds)}", highlight=False)
        if result.status == "done":
            console.print(f"HTML report: gristmill report {result.run_dir}", style="dim", highlight=False)
    for item in result.quarantined:
        console.print(f"not read: {item.get('path')}: {item.get('reason')}", style="yellow", markup=False)
    print_left_out(console, result.left_out)
    if result.quarantined:
        console.print("repair or remove these files and run again, or continue without them: --allow-missing")


def print_not_judged(console: Console, counts: dict[str, Any]) -> None:
    """Prints what the steps could not judge; `counts` as run.json has them."""
    for row in counts.get("not_judged", []):
        of = f" of {row['of']:,}" if row["of"] else ""
        console.print(
            f"not judged by {row['step']}: {row['count']:,}{of} {row['what']}",
            style="yellow", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip


def print_left_out(console: Console, left_out: list[dict[str, Any]]) -> None:
    """Prints which records are left out because code failed on them: by file and place in the code."""
    for item in left_out[:MOST_LINES]:
        what = f"step {item['step']} fails" if item["step"] else "a worker dies"
        at = f" ({item['at']})" if item["at"] else ""
        console.print(
            f"left out: {item['records']:,} records of {item['file']}: {what}{at}: {item['reason']}",
            style="yellow", markup=False, soft_wrap=True,
        )  # fmt: skip
    if len(left_out) > MOST_LINES:
        console.print(f"and of {len(left_out) - MOST_LINES:,} more files or places", style="yellow")
    if left_out:
        console.print("poison.jsonl names these records; they come back when the step changes", style="yellow")


def funnel_table(counts: dict[str, Any]) -> Table:
    """What each rule dropped and how many documents were left; `counts` as run.json has them."""
    return _funnel(counts, [(r["step"], r["rule"], r["dropped"]) for r in counts.get("steps", [])])


def steps_table(counts: dict[str, Any]) -> Table:
    """The same with one row for each step, which names the rules that dropped most."""
    by_step: dict[str, list[tuple[int, str]]] = {}
    for row in counts.get("steps", []):
        by_step.setdefault(row["step"], []).append((row["dropped"], row["rule"]))
    rows = []
    for step, rules in by_step.items():
        rules.sort(key=lambda r: -r[0])
        named = [f"{rule} {n:,}" for n, rule in rules[:MOST_RULES]] if len(rules) > 1 else [rules[0][1]]
        more = [f"{len(rules) - MOST_RULES} more"] if len(rules) > MOST_RULES else []
        rows.append((step, ", ".join(named + more), sum(n for n, _ in rules)))
    return _funnel(counts, rows)


def verdict(counts: dict[str, Any]) -> str:
    """One sentence: how many documents were kept, and the rule that dropped most. Records that are no documents
    (requests, redirects: the rule read.record_type) are not counted."""
    documents, rows = counts.get("read", {}).get("records", 0), []
    for row in counts.get("steps", []):
        if (row["step"], row["rule"]) == ("read", "record_type"):
            documents -= row["dropped"]
        else:
            rows.append((row["dropped"], f"{row['step']}.{row['rule']}"))
    sentence = f"{counts.get('kept', 0):,} of {documents:,} documents kept"
    if rows:
        dropped, rule = max(rows, key=lambda r: r[0])
        sentence += f"; {rule} dropped most: {dropped:,}"
    return sentence


def _funnel(counts: dict[str, Any], rows: list[tuple[str, str, int]]) -> Table:
    table = Table("step", "rule", box=None, pad_edge=False)
    for column in ("dropped", "left"):
        table.add_column(column, justify="right")
    left = counts.get("read", {}).get("records", 0)
    table.add_row("read", "", "", f"{left:,}")
    for step, rule, dropped in rows:
        left -= dropped
        table.add_row(step, rule, f"{dropped:,}", f"{left:,}")
    table.add_row("kept", "", "", f"{counts.get('kept', left):,}", style="bold")
    return table
