"""Defines the Typer app, its command groups, and the arguments that several commands share."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from pipelines.cli.help_map import HelpMap

app = typer.Typer(
    cls=HelpMap,
    help="Crawled text in, a trained language model out.",
    no_args_is_help=True,
    add_completion=False,  # `gristmill completion` prints the script instead
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # two plain columns: in rich's boxes 17 of 80 characters are left for a description
    context_settings={"help_option_names": ["-h", "--help"]},
)


def add_group(name: str, help_text: str, parent: typer.Typer = app) -> typer.Typer:
    """A group of commands, such as `gristmill shards`; without a command it prints its help."""
    group = typer.Typer(help=help_text, no_args_is_help=True)
    parent.add_typer(group, name=name)
    return group


File = Annotated[str, typer.Argument(metavar="FILE", help="Pipeline file (YAML).")]
RunDir = Annotated[str, typer.Argument(metavar="RUN", help="Directory of a curation run.")]
TrainingDir = Annotated[str, typer.Argument(metavar="DIR", help="Directory of a training run.")]
CheckpointPath = Annotated[
    str,
    typer.Argument(
        metavar="DIR", help="Directory of a training run, or one of its checkpoints (DIR/checkpoints/00000012)."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value, such as steps.language.keep.language='…'. Repeatable."
    ),
]
Executor = Annotated[str, typer.Option(help="ray, or inline: no Ray, everything in this process.")]
Address = Annotated[
    str | None, typer.Option(help="Address of a Ray cluster.", show_default="starts Ray on this machine")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Number of parallel tasks.", show_default="what the machine has")
]
AllowUnreadable = Annotated[
    bool, typer.Option("--allow-unreadable", help="Continue though most records of a source cannot be read.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the result, no progress.")]


def check_executor(name: str) -> None:
    """Raises typer.BadParameter for a name that is neither ray nor inline."""
    if name not in ("ray", "inline"):
        raise typer.BadParameter(f"unknown executor {name!r}; expected ray or inline", param_hint="--executor")


def make_console(quiet: bool = False, stderr: bool = False) -> Any:
    """The console a command prints to. With --plain (or GRISTMILL_PLAIN=1): no colour and no live display."""
    from pipelines.cli.safe_console import SafeConsole

    if os.environ.get("GRISTMILL_PLAIN"):
        return SafeConsole(quiet=quiet, stderr=stderr, no_color=True, force_terminal=False, soft_wrap=True)
    return SafeConsole(quiet=quiet, stderr=stderr)


def print_checkpoint(checkpoint: Any, quiet: bool = False) -> None:
    """Says on stderr which checkpoint a command uses, and why it is not the newest, if it is not."""
    console = make_console(quiet, stderr=True)
    for note in checkpoint.notes:
        console.print(note, style="yellow", markup=False, highlight=False, soft_wrap=True)
    style = "yellow" if checkpoint.notes else "dim"
    console.print(checkpoint.description, style=style, markup=False, highlight=False, soft_wrap=True)
