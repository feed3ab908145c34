"""Prints the result of a curation run: the funnel of records, and the files that could not be read."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.number_format import format_duration


def print_result(console: Console, result: Any) -> None:
    """Prints a `curation.engine.runtime.run.Result`; says so if there was nothing to do."""
    if result.status == "unchanged":
        time = format_duration(result.seconds)
        console.print(f"nothing to do: {result.run_dir} is up to date ({time})", highlight=False)
    elif result.counts:
        console.print(funnel_table(result.counts))
        console.print(f"{result.run_dir}: {result.status} in {format_duration(result.seconds)}", highlight=False)
        if result.status == "done":
            console.print(f"HTML report: gristmill report {result.run_dir}", style="dim", highlight=False)
    for item in result.quarantined:
        console.print(f"not read: {item.get('path')}: {item.get('reason')}", style="yellow", markup=False)
    if result.quarantined:
        console.print("repair or remove these files and run again, or continue without them: --allow-missing")


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
