"""Commands that show the state of a run: status, watch."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from pipelines.cli.app import AsJson, app, make_console


@app.command()
def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Directory of a curation or training run.")],
    as_json: AsJson = False,
) -> None:
    """Show the state of a run: finished phases, open tasks, files that could not be read; or a training's steps."""
    from curation.engine.runtime.status import run_status
    from pipelines.lookup.training_run import is_training

    if is_training(run):
        watch(run, once=True, as_json=as_json)
        return
    from pipelines.cli.text_output import show_status

    answer = run_status(run)
    if as_json:
        print(json.dumps(answer, default=str))
    else:
        show_status(make_console(), answer)


@app.command()
def watch(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Directory of a curation or training run.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between updates.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print the state once and exit.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow a run live: phases, tasks, MB/s, kept, slow tasks, memory, time left; or a training's curves."""
    from pipelines.monitor.run_snapshot import take_snapshot
    from pipelines.monitor.terminal_view import render_snapshot

    console = make_console()
    if as_json:
        print(json.dumps(take_snapshot(run, time.time()), default=str))
        return
    if once or not console.is_terminal:
        console.print(render_snapshot(take_snapshot(run, time.time())), highlight=False)
        return
    from rich.live import Live

    snapshot = take_snapshot(run, time.time())
    with Live(render_snapshot(snapshot), console=console, auto_refresh=False) as live:
        while snapshot["state"] not in ("done", "quarantined", "stopped"):
            time.sleep(every)
            snapshot = take_snapshot(run, time.time())
            live.update(render_snapshot(snapshot), refresh=True)
