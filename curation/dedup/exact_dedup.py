"""Exact deduplication: of all documents with the same normalised text, one stays.

Each document sends 48 bytes, not its text, to the partition of its hash; a partition sees all holders of a hash
together and keeps the first by a keyed hash of the doc_id. So the choice depends on the documents and the seed alone.
Two texts that differ meet in a 128-bit hash with a chance of n^2 / 2^129: 10^-19 for 10^10 documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import xxhash

from curation.dedup.text_normalization import NORMALISE, Form
from curation.seeded_hash import keyed, words
from curation.step import Corpus, Documents, GlobalStep, Stage, StagePlan

# Rows a partition holds at once: 2^20 of 48 bytes, and as much again while they are sorted, stay near 100 MB.
ROWS_PER_PARTITION = 1 << 20

_HASHED = pa.schema(
    [("to", pa.uint32()), ("hash", pa.binary(16)), ("doc_id", pa.binary(16)), ("address", pa.int64())],
)
_SIGNALS = pa.schema([("duplicate", pa.bool_()), ("of", pa.string()), ("copies", pa.int64())])
_DECIDED = pa.schema([("address", pa.int64()), *_SIGNALS])


@dataclass(frozen=True)
class ExactDedup(GlobalStep):
    """Keeps one of the documents whose normalised text is the same.

    normalise  what counts as the same text: none, whitespace, words or template (normalise.py says which is which)
    prior_run  the directory of an earlier run with this step under the same options: its documents come first, so texts
               that it has are duplicates here. Its hashes are read, its texts are not. That run may have a prior run
               of its own

    Signals: duplicate; of, the doc_id (hex) of the kept document where this is a duplicate; copies, how many
    documents a kept one stands for (itself included), null on duplicates.
    """

    normalise: Form = "whitespace"
    prior_run: str | None = None
    name: str = "exact_dedup"

    @property
    def signals(self) -> pa.Schema:
        return _SIGNALS

    def rules(self) -> dict[str, str]:
        return {"exact_duplicate": f"NOT {self.name}.duplicate"}

    def evidence(self) -> Sequence[str]:
        return ["of"]

    def stages(self, corpus: Corpus) -> StagePlan:
        partitions = max(1, -(-corpus.documents // ROWS_PER_PARTITION))
        run, repartition = partial(_hash, self.normalise, partitions), partial(_repartition, partitions)
        yield Stage("hash", run, _HASHED, partitions, at="documents", reuse="rows", repartition=repartition)
        yield Stage("decide", partial(_decide, corpus.seed, corpus.prior_run_boundaries), _DECIDED)


def text_hash(text: str, normalise: str = "none") -> bytes:
    """xxh3-128 of a normalised text, 16 bytes."""
    return xxhash.xxh3_128_digest(NORMALISE[normalise](text).encode())


def _hash(
    normalise: str, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    for batch in documents.batches(["doc_id", "text"]):
        hashes = pa.array([text_hash(t or "", normalise) for t in batch.column("text").to_pylist()], pa.binary(16))
        to = (words(hashes)[:, 1] % np.uint64(partitions)).astype(np.uint32)
        arrays = [pa.array(to), hashes, batch.column("doc_id"), batch.column("address")]
        yield pa.RecordBatch.from_arrays(arrays, schema=_HASHED)


def _repartition(partitions: int, batch: pa.RecordBatch) -> pa.Array:
    return pa.array((words(batch.column("hash"))[:, 1] % np.uint64(partitions)).astype(np.uint32))


def _decide(seed: int, prior_run_boundaries: Sequence[int], rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _HASHED).combine_chunks()
    n = table.num_rows
    if n == 0:
        return
    hashes, ids = words(table["hash"]), words(table["doc_id"])
    rank = keyed(table["doc_id"], seed, "exact_dedup")
    run_number = np.searchsorted(np.array(prior_run_boundaries, np.int64), table["address"].to_numpy() >> 32, "right")
    # the doc_id only breaks ties of its own hash; together they order every two documents
    order = np.lexsort((ids[:, 1], ids[:, 0], rank, run_number, hashes[:, 1], hashes[:, 0]))
    hashes = hashes[order]
    first = np.concatenate([[True], (hashes[1:] != hashes[:-1]).any(axis=1)])
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, n))
    kept = np.repeat(order[starts], counts)  # for each row in order: which row is kept for its hash
    doc_ids = table["doc_id"].to_pylist()
    yield pa.RecordBatch.from_arrays(
        [
            table["address"].combine_chunks().take(pa.array(order)),
            pa.array(~first),
            pa.array([None if f else doc_ids[k].hex() for f, k in zip(first, kept, strict=True)], pa.string()),
            pa.array(np.repeat(counts, counts), pa.int64(), mask=~first),
        ],
        schema=_DECIDED,
    )
