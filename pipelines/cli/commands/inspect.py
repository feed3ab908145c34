"""Commands that explain and describe runs: explain, report, profile, compare, card."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from pipelines.cli.app import AsJson, RunDir, app, make_console


@app.command()
def explain(
    run: RunDir,
    document: Annotated[str, typer.Argument(metavar="DOC_ID|URL", help="32 hex digits, or the URL as crawled.")],
    as_json: AsJson = False,
) -> None:
    """Show what happened to a document: every step it went through, its signals, and which rule dropped it."""
    from curation.engine.results.explain import explain as explain_document
    from pipelines.cli.text_output import show_explain
    from pipelines.lookup.duplicate_pairs import duplicate_pair

    answer = explain_document(run, document)
    answer["pair"] = duplicate_pair(run, answer)
    if as_json:
        print(json.dumps(answer, default=str))
    else:
        show_explain(make_console(), answer)


@app.command()
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Directory of a curation or training run.")],
    out: Annotated[str | None, typer.Option(help="File to write.", show_default="RUN/report.html")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a core-hour, to show the run's cost.")] = None,
) -> None:
    """Write an HTML report of a run: records kept and dropped, signals, thresholds, samples, losses. Works offline."""
    from pipelines.report.write_report import write_report

    print(write_report(run, out, price))


@app.command()
def profile(run: RunDir, as_json: AsJson = False) -> None:
    """Show where a run's CPU time went: by step, rules, reading, writing, start-up and the engine."""
    from pipelines.report.curation.cpu_profile import PARTS, cpu_profile

    found = cpu_profile(run)
    if as_json:
        print(json.dumps({"tasks": found.tasks, "cpu_seconds": dict(found.seconds.most_common())}))
        return
    console = make_console()
    for name, seconds, share in found.rows():
        what = f"  {PARTS[name]}" if name in PARTS else ""
        console.print(f"{name:<28}{seconds:>9.1f} s{share:>8.1%}{what}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"{f'{found.tasks:,} tasks':<28}{found.total:>9.1f} s of CPU", highlight=False)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Directories of runs of the same kind.")],
    out: Annotated[str | None, typer.Option(metavar="FILE", help="Write an HTML page with the curves.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs side by side, curation or training: results, and the settings in which they differ."""
    from pipelines.report.comparison.compare import compare_runs

    comparison = compare_runs(runs)
    if out is not None:
        from pipelines.report.comparison.page import render
        from pipelines.report.write_report import save_page

        print(save_page(render(comparison), out))
    elif as_json:
        print(json.dumps(comparison.as_dict(), default=str))
    else:
        from pipelines.monitor.terminal_view import comparison_tables

        console = make_console()
        for table in comparison_tables(comparison):
            console.print(table, highlight=False)


@app.command()
def card(
    what: Annotated[str, typer.Argument(metavar="RUN|FILE|MODEL", help="A run, a pipeline file, or a model name.")],
    out: Annotated[
        str | None, typer.Option(help="Output directory.", show_default="RUN; for FILE and MODEL the current one")
    ] = None,
) -> None:
    """Write the data card of a run (Hugging Face and Croissant), or the card of a recipe or a model."""
    from curation.models import CATALOGUE
    from pipelines.cards import shipped
    from pipelines.cards.write_cards import write_cards

    if what in CATALOGUE:
        paths = [shipped.write_model_card(what, out or ".")]
    elif what.endswith((".yaml", ".yml")) and not os.path.isdir(what):
        paths = [shipped.write_recipe_card(what, out or ".")]
    else:
        paths = write_cards(what, out)
    for path in paths:
        print(path)
