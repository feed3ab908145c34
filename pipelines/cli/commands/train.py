"""Commands that train a model and handle its checkpoints: train, checkpoint list and verify, export, import."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import (
    Address,
    AsJson,
    CheckpointPath,
    Quiet,
    TrainingDir,
    add_group,
    app,
    make_console,
    print_checkpoint,
)  # fmt: skip

checkpoint_app = add_group("checkpoint", "List and verify the checkpoints of a training run.")


@app.command()
def train(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Training file (YAML).")],
    data: Annotated[list[str], typer.Option(metavar="RUN", help="Curation run whose shards to train on. Repeatable.")],
    run: Annotated[
        str | None,
        typer.Option(
            "--run",
            "--run-dir",  # torchrun takes --run for an abbreviation of its own --run-path
            metavar="DIR",
            help="Output directory. Under torchrun: --run-dir, or -- before pipelines.cli.",
            show_default="RUN/train/CONFIG, of the first RUN",
        ),
    ] = None,
    init_from: Annotated[
        str | None, typer.Option(metavar="DIR", help="Run or checkpoint to take the initial weights from.")
    ] = None,
    branch_from: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Run or checkpoint to branch off: weights, optimizer state, data position."),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(metavar="N|MIN-MAX", help="Number of Ray workers, or a range MIN-MAX.", show_default="no Ray"),
    ] = None,
    address: Address = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a value, such as optimizer.lr=3e-4. Repeatable."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a model on the shards of a run. Resumes an interrupted training from its last checkpoint.

    Under torchrun every rank runs this command: torchrun --nproc-per-node 8 -m -- pipelines.cli train CONFIG ...
    SIGTERM saves a checkpoint, leaves the file `preempted` in DIR and exits with code 75: run it again.
    """
    from pipelines.monitor.training_progress import TrainingProgress
    from training.config import load

    parents = {"init_from": init_from, "branch_from": branch_from}
    settings = load(config, [*(sets or []), *(f"{key}={place}" for key, place in parents.items() if place)])
    name = os.path.basename(config).rsplit(".", 1)[0]
    run_dir = run or os.path.join(data[0], "train", name)
    if "://" in run_dir:
        raise typer.BadParameter(
            f"{run_dir} is on an object store; training needs a directory on a disk that all nodes share",
            param_hint="--run",
        )
    console = make_console(quiet or os.environ.get("RANK", "0") != "0")
    progress = TrainingProgress(console, settings.steps)
    if workers is not None:
        from training.distributed.ray_train import train_on_ray

        if address is not None:
            import ray

            from curation.engine.execution.executors import connect_to_cluster

            connect_to_cluster(ray, address, log_to_driver=False)
        console.print(f"training on Ray; follow it with gristmill watch {run_dir}", style="dim", highlight=False)
        result = train_on_ray(settings, data, run_dir, workers=_workers(workers), address=address)
    else:
        from training.train import train as run_training

        with progress:
            result = run_training(settings, data, run_dir, report=progress)
    for note in result.notes:
        if note not in progress.notes:
            console.print(note, style="yellow", markup=False)
    if result.resumed_from:
        console.print(f"resumed from step {result.resumed_from}", highlight=False)
    for domain, score in result.validation.items():
        bits = f", {score.bits_per_byte:.3f} bits per byte" if score.bits_per_byte is not None else ""
        console.print(f"{domain}: loss {score.loss:.3f}, perplexity {score.perplexity:.1f}{bits}", highlight=False)
    if result.masked:
        line = f"{len(result.masked)} documents masked; see {run_dir}/incidents"
        console.print(line, style="yellow", highlight=False)
    console.print(f"{run_dir}: {result.steps} steps, {result.tokens:,} tokens", highlight=False)


def _workers(text: str) -> int | tuple[int, int]:
    """`4` or `2-8`. Raises typer.BadParameter."""
    try:
        least, dash, most = text.partition("-")
        return (int(least), int(most)) if dash else int(least)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected a number (4) or a range (2-8)") from None


@checkpoint_app.command("list")
def list_checkpoints(run: TrainingDir, as_json: AsJson = False) -> None:
    """List the checkpoints of a run: step, tokens, size, incidents so far, and which ones the spike guard trusts."""
    from training.checkpoint.save_load import summarize_checkpoints

    rows = summarize_checkpoints(_checkpoints(run))
    if as_json:
        print(json.dumps(rows))
        return
    from rich.table import Table

    from pipelines.number_format import format_bytes

    table = Table("step", box=None, pad_edge=False)
    for column in ("tokens", "size", "incidents", "good"):
        table.add_column(column, justify="right")
    for row in rows:
        tokens, incidents = (f"{row[k]:,}" if row[k] is not None else "?" for k in ("tokens", "incidents"))
        good = "damaged" if row["good"] is None else "yes" if row["good"] else ""
        table.add_row(f"{row['step']:,}", tokens, format_bytes(row["bytes"]), incidents, good)
    make_console().print(table)


@checkpoint_app.command("verify")
def verify_checkpoints(run: CheckpointPath, quiet: Quiet = False) -> None:
    """Read every checkpoint of a run, or the one given, and compare checksums. Exit code 1 if one is damaged."""
    from training.checkpoint.save_load import checkpoints, is_checkpoint, verify
    from training.checkpoint.tensor_files import CheckpointError

    console, damaged = make_console(quiet), 0
    for path in [Path(run)] if is_checkpoint(Path(run)) else checkpoints(_checkpoints(run)):
        try:
            verify(path)
            console.print(f"{path.name}: intact", highlight=False)
        except CheckpointError as error:
            damaged += 1
            console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
    if damaged:
        raise typer.Exit(1)


def _checkpoints(run: str) -> Path:
    """The checkpoints folder of a training run. Raises CheckpointError for a directory without one."""
    from training.checkpoint.tensor_files import CheckpointError

    folder = Path(run) / "checkpoints"
    if not folder.is_dir():
        raise CheckpointError(f"{run} has no checkpoints\n  give the directory of a training run (gristmill train)")
    return folder


@app.command()
def export(
    run: CheckpointPath,
    out: Annotated[str, typer.Argument(metavar="OUT", help="Output directory; must be empty or not exist.")],
    dtype: Annotated[str, typer.Option(help="bf16, fp16 or fp32.")] = "bf16",
) -> None:
    """Export the newest checkpoint, or the one given, in the Hugging Face Llama format, for transformers and vLLM."""
    import torch

    from curation.core.errors import UserError
    from training.checkpoint.huggingface import export as export_hf
    from training.checkpoint.load_model import load_model

    types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if dtype not in types:
        raise UserError(f"--dtype {dtype}: expected {', '.join(types)}")
    model = load_model(run)
    print_checkpoint(model.checkpoint)
    make_console().print(f"{export_hf(model, out, dtype=types[dtype])}: written", highlight=False)


@app.command("import")
def import_model(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A model in Hugging Face Llama or Qwen3 format.")],
    run: Annotated[str, typer.Argument(metavar="DIR", help="Directory of the training run to create.")],
) -> None:
    """Import a Hugging Face model as a training run: to generate, evaluate, export, or train on from (init_from)."""
    from training.checkpoint.huggingface import import_hf

    make_console().print(f"{import_hf(folder, run)}: written", highlight=False)
