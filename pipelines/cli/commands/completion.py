"""The command that makes the Tab key know the others: completion."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.app import LOOK, app

SHELLS = ("bash", "zsh", "fish")


@app.command(rich_help_panel=LOOK)
def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell to complete in.")],
) -> None:
    """What a shell has to be told so that Tab completes commands and options."""
    from typer._completion_shared import get_completion_script

    if shell not in SHELLS:
        raise typer.BadParameter(f"{shell!r} is none of {', '.join(SHELLS)}")
    print(get_completion_script(prog_name="gristmill", complete_var="_GRISTMILL_COMPLETE", shell=shell))
