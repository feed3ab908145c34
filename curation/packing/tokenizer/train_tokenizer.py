"""The run's tokenizer: trained on a sample of its documents, or brought from outside; written as shards/tokenizer.json.

The sample is the first documents by keyed hash of doc_id, up to a number of bytes: the same documents however they lie,
and a larger sample contains a smaller one. No document gives more than its first MiB, so that none is the sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from curation.core.errors import UserError
from curation.packing.tokenizer.encode import Encoder
from curation.packing.tokenizer.load_tokenizer import load, train
from curation.seeded_hash import keyed, words
from curation.shards import TokenizerInfo
from curation.step import Corpus, Documents, Output, Stage, StagePlan

MOST_OF_ONE = 1 << 20  # characters of one document
SLACK = 1.25  # by hash, more than the sample's share of documents are sent, since their lengths differ

_SAMPLE = pa.schema([("to", pa.uint32()), ("key", pa.uint64()), ("doc_id", pa.binary(16)), ("text", pa.large_string())])
_NOTHING = pa.schema([("to", pa.uint32())])


def refuse_empty(corpus: Corpus) -> None:
    """Raises UserError where no document is left to make tokens of."""
    if corpus.documents == 0:
        raise UserError(
            "no documents are left before tokenizing: every one was dropped by a rule or could not be read. "
            "`gristmill status` shows how many each rule dropped, `gristmill report` with samples; loosen the rule, or "
            "check that the sources' paths name the files you mean"
        )


def train_tokenizer_stages(corpus: Corpus, *, vocab: int, sample_bytes: int = 64 << 20) -> StagePlan:
    """Trains on about `sample_bytes` of text. The sink's one fact is what `tokenizer_info` reads.

    Raises UserError for an empty corpus.
    """
    refuse_empty(corpus)
    share = min(1.0, SLACK * sample_bytes / max(1, corpus.text_bytes))
    yield Stage("sample", partial(_sample, corpus.seed, share), _SAMPLE, 1, at="documents")
    yield Stage("train_tokenizer", partial(_train, vocab, sample_bytes), _NOTHING, sink=True)


def load_tokenizer_stages(corpus: Corpus, *, path: str, eos: str | None = None) -> StagePlan:
    """Takes the tokenizer from a file (see `tokenizer.load`), with the same fact as after training."""
    refuse_empty(corpus)
    yield Stage("no_sample", _no_sample, _NOTHING, 1, at="documents")
    yield Stage("load_tokenizer", partial(_load, path, eos), _NOTHING, sink=True)


def tokenizer_info(fact: Mapping[str, Any]) -> TokenizerInfo:
    """What the manifest says of the tokenizer."""
    return TokenizerInfo(fact["file"], fact["sha256"], fact["vocab"], fact["eos"], fact["kind"], fact["lossless"])


def _sample(seed: int, share: float, rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    below = np.uint64(min(int(share * 2.0**64), 2**64 - 1))
    for batch in documents.batches(["doc_id", "text"]):
        key = keyed(batch.column("doc_id"), seed, "tokenizer")
        chosen = np.flatnonzero(key <= below)
        taken = batch.take(pa.array(chosen))
        texts = [(t or "")[:MOST_OF_ONE] for t in taken.column("text").to_pylist()]
        columns = [
            pa.array(np.zeros(len(chosen), np.uint32)),
            pa.array(key[chosen]),
            taken.column("doc_id"),
            pa.array(texts, pa.large_string()),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=_SAMPLE)


def _train(vocab: int, sample_bytes: int, rows: Iterator[pa.RecordBatch], out: Output) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _SAMPLE)
    pair = words(table["doc_id"])
    order = np.lexsort((pair[:, 1], pair[:, 0], table["key"].to_numpy()))
    texts, size = [], 0
    for row in order.tolist():
        if size >= sample_bytes:
            break
        texts.append(table["text"][row].as_py())
        size += len(texts[-1].encode())
    _write(train(texts, vocab), None, out, sample_documents=len(texts), sample_bytes=size)
    return iter(())


def _no_sample(rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    return iter(())


def _load(path: str, eos: str | None, rows: Iterator[pa.RecordBatch], out: Output) -> Iterator[pa.RecordBatch]:
    _write(load(path), eos, out)
    return iter(())


def _write(data: bytes, eos: str | None, out: Output, **more: int) -> None:
    encoder = Encoder(data, eos=eos)
    with out.create(f"shards/{encoder.file}") as f:
        f.write(data)
    out.outputs.update(
        sha256=encoder.sha256,
        vocab=encoder.vocab,
        eos=encoder.eos,
        kind=encoder.kind,
        file=encoder.file,
        engine=encoder.engine,
        lossless=encoder.lossless,
        **more,
    )
