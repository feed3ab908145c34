"""The command that begins: init, a pipeline file for an input that nobody has described."""

from __future__ import annotations

import os
import re
from typing import Annotated

import typer

from pipelines.cli.app import RUN, AsJson, app, make_console


@app.command(rich_help_panel=RUN)
def init(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders or URLs of text.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The pipeline file to write.")] = "pipeline.yaml",
    force: Annotated[bool, typer.Option(help="Write over a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """A commented pipeline file for your data, after a look at it: formats, fields, languages, sizes."""
    import json

    from curation.core.errors import UserError
    from pipelines.init import draft_pipeline, scan_input
    from pipelines.init.file_groups import reader_options
    from pipelines.monitor.progress import size

    if os.path.exists(out) and not force:
        raise UserError(f"{out}: is there already\n  name another file with -o, or write over it with --force")
    found = scan_input.look(inputs)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename(out).rsplit(".", 1)[0]).strip("-") or "pipeline"
    text = draft_pipeline.write(found, name, os.path.dirname(os.path.abspath(out)))
    with open(out, "w", encoding="utf-8") as f:
        f.write(text)
    if as_json:
        groups = [
            {
                "read": g.shape.read, "format": g.shape.form, "domain": g.shape.domain, "root": g.root,
                "patterns": g.patterns, "files": len(g.files), "bytes": g.bytes,
                "options": reader_options(g), "documents_sampled": g.documents,
                "words": g.words, "languages": dict(g.languages.most_common()),
                "hosts": dict(g.hosts.most_common(20)),
            }
            for g in found.groups
        ]  # fmt: skip
        print(json.dumps({"file": out, "sources": groups, "left_out": found.left_out}))
        return
    console = make_console()
    for g in found.groups:
        spoken = ", ".join(c for c, _ in g.languages.most_common(4))
        said = f"{draft_pipeline.files(len(g.files))}, {size(g.bytes)}, {g.shape.form}" + (
            f", {spoken}" if spoken else ""
        )
        console.print(f"{g.shape.domain:>8}  {said}", highlight=False, markup=False)
    for reason, paths in sorted(found.left_out.items()):
        console.print(
            f"left out  {draft_pipeline.files(len(paths))}: {reason}", style="yellow", highlight=False, markup=False
        )
    console.print(f"{out} is written; next: gristmill curate {out}", highlight=False, soft_wrap=True)
