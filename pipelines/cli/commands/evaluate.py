"""Commands that use a trained model: evaluate, generate."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from pipelines.cli.app import AsJson, CheckpointPath, app, make_console, print_checkpoint


@app.command()
def evaluate(
    run: CheckpointPath,
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK...]", help="Task files (JSONL); see docs.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="RUN", help="Curation run whose validation split gives the perplexity.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use only the first N questions of a task, or sequences of a domain.")
    ] = None,
    shots: Annotated[int, typer.Option(min=0, help="Math: number of few-shot examples.")] = 0,
    samples: Annotated[int, typer.Option(min=1, help="Code: programs per question, for pass@k.")] = 1,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Code: execute the programs that the model writes, on this machine.")
    ] = False,
    no_sandbox: Annotated[
        bool, typer.Option("--no-sandbox", help="Code: run it also where bubblewrap does not work; see docs.")
    ] = False,
    tokens: Annotated[int, typer.Option(min=1, help="Math and code: maximum tokens per answer.")] = 256,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Evaluate a model: perplexity and bits per byte by domain; multiple choice, math and code tasks."""
    from curation.core.errors import UserError
    from training.checkpoint.load_model import load_model
    from training.evaluation.sandbox import require_sandbox
    from training.evaluation.task_files import read_task
    from training.evaluation.tasks import evaluate_task, ignored_options

    if not tasks and data is None:
        raise UserError("nothing to evaluate: name task files (JSONL), --data RUN for perplexity, or both")
    loaded = [read_task(path, limit) for path in tasks or ()]
    if any(t.kind == "code" for t in loaded) and not run_code:
        raise UserError("code tasks execute what the model wrote, on this machine; allow it with --run-code")
    if any(t.kind == "code" for t in loaded) and not no_sandbox:
        require_sandbox("--run-code")
    notes = ignored_options(loaded, shots=shots, run_code=run_code, samples=samples, tokens=tokens)
    for note in notes:
        make_console(stderr=True).print(note, style="yellow", markup=False, highlight=False)
    model = load_model(run, device)
    assert model.checkpoint is not None
    print_checkpoint(model.checkpoint)
    answer: dict[str, Any] = {
        "run": run,
        "checkpoint": str(model.checkpoint.path),
        "step": model.checkpoint.state["step"],
        "notes": [*notes, *model.checkpoint.notes],
    }
    if data is not None:
        from training.evaluation.validation_loss import score_run

        answer["domains"] = score_run(model, data, limit)
    how: dict[str, Any] = {"run_code": run_code, "sandbox": not no_sandbox, "samples": samples, "tokens": tokens}
    results = [evaluate_task(model, t, shots=shots, **how) for t in loaded]
    answer["tasks"] = [{"task": r.task, "kind": r.kind, "count": r.count, **r.figures} for r in results]
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
    for r in results:
        figures = ", ".join(f"{k} {v:.4f}" for k, v in r.figures.items())
        console.print(f"{r.task}: {figures}, {r.count:,} questions", highlight=False, markup=False)


@app.command()
def generate(
    run: CheckpointPath,
    prompt: Annotated[str, typer.Argument(help="Text to continue.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="Sampling temperature; 0 is greedy.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Sample from the K most likely tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Nucleus sampling: probability mass.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Sampling seed.")] = 17,
) -> None:
    """Generate text with a trained model."""
    from training.checkpoint.load_model import load_model
    from training.evaluation.generate import describe_expectation
    from training.evaluation.generate import generate as generate_text

    if temperature == 0 and (top_k is not None or top_p != 0.95):
        note = "--top-k and --top-p have no effect with --temperature 0, which always takes the most likely token"
        make_console(stderr=True).print(note, style="yellow", markup=False, highlight=False)
    model = load_model(run)
    print_checkpoint(model.checkpoint)
    if expected := describe_expectation(model):
        make_console(stderr=True).print(expected, style="dim", markup=False, highlight=False)
    print(generate_text(model, prompt, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed))
