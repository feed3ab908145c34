"""Commands that look at a run: explain, report, doctor."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.cli.app import LOOK, AsJson, RunDir, app, make_console


@app.command(rich_help_panel=LOOK)
def explain(
    run: RunDir,
    document: Annotated[str, typer.Argument(metavar="DOC_ID|URL", help="32 hex digits, or the URL as crawled.")],
    as_json: AsJson = False,
) -> None:
    """Where did this page go? Every step it went through, its signals, where and why it ended."""
    from curation.engine.results.explain import explain as answer_for
    from pipelines.cli import text_output
    from pipelines.lookup.duplicate_pairs import pair

    answer = answer_for(run, document)
    answer["pair"] = pair(run, answer)
    if as_json:
        print(json.dumps(answer, default=str))
    else:
        text_output.show_explain(make_console(), answer)


@app.command(rich_help_panel=LOOK)
def report(
    run: RunDir,
    out: Annotated[str | None, typer.Option(help="File to write.", show_default="RUN/report.html")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of a core-hour: the report then says the cost.")] = None,
) -> None:
    """One HTML file about a run, of curation or of training: what became of every record, signals and thresholds,
    samples, losses. No network.

    [dim]gristmill report runs/web --price 0.04[/]
    """
    from pipelines.report import write

    print(write(run, out, price))


@app.command(rich_help_panel=LOOK)
def doctor(
    storage: Annotated[str, typer.Option(help="A directory or URL to try writing to.")] = "runs",
    as_json: AsJson = False,
) -> None:
    """Is this machine fit for it? Versions, memory, disk, models, Ray, storage; what to do where something is amiss."""
    from pipelines.monitor.doctor import examine, show

    findings = examine(storage)
    if as_json:
        print(json.dumps([f.__dict__ for f in findings]))
    else:
        show(make_console(), findings)
    raise typer.Exit(1 if any(f.state == "bad" for f in findings) else 0)
