"""Commands for mix experiments: mix search, mix fit."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

from pipelines.cli.app import Address, AsJson, Executor, Quiet, add_group, check_executor, make_console

mix_app = add_group("mix", "Mix experiments: find the best share of each domain, with error bars.")


@mix_app.command("search")
def mix_search(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Search file (YAML).")],
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Output directory.", show_default="DATA/mix/FILE")
    ] = None,
    executor: Executor = "ray",
    address: Address = None,
    confirm: Annotated[bool, typer.Option(help="Train runs that confirm the recommended mix.")] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train small models on many mixes, fit a law, recommend a mix, and confirm it by paired runs.

    Resumes an interrupted search. With another objective it fits again from the same runs; only the runs that confirm
    a new recommendation are trained (none with --no-confirm).
    """
    import os

    from pipelines.experiments.mix import proxy_workers, search_config
    from pipelines.experiments.mix.results import outcome_as_dict
    from pipelines.experiments.mix.search import search

    check_executor(executor)
    settings = search_config.load(file)
    name = os.path.basename(file).rsplit(".", 1)[0]
    folder = out or os.path.join(settings.data, "mix", name)
    console = make_console(quiet or as_json)

    _refuse_foreign_files(folder)

    def report_progress(message: str) -> None:
        console.print(message, highlight=False, markup=False)

    train = (
        proxy_workers.inline
        if executor == "inline"
        else proxy_workers.on_ray(address, cpus=settings.cpus, gpus=settings.gpus)
    )
    outcome = search(settings, folder, train=train, confirm=confirm, progress=report_progress)
    _write_results(outcome, folder, f"{name}: mix search")
    if as_json:
        print(json.dumps(outcome_as_dict(outcome)))
    else:
        _show_outcome(console, outcome)
        console.print(f"report: {os.path.join(folder, 'report.html')}", highlight=False)


@mix_app.command("fit")
def mix_fit(
    ratios: Annotated[
        str, typer.Argument(metavar="RATIOS", help="CSV file: index of a run and its share of each domain.")
    ],
    metrics: Annotated[str, typer.Argument(metavar="METRICS", help="CSV file: index of a run and its losses.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Output directory.")] = "mix",
    objective: Annotated[
        list[str] | None, typer.Option(help="METRIC=WEIGHT. Repeatable.", show_default="the mean of all metrics")
    ] = None,
    worst: Annotated[
        bool, typer.Option(help="Optimize the worst metric, relative to the run nearest to the mean mix.")
    ] = False,
    maximise: Annotated[bool, typer.Option(help="Larger metrics are better.")] = False,
    resamples: Annotated[int, typer.Option(min=0, help="Number of bootstrap resamples for the intervals.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Fit a law to runs that are already trained, from their tables of mixes and losses."""
    import os

    from pipelines.experiments.mix.regmix_tables import fit_table
    from pipelines.experiments.mix.results import outcome_as_dict

    _refuse_foreign_files(out)
    outcome = fit_table(ratios, metrics, _weights(objective), worst=worst, maximise=maximise, resamples=resamples)
    os.makedirs(out, exist_ok=True)
    _write_results(outcome, out, f"{os.path.basename(ratios)}: mix fit")
    if as_json:
        print(json.dumps(outcome_as_dict(outcome)))
    else:
        _show_outcome(make_console(), outcome)


def _weights(objective: list[str] | None) -> dict[str, float] | None:
    if not objective:
        return None
    found = {}
    for item in objective:
        name, equals, value = item.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise typer.BadParameter(f"{item!r}: expected METRIC=WEIGHT, such as web=1", param_hint="--objective")
    return found


RESULTS = ("ratios.csv", "metrics.csv", "mix.yaml", "report.html")


def _refuse_foreign_files(folder: str) -> None:
    """Raises UserError for a folder with files that the results would overwrite, and no outcome of an earlier run."""
    import os

    from curation.core.errors import UserError

    found = [name for name in RESULTS if os.path.exists(os.path.join(folder, name))]
    if found and not os.path.exists(os.path.join(folder, "outcome.json")):
        raise UserError(
            f"{folder} holds {', '.join(found)}, which would be overwritten; give another folder with --out"
        )


def _write_results(outcome: Any, folder: str, title: str) -> None:
    from pathlib import Path

    from curation.storage import Storage
    from pipelines.experiments.mix import regmix_tables
    from pipelines.experiments.mix.report_page import render
    from pipelines.experiments.mix.results import outcome_as_dict

    out = Path(folder)
    Storage(folder).write_json("outcome.json", outcome_as_dict(outcome))  # first: with it the folder is ours
    regmix_tables.write_tables(out, outcome.domains, outcome.metrics, outcome.mixes, outcome.values)
    (out / "mix.yaml").write_text(outcome.mix_block(), encoding="utf-8")
    (out / "report.html").write_text(render(outcome, title), encoding="utf-8")


def _show_outcome(console: Any, outcome: Any) -> None:
    from rich.table import Table

    from pipelines.experiments.mix.report_page import headline

    table = Table("domain", box=None, pad_edge=False)
    for column in ("share", "95 % interval", "natural"):
        table.add_column(column, justify="right")
    for name, share in outcome.recommended.items():
        low, high = outcome.low[name], outcome.high[name]
        interval = f"{low:.3f} to {high:.3f}" if not math.isnan(low) else ""
        table.add_row(name, f"{share:.3f}", interval, f"{outcome.natural[name]:.3f}" if outcome.natural else "")
    console.print(table)
    scores = ", ".join(f"{name} {rho:.3f}" for name, rho in outcome.choice.scores.items())
    console.print(f"law: {outcome.choice.fitted.name} (rank correlation on unseen runs: {scores})", highlight=False)
    for v in outcome.verdicts:
        sure = "" if math.isnan(v.p) else f" ({v.low:+.4f} to {v.high:+.4f}, p {v.p:.2g})"
        console.print(f"against {v.against}: {v.effect:+.4f}{sure}: {v.words}", highlight=False)
    for note in outcome.notes:
        console.print(note, style="yellow", markup=False, highlight=False)
    console.print(headline(outcome), highlight=False, markup=False)
    console.print(outcome.mix_block(), highlight=False, markup=False)
