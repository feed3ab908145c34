"""Commands around a training run: train, generate."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pipelines.app import TRAIN, Quiet, Sets, app, make_console


@app.command(rich_help_panel=TRAIN)
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The training file (YAML).")],
    data: Annotated[str, typer.Option(metavar="RUN", help="The curation run whose shards are read.")],
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Where it goes [default: RUN/train/CONFIG].")] = None,
    sets: Sets = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on a run's shards. Run it again and it goes on from its last checkpoint.

    [dim]gristmill train small.yaml --data runs/web --set optimizer.lr=3e-4[/]
    """
    from pipelines.look import TrainLines
    from training.config import load

    settings = load(config, sets or [])
    name = os.path.basename(config).rsplit(".", 1)[0]
    run_dir = run or os.path.join(data, "train", name)
    from training.train import train as run_training

    console = make_console(quiet)
    result = run_training(settings, data, run_dir, report=TrainLines(console, settings.iterations))
    for note in result.notes:
        console.print(note, style="yellow", markup=False)
    if result.resumed_from:
        console.print(f"went on from iteration {result.resumed_from}", highlight=False)
    for domain, score in result.validation.items():
        bits = f", {score.bits_per_byte:.3f} bits per byte" if score.bits_per_byte is not None else ""
        console.print(f"{domain}: loss {score.loss:.3f}, perplexity {score.perplexity:.1f}{bits}", highlight=False)
    console.print(f"{run_dir}: {result.iterations} iterations, {result.tokens:,} tokens", highlight=False)


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
    from training.generate import generate as say

    print(say(run, prompt, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed))
