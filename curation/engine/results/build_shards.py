"""Builds the second half of the result from the kept documents: documents/, tokenizer, shards and their manifest."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow as pa

from curation import document, shards, storage
from curation.config.pipeline import Pipeline
from curation.engine.execution.phases import Phases
from curation.engine.planning import fingerprints
from curation.engine.planning.mix_groups import Grouping
from curation.engine.results import generations
from curation.engine.results.publish import ResultFiles
from curation.packing import document_writer, shard_writer
from curation.packing.tokenizer import fertility, train_tokenizer
from curation.step import Corpus

KEPT_COLUMNS = ("doc_id", "text", "url", "domain", "source", "date", "meta", "read")


def build_documents_and_shards(phases: Phases, made: ResultFiles) -> None:
    """Adds documents/ and, if the pipeline has a tokenizer, shards/ to the result."""
    plan = phases.plan
    corpus = Corpus(
        documents=phases.latest.rows_out,
        text_bytes=phases.latest.text_bytes,
        tasks=len(phases.specs),
        seed=plan.pipeline.seed,
    )
    code = fingerprints.module_fingerprint(document_writer.__file__)
    schema = pa.schema(
        [*(pa.field(c, _type(c)) for c in KEPT_COLUMNS), *(pa.field(n, t) for n, t in plan.types.items())]
    )
    kept = phases.stages(
        "documents",
        storage.fingerprint([code, str(schema), corpus.seed]),
        document_writer.document_stages(corpus, schema),
    )
    if sum(f["documents"] for f in kept.outputs if f) != corpus.documents:
        raise AssertionError(f"documents/ has {[dict(f) for f in kept.outputs]} for {corpus.documents} kept documents")
    made.staged += kept.staged
    if plan.pipeline.tokenizer is not None:
        _shards(phases, made, corpus)


def _type(column: str) -> pa.DataType:
    return document.READ if column == "read" else document.BASE.field(column).type


def _shards(phases: Phases, made: ResultFiles, corpus: Corpus) -> None:
    pipeline = phases.plan.pipeline
    wanted = pipeline.tokenizer
    assert wanted is not None
    code = fingerprints.module_fingerprint(shard_writer.__file__)
    base = storage.fingerprint([code, corpus.seed, fingerprints.machine(pipeline.engine.cpu_level)])
    if wanted.train is not None:
        options: list[Any] = [wanted.train.kind, wanted.train.vocab, wanted.train.sample_bytes]
        stages = train_tokenizer.train_tokenizer_stages(
            corpus, vocab=wanted.train.vocab, sample_bytes=wanted.train.sample_bytes
        )
    else:
        path = str(wanted.file)
        options = [*fingerprints.file_checksums([path]), wanted.eos]
        stages = train_tokenizer.load_tokenizer_stages(corpus, path=path, eos=wanted.eos)
    trained = phases.stages("tokenizer", storage.fingerprint([base, options]), stages)
    file, info = trained.staged[0], train_tokenizer.tokenizer_info(trained.outputs[0])
    groups = pipeline.mix.groups
    signals = [pa.field(n, t) for n, t in phases.plan.types.items()]
    available = pa.schema([*document.BASE, pa.field("read", document.READ), *signals])
    language = next((e.name for e in pipeline.steps if e.kind == "language"), None)
    clusters = [n for n, t in phases.plan.types.items() if {"of", "copies"} <= {f.name for f in t}]
    layout = [
        base,
        info.sha256,
        info.eos,
        pipeline.validation,
        pipeline.shards.tokens_per_shard,
        *groups.items(),
        clusters,
        language,
    ]
    packed = phases.stages(
        "shards",
        storage.fingerprint(layout),
        shard_writer.shard_stages(
            corpus,
            tokenizer=phases.storage.url(file["path"]),
            eos=wanted.eos,
            validation=pipeline.validation,
            tokens_per_shard=pipeline.shards.tokens_per_shard,
            route=Grouping(groups, available) if groups else None,
            clusters=clusters,
            language=language,
        ),
    )
    made.staged += trained.staged + packed.staged
    weights = None if pipeline.mix.weights == "natural" else dict(pipeline.mix.weights)
    manifest = shard_writer.build_manifest(
        packed.outputs,
        info,
        weights=weights,
        budget=pipeline.mix.budget,
        max_epochs=1.0 if pipeline.mix.max_epochs is None and pipeline.mix.budget else pipeline.mix.max_epochs,
        temperature=pipeline.mix.temperature,
        shortfall=pipeline.mix.shortfall,
        seed=corpus.seed,
        generation=generations.next_generation(phases.storage),
        fingerprint=_data_fingerprint(pipeline, made),
    )
    buffer = io.BytesIO()
    shards.write_manifest(buffer, manifest)
    made.small["shards/manifest.json"] = buffer.getvalue()
    made.counts["tokens"] = {
        name: {domain: entry.tokens for domain, entry in domains.items()} for name, domains in manifest.splits.items()
    }
    counters = next(stage["counters"] for stage in packed.stage_fingerprints if stage["stage"] == "tokenize")
    made.counts["fertility"] = fertility.fertility(manifest, counters)
    made.counts["tokenizer"] = {k: v for k, v in trained.outputs[0].items() if k != "sha256"}


def _data_fingerprint(pipeline: Pipeline, made: ResultFiles) -> str:
    """Fingerprint of the content of the result: equal trees have equal ones, however they were made."""
    files = sorted((f["path"].removeprefix(f["directory"]), f["sha256"]) for f in made.staged)
    return storage.fingerprint([files, json.dumps(pipeline.mix.model_dump(), sort_keys=True)])
