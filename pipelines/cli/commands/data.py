"""Commands on what a training run reads: data verify-order, inspect-step, trace-token, find-document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.app import AsJson, CheckpointPath, add_group, make_console, print_checkpoint

if TYPE_CHECKING:
    from pipelines.lookup.training_data import TrainingData

data_app = add_group("data", "Find which documents a training step read, and where its tokens come from.")

STEP_HELP = "A training step, counted from 1 as in metrics.jsonl."


def _training_data(place: str) -> TrainingData:
    """What a run read up to a checkpoint; says on stderr which."""
    from pipelines.lookup.training_data import TrainingData

    data = TrainingData(place)
    if data.checkpoint is not None:
        print_checkpoint(data.checkpoint)
    return data


@data_app.command("verify-order")
def verify_order(run: CheckpointPath, as_json: AsJson = False) -> None:
    """Replay everything a training run read and count: sequences, epochs, distance from the mix. Needs no GPU."""
    answer = _training_data(run).verify()
    if as_json:
        print(json.dumps(answer))
        return
    console = make_console()
    console.print(
        f"{answer['sequences']:,} sequences in {answer['steps']:,} steps; the mix, sequence length or batch size "
        f"changed {answer['segments'] - 1} times",
        highlight=False,
    )
    for name, count in answer["domains"].items():
        console.print(
            f"{name}: {count['sequences']:,} sequences, {count['epochs']:.3f} epochs; tokens read {count['fewest']} "
            f"to {count['most']} times, {count['skipped']:,} skipped; at most {count['error']:.3f} off the mix",
            highlight=False,
        )


@data_app.command("inspect-step")
def inspect_step(
    run: CheckpointPath,
    step: Annotated[int, typer.Option(min=1, metavar="N", help=STEP_HELP)],
    as_json: AsJson = False,
) -> None:
    """Show the sequences and documents that a training step reads. Computed from the order log; needs no GPU."""
    answer = _training_data(run).step(step)
    if as_json:
        print(json.dumps(answer))
        return
    console = make_console()
    for sequence in answer:
        place = f"{sequence['shard']} from token {sequence['token']:,}, epoch {sequence['epoch']}"
        line = f"sequence {sequence['sequence']:,}  {sequence['domain']}  {place}"
        console.print(line, highlight=False, markup=False)
        for document in sequence["documents"]:
            line = f"    {document['doc_id']}  {document['url'] or ''}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


@data_app.command("trace-token")
def trace_token(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A training run, or a curation run with --shard.")],
    step: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=f"{STEP_HELP} Traces each of its documents.")
    ] = None,
    shard: Annotated[str | None, typer.Option(help="A shard, as the manifest names it.")] = None,
    token: Annotated[int | None, typer.Option(min=0, help="Index of a token in the shard.")] = None,
    as_json: AsJson = False,
) -> None:
    """Trace a token to its document, URL, crawl file and offset, and show the source text around it (PII replaced)."""
    from pipelines.lookup import training_data

    if (step is None) is (shard is None and token is None) or (shard is None) is not (token is None):
        raise typer.BadParameter("give --step N, or --shard S and --token T")
    if step is None:
        traces = [training_data.trace_token(run, shard or "", token or 0)]
    else:
        data = _training_data(run)
        traces = [
            training_data.trace_token(data.run_dir, sequence["shard"], sequence["token"] + first + (first > 0))
            for sequence in data.step(step)
            for first in (document["inputs"][0] for document in sequence["documents"])
        ]
    if as_json:
        print(json.dumps(traces))
        return
    console = make_console()
    for trace in traces:
        source = ", ".join(f"{k} {v}" for k, v in (trace["source"] or {}).items() if v is not None)
        original = trace["original"]
        for key, value in (
            ("document", trace["doc_id"]),
            ("url", trace["url"]),
            ("from", source),
            ("token", f"{trace['token']:,} of {trace['shard']}"),
            ("text", repr(trace["text"])),
            ("original", "not available, or cannot be shown without PII removal" if original is None else original),
        ):
            if value:
                console.print(f"{key:>9}  {value}", highlight=False, markup=False, soft_wrap=True)


@data_app.command("find-document")
def find_document(
    run: CheckpointPath,
    document: Annotated[str, typer.Argument(metavar="DOC_ID", help="32 hex digits.")],
    as_json: AsJson = False,
) -> None:
    """Show at which steps a training run read a document."""
    answer = _training_data(run).document_reads(document)
    if as_json:
        print(json.dumps(answer))
        return
    console = make_console()
    place = f"{answer['split']}, {answer['domain']}, row {answer['row']} of {answer['shard']}"
    console.print(place, highlight=False, markup=False)
    if not answer["reads"]:
        console.print("not read so far")
    for read in answer["reads"]:
        line = f"step {read['step']:,}  sequence {read['sequence']:,}  epoch {read['epoch']}"
        console.print(line, highlight=False)
