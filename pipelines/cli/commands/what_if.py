"""what-if: other rules on a finished run, answered from its signals."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipelines.cli.app import LOOK, AsJson, RunDir, app, make_console


@app.command("what-if", rich_help_panel=LOOK)
def what_if(
    run: RunDir,
    sets: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="RULE=SQL",
            help='Another rule, say language="language.score >= 0.5"; RULE=null takes one away. STEP.RULE where two '
            "steps have one of that name. Repeats.",
        ),
    ],
    examples: Annotated[int, typer.Option(min=0, help="Documents shown each way.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What would other rules keep? Documents, bytes and tokens lost and gained, from stored signals, in seconds."""
    from pipelines.what_if.what_if import what_if as answer_for

    answer = answer_for(run, sets, examples)
    if as_json:
        print(json.dumps(answer.as_dict(), default=str))
    else:
        show(make_console(), answer)


def show(console: Any, answer: Any) -> None:
    """The answer as a person reads it."""
    from rich.table import Table
    from rich.text import Text

    for change in answer.changes:
        was, now = change["before"] or "(no such rule)", change["after"] or "(taken away)"
        console.print(f"{change['step']}.{change['rule']}", style="bold", highlight=False)
        console.print(f"    was  {was}\n    now  {now}", highlight=False, markup=False)
    table = Table("", box=None, pad_edge=False)
    for column in ("documents", "bytes", "tokens"):
        table.add_column(column, justify="right")
    for name, figures in (("kept so far", answer.before), ("kept then", answer.after)):
        table.add_row(name, *(f"{figures[k]:,.0f}" for k in ("documents", "bytes", "tokens")))
    if answer.after["expected_back"]:
        table.add_row("and of those that come back, about", f"{answer.after['expected_back']:,.0f}", "", "")
    console.print(table)
    for kind in ("domain", "language"):
        if answer.groups[kind]:
            console.print(_changes(kind, answer.groups[kind]))
    if answer.groups["rule"]:
        table = Table("what becomes of them", box=None, pad_edge=False)
        for column in ("documents", "bytes", "tokens"):
            table.add_column(column, justify="right")
        for name, figures in answer.groups["rule"].items():
            table.add_row(Text(name), *(f"{figures[k]:,.0f}" for k in ("documents", "bytes", "tokens")))
        console.print(table)
    for kind, title in (("lost", "lost, for example"), ("gained", "gained or coming back, for example")):
        if answer.examples[kind]:
            console.print(title, style="bold")
        for example in answer.examples[kind]:
            _show_example(console, example)
    console.print(f"tokens: {answer.tokens}", style="dim", highlight=False)
    for note in answer.notes:
        console.print(f"not certain: {note}", style="yellow", highlight=False, markup=False)
    if answer.exact:
        console.print("exact: a run with these rules keeps the same documents", highlight=False)
    console.print(f"{answer.seconds:.2f} s; nothing was changed", style="dim", highlight=False)


def _changes(kind: str, groups: dict[str, dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(kind, box=None, pad_edge=False)
    for column in ("kept so far", "lost", "gained", "come back", "tokens lost", "tokens gained"):
        table.add_column(column, justify="right")
    for name, f in sorted(groups.items(), key=lambda g: (-g[1]["before"]["documents"], g[0])):
        counts = (f"{f[k]['documents']:,}" for k in ("before", "lost", "gained", "back"))
        table.add_row(Text(name), *counts, f"{f['lost']['tokens']:,.0f}", f"{f['gained']['tokens']:,.0f}")
    return table


def _show_example(console: Any, example: dict[str, Any]) -> None:
    values = " ".join(
        f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in (example["value"] or {}).items()
    )
    console.print(f"  {example['doc_id']}  {example['url'] or ''}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"      {example['rule']}  {values}", style="cyan", highlight=False, markup=False, soft_wrap=True)
    if example["text"]:
        console.print(f"      {example['text'][:160]}", style="dim", highlight=False, markup=False, soft_wrap=True)
