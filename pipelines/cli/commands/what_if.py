"""The command what-if: what other rules would keep, answered from a finished run's stored signals."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipelines.cli.app import AsJson, RunDir, app, make_console


@app.command("what-if")
def what_if(
    run: RunDir,
    sets: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="RULE=SQL",
            help='A new rule, such as language="language.score >= 0.5"; RULE=null removes one. Write STEP.RULE where '
            "two steps have a rule of that name. Repeatable.",
        ),
    ],
    examples: Annotated[int, typer.Option(min=0, help="Example documents to show, lost and gained.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Estimate what other rules would keep: documents, bytes and tokens lost and gained. Changes nothing."""
    from pipelines.what_if.what_if import what_if as answer_what_if

    answer = answer_what_if(run, sets, examples)
    if as_json:
        print(json.dumps(answer.as_dict(), default=str))
    else:
        show_what_if(make_console(), answer)


def show_what_if(console: Any, answer: Any) -> None:
    """Prints a `pipelines.what_if.what_if.Answer`."""
    for change in answer.changes:
        before, after = change["before"] or "(no such rule)", change["after"] or "(removed)"
        console.print(f"{change['step']}.{change['rule']}", style="bold", highlight=False)
        console.print(f"    before  {before}\n    after   {after}", highlight=False, markup=False)
    kept = {"kept before": answer.before, "kept after": answer.after}
    table = _sizes_table("", kept)
    if answer.after["expected_back"]:
        table.add_row("expected in addition", f"about {answer.after['expected_back']:,.0f}", "", "")
    console.print(table)
    for kind in ("domain", "language"):
        if answer.groups[kind]:
            console.print(_changes_table(kind, answer.groups[kind]))
    if answer.groups["rule"]:
        console.print(_sizes_table("outcome before -> after", answer.groups["rule"]))
    for kind, title in (("lost", "examples: lost"), ("gained", "examples: gained or coming back")):
        if answer.examples[kind]:
            console.print(title, style="bold")
        for example in answer.examples[kind]:
            _show_example(console, example)
    console.print(f"tokens: {answer.tokens}", style="dim", highlight=False)
    for note in answer.notes:
        console.print(f"uncertain: {note}", style="yellow", highlight=False, markup=False)
    if answer.exact:
        console.print("exact: a run with these rules keeps the same documents", highlight=False)
    console.print(f"{answer.seconds:.2f} s; nothing was changed", style="dim", highlight=False)


def _sizes_table(heading: str, rows: dict[str, dict[str, float]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(heading, box=None, pad_edge=False)
    for column in ("documents", "bytes", "tokens"):
        table.add_column(column, justify="right")
    for name, sizes in rows.items():
        table.add_row(Text(name), *(f"{sizes[k]:,.0f}" for k in ("documents", "bytes", "tokens")))
    return table


def _changes_table(kind: str, groups: dict[str, dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(kind, box=None, pad_edge=False)
    for column in ("kept before", "lost", "gained", "come back", "tokens lost", "tokens gained"):
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
