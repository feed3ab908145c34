"""Commands on mix experiments: search for a better mix, fit a table of them."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

from pipelines.cli.app import TRAIN, AsJson, Quiet, app, make_console

mix_app = typer.Typer(
    help="Mix experiments: which share of each domain is best, and how sure that is.", no_args_is_help=True
)
app.add_typer(mix_app, name="mix", rich_help_panel=TRAIN)


@mix_app.command("search")
def mix_search(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The search file (YAML).")],
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Where it goes.", show_default="DATA/mix/FILE")] = None,
    executor: Annotated[str, typer.Option(help="ray, or inline for this process alone.")] = "ray",
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address; else Ray starts here.")] = None,
    confirm: Annotated[bool, typer.Option(help="Train the runs that check the recommended mix.")] = True,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train small models on many mixes, fit a law, recommend a mix, and check it by paired runs.

    Run it again and it goes on where it was; with another objective it fits anew and trains nothing but, unless
    --no-confirm is given, the runs that check a new recommendation.
    """
    import os

    from pipelines.experiments.mix import proxy_workers, search_config
    from pipelines.experiments.mix.results import as_json as plain
    from pipelines.experiments.mix.search import search

    if executor not in ("ray", "inline"):
        raise typer.BadParameter(f"{executor!r} is no executor; expected ray or inline", param_hint="--executor")
    wanted = search_config.load(file)
    name = os.path.basename(file).rsplit(".", 1)[0]
    folder = out or os.path.join(wanted.data, "mix", name)
    console = make_console(quiet or as_json)

    def say(message: str) -> None:
        console.print(message, highlight=False, markup=False)

    train = (
        proxy_workers.inline
        if executor == "inline"
        else proxy_workers.on_ray(address, cpus=wanted.cpus, gpus=wanted.gpus)
    )
    outcome = search(wanted, folder, train=train, confirm=confirm, progress=say)
    _finish(outcome, folder, f"{name}: mix search")
    if as_json:
        print(json.dumps(plain(outcome)))
    else:
        _show(console, outcome)
        console.print(f"report: {os.path.join(folder, 'report.html')}", highlight=False)


@mix_app.command("fit")
def mix_fit(
    ratios: Annotated[str, typer.Argument(metavar="RATIOS", help="CSV: a run's index and its share of each domain.")],
    metrics: Annotated[str, typer.Argument(metavar="METRICS", help="CSV: a run's index and its losses.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Where the report goes.")] = "mix",
    objective: Annotated[
        list[str] | None, typer.Option(help="METRIC=WEIGHT; repeats. Default: the mean of all.")
    ] = None,
    worst: Annotated[bool, typer.Option(help="The worst metric, relative to the run nearest to the mean mix.")] = False,
    maximise: Annotated[bool, typer.Option(help="The metrics are better when larger.")] = False,
    resamples: Annotated[int, typer.Option(min=0, help="Bootstrap resamples behind the intervals.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Fit a swarm that somebody has trained already, from its tables of mixes and losses."""
    import os

    from pipelines.experiments.mix.regmix_tables import fit_table
    from pipelines.experiments.mix.results import as_json as plain

    outcome = fit_table(ratios, metrics, _weights(objective), worst=worst, maximise=maximise, resamples=resamples)
    os.makedirs(out, exist_ok=True)
    _finish(outcome, out, f"{os.path.basename(ratios)}: mix fit")
    if as_json:
        print(json.dumps(plain(outcome)))
    else:
        _show(make_console(), outcome)


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


def _finish(outcome: Any, folder: str, title: str) -> None:
    from pathlib import Path

    from curation.storage import Storage
    from pipelines.experiments.mix import regmix_tables
    from pipelines.experiments.mix.report_page import render
    from pipelines.experiments.mix.results import as_json

    place = Path(folder)
    regmix_tables.write(place, outcome.domains, outcome.metrics, outcome.mixes, outcome.values)
    Storage(folder).write_json("outcome.json", as_json(outcome))
    (place / "mix.yaml").write_text(outcome.mix_block(), encoding="utf-8")
    (place / "report.html").write_text(render(outcome, title), encoding="utf-8")


def _show(console: Any, outcome: Any) -> None:
    from rich.table import Table

    from pipelines.experiments.mix.report_page import headline

    table = Table("domain", box=None, pad_edge=False)
    for column in ("share", "95 % interval", "natural"):
        table.add_column(column, justify="right")
    for name, share in outcome.recommended.items():
        low, high = outcome.low[name], outcome.high[name]
        known = f"{low:.3f} to {high:.3f}" if not math.isnan(low) else ""
        table.add_row(name, f"{share:.3f}", known, f"{outcome.natural[name]:.3f}" if outcome.natural else "")
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
