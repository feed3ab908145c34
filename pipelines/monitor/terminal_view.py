"""A snapshot of a run (see `pipelines.monitor.run_snapshot`) on a terminal of 80 columns: nothing wraps, and no figure is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pipelines.monitor.progress import duration, size

TICKS = "▁▂▃▄▅▆▇█"
NAME = 26  # columns for a phase
SHOWN = 9  # finished phases at most; the slowest are the ones that matter


def render(seen: dict[str, Any]) -> Group:
    """What `watch` shows."""
    return Group(*(_training(seen) if seen["kind"] == "training" else _curation(seen)))


def _title(seen: dict[str, Any], said: str) -> Text:
    style = {"done": "bold green", "at work": "bold"}.get(seen["state"], "bold yellow")
    return Text.assemble((_short(seen["name"], 30), "bold"), "  ", (seen["state"], style), "  ", (said, "dim"))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _curation(seen: dict[str, Any]) -> list[Any]:
    parts: list[Any] = [_title(seen, duration(seen["seconds"]))]
    phases = seen["phases"]
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
        peak = size(p["peak_bytes"]) if p["peak_bytes"] else ""
        tasks = f"{p['tasks']:,}" if p not in opened else f"{p['done']:,}/{p['tasks']:,}"
        table.add_row(name, tasks, duration(p["seconds"]), rate, kept, peak)
    if phases:
        parts.append(table)
    if len(phases) > len(shown):
        rest = [p for p in phases if p["phase"] not in shown]
        parts.append(Text(f"and {len(rest)} phases of {duration(sum(p['seconds'] for p in rest))} in all", "dim"))
    parts += [_bar(p) for p in opened]
    parts += _attention(seen)
    counts = seen["counts"]
    if counts.get("read"):
        records, kept_all = counts["read"]["records"], counts["kept"]
        share = f" ({kept_all / records:.1%})" if records else ""
        parts.append(Text(f"{records:,} records read, {kept_all:,} documents kept{share}", "bold"))
    return parts


def _bar(p: dict[str, Any]) -> Text:
    """How far an open phase is, and what it has left."""
    share = p["bytes"] / p["of_bytes"] if p["of_bytes"] else p["done"] / max(1, p["tasks"])
    full = round(24 * share)
    left = "nothing done yet to go by" if p["left"] is None else f"about {duration(p['left'])} left"
    return Text.assemble(("━" * full, "green"), ("━" * (24 - full), "dim"), f" {share:.0%} of this phase, {left}")


def _attention(seen: dict[str, Any]) -> list[Text]:
    """Stragglers, failures, quarantine, memory."""
    lines = []
    slow = [r for r in seen["running"] if r["slow"]]
    if seen["running"]:
        said = f"{len(seen['running'])} tasks running, {len(slow)} of them slow"
        lines.append(Text(said, "yellow" if slow else ""))
    for r in slow[:3]:
        said = f"  {_short(r['task'], 34)} for {duration(r['seconds'])}, expected {duration(r['expected'])}"
        lines.append(Text(said, "yellow"))
    if seen["failures"]:
        last = seen["failed"][-1]
        lines.append(
            Text(f"{seen['failures']} failures, tried again; the last one in {_short(last['phase'], 30)}:", "red")
        )
        lines.append(Text("  " + _short(" ".join(str(last["reason"]).split()), 76), "red"))
    for u in seen["unread"][:3]:
        said = f"not read: {_short(str(u.get('path')), 30)}: {_short(str(u.get('reason')), 36)}"
        lines.append(Text(said, "yellow"))
    if len(seen["unread"]) > 3:
        lines.append(Text(f"and {len(seen['unread']) - 3:,} more files not read", "yellow"))
    if seen["poison"]:
        lines.append(
            Text(f"{seen['poison']:,} records in poison.jsonl: they made a step fail, and are left out", "yellow")
        )
    if seen["peak_bytes"] and seen["state"] != "done":
        lines.append(Text(f"memory: {size(seen['peak_bytes'])} in the largest worker", "dim"))
    return lines


def _training(seen: dict[str, Any]) -> list[Any]:
    parts: list[Any] = [_title(seen, duration(seen["seconds"]))]
    planned = seen["planned"]
    share = seen["step"] / planned if planned else 0.0
    full = round(24 * min(1.0, share))
    left = "" if not seen["left"] else f", about {duration(seen['left'])} left"
    of = f"{seen['step']:,} of {planned:,} steps" if planned else f"{seen['step']:,} steps"
    parts.append(Text.assemble(("━" * full, "green"), ("━" * (24 - full), "dim"), f" {of}{left}"))
    parts.append(Text(f"{seen['tokens']:,} tokens, {seen['tokens_per_s']:,.0f} tokens/s lately", "dim"))
    if told := live(seen):
        parts.append(Text(told, "dim"))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, line in seen["curves"].items():
        if line:
            table.add_row(_short(name, 24), _figure(line[0]), Text(sparkline(line, 30), "cyan"), _figure(line[-1]))
    parts.append(table)
    parts += [Text(_short(e, 79), "yellow") for e in seen["events"]]
    if seen["masked"]:
        parts.append(Text(f"{seen['masked']:,} documents masked", "yellow"))
    return parts


def live(figures: Mapping[str, Any]) -> str:
    """MFU and memory of a training, beside its plan where that is known: `MFU 41.2%, 103% of plan; 69.1 GB`."""
    told = []
    if figures.get("mfu") is not None:
        told.append(f"MFU {figures['mfu']:.1%}, {figures['of_plan']:.0%} of plan")
    if figures.get("memory") is not None:
        share = figures.get("memory_of_plan")
        told.append(f"{size(figures['memory'])} held" + (f", {share:.0%} of plan" if share is not None else ""))
    return "; ".join(told)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}"


def sparkline(values: Sequence[float], width: int) -> str:
    """A curve as one line of text, each sign the mean of its stretch."""
    if not values:
        return ""
    n = len(values)
    cuts = [i * n // width for i in range(width + 1)]
    means = [sum(values[a : max(b, a + 1)]) / max(1, b - a) for a, b in pairwise(cuts)]
    low, high = min(means), max(means)
    if high == low:
        return TICKS[0] * width
    return "".join(TICKS[round((m - low) / (high - low) * (len(TICKS) - 1))] for m in means)


def comparison(found: Any) -> list[Any]:
    """A `pipelines.report.comparison.compare.Comparison`: its figures by group, and the settings that differ."""
    from pipelines.report.comparison import compare

    names = compare.short_names(found.sides)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in names:
        table.add_column(Text(name), justify="right", overflow="fold")
    if len(names) == 2:
        table.add_column("", justify="right", no_wrap=True)
    group = None
    for of, what, values in found.figures:
        if of != group:
            table.add_row(Text(of, style="bold"))
            group = of
        more = [compare.difference(values, what)] if len(names) == 2 else []
        table.add_row(Text(f"  {what}"), *(compare.shown(v, what) for v in values), *more)
    settings = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    settings.add_column(Text("settings that differ", style="bold"), overflow="fold")
    for name in names:
        settings.add_column(Text(name), overflow="fold")
    for what, values in found.settings:
        settings.add_row(Text(f"  {what}"), *(Text("" if v is None else str(v)) for v in values))
    return [table, *([settings] if found.settings else [])]
