"""Commands to get started: demo, init, doctor, completion."""

from __future__ import annotations

import json
import os
import re
from typing import Annotated

import typer

from pipelines.cli.app import AsJson, Executor, app, make_console


@app.command()
def demo(
    folder: Annotated[str, typer.Option("--dir", help="Output directory.")] = "runs/demo",
    executor: Executor = "ray",
) -> None:
    """Crawl, curate, train and report, on text that this machine already has. Takes a few minutes."""
    from pipelines.demo.demo import run_demo

    run_demo(folder, executor=executor, console=make_console())


@app.command()
def init(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders or URLs of text.")],
    out: Annotated[str, typer.Option("--out", "-o", help="Pipeline file to write.")] = "pipeline.yaml",
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a commented pipeline file for your data, from a sample of it: formats, fields, languages, sizes."""
    from curation.core.errors import UserError
    from pipelines.init.draft_pipeline import count_files, draft_pipeline
    from pipelines.init.file_groups import reader_options
    from pipelines.init.scan_input import scan_inputs
    from pipelines.number_format import format_bytes

    if os.path.exists(out) and not force:
        raise UserError(f"{out} already exists\n  name another file with -o, or overwrite it with --force")
    scan = scan_inputs(inputs)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename(out).rsplit(".", 1)[0]).strip("-") or "pipeline"
    text = draft_pipeline(scan, name, os.path.dirname(os.path.abspath(out)))
    with open(out, "w", encoding="utf-8") as f:
        f.write(text)
    if as_json:
        groups = [
            {
                "read": g.format.read, "format": g.format.form, "domain": g.format.domain, "root": g.root,
                "patterns": g.patterns, "files": len(g.files), "bytes": g.bytes,
                "options": reader_options(g), "documents_sampled": g.documents,
                "words": g.words, "languages": dict(g.languages.most_common()),
                "hosts": dict(g.hosts.most_common(20)),
            }
            for g in scan.groups
        ]  # fmt: skip
        print(json.dumps({"file": out, "sources": groups, "left_out": scan.left_out}))
        return
    console = make_console()
    for g in scan.groups:
        languages = ", ".join(code for code, _ in g.languages.most_common(4))
        line = f"{count_files(len(g.files))}, {format_bytes(g.bytes)}, {g.format.form}"
        line += f", {languages}" if languages else ""
        console.print(f"{g.format.domain:>8}  {line}", highlight=False, markup=False)
    for reason, paths in sorted(scan.left_out.items()):
        line = f"left out  {count_files(len(paths))}: {reason}"
        console.print(line, style="yellow", highlight=False, markup=False)
    console.print(f"{out} written; next: gristmill curate {out}", highlight=False, soft_wrap=True)


@app.command()
def doctor(
    storage: Annotated[str, typer.Option(help="A directory or URL to test writing to.")] = "runs",
    as_json: AsJson = False,
) -> None:
    """Check this machine: versions, memory, disk, models, Ray, storage; with advice for each problem."""
    from pipelines.monitor.doctor import examine, show

    results = examine(storage)
    if as_json:
        print(json.dumps([f.__dict__ for f in results]))
    else:
        show(make_console(), results)
    raise typer.Exit(1 if any(f.state == "bad" for f in results) else 0)


SHELLS = ("bash", "zsh", "fish")


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="Your shell.")],
) -> None:
    """Print a script for your shell that completes commands and options with Tab."""
    from typer._completion_shared import get_completion_script

    if shell not in SHELLS:
        raise typer.BadParameter(f"unknown shell {shell!r}; expected {', '.join(SHELLS)}")
    print(get_completion_script(prog_name="gristmill", complete_var="_GRISTMILL_COMPLETE", shell=shell))
