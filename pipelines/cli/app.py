"""The command line's frame: the Typer app, its panels, and the arguments that several commands share."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from pipelines.cli.help_map import Map

app = typer.Typer(
    cls=Map,
    help="Crawled text in, a trained language model out.",
    no_args_is_help=True,
    add_completion=False,  # a command of its own does it
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


def make_console(quiet: bool = False, stderr: bool = False) -> Any:
    """Where a command speaks. With --plain (or GRISTMILL_PLAIN=1): no colour, and nothing that moves."""
    from rich.console import Console

    if os.environ.get("GRISTMILL_PLAIN"):
        return Console(quiet=quiet, stderr=stderr, no_color=True, force_terminal=False, emoji=False, soft_wrap=True)
    return Console(quiet=quiet, stderr=stderr)
