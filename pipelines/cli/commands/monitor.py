"""Commands that follow and set beside each other: watch, compare."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.cli.app import LOOK, AsJson, RunDir, app, make_console


@app.command(rich_help_panel=LOOK)
def watch(
    run: RunDir,
    every: Annotated[float, typer.Option(min=0.1, help="Look again after so many seconds.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Say how it stands, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """A run as it works: phases, tasks, MB/s, kept, stragglers, quarantine, memory, time left; or training's curves.

    [dim]gristmill watch runs/web[/]
    [dim]gristmill watch runs/web/train/small --once[/]
    """
    import time

    from pipelines.monitor import terminal_view
    from pipelines.monitor.run_snapshot import snapshot

    console = make_console()
    if as_json:
        print(json.dumps(snapshot(run, time.time()), default=str))
        return
    if once or not console.is_terminal:
        console.print(terminal_view.render(snapshot(run, time.time())), highlight=False)
        return
    from rich.live import Live

    with Live(terminal_view.render(seen := snapshot(run, time.time())), console=console, auto_refresh=False) as live:
        while seen["state"] not in ("done", "quarantined"):
            time.sleep(every)
            live.update(terminal_view.render(seen := snapshot(run, time.time())), refresh=True)


@app.command(rich_help_panel=LOOK)
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Directories of runs of one kind.")],
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page of it, with the curves.")] = None,
    as_json: AsJson = False,
) -> None:
    """Runs side by side, of curation or of training: figures, and the settings in which they differ.

    [dim]gristmill compare runs/web runs/web-strict --out compare.html[/]
    """
    from pipelines.monitor import terminal_view
    from pipelines.report.comparison import compare as comparing

    found = comparing.compare(runs)
    if out is not None:
        from pipelines.report import save
        from pipelines.report.comparison import page as comparison

        print(save(comparison.render(found), out))
    elif as_json:
        print(json.dumps(found.as_dict(), default=str))
    else:
        console = make_console()
        for table in terminal_view.comparison(found):
            console.print(table, highlight=False)
