"""Prints the answers of commands as text: plans, the state of a run, the history of a document, the model catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from curation.engine.manifests.phase_totals import total_cost
from pipelines.monitor.run_result import print_left_out, print_not_judged, steps_table, verdict
from pipelines.number_format import format_bytes, format_duration

if TYPE_CHECKING:
    from curation.engine.runtime.prune_cache import FolderSizes


def is_training_file(path: str) -> bool:
    """Whether a YAML file is a training file, not a pipeline file: it has a number of `steps` and no `sources`."""
    from curation.core import yaml_lines
    from curation.core.renamed_keys import TRAINING_KEYS

    tree = yaml_lines.load(path, variables=_AnyVariable()).root
    if not isinstance(tree, dict) or "sources" in tree or isinstance(tree.get("steps"), list):
        return False
    return "steps" in tree or any(key in tree for key, new in TRAINING_KEYS.items() if new == "steps")


class _AnyVariable(dict[str, str]):
    """Gives every ${VARIABLE} a value: only the keys of the file matter here."""

    def get(self, key: str, default: Any = None) -> Any:
        return "" if default is None else default


def show_plan(console: Console, answer: dict[str, Any]) -> None:
    """Prints the plan of a pipeline file."""
    table = Table("source", box=None, pad_edge=False)
    for column in ("files", "bytes"):
        table.add_column(column, justify="right")
    for source in answer["sources"]:
        table.add_row(source["source"], f"{source['files']:,}", format_bytes(source["bytes"]))
    console.print(table)
    table = Table("phase", box=None, pad_edge=False)
    table.add_column("tasks", justify="right")
    table.add_column("steps")
    for phase in answer["phases"]:
        tasks = "known later" if phase["tasks"] is None else f"{phase['tasks']:,}"
        table.add_row(Text(phase["phase"]), tasks, Text(", ".join(_brief_step(str(s)) for s in phase["steps"])))
    console.print(table)
    free = answer.get("free_bytes")
    console.print(
        f"{answer['tasks']:,} tasks over {format_bytes(answer['input_bytes'])}"
        + (f", the largest {format_bytes(answer['largest_task_bytes'])}" if answer.get("largest_task_bytes") else "")
        + (f"; {format_bytes(free)} free in the output directory" if free is not None else ""),
        highlight=False,
    )
    if answer.get("unchanged"):
        console.print("nothing to do: the run is up to date")


def _brief_step(step: str) -> str:
    """`language: A; B` as language (2 rules): the SQL itself is in --json and in the report."""
    name, _, rules = step.partition(": ")
    count = 0 if rules in ("", "no rule") else rules.count("; ") + 1
    return f"{name} ({count} rule{'s' if count > 1 else ''})" if count else name


def show_training_plan(console: Console, answer: dict[str, Any]) -> None:
    """Prints the plan of a training file."""

    def line(name: str, value: str) -> None:
        console.print(f"{name:>22}  {value}", highlight=False, markup=False, soft_wrap=True)

    line("training file", answer["training"])
    changes = "" if answer["tokens"] == answer["steps"] * answer["tokens_per_step"] else ", at first"
    line("steps", f"{answer['steps']:,} of {answer['tokens_per_step']:,} tokens{changes}")
    line("tokens", f"{answer['tokens']:,}")
    if "epochs" in answer:
        line("epochs", f"{answer['epochs']:.2f} of {sum(answer['available_tokens'].values()):,} tokens")
    if "memory" not in answer:
        line("not shown", "parameters, memory and time: give --data RUN or --vocab N")
        return
    line("parameters", f"{answer['total_parameters']:,}")
    for name, count in answer["parameters"].items():
        line(name, f"{count:,}")
    flops = answer["flops"]
    line("FLOPs per token", f"{flops['causal']:.4g} (causal attention), {flops['full']:.4g} (full attention)")
    memory = answer["memory"]
    line("memory per device", f"{format_bytes(memory['peak'])} peak, micro-batch of {answer['micro_size']} sequences")
    for name in ("weights", "gradients", "moments", "casts", "activations", "loss"):
        line(name, format_bytes(memory[name]))
    for name, total in answer["recipes"].items():
        line("total", f"{format_bytes(total)} with {name}")
    line("device", f"{answer['gpus']} x {answer['device']}, assuming {answer['mfu']:.0%} MFU")
    line("tokens/s", f"{answer['tokens_per_second']:,.0f}")
    days = answer["days"]
    line(
        "time",
        f"{days:.2f} days" if days > 2 else f"{days * 24:.2f} hours" if days > 1 / 12 else f"{days * 1440:.1f} minutes",
    )
    if answer["cost"] is not None:
        line("cost", f"{answer['cost']:,.2f}")


def show_status(console: Console, answer: dict[str, Any]) -> None:
    """Prints the state of a curation run."""
    console.print(f"{answer['name']}: {answer['state']}", style="bold", highlight=False)
    if answer.get("stopped"):
        console.print(answer["stopped"], style="yellow", highlight=False, markup=False, soft_wrap=True)
    # Tens of phases become a line for each map phase and each global step: the whole of it is in --json.
    finished: dict[str, list[dict[str, Any]]] = {}
    for phase in sorted(answer.get("finished", []), key=lambda p: (not p["phase"][0].isdigit(), p["phase"])):
        name = phase["phase"]
        name = name if name[0].isdigit() else name.partition(":")[0].partition(" of ")[0]
        finished.setdefault(name, []).append(phase)
    table = Table("finished", box=None, pad_edge=False)
    for column in ("phases", "tasks", "time", "CPU", "peak memory"):
        table.add_column(column, justify="right")
    for name, phases in finished.items():
        cost = total_cost({"cost": phase} for phase in phases)
        table.add_row(
            Text(name),
            f"{len(phases):,}",
            f"{sum(phase['tasks'] for phase in phases):,}",
            format_duration(cost["seconds"]),
            format_duration(cost["cpu_seconds"]),
            format_bytes(cost["peak_bytes"]) if cost["peak_bytes"] else "",
        )
    if finished:
        console.print(table)
    for name, done in answer.get("open", {}).items():
        console.print(f"unfinished phase {name}: {done:,} tasks done", highlight=False, markup=False)
    for item in answer.get("unread", []):
        console.print(f"not read: {item.get('path')}: {item.get('reason')}", style="yellow", markup=False)
    print_left_out(console, answer.get("left_out", []))
    if answer.get("counts"):
        console.print(steps_table(answer["counts"]))
        print_not_judged(console, answer["counts"])
        console.print(verdict(answer["counts"]), highlight=False, soft_wrap=True)


def show_cache_sizes(console: Console, sizes: Mapping[str, FolderSizes], dry_run: bool) -> None:
    """Prints by folder of a run's cache what is kept, and what was or would be removed."""
    table = Table("folder", box=None, pad_edge=False)
    for column in ("kept", "to remove" if dry_run else "removed", "files"):
        table.add_column(column, justify="right")
    for folder, s in sizes.items():
        table.add_row(folder, format_bytes(s.kept_bytes), format_bytes(s.removed_bytes), f"{s.removed_files:,}")
    every = sizes.values()
    kept, removed = sum(s.kept_bytes for s in every), sum(s.removed_bytes for s in every)
    files = sum(s.removed_files for s in every)
    table.add_row("all", format_bytes(kept), format_bytes(removed), f"{files:,}", style="bold")
    console.print(table)


def show_explain(console: Console, answer: dict[str, Any]) -> None:
    """Prints the steps that a document went through, and where it ended."""
    source = ", ".join(f"{k} {v}" for k, v in (answer.get("source") or {}).items() if v is not None)
    for key, value in (
        ("document", answer["doc_id"]),
        ("url", answer.get("url")),
        ("domain", answer.get("domain")),
        ("from", source),
    ):
        if value:
            console.print(f"{key:>9}  {value}", highlight=False, markup=False, soft_wrap=True)
    for step in answer["steps"]:
        console.print(Text(step["step"], style="bold"))
        for signal, value in (step["signals"] or {}).items():
            shown = f"{value:.6g}" if isinstance(value, float) else str(value)
            console.print(f"    {signal} = {shown}", highlight=False, markup=False, soft_wrap=True)
        for rule, outcome in step["rules"].items():
            style = "green" if outcome == "passed" else "red"
            console.print(Text(f"    {rule}: {outcome}", style=style))
    outcome = answer["outcome"]
    if outcome.get("undecided"):
        steps = ", ".join(outcome["undecided"])
        console.print(f"kept so far; the run stopped before {steps}", style="bold", markup=False)
    elif outcome.get("kept"):
        console.print("kept", style="bold green")
    else:
        console.print(Text(f"dropped by {outcome['step']}, rule {outcome['rule']}", style="bold red"))
    for key in ("value", "evidence"):
        if outcome.get(key):
            console.print(f"    {key}: {outcome[key]}", highlight=False, markup=False, soft_wrap=True)
    if answer.get("pair"):
        show_duplicate_pair(console, answer["pair"])
    for other in answer.get("others", []):
        console.print(f"another record of this URL: {other}", style="dim", highlight=False, soft_wrap=True)


def show_duplicate_pair(console: Console, pair: dict[str, Any]) -> None:
    """Prints a duplicate beside the kept document; shared text is dim, differing text bold."""
    from pipelines.lookup.duplicate_pairs import split_lines

    console.print(
        f"dim: shared runs of {pair['ngram']} words; bold: only in this document", style="dim", highlight=False
    )
    table = Table(box=None, pad_edge=False, expand=True)
    table.add_column(Text("this document, dropped"), ratio=1, overflow="fold")
    table.add_column(Text(f"kept: {pair['url'] or pair['of']}"), ratio=1, overflow="fold")
    left, right = ([_styled(row) for row in split_lines(pair[side]) if row] for side in ("dropped", "kept"))
    for i in range(max(len(left), len(right))):
        table.add_row(*(side[i] if i < len(side) else Text("") for side in (left, right)))
    console.print(table)


def _styled(row: Sequence[tuple[str, bool]]) -> Text:
    text = Text()
    for part, shared in row:
        text.append(part, style="dim" if shared else "bold yellow")
    return text


def show_models(console: Console, rows: Sequence[Any]) -> None:
    """Prints the catalogue of models."""
    table = Table("model", "installed", box=None, pad_edge=False)
    table.add_column("size", justify="right")
    table.add_column("licence")
    table.add_column("description")
    for row in rows:
        present, size = "yes" if row.present else "no", format_bytes(row.size) if row.size else ""
        table.add_row(row.name, present, size, row.licence, row.note)
    console.print(table)
    missing = [row.name for row in rows if not row.present]
    if missing:
        console.print(f"download a model: gristmill models pull {missing[0]}", style="dim", highlight=False)
