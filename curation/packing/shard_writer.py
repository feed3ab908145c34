"""Tokenizes documents, splits them into training and validation, and writes them as shards in pseudo-random order.

    leakage_keys ... leakage_groups   documents that must be on one side of the split (leakage_groups.py); skipped
                                      without a validation split
    survey, extremes                  the domains, and the rule of the split (train_validation_split.py)
    tokenize                          token ids of each document, to the bucket of its split, domain and hash prefix
    shards                            one task per shard: its buckets are spilled, sorted one by one, and written

Documents of a domain are in the order of the keyed hash of doc_id, so their order does not depend on tasks or workers.
A domain has 2^k shards by the first k bits of that hash, with k such that a shard has `tokens_per_shard` on average. So
documents added later split shards but keep the order, and reading shards in sequence is reading in shuffled order.

The number of shards depends on the number of tokens, which is unknown before tokenizing. So buckets are made so small
that every shard consists of whole buckets: a byte-level token has at least one byte, so bytes are an upper bound.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation import shards
from curation.checksummed_file import Checksummed
from curation.core.errors import UserError
from curation.document import SOURCE
from curation.packing import leakage_groups, mixing, train_validation_split
from curation.packing.external_sort import ExternalSorter
from curation.packing.tokenizer.encode import Encoder, open_encoder
from curation.packing.tokenizer.fertility import LanguageCounts
from curation.packing.tokenizer.load_tokenizer import load_tokenizer
from curation.packing.tokenizer.train_tokenizer import refuse_empty_corpus
from curation.seeded_hash import hash_with_seed, prefix
from curation.step import Corpus, Documents, Output, Stage, StagePlan

BUCKET_BYTES = 32 << 20  # text of one bucket: about 8 million tokens, sorted in memory
BATCH_TOKENS = 1 << 20  # tokens sent as one batch

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


def hash_prefix_bits(size: int, target: int) -> int:
    """The smallest number of bits b with size / 2^b <= target."""
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
    """Stages that write shards/<split>/<domain>/<index>.arrow; the outputs of the last are for `build_manifest`.

    tokenizer   path or URL of the run's tokenizer, loaded once per worker process
    eos         name of its end-of-text token; None: the first of EOS_NAMES that it has
    validation  share of the documents held out (see train_validation_split.py); 0: none
    route       assigns documents to other domains than those of their sources
    clusters    deduplication steps, whose signals name the document that was kept of each group of duplicates
    language    the step whose signal `code` is the language of a document, for token counts by language

    Raises UserError for an empty corpus and for domains that are not safe directory names.
    """
    refuse_empty_corpus(corpus)
    check_shard_options(validation, tokens_per_shard)
    encoder = Encoder(load_tokenizer(tokenizer), eos=eos)
    if validation:
        yield from leakage_groups.leakage_group_stages(corpus, int(validation * corpus.documents), clusters)
    for stage in train_validation_split.survey_stages(corpus, route):
        survey = yield stage
    domains = sorted(name.removeprefix("documents/") for name in survey.counters if name.startswith("documents/"))
    for domain in domains:
        if not _DOMAIN.fullmatch(domain):
            what = f"{survey.counters[f'documents/{domain}']:,} documents have the domain {domain!r}"
            raise UserError(f"{what}; a domain is a directory name: use letters, digits, '.', '_' and '-'")
    layout: dict[tuple[str, str], tuple[int, int]] = {}  # (split, domain) -> first bucket, bits
    buckets = 0
    for name, share in ((train_validation_split.TRAIN, 1.0), (train_validation_split.VALIDATION, validation)):
        for domain in domains:
            size = survey.counters[f"text_bytes/{domain}"] + survey.counters[f"documents/{domain}"]
            bucket_bits = hash_prefix_bits(int(size * share), min(BUCKET_BYTES, tokens_per_shard))
            layout[name, domain] = (buckets, bucket_bits)
            buckets += 1 << bucket_bits
    schema = _rows_schema(encoder.vocab)
    run = partial(_tokenize, corpus.seed, tokenizer, encoder.sha256, eos, validation, layout, route, language)
    counters = LanguageCounts.from_metadata
    counted = yield Stage("tokenize", run, schema, buckets, at="documents", counters=counters, weigh=_tokens)
    assert counted.weights is not None
    places = _assign_buckets(layout, counted.weights.tolist(), tokens_per_shard)
    groups = [sorted(group) for _, group in sorted(_buckets_by_shard(places).items())]
    write = partial(_write_shard, schema, encoder.vocab, encoder.eos, encoder.sha256, places)
    yield Stage("shards", write, pa.schema([]), groups=groups, sink=True)


def check_shard_options(validation: float, tokens_per_shard: int) -> None:
    """Raises UserError for values that are invalid for any corpus. Called before any work starts."""
    if not 0 <= validation < 1:
        raise UserError(
            f"shards.validation is {validation}; give the share of documents to hold out, from 0 to below 1"
        )
    if not 1 <= tokens_per_shard <= shards.MAX_TOKENS:
        raise UserError(f"shards.tokens_per_shard is {tokens_per_shard}; give 1 to {shards.MAX_TOKENS:,} (2^30)")


ShardPlace = tuple[str, str, int]  # split, domain, index of the shard


def _assign_buckets(
    layout: Mapping[tuple[str, str], tuple[int, int]], counts: Sequence[int], tokens_per_shard: int
) -> dict[int, ShardPlace]:
    """The shard of each non-empty bucket, by the tokens of all buckets."""
    places: dict[int, ShardPlace] = {}
    for (name, domain), (first, bucket_bits) in layout.items():
        tokens = counts[first : first + (1 << bucket_bits)]
        shard_bits = min(bucket_bits, hash_prefix_bits(sum(tokens), tokens_per_shard))
        while shard_bits < bucket_bits and max(_sum_neighbours(tokens, shard_bits)) > shards.MAX_TOKENS:
            shard_bits += 1  # an average of 2^30 with one above it
        for i, count in enumerate(tokens):
            if count:
                places[first + i] = (name, domain, i >> (bucket_bits - shard_bits))
    return places


def _sum_neighbours(values: Sequence[int], shard_bits: int) -> list[int]:
    width = len(values) >> shard_bits
    return [sum(values[i : i + width]) for i in range(0, len(values), width)]


def _buckets_by_shard(places: Mapping[int, ShardPlace]) -> dict[ShardPlace, list[int]]:
    groups: dict[ShardPlace, list[int]] = {}
    for bucket, place in places.items():
        groups.setdefault(place, []).append(bucket)
    return groups


def _tokenize(
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
    split_rule = train_validation_split.read_split_rule(rows)
    encoder = open_encoder(tokenizer, sha256, eos)
    schema = _rows_schema(encoder.vocab)
    dtype = schema.field("tokens").type.value_type.to_pandas_dtype()
    needed = ["doc_id", "text", "url", "domain", "source"]
    optional = [*(route.columns if route else ()), *([language] if language else ())]
    languages = LanguageCounts()
    for batch in documents.batches([*needed, *sorted({c for c in optional if c not in needed})]):
        key = hash_with_seed(batch.column("doc_id"), seed, "order")
        in_validation = split_rule.validation_mask(batch.column("text"), seed, fraction)
        domain = np.array(train_validation_split.document_domains(batch, route), object)
        to = np.zeros(len(key), np.uint32)
        for name in set(domain.tolist()):
            in_domain = domain == name
            for which, mask in (
                (train_validation_split.TRAIN, in_domain & ~in_validation),
                (train_validation_split.VALIDATION, in_domain & in_validation),
            ):
                first, bucket_bits = layout[which, name]
                to[mask] = np.uint32(first) + prefix(key[mask], bucket_bits)
        sizes = pc.binary_length(batch.column("text")).fill_null(0).to_numpy()
        # a token has at least one byte, so slices by bytes have a bounded number of tokens
        slices = np.cumsum(sizes + 1) // BATCH_TOKENS
        ends = [0, *(np.flatnonzero(np.diff(slices)) + 1).tolist(), len(sizes)]
        for start, end in itertools.pairwise(ends):
            part = batch.slice(start, end - start)
            ids = encoder.encode_batch([t or "" for t in part.column("text").to_pylist()])
            if language:
                codes = pc.struct_field(part.column(language), "code").to_pylist()
                languages.add(codes, [len(i) for i in ids], sizes[start:end].tolist())
            offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids], dtype=np.int64)])
            values = np.concatenate(ids).astype(dtype) if ids else np.zeros(0, dtype)
            tokens = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values))
            sort_columns = [pa.array(to[start:end]), pa.array(key[start:end])]
            rest = [part.column(c) for c in ("doc_id", "url", "source")]
            size = pa.array(sizes[start:end], pa.int64())
            yield pa.RecordBatch.from_arrays([*sort_columns, *rest, size, tokens], schema=schema)
    yield pa.RecordBatch.from_pylist([], schema=schema.with_metadata(languages.to_metadata()))


def _tokens(batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """Tokens of each document, EOS included."""
    lengths: npt.NDArray[np.int64] = pc.list_value_length(batch.column("tokens")).to_numpy() + 1
    return lengths


def _write_shard(
    schema: pa.Schema,
    vocab: int,
    eos: int,
    tokenizer: str,
    places: Mapping[int, ShardPlace],
    rows: Iterator[pa.RecordBatch],
    out: Output,
) -> Iterator[pa.RecordBatch]:
    scratch = out.scratch()
    sorter = ExternalSorter(schema, scratch)
    place: ShardPlace | None = None
    for batch in rows:
        if batch.num_rows:
            place = places[batch.column("to")[0].as_py()]
            sorter.add(batch)
    if place is None:
        return iter(())
    name, domain, index = place
    path = f"{name}/{domain}/{index:05d}.arrow"
    with out.create(f"shards/{path}") as f:
        file = Checksummed(f)
        writer = shards.ShardWriter(
            file, vocab_size=vocab, eos=eos, scratch_dir=scratch, metadata={"tokenizer": tokenizer}
        )
        for batch in itertools.chain.from_iterable(sorter.sorted_buckets()):
            tokens = batch.column("tokens")
            offsets, values = tokens.offsets.to_numpy(), tokens.values.to_numpy()
            columns = [batch.column(c).to_pylist() for c in ("doc_id", "url", "source", "text_bytes")]
            for i, (doc_id, url, source, size) in enumerate(zip(*columns, strict=True)):
                writer.add(values[offsets[i] : offsets[i + 1]], doc_id, url, source, text_bytes=size)
        info = writer.close()
    out.outputs.update(split=name, domain=domain, path=path, sha256=file.sha.hexdigest(), bytes=file.size)
    out.outputs.update(documents=info.documents, tokens=info.tokens, text_bytes=info.text_bytes)
    return iter(())


def build_manifest(
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
    """The manifest of the shards that `shard_stages` wrote, from the outputs of its last stage, in reading order.

    Raises UserError if the tokens are too few for the mix (see `mixing.plan_mix`).
    """
    splits: dict[str, dict[str, list[shards.ShardEntry]]] = {
        train_validation_split.TRAIN: {},
        train_validation_split.VALIDATION: {},
    }
    for fact in sorted((f for f in outputs if f), key=lambda f: str(f["path"])):
        numbers = (fact[k] for k in ("documents", "tokens", "text_bytes", "sha256", "bytes"))
        splits[fact["split"]].setdefault(fact["domain"], []).append(shards.ShardEntry(fact["path"], *numbers))
    by_split = {s: {d: shards.DomainShards(tuple(e)) for d, e in sorted(v.items())} for s, v in splits.items()}
    tokens = {domain: entries.tokens for domain, entries in by_split[train_validation_split.TRAIN].items()}
    plan = mixing.plan_mix(
        tokens,
        weights=weights,
        budget=budget,
        max_epochs=max_epochs,
        temperature=temperature,
        shortfall=shortfall,
    )
    return shards.Manifest(tokenizer, by_split, mix=plan.mix, seed=seed, generation=generation, fingerprint=fingerprint)
