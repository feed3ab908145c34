"""Commands around a training run: train, checkpoint list and verify, generate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import TRAIN, AsJson, Quiet, Sets, app, make_console

checkpoint_app = typer.Typer(help="Checkpoints of a run: what there is, is it whole.", no_args_is_help=True)
app.add_typer(checkpoint_app, name="checkpoint", rich_help_panel=TRAIN)


@app.command(rich_help_panel=TRAIN)
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The training file (YAML).")],
    data: Annotated[list[str], typer.Option(metavar="RUN", help="The curation run whose shards are read. Repeats.")],
    run: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where it goes.", show_default="RUN/train/CONFIG, of the first RUN"),
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(metavar="DIR", help="A run or checkpoint whose weights to start from; nothing else.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N or MIN-MAX", help="On so many Ray workers.", show_default="this process")
    ] = None,
    address: Annotated[str | None, typer.Option(help="The Ray cluster.", show_default="one of its own")] = None,
    sets: Sets = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on a run's shards. Run it again and it goes on from its last checkpoint.

    Under torchrun every rank runs this command. SIGTERM saves a checkpoint and ends with exit code 75: run it again.
    """
    from pipelines.cli.text_output import TrainLines
    from training.config import load

    settings = load(config, [*(sets or []), *([f"init_from={init_from}"] if init_from else [])])
    name = os.path.basename(config).rsplit(".", 1)[0]
    run_dir = run or os.path.join(data[0], "train", name)
    if "://" in run_dir:
        raise typer.BadParameter(
            f"{run_dir} is on an object store; a training needs a folder on a disk that all its nodes see",
            param_hint="--run",
        )
    console = make_console(quiet or os.environ.get("RANK", "0") != "0")
    lines = TrainLines(console, settings.steps)
    if workers is not None:
        from training.distributed.ray_train import train_on_ray

        if address is not None:
            import ray

            from curation.engine.execution.executors import reach

            reach(ray, address, log_to_driver=False)
        console.print(f"on Ray; gristmill watch {run_dir} shows how it goes", style="dim", highlight=False)
        result = train_on_ray(settings, data, run_dir, workers=_workers(workers), address=address)
    else:
        from training.train import train as run_training

        with lines:
            result = run_training(settings, data, run_dir, report=lines)
    for note in result.notes:
        if note not in lines.notes:
            console.print(note, style="yellow", markup=False)
    if result.resumed_from:
        console.print(f"resumed from step {result.resumed_from}", highlight=False)
    for domain, score in result.validation.items():
        bits = f", {score.bits_per_byte:.3f} bits per byte" if score.bits_per_byte is not None else ""
        console.print(f"{domain}: loss {score.loss:.3f}, perplexity {score.perplexity:.1f}{bits}", highlight=False)
    if result.masked:
        console.print(
            f"{len(result.masked)} documents masked; see {run_dir}/incidents", style="yellow", highlight=False
        )
    console.print(f"{run_dir}: {result.steps} steps, {result.tokens:,} tokens", highlight=False)


def _workers(text: str) -> int | tuple[int, int]:
    """`4` or `2-8`. Raises typer.BadParameter."""
    try:
        least, dash, most = text.partition("-")
        return (int(least), int(most)) if dash else int(least)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected a number as in 4, or a range as in 2-8") from None


@checkpoint_app.command("list")
def list_checkpoints(
    run: Annotated[str, typer.Argument(metavar="DIR", help="A training run's directory.")], as_json: AsJson = False
) -> None:
    """The checkpoints of a run: step, bytes, tokens read, incidents so far, and which one the guard calls good."""
    import json

    from training.checkpoint.save_load import summarize_checkpoints

    rows = summarize_checkpoints(_checkpoints(run))
    if as_json:
        print(json.dumps(rows))
        return
    from rich.table import Table

    from pipelines.monitor.progress import size

    table = Table("step", box=None, pad_edge=False)
    for column in ("tokens", "size", "incidents", "good"):
        table.add_column(column, justify="right")
    for row in rows:
        told = [f"{row[k]:,}" if row[k] is not None else "?" for k in ("tokens", "incidents")]
        good = "damaged" if row["good"] is None else "yes" if row["good"] else ""
        table.add_row(f"{row['step']:,}", told[0], size(row["bytes"]), told[1], good)
    make_console().print(table)


@checkpoint_app.command("verify")
def verify_checkpoints(
    run: Annotated[str, typer.Argument(metavar="DIR", help="A training run's directory.")], quiet: Quiet = False
) -> None:
    """Reads every checkpoint of a run and compares checksums. Exit code 1 where one is damaged."""
    from training.checkpoint.save_load import CheckpointError, checkpoints, verify

    console, bad = make_console(quiet), 0
    for path in checkpoints(_checkpoints(run)):
        try:
            verify(path)
            console.print(f"{path.name}: whole", highlight=False)
        except CheckpointError as error:
            bad += 1
            console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
    if bad:
        raise typer.Exit(1)


def _checkpoints(run: str) -> Path:
    """Where a training keeps them; a directory that is no training run is refused."""
    from training.checkpoint.save_load import CheckpointError

    folder = Path(run) / "checkpoints"
    if not folder.is_dir():
        raise CheckpointError(f"{run}: no checkpoint here; `gristmill train` writes them")
    return folder


@app.command(rich_help_panel=TRAIN)
def generate(
    run: Annotated[str, typer.Argument(metavar="DIR", help="A training run's directory.")],
    prompt: Annotated[str, typer.Argument(help="What the text begins with.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens at most.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1)] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1)] = 0.95,
    seed: Annotated[int, typer.Option(help="The same seed says the same.")] = 17,
) -> None:
    """Let a trained model go on from a prompt."""
    from training.evaluation.generate import generate as say

    print(say(run, prompt, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed))
