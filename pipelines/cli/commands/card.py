"""The command that writes cards: of a run, a recipe or a model."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.app import LOOK, app


@app.command(rich_help_panel=LOOK)
def card(
    what: Annotated[str, typer.Argument(metavar="RUN|FILE|MODEL", help="A run, a pipeline file, or a model's name.")],
    out: Annotated[
        str | None, typer.Option(help="Folder to write to.", show_default="the run's; a FILE or MODEL: here")
    ] = None,
) -> None:
    """A run's data card for Hugging Face and Croissant; or the card of a recipe or a model."""
    import os

    from curation.models import CATALOGUE
    from pipelines.cards import shipped
    from pipelines.cards.write import write

    if what in CATALOGUE:
        paths = [shipped.write_model(what, out or ".")]
    elif what.endswith((".yaml", ".yml")) and not os.path.isdir(what):
        paths = [shipped.write_recipe(what, out or ".")]
    else:
        paths = write(what, out)
    for path in paths:
        print(path)
