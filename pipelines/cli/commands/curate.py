"""Commands that curate text and that change a finished run: curate, delete, gc."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from pipelines.cli.app import (
    Address,
    AllowUnreadable,
    AsJson,
    Executor,
    File,
    Quiet,
    RunDir,
    Sets,
    Workers,
    app,
    check_executor,
    make_console,
)


@app.command()
def curate(
    file: File,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Output directory.", show_default="runs/NAME")] = None,
    sets: Sets = None,
    executor: Executor = "ray",
    address: Address = None,
    workers: Workers = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read only N records, spread over the input.")] = None,
    sample: Annotated[
        float | None, typer.Option(min=0, max=1, help="Read only this share of the documents, chosen by hash.")
    ] = None,
    allow_missing: Annotated[bool, typer.Option(help="Continue without files that cannot be read.")] = False,
    allow_unreadable: AllowUnreadable = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Compare the run's files with their checksums; make damaged ones again."),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Curate text as a pipeline file says. Resumes an interrupted run; does nothing if the run is complete."""
    from curation.config.load_pipeline import load_pipeline
    from curation.engine.runtime.run import curate as curate_run
    from pipelines.cards.write_cards import update_cards
    from pipelines.monitor.progress import ProgressDisplay
    from pipelines.monitor.run_result import print_result

    check_executor(executor)
    pipeline = load_pipeline(file, sets=sets or ())
    run_dir = run or os.path.join("runs", pipeline.name)
    console = make_console(quiet or as_json)
    with ProgressDisplay(console, quiet=quiet or as_json) as display:
        result = curate_run(
            pipeline,
            run_dir,
            executor=executor,
            address=address,
            workers=workers,
            limit=limit,
            sample=sample,
            allow_missing=allow_missing,
            allow_unreadable=allow_unreadable,
            check=check,
            progress=display,
        )
    update_cards(run_dir)
    if as_json:
        fields = ("status", "exit_code", "run_dir", "counts", "quarantined", "left_out", "seconds")
        print(json.dumps({f: getattr(result, f) for f in fields}, default=str))
    else:
        print_result(console, result)
    raise typer.Exit(result.exit_code)


@app.command()
def delete(
    run: RunDir,
    documents: Annotated[
        list[str] | None, typer.Option("--doc", metavar="DOC_ID", help="A document id, 32 hex digits. Repeatable.")
    ] = None,
    urls: Annotated[
        list[str] | None, typer.Option("--url", help="A URL as crawled: all its documents. Repeatable.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Reason, stored in the list of deleted documents.")] = "",
    tombstone: Annotated[
        bool, typer.Option("--tombstone", help="Overwrite the tokens in place, for trainings under way.")
    ] = False,
    executor: Executor = "ray",
    address: Address = None,
    workers: Workers = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Delete documents from a finished run, as if they had never been in it (takedown); makes a new generation.

    Documents that were dropped as their duplicates come back. Stored results are reused. With --tombstone the shards
    stay in place and the tokens of these documents become EOS; the next `gristmill curate` writes shards without them.
    """
    from curation.config.catalogue import READERS, STEPS
    from curation.engine.runtime.delete import delete_documents
    from pipelines.cards.write_cards import update_cards
    from pipelines.monitor.progress import ProgressDisplay
    from pipelines.monitor.run_result import print_result

    if not documents and not urls:
        raise typer.BadParameter("name the documents to delete", param_hint="--doc or --url")
    check_executor(executor)
    console = make_console(quiet or as_json)
    with ProgressDisplay(console, quiet=quiet or as_json) as display:
        done = delete_documents(
            run, documents=documents or (), urls=urls or (), reason=reason, tombstone=tombstone, catalogue=STEPS,
            readers=READERS, executor=executor, address=address, workers=workers, progress=display,
        )  # fmt: skip
    if done.run is not None:
        update_cards(run)
    if as_json:
        kept = None if done.run is None else done.run.counts.get("kept")
        print(json.dumps({"entries": done.entries, "generation": done.generation, "tokens": done.tokens, "kept": kept}))
    else:
        if done.run is not None:
            print_result(console, done.run)
        if tombstone:
            console.print(
                f"{done.tokens:,} tokens overwritten; run gristmill curate for shards without these documents"
            )
        console.print(f"{run}: generation {done.generation}", highlight=False)
    raise typer.Exit(done.run.exit_code if done.run is not None else 0)


@app.command()
def gc(
    run: RunDir,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the sizes; remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove files of a run's cache that its newest result does not refer to, left by earlier rules and input.

    The result, earlier generations and what a later run reads with prior_run stay. A rule that is changed back
    afterwards is computed again.
    """
    from curation.engine.runtime.prune_cache import prune_cache
    from pipelines.cli.text_output import show_cache_sizes

    sizes = prune_cache(run, dry_run=dry_run)
    if as_json:
        print(json.dumps({folder: vars(s) for folder, s in sizes.items()}))
    else:
        show_cache_sizes(make_console(), sizes, dry_run)
