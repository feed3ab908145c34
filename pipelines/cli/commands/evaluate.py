"""The command that scores a trained model: evaluate."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipelines.cli.app import TRAIN, AsJson, app, make_console


@app.command(rich_help_panel=TRAIN)
def evaluate(
    run: Annotated[str, typer.Argument(metavar="DIR", help="A training run's directory.")],
    tasks: Annotated[list[str] | None, typer.Argument(metavar="[TASK...]", help="JSONL files; see docs.")] = None,
    data: Annotated[str | None, typer.Option(metavar="RUN", help="Perplexity on this run's validation split.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N lines, or windows of a domain.")] = None,
    shots: Annotated[int, typer.Option(min=0, help="Math: lines shown as examples.")] = 0,
    samples: Annotated[int, typer.Option(min=1, help="Code: programs a question, for pass@k.")] = 1,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Code: run what the model writes, on this machine.")
    ] = False,
    tokens: Annotated[int, typer.Option(min=1, help="Math and code: tokens at most.")] = 256,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Score a trained model: perplexity and bits per byte by domain, choices by likelihood, math, code by writing."""
    from curation.core.errors import UserError
    from training.checkpoint.load_model import load_model
    from training.evaluation.task_files import read_task
    from training.evaluation.tasks import evaluate_task

    if not tasks and data is None:
        raise UserError("name task files (JSONL), --data RUN for perplexity, or both")
    asked = [read_task(path, limit) for path in tasks or ()]
    if any(t.kind == "code" for t in asked) and not run_code:
        raise UserError("scoring code runs what the model wrote, on this machine; allow it: --run-code")
    trained = load_model(run, device)
    answer: dict[str, Any] = {"run": run}
    if data is not None:
        from training.evaluation.validation_loss import score_run

        answer["domains"] = score_run(trained, data, limit)
    found = [evaluate_task(trained, t, shots=shots, run_code=run_code, samples=samples, tokens=tokens) for t in asked]
    answer["tasks"] = [{"task": r.task, "kind": r.kind, "count": r.count, **r.figures} for r in found]
    if as_json:
        print(json.dumps(answer))
        return
    console = make_console()
    for name, score in answer.get("domains", {}).items():
        bits = "" if score["bits_per_byte"] is None else f", {score['bits_per_byte']:.3f} bits per byte"
        console.print(
            f"{name}: loss {score['loss']:.3f}, perplexity {score['perplexity']:.1f}{bits}, {score['tokens']:,} tokens",
            highlight=False,
        )
    for r in found:
        figures = ", ".join(f"{k} {v:.4f}" for k, v in r.figures.items())
        console.print(f"{r.task}: {figures}, {r.count:,} questions", highlight=False, markup=False)
