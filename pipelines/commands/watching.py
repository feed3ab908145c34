"""Commands that follow and set beside each other: watch, compare."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.app import LOOK, AsJson, RunDir, app, make_console


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

    from pipelines import screen
    from pipelines.watch import snapshot

    console = make_console()
    if as_json:
        print(json.dumps(snapshot(run, time.time()), default=str))
        return
    if once or not console.is_terminal:
        console.print(screen.render(snapshot(run, time.time())), highlight=False)
        return
    from rich.live import Live

    with Live(screen.render(seen := snapshot(run, time.time())), console=console, auto_refresh=False) as live:
        while seen["state"] not in ("done", "quarantined"):
            time.sleep(every)
            live.update(screen.render(seen := snapshot(run, time.time())), refresh=True)
