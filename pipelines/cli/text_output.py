"""Answers of the command line as people read them: plans, states, the way of a document, losses line by line."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from pipelines.monitor.progress import duration, size
from pipelines.monitor.terminal_view import live


def is_training_file(path: str) -> bool:
    """Whether a YAML file trains rather than curates: it has a number of `steps` and no `sources`."""
    from curation.core import yaml_lines
    from curation.core.renamed_keys import TRAINING_KEYS

    tree = yaml_lines.load(path, variables=_Anything()).tree
    if not isinstance(tree, dict) or "sources" in tree or isinstance(tree.get("steps"), list):
        return False
    return "steps" in tree or any(key in tree for key, new in TRAINING_KEYS.items() if new == "steps")


class _Anything(dict[str, str]):
    """Variables while only the shape of a file matters."""

    def get(self, key: str, default: Any = None) -> Any:
        return "" if default is None else default


def show_plan(console: Console, answer: dict[str, Any]) -> None:
    """The plan of a pipeline."""
    table = Table("source", box=None, pad_edge=False)
    for column in ("files", "bytes"):
        table.add_column(column, justify="right")
    for source in answer["sources"]:
        table.add_row(source["source"], f"{source['files']:,}", size(source["bytes"]))
    console.print(table)
    table = Table("phase", box=None, pad_edge=False)
    table.add_column("tasks", justify="right")
    table.add_column("steps")
    for phase in answer["phases"]:
        tasks = "by then" if phase["tasks"] is None else f"{phase['tasks']:,}"
        table.add_row(Text(phase["phase"]), tasks, Text(", ".join(_brief(str(s)) for s in phase["steps"])))
    console.print(table)
    free = answer.get("free_bytes")
    console.print(
        f"{answer['tasks']:,} tasks over {size(answer['input_bytes'])}"
        + (f", the largest {size(answer['largest_task_bytes'])}" if answer.get("largest_task_bytes") else "")
        + (f"; {size(free)} free where the run goes" if free is not None else ""),
        highlight=False,
    )
    if answer.get("unchanged"):
        console.print("nothing to do: the run is up to date")


def _brief(step: str) -> str:
    """`language: A; B` as language (2 rules): the SQL itself is in --json and in the report."""
    name, _, rules = step.partition(": ")
    count = 0 if rules in ("", "no rule") else rules.count("; ") + 1
    return f"{name} ({count} rule{'s' if count > 1 else ''})" if count else name


def show_status(console: Console, answer: dict[str, Any]) -> None:
    """Where a run stands."""
    console.print(f"{answer['name']}: {answer['state']}", style="bold", highlight=False)
    table = Table("finished phase", box=None, pad_edge=False)
    for column in ("tasks", "time", "CPU", "peak"):
        table.add_column(column, justify="right")
    for phase in sorted(answer.get("finished", []), key=lambda p: (not p["phase"][0].isdigit(), p["phase"])):
        table.add_row(
            Text(phase["phase"]),
            f"{phase['tasks']:,}",
            duration(phase.get("seconds", 0)),
            duration(phase.get("cpu_seconds", 0)),
            size(phase.get("peak_bytes", 0)),
        )
    if answer.get("finished"):
        console.print(table)
    for name, done in answer.get("open", {}).items():
        console.print(f"open: {name}: {done:,} tasks done so far", highlight=False, markup=False)
    for item in answer.get("unread", []):
        console.print(f"not read: {item.get('path')}: {item.get('reason')}", style="yellow", markup=False)


def show_explain(console: Console, answer: dict[str, Any]) -> None:
    """The way of a document through the steps, and where it ended."""
    source = answer.get("source") or {}
    place = ", ".join(f"{k} {v}" for k, v in source.items() if v is not None)
    for key, value in (
        ("document", answer["doc_id"]),
        ("url", answer.get("url")),
        ("domain", answer.get("domain")),
        ("from", place),
    ):
        if value:
            console.print(f"{key:>9}  {value}", highlight=False, markup=False, soft_wrap=True)
    for step in answer["steps"]:
        console.print(Text(step["step"], style="bold"))
        for signal, value in (step["signals"] or {}).items():
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            console.print(f"    {signal} = {shown}", highlight=False, markup=False, soft_wrap=True)
        for rule, verdict in step["rules"].items():
            style = "green" if verdict == "passed" else "red"
            console.print(Text(f"    {rule}: {verdict}", style=style))
    outcome = answer["outcome"]
    if outcome.get("kept"):
        console.print("kept", style="bold green")
    else:
        console.print(Text(f"dropped by {outcome['step']}, rule {outcome['rule']}", style="bold red"))
    for key in ("value", "evidence"):
        if outcome.get(key):
            console.print(f"    {key}: {outcome[key]}", highlight=False, markup=False, soft_wrap=True)
    if answer.get("pair"):
        show_pair(console, answer["pair"])
    for other in answer.get("others", []):
        console.print(f"another record of this URL: {other}", style="dim", highlight=False, soft_wrap=True)


def show_pair(console: Console, pair: dict[str, Any]) -> None:
    """A duplicate beside the document that stays; what both have is dim, what only one has stands out."""
    from pipelines.lookup.duplicate_pairs import lines

    console.print(
        f"dim: in a run of {pair['ngram']} words that both have; bold: in this one alone", style="dim", highlight=False
    )
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column(Text("this document, dropped"), ratio=1, overflow="fold")
    table.add_column(Text(f"kept: {pair['url'] or pair['of']}"), ratio=1, overflow="fold")
    for side in ("here", "there"):
        pair = pair | {side: [_styled(row) for row in lines(pair[side]) if row]}
    for i in range(max(len(pair["here"]), len(pair["there"]))):
        row = [pair[side][i] if i < len(pair[side]) else Text("") for side in ("here", "there")]
        table.add_row(*row)
    console.print(table)


def _styled(row: Sequence[tuple[str, bool]]) -> Text:
    text = Text()
    for part, shared in row:
        text.append(part, style="dim" if shared else "bold yellow")
    return text


def show_models(console: Console, rows: Sequence[Any]) -> None:
    """The catalogue of models."""
    table = Table("model", "here", box=None, pad_edge=False)
    table.add_column("size", justify="right")
    table.add_column("licence")
    table.add_column("what it is")
    for row in rows:
        table.add_row(
            row.name, "yes" if row.present else "no", size(row.size) if row.size else "", row.licence, row.note
        )
    console.print(table)
    missing = [row.name for row in rows if not row.present]
    if missing:
        console.print(f"gristmill models pull {missing[0]}  brings one", style="dim", highlight=False)


class TrainLines:
    """What a training says while it goes: evaluations, and on a terminal a bar, else a line every 20 seconds.

    `with TrainLines(console, steps) as lines: train(..., report=lines)`.
    """

    def __init__(self, console: Console, steps: int) -> None:
        self.console, self.steps = console, steps
        self._spoken = time.monotonic()
        self._speed: dict[str, Any] = {}
        self._bar: Progress | None = None
        self.notes: set[str] = set()  # said so far

    def __enter__(self) -> TrainLines:
        if self.console.is_terminal and not self.console.quiet:
            self._bar = Progress(BarColumn(12), TextColumn("{task.description}"), console=self.console, transient=True)
            self._bar.add_task("", total=self.steps)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, entry: dict[str, Any]) -> None:
        """Takes an entry of the training's log."""
        if entry["kind"] == "note":
            self.notes.add(entry["note"])
            self.console.print(entry["note"], style="yellow", highlight=False, markup=False)
        elif entry["kind"] == "speed":
            self._speed = entry
        elif entry["kind"] == "event":
            self.console.print(_event(entry), style="yellow", highlight=False, markup=False)
        elif entry["kind"] == "validation":
            domains = ", ".join(f"{d} {s['loss']:.3f}" for d, s in entry["domains"].items())
            self.console.print(f"step {entry['step']}/{self.steps}: validation {domains}", highlight=False)
        elif entry["kind"] == "train" and self._bar is not None:
            said = f"{entry['step']:,}/{self.steps:,}, {self._said(entry, brief=True)}"
            self._bar.update(self._bar.task_ids[0], completed=entry["step"], description=said)
        elif entry["kind"] == "train" and self._speed and time.monotonic() - self._spoken > 20:
            self._spoken = time.monotonic()
            said = f"step {entry['step']}/{self.steps}: {self._said(entry)}"
            self.console.print(said, style="dim", highlight=False)

    def _said(self, entry: dict[str, Any], *, brief: bool = False) -> str:
        """Loss, speed and time left; not `brief`: memory and what the plan says of both as well."""
        said = ["loss " + ("no number" if entry["loss"] is None else f"{entry['loss']:.3f}")]
        if self._speed:
            left = (self.steps - entry["step"]) * self._speed["seconds"]
            share = f"MFU {self._speed['mfu']:.1%}" if brief and "mfu" in self._speed else ""
            said += [f"{self._speed['tokens_per_s']:,.0f} tokens/s", share if brief else live(self._speed)]
            said.append(f"{duration(left)} left")
        return ", ".join(s for s in said if s)


def _event(entry: dict[str, Any]) -> str:
    """What the guard did, in a line."""
    if entry["event"] == "rollback":
        who = f"{len(entry['blamed'])} documents blamed and masked" if entry["blamed"] else "nobody to blame"
        return f"spike at step {entry['confirmed']}: back to step {entry['step']}, {who}"
    norm = "no number" if entry["grad_norm"] is None else f"{entry['grad_norm']:.3g}"
    what = {"skip": "update skipped", "anomaly": "out of the frame", "overflow": "fp16 overflow, update skipped"}
    return f"step {entry['step']}: {what[entry['event']]}, gradient norm {norm}"
