"""The command line: `gristmill`. A command gathers its arguments, calls the part that does the work, shows the answer.

Nothing heavy is imported before a command needs it, so that `--help` answers at once. Exit codes: 0 done, 1 failed,
2 wrong usage or configuration, 3 done with something quarantined.
"""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    help="Crawled text in, a trained language model out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="Model files: what there is, bring one, train one.", no_args_is_help=True)
train_model_app = typer.Typer(help="Train a reference model for curation.", no_args_is_help=True)
app.add_typer(models_app, name="models", rich_help_panel="Look")
models_app.add_typer(train_model_app, name="train")

RUN, LOOK, TRAIN = "Curate", "Look", "Train"

File = Annotated[str, typer.Argument(metavar="FILE", help="The pipeline file (YAML).")]
RunDir = Annotated[str, typer.Argument(metavar="RUN", help="The run's directory.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value, say steps.language.keep.language='…'. Repeats."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Plain JSON, for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the result.")]

# Errors that are a message and no traceback, by the module that raises them: (module, class, exit code)
_SAID = (
    ("curation.step", "UserError", 2),
    ("training.config", "UserError", 2),
    ("curation.engine.driver", "RunFailed", 1),
    ("curation.shards", "ShardError", 1),
    ("training.checkpoint", "CheckpointError", 1),
)


def main() -> NoReturn:
    """The entry point: runs a command and ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows ASCII only must not end a run that is done
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="gristmill")
    except KeyboardInterrupt:
        _fail("interrupted. What is finished stays; the same command goes on from there.", 1)
    except Exception as error:
        for module, name, code in _SAID:
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and isinstance(error, kind):
                _fail(str(error), code)
        raise
    sys.exit(0)


def _fail(message: str, code: int) -> NoReturn:
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=True)
    console.print("[bold red]error[/] ", end="")
    console.print(message, markup=False, highlight=False)
    sys.exit(code)


def _console(quiet: bool = False) -> Any:
    from rich.console import Console

    return Console(quiet=quiet)


def _pipeline(file: str, sets: list[str] | None) -> Any:
    from curation import config
    from pipelines.steps import READERS, STEPS

    return config.load(file, catalogue=STEPS, readers=READERS, sets=sets or ())


# -- curate ------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=RUN)
def demo(
    folder: Annotated[str, typer.Option("--dir", help="Where everything goes.")] = "runs/demo",
    executor: Annotated[str, typer.Option(help="ray or inline.")] = "ray",
) -> None:
    """The whole mill on text that this machine already has: crawl, curate, train, report. A few minutes."""
    from pipelines.demo import demo as run

    run(folder, executor=executor, console=_console())


@app.command(rich_help_panel=RUN)
def curate(
    file: File,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Run directory [default: runs/NAME].")] = None,
    sets: Sets = None,
    executor: Annotated[str, typer.Option(help="ray, or inline for this process alone.")] = "ray",
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address; else Ray starts here.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Tasks at once [default: what the machine has].")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N tasks: a first look.")] = None,
    sample: Annotated[float | None, typer.Option(min=0, max=1, help="Only this share of documents, by hash.")] = None,
    allow_missing: Annotated[bool, typer.Option(help="Go on past files that cannot be read.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Curate what a pipeline file says. Run it again and it goes on where it was, or says that nothing is left to do.

    [dim]gristmill curate web.yaml --run runs/web --set steps.language.keep.language="language.code = 'en'"[/]
    """
    from curation.engine import run as engine
    from pipelines.progress import Display

    if executor not in ("ray", "inline"):
        raise typer.BadParameter(f"{executor!r} is no executor; expected ray or inline", param_hint="--executor")
    pipeline = _pipeline(file, sets)
    run_dir = run or os.path.join("runs", pipeline.name)
    console = _console(quiet or as_json)
    with Display(console, quiet=quiet or as_json) as display:
        result = engine.curate(
            pipeline,
            run_dir,
            executor=executor,
            address=address,
            workers=workers,
            limit=limit,
            sample=sample,
            allow_missing=allow_missing,
            progress=display,
        )
    if as_json:
        fields = ("status", "exit_code", "run_dir", "counts", "quarantined", "seconds")
        print(json.dumps({f: getattr(result, f) for f in fields}, default=str))
    else:
        show_result(console, result)
    raise typer.Exit(result.exit_code)


def show_result(console: Any, result: Any) -> None:
    """The funnel of a run, or that nothing was to do, and what could not be read."""
    from pipelines.progress import duration

    if result.status == "unchanged":
        console.print(f"nothing to do: {result.run_dir} is up to date ({duration(result.seconds)})", highlight=False)
    elif result.counts:
        console.print(_funnel(result.counts))
        console.print(f"{result.run_dir}: {result.status} in {duration(result.seconds)}", highlight=False)
        if result.status == "done":
            console.print(f"gristmill report {result.run_dir}  shows it in a browser", style="dim", highlight=False)
    for item in result.quarantined:
        console.print(f"not read: {item.get('path')}: {item.get('reason')}", style="yellow", markup=False)
    if result.quarantined:
        console.print("repair or remove these files and run again, or go on without them: --allow-missing")


def _funnel(counts: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("step", "rule", box=None, pad_edge=False)
    for column in ("dropped", "left"):
        table.add_column(column, justify="right")
    left = counts.get("read", {}).get("records", 0)
    table.add_row("read", "", "", f"{left:,}")
    for row in counts.get("steps", []):
        left -= row["dropped"]
        table.add_row(row["step"], row["rule"], f"{row['dropped']:,}", f"{left:,}")
    table.add_row("kept", "", "", f"{counts.get('kept', left):,}", style="bold")
    return table


@app.command(rich_help_panel=RUN)
def plan(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A pipeline file or a training file.")],
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Run directory [default: runs/NAME].")] = None,
    data: Annotated[str | None, typer.Option(metavar="RUN", help="For a training file: the run it reads.")] = None,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """What a pipeline or training file would do: phases, tasks, bytes, disk; or parameters and tokens. Does nothing."""
    from pipelines import look

    if look.is_training_file(file):
        answer = look.training_plan(file, sets or [], data)
    else:
        from curation.engine import run as engine

        pipeline = _pipeline(file, sets)
        answer = engine.plan(pipeline, run or os.path.join("runs", pipeline.name))
    if as_json:
        print(json.dumps(answer, default=str))
    else:
        look.show_plan(_console(), answer)


@app.command(rich_help_panel=RUN)
def status(run: RunDir, as_json: AsJson = False) -> None:
    """Where a run stands: phases done, tasks open, what could not be read."""
    from curation.engine import run as engine
    from pipelines import look

    answer = engine.status(run)
    if as_json:
        print(json.dumps(answer, default=str))
        return
    console = _console()
    look.show_status(console, answer)
    if answer.get("counts"):
        console.print(_funnel(answer["counts"]))


@app.command(rich_help_panel=LOOK)
def explain(
    run: RunDir,
    document: Annotated[str, typer.Argument(metavar="DOC_ID|URL", help="32 hex digits, or the URL as crawled.")],
    as_json: AsJson = False,
) -> None:
    """Where did this page go? Every step it went through, its signals, where and why it ended."""
    from curation.engine.explain import explain as answer_for
    from pipelines import look

    answer = answer_for(run, document)
    if as_json:
        print(json.dumps(answer, default=str))
    else:
        look.show_explain(_console(), answer)


@app.command(rich_help_panel=LOOK)
def report(
    run: RunDir,
    out: Annotated[str | None, typer.Option(help="File to write [default: RUN/report.html].")] = None,
) -> None:
    """One HTML file about a run: the funnel, signals, samples of kept and dropped text, loss curves. No network."""
    from pipelines.report import write

    print(write(run, out))


@app.command(rich_help_panel=LOOK)
def doctor(
    storage: Annotated[str, typer.Option(help="A directory or URL to try writing to.")] = "runs",
    as_json: AsJson = False,
) -> None:
    """Is this machine fit for it? Versions, memory, disk, models, Ray, storage; what to do where something is amiss."""
    from pipelines.doctor import examine, show

    findings = examine(storage)
    if as_json:
        print(json.dumps([f.__dict__ for f in findings]))
    else:
        show(_console(), findings)
    raise typer.Exit(1 if any(f.state == "bad" for f in findings) else 0)


# -- train -------------------------------------------------------------------------------------------------------------


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

    console = _console(quiet)
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


# -- models ------------------------------------------------------------------------------------------------------------


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """The catalogue: what each model is, its licence, and whether it is on this machine."""
    from curation.models import listing
    from pipelines.look import show_models

    rows = listing()
    if as_json:
        print(json.dumps([r.__dict__ for r in rows]))
    else:
        show_models(_console(), rows)


@models_app.command("pull")
def models_pull(name: Annotated[str, typer.Argument(help="A name of the catalogue, or a URL.")]) -> None:
    """Bring a model to this machine, checked against its checksum."""
    from curation.models import pull

    print(pull(name))


@train_model_app.command("ngram")
def models_train_ngram(
    text: Annotated[list[str], typer.Argument(help="Text, JSONL or Parquet files, folders or globs.")],
    out: Annotated[str, typer.Option(help="The ARPA file to write.")],
    order: Annotated[int, typer.Option(min=2, max=6, help="Length of the longest n-gram.")] = 5,
    field: Annotated[str, typer.Option(help="The text's name in JSONL and Parquet.")] = "text",
    prune: Annotated[
        list[int] | None, typer.Option(help="Drop n-grams seen no more than this, by order. Repeats.")
    ] = None,
    memory: Annotated[int, typer.Option(min=16, help="MB held in memory; more goes to disk.")] = 64,
) -> None:
    """An n-gram model for the perplexity step: interpolated modified Kneser-Ney, as an ARPA file."""
    from curation.quality.ngram import train_ngram

    made = train_ngram(text, order, out, field=field, prune=prune, memory=memory << 20)
    print(f"{out}: {', '.join(f'{n:,}' for n in made.ngrams)} n-grams of order 1 to {order}")


@train_model_app.command("classifier")
def models_train_classifier(
    samples: Annotated[list[str], typer.Argument(metavar="LABEL=PATH...", help="Label and files, folder or glob.")],
    out: Annotated[str, typer.Option(help="The fastText model to write.")],
    field: Annotated[str, typer.Option(help="The text's name in JSONL and Parquet.")] = "text",
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    quantise: Annotated[bool, typer.Option(help="Ten times smaller, for a point of accuracy or so.")] = False,
) -> None:
    """A fastText classifier for the classifier step, with its figures on a tenth held out."""
    from curation.quality.classifier_train import train_classifier

    sources: dict[str, list[str]] = {}
    for sample in samples:
        label, equals, path = sample.partition("=")
        if not equals:
            raise typer.BadParameter(f"{sample!r}: expected LABEL=PATH, such as good=reference/*.jsonl")
        sources.setdefault(label, []).append(path)
    made = train_classifier(sources, out, field=field, epochs=epochs, quantise=quantise)
    print(f"{out}: accuracy {made.accuracy:.3f} on held-out samples")
    for row in made.labels:
        print(f"  {row.label}: {row.trained:,} samples, AUC {row.auc:.3f}")


if __name__ == "__main__":
    main()
