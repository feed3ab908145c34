"""The command that takes documents out of a finished run: forget."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.cli.app import RUN, AsJson, Quiet, RunDir, app, make_console


@app.command(rich_help_panel=RUN)
def forget(
    run: RunDir,
    documents: Annotated[
        list[str] | None, typer.Option("--doc", metavar="DOC_ID", help="A document, 32 hex digits. Repeats.")
    ] = None,
    urls: Annotated[
        list[str] | None, typer.Option("--url", help="All documents of a URL, as crawled. Repeats.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Noted on the exclude list.")] = "",
    tombstone: Annotated[
        bool, typer.Option("--tombstone", help="Erase the tokens where they lie, for trainings under way.")
    ] = False,
    executor: Annotated[str, typer.Option(help="ray, or inline for this process alone.")] = "ray",
    address: Annotated[str | None, typer.Option(help="A Ray cluster's address; else Ray starts here.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Tasks at once.", show_default="what the machine has")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take documents out of a finished run, as if they had never been there; a new generation of its shards.

    Whoever was dropped as their duplicate comes back. Nothing is computed twice. With --tombstone the shards stay as
    they are but for the tokens of these documents, which become EOS; the run's next result leaves them out.
    """
    from curation.config.catalogue import READERS, STEPS
    from curation.engine.runtime.delete import delete_documents
    from pipelines.cli.commands.curate import show_result, write_cards
    from pipelines.monitor.progress import Display

    if not documents and not urls:
        raise typer.BadParameter("name what is to be forgotten", param_hint="--doc or --url")
    if executor not in ("ray", "inline"):
        raise typer.BadParameter(f"{executor!r} is no executor; expected ray or inline", param_hint="--executor")
    console = make_console(quiet or as_json)
    with Display(console, quiet=quiet or as_json) as display:
        done = delete_documents(
            run, documents=documents or (), urls=urls or (), reason=reason, tombstone=tombstone, catalogue=STEPS,
            readers=READERS, executor=executor, address=address, workers=workers, progress=display,
        )  # fmt: skip
    if done.run is not None:
        write_cards(run)
    if as_json:
        kept = None if done.run is None else done.run.counts.get("kept")
        answer = {"entries": done.entries, "generation": done.generation, "tokens": done.tokens, "kept": kept}
        print(json.dumps(answer))
    else:
        if done.run is not None:
            show_result(console, done.run)
        if tombstone:
            console.print(f"{done.tokens:,} tokens erased; curate the run to have a result without these documents")
        console.print(f"{run}: generation {done.generation}", highlight=False)
    raise typer.Exit(done.run.exit_code if done.run is not None else 0)
