"""Trains the run's tokenizer (byte-level BPE) on a sample of its documents, or copies one from a file.

Either way the stages write shards/tokenizer.json (for a SentencePiece model shards/tokenizer.model).

The sample is the first documents by keyed hash of doc_id, up to a number of bytes. So it does not depend on how the
documents are distributed over tasks, and a larger sample contains a smaller one. At most the first 2^20 characters of a
document are used, so that no single document fills the sample.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from curation.core.errors import UserError
from curation.packing.tokenizer import pretokenizer_patterns
from curation.packing.tokenizer.encode import Encoder
from curation.packing.tokenizer.load_tokenizer import EOS, canonical_json, load_tokenizer
from curation.seeded_hash import hash_with_seed, words
from curation.shards import TokenizerInfo
from curation.step import Corpus, Documents, Output, Stage, StagePlan

MAX_CHARS_PER_DOCUMENT = 1 << 20
SAMPLE_MARGIN = 1.25  # documents are chosen by hash, and their lengths differ: 25 % more than needed are sent

# Longest pre-token that training sees. Each merge rescans the pre-tokens with its pair, so one base64 blob of 10 MB as
# a single pre-token would cost 10 MB times thousands of merges.
_SHORT_PIECE = re.compile(r"\S{1,256}\s{0,256}|\s{1,256}")

_SAMPLE = pa.schema([("to", pa.uint32()), ("key", pa.uint64()), ("doc_id", pa.binary(16)), ("text", pa.large_string())])
_NOTHING = pa.schema([("to", pa.uint32())])


def train_bpe(texts: Iterable[str], vocab: int) -> bytes:
    """Trains a byte-level BPE and returns its tokenizer.json, with <|endoftext|> as id 0.

    It has fewer than `vocab` entries if there is too little text. The same texts give the same bytes, in any order and
    on any number of threads: the trainer counts pre-tokens, and breaks ties between equally frequent pairs by id.
    Raises UserError for a vocabulary below 257.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab < 257:
        raise UserError(f"tokenizer.train.vocab is {vocab}; byte-level BPE needs 256 bytes and {EOS}: at least 257")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pretokenizer_patterns.OURS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[EOS],
        initial_alphabet=sorted(pretokenizer_patterns.byte_alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_pieces(texts), trainer)
    return canonical_json(json.loads(tokenizer.to_str()))


def _training_pieces(texts: Iterable[str]) -> Iterator[str]:
    """Yields the texts, those with a run of more than 256 whitespace (or other) characters in parts."""
    long = re.compile(r"(?<!\S)\S{257}|(?<!\s)\s{257}")
    for text in texts:
        text = text.replace(EOS, " ")  # the trainer would take it for the special token
        if long.search(text):
            yield from (m.group() for m in _SHORT_PIECE.finditer(text))
        else:
            yield text


def refuse_empty_corpus(corpus: Corpus) -> None:
    """Raises UserError if no documents are left to tokenize."""
    if corpus.documents == 0:
        raise UserError("there are no documents to tokenize")


def train_tokenizer_stages(corpus: Corpus, *, vocab: int, sample_bytes: int = 64 << 20) -> StagePlan:
    """Stages that train on about `sample_bytes` of text; the output of the last one is for `tokenizer_info`.

    Raises UserError for an empty corpus.
    """
    refuse_empty_corpus(corpus)
    share = min(1.0, SAMPLE_MARGIN * sample_bytes / max(1, corpus.text_bytes))
    yield Stage("sample_texts", partial(_sample_texts, corpus.seed, share), _SAMPLE, 1, at="documents")
    yield Stage("train_tokenizer", partial(_train, vocab, sample_bytes), _NOTHING, sink=True)


def load_tokenizer_stages(corpus: Corpus, *, path: str, eos: str | None = None) -> StagePlan:
    """Stages that copy a tokenizer file (see `load_tokenizer`), with the same output as after training."""
    refuse_empty_corpus(corpus)
    yield Stage("sample_nothing", _sample_nothing, _NOTHING, 1, at="documents")
    yield Stage("load_tokenizer", partial(_load, path, eos), _NOTHING, sink=True)


def tokenizer_info(fact: Mapping[str, Any]) -> TokenizerInfo:
    """The manifest's entry for the tokenizer, from the output of the stages above."""
    return TokenizerInfo(fact["file"], fact["sha256"], fact["vocab"], fact["eos"], fact["kind"], fact["lossless"])


def _sample_texts(
    seed: int, share: float, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    below = np.uint64(min(int(share * 2.0**64), 2**64 - 1))
    for batch in documents.batches(["doc_id"]):
        key = hash_with_seed(batch.column("doc_id"), seed, "tokenizer")
        chosen = np.flatnonzero(key <= below)
        if not len(chosen):
            continue  # where documents are few in a sample, most texts are never read
        taken = documents.take(batch.column("address").take(pa.array(chosen)), ["doc_id", "text"])
        texts = [(t or "")[:MAX_CHARS_PER_DOCUMENT] for t in taken.column("text").to_pylist()]
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
    _write_tokenizer(train_bpe(texts, vocab), None, out, sample_documents=len(texts), sample_bytes=size)
    return iter(())


def _sample_nothing(rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    return iter(())


def _load(path: str, eos: str | None, rows: Iterator[pa.RecordBatch], out: Output) -> Iterator[pa.RecordBatch]:
    _write_tokenizer(load_tokenizer(path), eos, out)
    return iter(())


def _write_tokenizer(data: bytes, eos: str | None, out: Output, **more: int) -> None:
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
