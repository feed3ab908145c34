"""Commands that curate: demo, curate, plan, status."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from pipelines.cli.app import RUN, AsJson, File, Quiet, RunDir, Sets, app, load_pipeline, make_console


@app.command(rich_help_panel=RUN)
def demo(
    folder: Annotated[str, typer.Option("--dir", help="Where everything goes.")] = "runs/demo",
    executor: Annotated[str, typer.Option(help="ray or inline.")] = "ray",
) -> None:
    """The whole mill on text that this machine already has: crawl, curate, train, report. A few minutes."""
    from pipelines.demo.demo import demo as run

    run(folder, executor=executor, console=make_console())


@app.command(rich_help_panel=RUN)
def curate(
    file: File,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Run directory.", show_default="runs/NAME")] = None,
    sets: Sets = None,
    executor: Annotated[str, typer.Option(help="ray, or inline for this process alone.")] = "ray",
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address; else Ray starts here.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Tasks at once.", show_default="what the machine has")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="N records, spread over the input: a first look.")] = None,
    sample: Annotated[float | None, typer.Option(min=0, max=1, help="Only this share of documents, by hash.")] = None,
    allow_missing: Annotated[bool, typer.Option(help="Go on past files that cannot be read.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Curate what a pipeline file says. Again, it goes on where it was, or says that nothing is left to do."""
    from curation.engine.runtime.run import curate as curate_run
    from pipelines.monitor.progress import Display

    if executor not in ("ray", "inline"):
        raise typer.BadParameter(f"{executor!r} is no executor; expected ray or inline", param_hint="--executor")
    pipeline = load_pipeline(file, sets)
    run_dir = run or os.path.join("runs", pipeline.name)
    console = make_console(quiet or as_json)
    with Display(console, quiet=quiet or as_json) as display:
        result = curate_run(
            pipeline,
            run_dir,
            executor=executor,
            address=address,
            workers=workers,
            limit=limit,
            sample=sample,
            allow_missing=allow_missing,
            progress=display,
        )
    write_cards(run_dir)
    if as_json:
        fields = ("status", "exit_code", "run_dir", "counts", "quarantined", "seconds")
        print(json.dumps({f: getattr(result, f) for f in fields}, default=str))
    else:
        show_result(console, result)
    raise typer.Exit(result.exit_code)


def write_cards(run_dir: str) -> None:
    """card.md and croissant.json beside the result, unless they are there or the run stopped before it had one."""
    from curation.engine.runtime.status import run_status
    from curation.storage import Storage
    from pipelines.cards.write import current, write

    if run_status(run_dir)["state"] == "done" and not current(Storage(run_dir)):
        write(run_dir)


def show_result(console: Any, result: Any) -> None:
    """The funnel of a run, or that nothing was to do, and what could not be read."""
    from pipelines.monitor.progress import duration

    if result.status == "unchanged":
        console.print(f"nothing to do: {result.run_dir} is up to date ({duration(result.seconds)})", highlight=False)
    elif result.counts:
        console.print(_funnel(result.counts))
        console.print(f"{result.run_dir}: {result.status} in {duration(result.seconds)}", highlight=False)
        if result.status == "done":
            console.print(f"gristmill report {result.run_dir}  shows it in a browser", style="dim", highlight=False)
    for item in result.quarantined:
        console.print(f"not read: {item.get('path')}: {item.get('reason')}", style="yellow", markup=False)
    if result.quarantined:
        console.print("repair or remove these files and run again, or go on without them: --allow-missing")


def _funnel(counts: dict[str, Any]) -> Any:
    from rich.table import Table

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


@app.command(rich_help_panel=RUN)
def status(run: RunDir, as_json: AsJson = False) -> None:
    """Where a run stands: phases done, tasks open, what could not be read."""
    from curation.engine.runtime.status import run_status
    from pipelines.cli import text_output

    answer = run_status(run)
    if as_json:
        print(json.dumps(answer, default=str))
        return
    console = make_console()
    text_output.show_status(console, answer)
    if answer.get("counts"):
        console.print(_funnel(answer["counts"]))
