"""Draws a snapshot of a run (run_snapshot.py) and a comparison of runs for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.number_format import format_bytes, format_duration

TICKS = "▁▂▃▄▅▆▇█"
NAME = 26  # columns for the name of a phase
SHOWN = 9  # finished phases shown: the slowest ones


def render_snapshot(snapshot: dict[str, Any]) -> Group:
    """What `gristmill watch` shows."""
    return Group(*(_training(snapshot) if snapshot["kind"] == "training" else _curation(snapshot)))


def _title(snapshot: dict[str, Any], note: str) -> Text:
    style = {"done": "bold green", "running": "bold"}.get(snapshot["state"], "bold yellow")
    return Text.assemble((_short(snapshot["name"], 30), "bold"), "  ", (snapshot["state"], style), "  ", (note, "dim"))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _curation(snapshot: dict[str, Any]) -> list[Any]:
    parts: list[Any] = [_title(snapshot, format_duration(snapshot["seconds"]))]
    phases = snapshot["phases"]
    opened = [p for p in phases if p["done"] < p["tasks"]]
    done = sorted((p for p in phases if p["done"] == p["tasks"]), key=lambda p: -p["seconds"])
    shown = {p["phase"] for p in [*opened, *done[:SHOWN]]}
    table = Table("phase", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("tasks", "time", "MB/s", "kept", "peak"):
        table.add_column(column, justify="right", no_wrap=True)
    for p in (p for p in phases if p["phase"] in shown):
        name = Text(_short(p["phase"], NAME), style="" if p in opened else "dim")
        rate = f"{p['bytes'] / 1e6 / p['seconds']:.1f}" if p["bytes"] else ""
        kept = f"{p['kept'] / p['documents']:.0%}" if p["documents"] else ""
        peak = format_bytes(p["peak_bytes"]) if p["peak_bytes"] else ""
        tasks = f"{p['tasks']:,}" if p not in opened else f"{p['done']:,}/{p['tasks']:,}"
        table.add_row(name, tasks, format_duration(p["seconds"]), rate, kept, peak)
    if phases:
        parts.append(table)
    if len(phases) > len(shown):
        rest = [p for p in phases if p["phase"] not in shown]
        parts.append(
            Text(f"and {len(rest)} shorter phases, {format_duration(sum(p['seconds'] for p in rest))} in total", "dim")
        )
    parts += [_bar(p) for p in opened]
    parts += _warnings(snapshot)
    counts = snapshot["counts"]
    if counts.get("read"):
        records, kept_all = counts["read"]["records"], counts["kept"]
        share = f" ({kept_all / records:.1%})" if records else ""
        parts.append(Text(f"{records:,} records read, {kept_all:,} documents kept{share}", "bold"))
    return parts


def _bar(p: dict[str, Any]) -> Text:
    """The progress bar of an unfinished phase, with the time left."""
    share = p["bytes"] / p["of_bytes"] if p["of_bytes"] else p["done"] / max(1, p["tasks"])
    full = round(24 * share)
    left = "no estimate yet" if p["left"] is None else f"about {format_duration(p['left'])} left"
    return Text.assemble(("━" * full, "green"), ("━" * (24 - full), "dim"), f" {share:.0%} of this phase, {left}")


def _warnings(snapshot: dict[str, Any]) -> list[Text]:
    """Slow tasks, failures, files not read, records left out, memory."""
    lines = []
    slow = [r for r in snapshot["running"] if r["slow"]]
    if snapshot["running"]:
        line = f"{len(snapshot['running'])} tasks running, {len(slow)} of them slow"
        lines.append(Text(line, "yellow" if slow else ""))
    for r in slow[:3]:
        line = (
            f"  {_short(r['task'], 34)} for {format_duration(r['seconds'])}, expected {format_duration(r['expected'])}"
        )
        lines.append(Text(line, "yellow"))
    if snapshot["failures"]:
        last = snapshot["failed"][-1]
        lines.append(
            Text(f"{snapshot['failures']} task failures, retried; the last one in {_short(last['phase'], 30)}:", "red")
        )
        lines.append(Text("  " + _short(" ".join(str(last["reason"]).split()), 76), "red"))
    if snapshot["stopped"]:
        lines.append(Text(_short(str(snapshot["stopped"]).partition("\n")[0], 200), "red"))
    for u in snapshot["unread"][:3]:
        line = f"not read: {_short(str(u.get('path')), 30)}: {_short(str(u.get('reason')), 36)}"
        lines.append(Text(line, "yellow"))
    if len(snapshot["unread"]) > 3:
        lines.append(Text(f"and {len(snapshot['unread']) - 3:,} more files not read", "yellow"))
    if snapshot["poison"]:
        lines.append(
            Text(f"{snapshot['poison']:,} records left out because they made a step crash (poison.jsonl)", "yellow")
        )
    if snapshot["peak_bytes"] and snapshot["state"] != "done":
        lines.append(Text(f"memory: {format_bytes(snapshot['peak_bytes'])} in the largest worker", "dim"))
    return lines


def _training(snapshot: dict[str, Any]) -> list[Any]:
    parts: list[Any] = [_title(snapshot, format_duration(snapshot["seconds"]))]
    planned = snapshot["planned"]
    share = snapshot["step"] / planned if planned else 0.0
    full = round(24 * min(1.0, share))
    left = "" if not snapshot["left"] else f", about {format_duration(snapshot['left'])} left"
    of = f"{snapshot['step']:,} of {planned:,} steps" if planned else f"{snapshot['step']:,} steps"
    parts.append(Text.assemble(("━" * full, "green"), ("━" * (24 - full), "dim"), f" {of}{left}"))
    parts.append(
        Text(f"{snapshot['tokens']:,} tokens, {snapshot['tokens_per_s']:,.0f} tokens/s over the last 50 steps", "dim")
    )
    if line := efficiency_line(snapshot):
        parts.append(Text(line, "dim"))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, line in snapshot["curves"].items():
        if line:
            table.add_row(_short(name, 24), _number(line[0]), Text(sparkline(line, 30), "cyan"), _number(line[-1]))
    parts.append(table)
    parts += [Text(_short(e, 79), "yellow") for e in snapshot["events"]]
    if snapshot["masked"]:
        parts.append(Text(f"{snapshot['masked']:,} documents masked", "yellow"))
    return parts


def efficiency_line(figures: Mapping[str, Any]) -> str:
    """MFU and memory of a training, compared with the plan where known: `MFU 41.2%, 103% of plan; 69.1 GB memory`."""
    parts = []
    if figures.get("mfu") is not None:
        parts.append(f"MFU {figures['mfu']:.1%}, {figures['of_plan']:.0%} of plan")
    if figures.get("memory") is not None:
        share = figures.get("memory_of_plan")
        parts.append(
            f"{format_bytes(figures['memory'])} memory" + (f", {share:.0%} of plan" if share is not None else "")
        )
    return "; ".join(parts)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve as one line of text, each character the mean of its part."""
    if not values:
        return ""
    n = len(values)
    cuts = [i * n // width for i in range(width + 1)]
    means = [sum(values[a : max(b, a + 1)]) / max(1, b - a) for a, b in pairwise(cuts)]
    low, high = min(means), max(means)
    if high == low:
        return TICKS[0] * width
    return "".join(TICKS[round((m - low) / (high - low) * (len(TICKS) - 1))] for m in means)


def comparison_tables(comparison: Any) -> list[Any]:
    """The tables of a `pipelines.report.comparison.compare.Comparison`: figures by group, and settings that differ."""
    from pipelines.report.comparison.compare import difference, format_figure, short_names

    names = short_names(comparison.sides)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    if len(names) == 2:
        table.add_column("", justify="right", no_wrap=True)
    group = None
    for of, what, values in comparison.figures:
        if of != group:
            table.add_row(Text(of, style="bold"))
            group = of
        more = [difference(values, what)] if len(names) == 2 else []
        table.add_row(Text(f"  {what}"), *(format_figure(v, what) for v in values), *more)
    settings = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    settings.add_column(Text("settings that differ", style="bold"), overflow="fold")
    for name in names:
        settings.add_column(Text(name), overflow="fold")
    for what, values in comparison.settings:
        settings.add_row(Text(f"  {what}"), *(Text("" if v is None else str(v)) for v in values))
    return [table, *([settings] if comparison.settings else [])]
