"""The command plan: what a pipeline file or a training file will do, without doing it."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from pipelines.cli.app import AllowUnreadable, AsJson, Sets, app, make_console


@app.command()
def plan(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Pipeline file or training file (YAML).")],
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Output directory.", show_default="runs/NAME")] = None,
    data: Annotated[str | None, typer.Option(metavar="RUN", help="Training: curation run to train on.")] = None,
    vocab: Annotated[int | None, typer.Option(min=1, help="Training: vocabulary size, instead of --data.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Training: number of devices.")] = 1,
    device: Annotated[
        str | None, typer.Option(help="Training: a100, h100, h200, b200 or cpu.", show_default="this machine's")
    ] = None,
    mfu: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="Training: assumed model FLOPs utilization.", show_default="0.4"),
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Training: price of a device-hour.")] = None,
    allow_unreadable: AllowUnreadable = False,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Show what a pipeline file (phases, tasks, disk) or a training file (parameters, memory, time) will do."""
    from pipelines.cli.text_output import is_training_file, show_plan, show_training_plan

    if is_training_file(file):
        answer = plan_training(file, sets or [], data, vocab, gpus, device, mfu, price)
        print(json.dumps(answer)) if as_json else show_training_plan(make_console(), answer)
        return
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.runtime.status import plan_run

    pipeline = load_pipeline(file, sets=sets or ())
    answer = plan_run(pipeline, run or os.path.join("runs", pipeline.name), allow_unreadable=allow_unreadable)
    if as_json:
        print(json.dumps(answer, default=str))
    else:
        show_plan(make_console(), answer)


def plan_training(
    path: str,
    sets: list[str],
    data: str | None,
    vocab: int | None,
    gpus: int,
    device: str | None,
    mfu: float | None,
    price: float | None,
) -> dict[str, Any]:
    """The plan of a training file, see `training.cost.cost_model.plan_training`.

    With `data` also the epochs over it; without `data` and `vocab` only steps and tokens.
    """
    from training.config import load

    config = load(path, sets)
    answer: dict[str, Any] = {
        "training": path,
        "steps": config.steps,
        "tokens_per_step": config.batch.global_size * config.data.seq_len,
        "tokens": sum(steps * global_size * seq_len for steps, global_size, seq_len in config.stages()),
    }
    if data is not None:
        from curation.shards import read_manifest
        from training.data.data_schedule import new_data_order

        manifest = read_manifest(data)
        vocab = manifest.tokenizer.vocab
        available = {d: s.tokens for d, s in manifest.splits["train"].items()}
        answer |= {"available_tokens": available, "epochs": answer["tokens"] / max(1, sum(available.values()))}
        # refuses what training would refuse
        new_data_order(manifest, config.data, config.seed, config.batch.global_size, config.steps)
    if vocab is not None:
        from training.cost import cost_model
        from training.cost.device_specs import find_device

        found = cost_model.plan_training(
            config, vocab, device=find_device(device), gpus=gpus, mfu=mfu or cost_model.ASSUMED_MFU, price=price
        )
        answer |= cost_model.as_dict(found)
    return answer
