"""Commands on shards: shards verify, inspect, stats, merge, export, import."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer

from pipelines.cli.app import AsJson, add_group, make_console

shards_app = add_group("shards", "Verify, inspect, count, merge, export and import token shards.")

ShardsPath = Annotated[
    str, typer.Argument(metavar="RUN", help="A run, its shards folder or a manifest; local or remote.")
]


@shards_app.command("verify")
def verify(run: ShardsPath, as_json: AsJson = False) -> None:
    """Read every byte and compare checksums, counts and the tokenizer; name every file that is damaged."""
    from curation.shards import ShardError, read_manifest, verify_entry, verify_tokenizer

    manifest = read_manifest(run)
    damaged, files = [], 0
    for check in (
        lambda: verify_tokenizer(manifest),
        *(_check(verify_entry, manifest, e) for *_, e in manifest.entries()),
    ):
        files += 1
        try:
            check()
        except ShardError as error:
            damaged.append(str(error))
    if as_json:
        print(json.dumps({"files": files, "damaged": damaged}))
    else:
        console = make_console()
        for message in damaged:
            console.print(message, style="red", markup=False, highlight=False, soft_wrap=True)
        console.print(f"{files - len(damaged)} of {files} files are intact", highlight=False)
    raise typer.Exit(1 if damaged else 0)


def _check(function: Any, *arguments: Any) -> Any:
    return lambda: function(*arguments)


@shards_app.command("inspect")
def inspect(
    run: ShardsPath,
    shard: Annotated[
        str | None, typer.Option(help="A shard, as the manifest names it.", show_default="the first")
    ] = None,
    documents: Annotated[int, typer.Option(min=0, help="Number of documents to show.")] = 3,
    characters: Annotated[int, typer.Option(min=0, help="Number of characters to show of each.")] = 200,
) -> None:
    """Show a shard's metadata and the beginning of its documents, decoded."""
    from curation.core.errors import UserError
    from curation.shards import open_shard, read_manifest, verify_entry
    from pipelines.lookup.training_data import make_decoder

    manifest = read_manifest(run)
    entries = [e for _, _, e in manifest.entries()]
    entry = next((e for e in entries if shard is None or e.path == shard), None)
    if entry is None:
        raise UserError(f"{run} has no shard {shard}\n  result/shards/manifest.json lists its shards")
    verify_entry(manifest, entry)
    opened = open_shard(manifest.path(entry), entry=entry, tokenizer=manifest.tokenizer.sha256)
    console = make_console()
    console.print(
        f"{entry.path}: {entry.documents:,} documents, {entry.tokens:,} tokens", highlight=False, markup=False
    )
    for key, value in opened.metadata.items():
        console.print(f"    {key} = {value}", highlight=False, markup=False)
    decode = make_decoder(manifest)
    for row, document in enumerate(opened.documents.slice(0, documents).to_pylist()):
        begin, end = int(opened.offsets[row]) + 1, int(opened.offsets[row + 1])
        heading = f"{document['doc_id'].hex()}  {document['url'] or ''}"
        console.print(heading, highlight=False, markup=False, soft_wrap=True)
        text = decode(opened.tokens[begin : min(end, begin + characters)].tolist())[:characters]
        console.print(f"    {text!r}", highlight=False, markup=False, soft_wrap=True)


@shards_app.command("stats")
def stats(run: ShardsPath, as_json: AsJson = False) -> None:
    """Show documents, tokens, bytes per token and document lengths, by split and domain."""
    import numpy as np

    from curation.shards import open_shard, read_manifest

    manifest = read_manifest(run)
    rows = []
    for split, domains in manifest.splits.items():
        for domain, held in domains.items():
            lengths = np.concatenate(
                [np.diff(open_shard(manifest.path(e), entry=e).offsets) - 1 for e in held.shards] or [np.zeros(1)]
            )
            quantiles = np.quantile(lengths, [0, 0.5, 0.9, 1], method="inverted_cdf").astype(int).tolist()
            rows.append(
                {
                    "split": split,
                    "domain": domain,
                    "shards": len(held),
                    "documents": held.documents,
                    "tokens": held.tokens,
                    "bytes_per_token": held.text_bytes / max(1, held.tokens - held.documents),
                    "lengths": dict(zip(("shortest", "median", "p90", "longest"), quantiles, strict=True)),
                    "epochs": manifest.mix.epochs.get(domain) if split == "train" else None,
                }
            )
    if as_json:
        print(json.dumps({"tokenizer": vars(manifest.tokenizer), "domains": rows}))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))  # 80 columns hold a domain of a billion tokens
    table.add_column("split", no_wrap=True)
    table.add_column("domain", overflow="fold")
    for column in ("shards", "docs", "tokens", "B/token", "median", "p90", "longest", "epochs"):
        table.add_column(column, justify="right", no_wrap=True)
    for r in rows:
        spread: Any = r["lengths"]
        epochs = f"{r['epochs']:.2f}" if r["epochs"] is not None else ""
        counts = [f"{r[k]:,}" for k in ("shards", "documents", "tokens")]
        longer = [f"{spread[k]:,}" for k in ("median", "p90", "longest")]
        table.add_row(str(r["split"]), str(r["domain"]), *counts, f"{r['bytes_per_token']:.2f}", *longer, epochs)
    make_console().print(table)


@shards_app.command("merge")
def merge(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs with the same tokenizer.")],
    out: Annotated[str, typer.Option(help="Output directory.")],
    tokens_per_shard: Annotated[int, typer.Option(min=1, max=1 << 30, help="Size of a shard, in tokens.")] = 50_000_000,
) -> None:
    """Merge the shards of several runs: each document once, and no validation text in the training split."""
    from curation.packing.merge import merge_runs

    _show_merge(merge_runs(out, runs, tokens_per_shard), out)


def _show_merge(made: Any, out: str) -> None:
    entries = list(made.manifest.entries())
    documents = sum(e.documents for *_, e in entries)
    print(f"{out}: {documents:,} documents, {sum(e.tokens for *_, e in entries):,} tokens in {len(entries)} shards")
    if made.duplicate_ids or made.removed_from_training:
        overlap = f"{made.removed_from_training:,} training documents whose text or URL is in the validation split"
        print(f"left out: {made.duplicate_ids:,} repeated ids, {overlap}")


@shards_app.command("export")
def export(
    run: ShardsPath,
    to: Annotated[str, typer.Option(help="Format: nanogpt, llmc, megatron, datasets, mds or litdata.")],
    out: Annotated[str, typer.Option(help="Output directory.")],
) -> None:
    """Export shards to the format of another trainer."""
    from curation.packing.export_formats import export_shards
    from curation.shards import read_manifest

    for path in export_shards(read_manifest(run), _format(to, ("mds", "litdata")), out):
        print(path)


@shards_app.command("import")
def import_shards(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Token files of one format, or folders of datasets.")
    ],
    kind: Annotated[
        str,
        typer.Option("--from", help="Format: nanogpt, llmc, megatron or datasets (Parquet, Arrow, save_to_disk)."),
    ],
    out: Annotated[str, typer.Option(help="Output directory.")],
    tokenizer: Annotated[str, typer.Option(help="Tokenizer file that made these tokens.")],
    domain: Annotated[str, typer.Option(help="Domain to give the documents.")] = "imported",
    validation: Annotated[
        list[str] | None, typer.Option(help="Token file for the validation split. Repeatable.")
    ] = None,
    eos: Annotated[
        str | None, typer.Option(help="End-of-text token of the tokenizer, if it has an unusual name.")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="documents: a row, or what is between two EOS, is a document. stream: rows are parts of one text.",
            show_default="documents, checked",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="nanogpt: uint16 or uint32, the type of the file.", show_default="uint16, checked"),
    ] = None,
) -> None:
    """Import token files of another trainer as shards of a new run, so that training can read them.

    Ids, type and the rate of end-of-text tokens are checked first: these files do not say which tokenizer made them.
    """
    import itertools

    from curation.packing.import_formats import read_token_file
    from curation.packing.merge import write_token_documents
    from curation.packing.tokenizer.encode import Encoder
    from curation.packing.tokenizer.load_tokenizer import load_tokenizer

    for path in (*files, *(validation or ())):
        if not os.path.exists(path):
            raise typer.BadParameter(f"{path}: no such file")
    for option, value, known in (("--rows", rows, ("documents", "stream")), ("--dtype", dtype, ("uint16", "uint32"))):
        if value is not None and value not in known:
            raise typer.BadParameter(f"{value!r}: expected {' or '.join(known)}", param_hint=option)
    if dtype is not None and kind != "nanogpt":
        raise typer.BadParameter(f"{kind} files say their type themselves", param_hint="--dtype")
    data, chosen = load_tokenizer(tokenizer), _format(kind)
    encoder = Encoder(data, eos=eos)
    # Files of one name in several folders (train/data-00000.arrow) keep the part of their paths that differs
    given = [(path, "train") for path in files] + [(path, "validation") for path in validation or ()]
    above = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path, _ in given])
    options: Any = {"vocab": encoder.vocab, "rows": rows, "dtype": dtype}
    parts = [
        read_token_file(
            p, chosen, encoder.eos, domain, split, name=os.path.relpath(os.path.abspath(p), above), **options
        )
        for p, split in given
    ]
    _show_merge(write_token_documents(out, itertools.chain.from_iterable(parts), data, eos=eos), out)


def _format(name: str, more: tuple[str, ...] = ()) -> Any:
    *names, last = ("nanogpt", "llmc", "megatron", "datasets", *more)
    if name not in (*names, last):
        raise typer.BadParameter(f"{name!r}: expected {', '.join(names)} or {last}")
    return name
