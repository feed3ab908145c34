"""Prints the result of a curation run: the funnel of records, and the files that could not be read."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.number_format import format_duration

MOST_LINES = 20  # files printed where records were left out


def print_result(console: Console, result: Any) -> None:
    """Prints a `curation.engine.runtime.run.Result`; says so if there was nothing to do."""
    if result.status == "unchanged":
        time = format_duration(result.seconds)
        console.print(f"nothing to do: {result.run_dir} is up to date ({time})", highlight=False)
    elif result.counts:
        console.print(funnel_table(result.counts))
        print_not_judged(console, result.counts)
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
    table = Table("step", "rule", box=None, pad_edge=False)
    for column in ("dropped", "left"):
        table.add_column(column, justify="right")
    left = counts.get("read", {}).get("records", 0)
    table.add_row("read", "", "", f"{left:,}")
    for row in counts.get("steps", []):
        left -= row["dropped"]
        table.add_row(row["step"], row["rule"], f"{row['dropped']:,}", f"{left:,}")
    table.add_row("kept", "", "", f"{counts.get('kept', left):,}", style="bold")
    return table
