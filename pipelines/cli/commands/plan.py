"""The command that looks ahead: plan, for pipelines and for training files."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from pipelines.cli.app import RUN, AsJson, Sets, app, load_pipeline, make_console


@app.command(rich_help_panel=RUN)
def plan(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A pipeline file or a training file.")],
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Run directory.", show_default="runs/NAME")] = None,
    data: Annotated[str | None, typer.Option(metavar="RUN", help="Training: the run it reads.")] = None,
    vocab: Annotated[int | None, typer.Option(min=1, help="Training: the vocabulary, where no run is named.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Training: how many devices.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="Training: a100, h100, h200, b200, cpu.", show_default="this one")
    ] = None,
    mfu: Annotated[
        float | None, typer.Option(min=0.01, max=1, help="Training: share of the peak.", show_default="0.4")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Training: what a device costs an hour.")] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """What a pipeline or training file would do: phases, tasks, disk; or parameters, memory, days. Does nothing."""
    from pipelines.cli import text_output

    if text_output.is_training_file(file):
        answer = training_plan(file, sets or [], data, vocab, gpus, device, mfu, price)
        print(json.dumps(answer)) if as_json else show_training_plan(answer)
        return
    from curation.engine.runtime.status import plan_run

    pipeline = load_pipeline(file, sets)
    answer = plan_run(pipeline, run or os.path.join("runs", pipeline.name))
    if as_json:
        print(json.dumps(answer, default=str))
    else:
        text_output.show_plan(make_console(), answer)


def training_plan(
    path: str,
    sets: list[str],
    data: str | None,
    vocab: int | None,
    gpus: int,
    device: str | None,
    mfu: float | None,
    price: float | None,
) -> dict[str, Any]:
    """See `training.cost.cost_model.plan`; with the data named, epochs too, without it and a vocabulary only what is sure."""
    from training.config import load

    config = load(path, sets)
    answer: dict[str, Any] = {
        "training": path,
        "steps": config.steps,
        "tokens_per_step": config.batch.global_size * config.data.seq_len,
        "tokens": sum(count * windows * sequence for count, windows, sequence in config.stages()),
    }
    if data is not None:
        from curation.shards import read_manifest
        from training.data.data_schedule import new_data_order as order

        manifest = read_manifest(data)
        vocab = manifest.tokenizer.vocab
        available = {d: s.tokens for d, s in manifest.splits["train"].items()}
        answer |= {"available_tokens": available, "epochs": answer["tokens"] / max(1, sum(available.values()))}
        order(manifest, config.data, config.seed, config.batch.global_size, config.steps)  # refuses as training would
    if vocab is not None:
        from training.cost import cost_model
        from training.cost.device_specs import find_device

        found = cost_model.plan_training(
            config, vocab, device=find_device(device), gpus=gpus, mfu=mfu or cost_model.ASSUMED_MFU, price=price
        )
        answer |= cost_model.as_dict(found)
    return answer


def show_training_plan(answer: dict[str, Any]) -> None:
    """The plan of a training, as people read it."""
    from pipelines.monitor.progress import size

    console = make_console()

    def line(name: str, value: str) -> None:
        console.print(f"{name:>22}  {value}", highlight=False, markup=False, soft_wrap=True)

    line("training", answer["training"])
    line("steps", f"{answer['steps']:,} of {answer['tokens_per_step']:,} tokens")
    line("tokens", f"{answer['tokens']:,}")
    if "epochs" in answer:
        line("epochs", f"{answer['epochs']:.2f} of {sum(answer['available_tokens'].values()):,} tokens")
    if "memory" not in answer:
        line("more", "name the data (--data RUN) or the vocabulary (--vocab N) for parameters, memory and time")
        return
    line("parameters", f"{answer['total_parameters']:,}")
    for name, count in answer["parameters"].items():
        line(name, f"{count:,}")
    flops = answer["flops"]
    line("FLOPs a token", f"{flops['causal']:.4g} (causal half of attention), {flops['full']:.4g} (all of it)")
    held = answer["memory"]
    line("memory on each", f"{size(held['peak'])} at the peak, windows at once: {answer['micro']}")
    for name in ("weights", "gradients", "moments", "casts", "activations", "loss"):
        line(name, size(held[name]))
    for name, held_so in answer["recipes"].items():
        line("in all", f"{size(held_so)} for {name}")
    line("device", f"{answer['gpus']} x {answer['device']}, {answer['mfu']:.0%} of its peak assumed")
    line("tokens/s", f"{answer['tokens_per_second']:,.0f}")
    days = answer["days"]
    line(
        "time",
        f"{days:.2f} days" if days > 2 else f"{days * 24:.2f} hours" if days > 1 / 12 else f"{days * 1440:.1f} minutes",
    )
    if answer["cost"] is not None:
        line("cost", f"{answer['cost']:,.2f}")
