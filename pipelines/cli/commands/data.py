"""Commands on what training reads: order, trace, seen."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipelines.cli.app import LOOK, AsJson, app, make_console

Step = Annotated[int | None, typer.Option(min=1, metavar="N", help="A step, from 1 as in metrics.jsonl.")]


@app.command(rich_help_panel=LOOK)
def order(
    run: Annotated[str, typer.Argument(metavar="DIR", help="A training run's directory.")],
    step: Step = None,
    verify: Annotated[bool, typer.Option("--verify", help="Replay everything it read, and count.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a step reads, or that all steps read what they should. Computed from the order log; no GPU."""
    from pipelines.lookup.training_data import Readings

    if (step is None) is not verify:
        raise typer.BadParameter("give one of --step N and --verify")
    readings = Readings(run)
    answer = readings.verify() if verify else readings.step(step or 1)
    if as_json:
        print(json.dumps(answer))
        return
    console = make_console()
    if isinstance(answer, list):
        for window in answer:
            place = f"{window['shard']} from token {window['token']:,}, epoch {window['epoch']}"
            console.print(f"window {window['window']:,}  {window['domain']}  {place}", highlight=False, markup=False)
            for document in window["documents"]:
                heading = f"    {document['doc_id']}  {document['url'] or ''}"
                console.print(heading, highlight=False, markup=False, soft_wrap=True)
        return
    console.print(
        f"{answer['windows']:,} windows of {answer['steps']:,} steps in {answer['segments']} segments",
        highlight=False,
    )
    for name, count in answer["domains"].items():
        console.print(
            f"{name}: {count['windows']:,} windows, {count['epochs']:.3f} epochs; each input {count['fewest']} to "
            f"{count['most']} times, {count['skipped']:,} skipped; {count['error']:.3f} windows off its quota at most",
            highlight=False,
        )


@app.command(rich_help_panel=LOOK)
def trace(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A training run (with --step), or a curation run.")],
    step: Step = None,
    shard: Annotated[str | None, typer.Option(help="A shard, as the manifest names it.")] = None,
    token: Annotated[int | None, typer.Option(min=0, help="A token's place in it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Where a token comes from: document, URL, crawl file and offset, and the record's text around it, scrubbed."""
    from pipelines.lookup.training_data import Readings, trace_token

    if (step is None) is (shard is None and token is None) or (shard is None) is not (token is None):
        raise typer.BadParameter("give --step N, or --shard S with --token T")
    if step is None:
        found = [trace_token(run, shard or "", token or 0)]
    else:
        found = [
            trace_token(run, window["shard"], window["token"] + document["inputs"][0] + (document["inputs"][0] > 0))
            for window in Readings(run).step(step)
            for document in window["documents"]
        ]
    if as_json:
        print(json.dumps(found))
        return
    console = make_console()
    for item in found:
        source = item["source"] or {}
        place = ", ".join(f"{k} {v}" for k, v in source.items() if v is not None)
        for key, value in (
            ("document", item["doc_id"]),
            ("url", item["url"]),
            ("from", place),
            ("token", f"{item['token']:,} of {item['shard']}"),
            ("reads", repr(item["text"])),
        ):
            if value:
                console.print(f"{key:>9}  {value}", highlight=False, markup=False, soft_wrap=True)
        original = item["original"]
        shown = "the source is not here, or is not shown unscrubbed" if original is None else original
        console.print(f"{'original':>9}  {shown}", highlight=False, markup=False, soft_wrap=True)


@app.command(rich_help_panel=LOOK)
def seen(
    run: Annotated[str, typer.Argument(metavar="DIR", help="A training run's directory.")],
    document: Annotated[str, typer.Argument(metavar="DOC_ID", help="32 hex digits.")],
    as_json: AsJson = False,
) -> None:
    """At which steps a training run read a document."""
    from pipelines.lookup.training_data import Readings

    answer = Readings(run).seen(document)
    if as_json:
        print(json.dumps(answer))
        return
    console = make_console()
    console.print(
        f"{answer['split']}, {answer['domain']}, row {answer['row']} of {answer['shard']}",
        highlight=False,
        markup=False,
    )
    if not answer["readings"]:
        console.print("not read so far")
    for reading in answer["readings"]:
        console.print(
            f"step {reading['step']:,}  window {reading['window']:,}  epoch {reading['epoch']}",
            highlight=False,
        )
