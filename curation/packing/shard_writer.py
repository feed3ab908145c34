"""Documents become shards: tokenized where they lie, dealt by a keyed hash, sorted by it, written.

    links to related   which documents the split must not part (related.py); nothing without a validation split
    survey, extremes   what domains there are, and who is for validation (split.py)
    tokens             each document as token ids, to the bucket of its split, domain and hash prefix
    shards             a task a shard: its buckets spilled, sorted one by one, and written as they are read

The order within a domain is that of the keyed hash of doc_id, so it is the same whatever produced it; a shard is a
prefix of that hash, and a domain has a power of two of them, as many as bring the average to `tokens_per_shard`. So
documents that are added later split shards and reshuffle nothing, and reading in file order is reading shuffled.

How many shards there are depends on tokens, which nobody knows before tokenizing. Buckets are therefore cut so fine
that a shard is always some whole ones: a byte-level token is at least a byte, so bytes bound tokens from above.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation import shards
from curation.core.errors import UserError
from curation.document import SOURCE
from curation.packing import leakage_groups, mixing, train_validation_split
from curation.packing.external_sort import Spill
from curation.packing.tokenizer.encode import Encoder, open_encoder
from curation.packing.tokenizer.fertility import COUNTED, Spoken
from curation.packing.tokenizer.load_tokenizer import load
from curation.packing.tokenizer.train_tokenizer import refuse_empty
from curation.seeded_hash import keyed, prefix
from curation.step import Corpus, Documents, Output, Stage, StagePlan
from curation.storage import Checksummed

BUCKET_BYTES = 32 << 20  # text of one bucket: about 8 million tokens, sorted in memory
BATCH_TOKENS = 1 << 20  # tokens of one batch on their way

_DOMAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def _rows_schema(vocab: int) -> pa.Schema:
    return pa.schema(
        [
            ("to", pa.uint32()),
            ("key", pa.uint64()),
            ("doc_id", pa.binary(16)),
            ("url", pa.string()),
            ("source", SOURCE),
            ("text_bytes", pa.int64()),
            ("tokens", pa.large_list(shards.token_type(vocab))),
        ]
    )


def bits(size: int, target: int) -> int:
    """The smallest b with size / 2^b <= target."""
    return max(0, -(-size // target) - 1).bit_length()


def shard_stages(
    corpus: Corpus,
    *,
    tokenizer: str,
    eos: str | None = None,
    validation: float = 0.01,
    tokens_per_shard: int = 50_000_000,
    route: train_validation_split.Route | None = None,
    clusters: Sequence[str] = (),
    language: str | None = None,
) -> StagePlan:
    """Writes shards/<split>/<domain>/<index>.arrow; each sink task's outputs are an entry for `manifest`.

    tokenizer   path or URL of the run's tokenizer.json, loaded once a worker process
    eos         name of its end-of-text token, where it is none of the usual
    validation  share of the documents held out (split.py says which); 0: none
    route       gives documents other domains than their sources'
    clusters    deduplication steps whose signals say which document was kept of those that are much the same
    language    the step whose signal `code` is a document's language, to count tokens by it

    Raises UserError for an empty corpus, and for domains that are no safe directory names.
    """
    refuse_empty(corpus)
    check(validation, tokens_per_shard)
    encoder = Encoder(load(tokenizer), eos=eos)
    if validation:
        yield from leakage_groups.related_stages(corpus, int(validation * corpus.documents), clusters)
    for stage in train_validation_split.survey_stages(corpus, route):
        survey = yield stage
    domains = sorted(name.removeprefix("documents/") for name in survey.counters if name.startswith("documents/"))
    for domain in domains:
        if not _DOMAIN.fullmatch(domain):
            what = f"{survey.counters[f'documents/{domain}']:,} documents have the domain {domain!r}"
            raise UserError(f"{what}; a domain is a directory: give them one of letters, digits, '.', '_' and '-'")
    layout: dict[tuple[str, str], tuple[int, int]] = {}  # (split, domain) -> first bucket, bits
    buckets = 0
    for name, share in ((train_validation_split.TRAIN, 1.0), (train_validation_split.VALIDATION, validation)):
        for domain in domains:
            size = survey.counters[f"text_bytes/{domain}"] + survey.counters[f"documents/{domain}"]
            depth = bits(int(size * share), min(BUCKET_BYTES, tokens_per_shard))
            layout[name, domain] = (buckets, depth)
            buckets += 1 << depth
    schema = _rows_schema(encoder.vocab)
    run = partial(_tokens, corpus.seed, tokenizer, encoder.sha256, eos, validation, layout, route, language)
    counted = yield Stage("tokens", run, schema, buckets, at="documents", counters=_count)
    places = _places(layout, counted.counters, tokens_per_shard)
    groups = [sorted(group) for _, group in sorted(_by_place(places).items())]
    write = partial(_write, schema, encoder.vocab, encoder.eos, encoder.sha256, places)
    yield Stage("shards", write, pa.schema([]), groups=groups, sink=True)


def check(validation: float, tokens_per_shard: int) -> None:
    """Raises UserError for options that no corpus could satisfy. Called before any work starts."""
    if not 0 <= validation < 1:
        raise UserError(f"shards.validation is {validation}; it is the share of documents held out, 0 to below 1")
    if not 1 <= tokens_per_shard <= shards.MAX_TOKENS:
        raise UserError(f"shards.tokens_per_shard is {tokens_per_shard}; it is 1 to {shards.MAX_TOKENS:,} (2^30)")


Place = tuple[str, str, int]  # split, domain, index of the shard


def _places(
    layout: Mapping[tuple[str, str], tuple[int, int]], counters: Mapping[str, int], tokens_per_shard: int
) -> dict[int, Place]:
    """The shard of each bucket that holds documents."""
    places: dict[int, Place] = {}
    for (name, domain), (first, depth) in layout.items():
        tokens = [counters.get(f"tokens/{first + i}", 0) for i in range(1 << depth)]
        level = min(depth, bits(sum(tokens), tokens_per_shard))
        while level < depth and max(_sums(tokens, level)) > shards.MAX_TOKENS:
            level += 1  # an average of 2^30 with one above it
        for i, count in enumerate(tokens):
            if count:
                places[first + i] = (name, domain, i >> (depth - level))
    return places


def _sums(values: Sequence[int], level: int) -> list[int]:
    width = len(values) >> level
    return [sum(values[i : i + width]) for i in range(0, len(values), width)]


def _by_place(places: Mapping[int, Place]) -> dict[Place, list[int]]:
    groups: dict[Place, list[int]] = {}
    for bucket, place in places.items():
        groups.setdefault(place, []).append(bucket)
    return groups


def _tokens(
    seed: int,
    tokenizer: str,
    sha256: str,
    eos: str | None,
    fraction: float,
    layout: Mapping[tuple[str, str], tuple[int, int]],
    route: train_validation_split.Route | None,
    language: str | None,
    rows: Iterator[pa.RecordBatch],
    documents: Documents,
) -> Iterator[pa.RecordBatch]:
    sides = train_validation_split.read_sides(rows)
    encoder = open_encoder(tokenizer, sha256, eos)
    schema = _rows_schema(encoder.vocab)
    dtype = schema.field("tokens").type.value_type.to_pandas_dtype()
    needed = ["doc_id", "text", "url", "domain", "source"]
    more = [*(route.columns if route else ()), *([language] if language else ())]
    spoken = Spoken()
    for batch in documents.batches([*needed, *sorted({c for c in more if c not in needed})]):
        key = keyed(batch.column("doc_id"), seed, "order")
        validates = sides.of(batch.column("text"), seed, fraction)
        domain = np.array(train_validation_split.domains(batch, route), object)
        to = np.zeros(len(key), np.uint32)
        for name in set(domain.tolist()):
            here = domain == name
            for which, mask in (
                (train_validation_split.TRAIN, here & ~validates),
                (train_validation_split.VALIDATION, here & validates),
            ):
                first, depth = layout[which, name]
                to[mask] = np.uint32(first) + prefix(key[mask], depth)
        sizes = pc.binary_length(batch.column("text")).fill_null(0).to_numpy()
        # a token is at least a byte: slices of the batch that stay below a bounded number of tokens
        slices = np.cumsum(sizes + 1) // BATCH_TOKENS
        ends = [0, *(np.flatnonzero(np.diff(slices)) + 1).tolist(), len(sizes)]
        for start, end in itertools.pairwise(ends):
            part = batch.slice(start, end - start)
            ids = encoder.encode_batch([t or "" for t in part.column("text").to_pylist()])
            if language:
                codes = pc.struct_field(part.column(language), "code").to_pylist()
                spoken.add(codes, [len(i) for i in ids], sizes[start:end].tolist())
            offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids], dtype=np.int64)])
            values = np.concatenate(ids).astype(dtype) if ids else np.zeros(0, dtype)
            tokens = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values))
            mine = [pa.array(to[start:end]), pa.array(key[start:end])]
            rest = [part.column(c) for c in ("doc_id", "url", "source")]
            size = pa.array(sizes[start:end], pa.int64())
            yield pa.RecordBatch.from_arrays([*mine, *rest, size, tokens], schema=schema)
    yield pa.RecordBatch.from_pylist([], schema=schema.with_metadata(spoken.said()))


def _count(batch: pa.RecordBatch) -> Mapping[str, int]:
    """documents, tokens (EOS included) and text_bytes of each bucket; of each language without EOS."""
    if batch.num_rows == 0:
        return Spoken.read(batch)
    buckets, where = np.unique(batch.column("to").to_numpy(), return_inverse=True)
    counters: dict[str, int] = {}
    tokens = pc.list_value_length(batch.column("tokens")).to_numpy() + 1
    text = batch.column("text_bytes").to_numpy()
    for what, values in zip(COUNTED, (np.ones_like(tokens), tokens, text), strict=True):
        sums = np.zeros(len(buckets), np.int64)
        np.add.at(sums, where, values)
        counters.update((f"{what}/{bucket}", int(n)) for bucket, n in zip(buckets, sums, strict=True))
    return counters


def _write(
    schema: pa.Schema,
    vocab: int,
    eos: int,
    tokenizer: str,
    places: Mapping[int, Place],
    rows: Iterator[pa.RecordBatch],
    out: Output,
) -> Iterator[pa.RecordBatch]:
    scratch = out.scratch()
    spill = Spill(schema, scratch)
    place: Place | None = None
    for batch in rows:
        if batch.num_rows:
            place = places[batch.column("to")[0].as_py()]
            spill.add(batch)
    if place is None:
        return iter(())
    name, domain, index = place
    path = f"{name}/{domain}/{index:05d}.arrow"
    with out.create(f"shards/{path}") as f:
        file = Checksummed(f)
        writer = shards.ShardWriter(
            file, vocab_size=vocab, eos=eos, scratch_dir=scratch, metadata={"tokenizer": tokenizer}
        )
        for batch in itertools.chain.from_iterable(spill.buckets()):
            tokens = batch.column("tokens")
            offsets, values = tokens.offsets.to_numpy(), tokens.values.to_numpy()
            columns = [batch.column(c).to_pylist() for c in ("doc_id", "url", "source", "text_bytes")]
            for i, (doc_id, url, source, size) in enumerate(zip(*columns, strict=True)):
                writer.add(values[offsets[i] : offsets[i + 1]], doc_id, url, source, text_bytes=size)
        info = writer.close()
    out.outputs.update(split=name, domain=domain, path=path, sha256=file.sha.hexdigest(), bytes=file.size)
    out.outputs.update(documents=info.documents, tokens=info.tokens, text_bytes=info.text_bytes)
    return iter(())


def manifest(
    outputs: Iterable[Mapping[str, Any]],
    tokenizer: shards.TokenizerInfo,
    *,
    weights: Mapping[str, float] | None = None,
    budget: int | None = None,
    max_epochs: float | None = None,
    temperature: float = 1.0,
    shortfall: str = "refuse",
    seed: int = 0,
    generation: int = 0,
    fingerprint: str = "",
) -> shards.Manifest:
    """The manifest of the shards that `shard_stages` wrote, from its sink's outputs, in reading order.

    Raises UserError where the mix asks for what is not there (see `mixing.plan`).
    """
    splits: dict[str, dict[str, list[shards.ShardEntry]]] = {
        train_validation_split.TRAIN: {},
        train_validation_split.VALIDATION: {},
    }
    for fact in sorted((f for f in outputs if f), key=lambda f: str(f["path"])):
        numbers = (fact[k] for k in ("documents", "tokens", "text_bytes", "sha256", "bytes"))
        splits[fact["split"]].setdefault(fact["domain"], []).append(shards.ShardEntry(fact["path"], *numbers))
    whole = {s: {d: shards.DomainShards(tuple(e)) for d, e in sorted(v.items())} for s, v in splits.items()}
    tokens = {domain: entries.tokens for domain, entries in whole[train_validation_split.TRAIN].items()}
    plan = mixing.plan(
        tokens,
        weights=weights,
        budget=budget,
        max_epochs=max_epochs,
        temperature=temperature,
        shortfall=shortfall,
    )
    return shards.Manifest(tokenizer, whole, mix=plan.mix, seed=seed, generation=generation, fingerprint=fingerprint)
