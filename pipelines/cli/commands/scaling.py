"""Commands for scaling laws: scaling fit, predict, backtest, ladder, watch."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

from pipelines.cli.app import Address, AsJson, Executor, add_group, check_executor, make_console

scaling_app = add_group(
    "scaling", "Scaling laws: fit L = E + A/N^alpha + B/D^beta to finished runs, predict, backtest."
)

Table = Annotated[
    str,
    typer.Argument(metavar="TABLE", help="CSV file (params, tokens or FLOP, loss), or a folder of training runs."),
]
DropHighest = Annotated[int, typer.Option(min=0, help="Leave out the N runs with the highest loss.")]
Repetition = Annotated[bool, typer.Option(help="Also fit the value of repeated tokens (column `unique`).")]
Resamples = Annotated[int, typer.Option(min=0, help="Number of bootstrap resamples for the intervals.")]


@scaling_app.command("fit")
def scaling_fit(
    table: Table,
    drop_highest: DropHighest = 0,
    repetition: Repetition = False,
    resamples: Resamples = 1000,
    as_json: AsJson = False,
) -> None:
    """Fit a scaling law to a table of runs: its coefficients with intervals, and outlier runs."""
    from pipelines.experiments.scaling import fit, read

    made = fit(read(table).without_highest(drop_highest), repetition=repetition, resamples=resamples)
    if as_json:
        print(json.dumps({"runs": len(made.table), "law": made.spread(), "outliers": made.outliers()}))
        return
    console = make_console()
    console.print("L(N, D) = E + A / N^alpha + B / D^beta", highlight=False)
    console.print(_coefficients_table(made.spread()))
    for row in made.outliers():
        console.print(
            f"outlier: {row['run']} (N {row['params']:.3g}, D {row['tokens']:.3g}): loss {row['loss']:.3f}, "
            f"{row['off_by']:+.1%}",
            style="yellow",
            highlight=False,
        )


@scaling_app.command("predict")
def scaling_predict(
    table: Table,
    params: Annotated[float | None, typer.Option(help="Parameters of the run to predict.")] = None,
    tokens: Annotated[float | None, typer.Option(help="Training tokens of the run to predict.")] = None,
    unique: Annotated[float | None, typer.Option(help="Unique tokens among them, with --repetition.")] = None,
    flop: Annotated[
        float | None, typer.Option(help="A compute budget: predict the best model size and number of tokens for it.")
    ] = None,
    drop_highest: DropHighest = 0,
    repetition: Repetition = False,
    resamples: Resamples = 1000,
    as_json: AsJson = False,
) -> None:
    """Predict the loss of a run, or the best model size and number of tokens for a compute budget."""
    from pipelines.experiments.scaling import fit, read

    if (flop is None) == (params is None or tokens is None):
        raise typer.BadParameter("give --params and --tokens, or --flop")
    made = fit(read(table).without_highest(drop_highest), repetition=repetition, resamples=resamples)
    answer = made.optimum(flop) if flop is not None else made.predict(float(params or 0), float(tokens or 0), unique)
    if as_json:
        print(json.dumps(answer))
        return
    console = make_console()
    if flop is not None:
        console.print(
            f"for {flop:.3g} FLOP: {answer['params']:.3g} parameters ({answer['params_low']:.3g} to "
            f"{answer['params_high']:.3g}), {answer['tokens']:.3g} tokens ({answer['tokens_low']:.3g} to "
            f"{answer['tokens_high']:.3g}), {answer['tokens_per_param']:.1f} per parameter, loss {answer['loss']:.3f}",
            highlight=False,
        )
    else:
        console.print(f"loss {answer['loss']:.4f} ({answer['low']:.4f} to {answer['high']:.4f})", highlight=False)


@scaling_app.command("backtest")
def scaling_backtest(
    table: Table,
    share: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=0.9, help="Share of the runs to leave out, the largest by FLOP.", show_default="largest N"
        ),
    ] = None,
    drop_highest: DropHighest = 0,
    repetition: Repetition = False,
    as_json: AsJson = False,
) -> None:
    """Test the law: fit it to the smaller runs, predict the largest ones, show the error."""
    from pipelines.experiments.scaling import backtest, read

    made = backtest(read(table).without_highest(drop_highest), share=share, repetition=repetition)
    if as_json:
        print(json.dumps({"error": made.error, "inside": made.inside, "runs": list(made.rows)}))
        return
    from rich.table import Table as Rows

    shown = Rows("run", box=None, pad_edge=False)
    for column in ("FLOP", "observed", "predicted", "interval", "error"):
        shown.add_column(column, justify="right")
    for row in made.rows:
        shown.add_row(
            str(row["run"]), f"{row['flop']:.3g}", f"{row['observed']:.4f}", f"{row['predicted']:.4f}",
            f"{row['low']:.4f} to {row['high']:.4f}", f"{row['error']:+.2%}",
        )  # fmt: skip
    console = make_console()
    console.print(shown)
    console.print(
        f"mean error {made.error:.2%}; {made.inside} of {len(made.rows)} within the 95 % interval", highlight=False
    )


@scaling_app.command("ladder")
def scaling_ladder(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Ladder file (YAML): base, sizes, tokens_per_param.")],
    data: Annotated[str, typer.Option(metavar="RUN", help="Curation run whose shards to train on.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Output directory for the runs; `scaling fit` reads it.")],
    executor: Executor = "ray",
    address: Address = None,
) -> None:
    """Train a ladder of small runs for fitting a law. Resumes an interrupted ladder."""
    from pipelines.experiments.mix import proxy_workers
    from pipelines.experiments.scaling import ladder, read

    check_executor(executor)
    train = proxy_workers.inline if executor == "inline" else proxy_workers.on_ray(address)
    proxies = ladder.runs(ladder.load(file), data, out)
    trained = ladder.train(proxies, train)
    table = read(out)
    for i, name in enumerate(table.names):
        print(f"{name}: {table.n[i]:,.0f} parameters, {table.d[i]:,.0f} tokens, loss {table.loss[i]:.4f}")
    print(f"{len(proxies)} runs, {trained} trained now; next: gristmill scaling fit {out}")


@scaling_app.command("watch")
def scaling_watch(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Directory of a training run, finished or not.")],
    ladder: Annotated[str, typer.Option(metavar="DIR", help="Directory of the ladder's runs.")],
    every: Annotated[float, typer.Option(min=0, help="Seconds between checks; 0 checks once.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare the loss of a run with the curve that a ladder predicts. Exit code 3 if it leaves the predicted band."""
    import time
    from pathlib import Path

    from pipelines.experiments.scaling import fit, live_check, live_run, read

    seen = live_run.loss_curve(Path(run))
    curves, made = live_check.ladder_curves(ladder), fit(read(ladder), resamples=100)
    while True:
        left = live_check.find_departure(seen, live_check.predict_band(made, curves, seen))
        if left is not None or not every or len(seen.loss) >= seen.steps:
            break
        time.sleep(every)
        seen = live_run.loss_curve(Path(run))
    last = int(seen.step[-1]) if len(seen.step) else 0
    if as_json:
        print(json.dumps({"step": last, "incident": left.__dict__ | {"message": left.message} if left else None}))
    elif left is None:
        print(f"{run}: within the predicted band up to step {last:,} of {seen.steps:,}")
    else:
        print(f"{run}: {left.message}")
    raise typer.Exit(3 if left is not None else 0)


def _coefficients_table(spread: dict[str, dict[str, float]]) -> Any:
    from rich.table import Table as Rows

    shown = Rows("", box=None, pad_edge=False)
    for column in ("value", "error", "95 % interval"):
        shown.add_column(column, justify="right")
    for name, row in spread.items():
        fitted = not math.isnan(row["error"])
        shown.add_row(
            name,
            f"{row['value']:.5g}",
            f"{row['error']:.2g}" if fitted else "",
            f"{row['low']:.4g} to {row['high']:.4g}" if fitted else "",
        )
    return shown
