"""Removes exact duplicates: keeps one of the documents with the same normalized text.

The text is compared by its xxh3-128; each document sends 48 bytes to the partition of that hash. keep_one.py decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import xxhash

from curation.dedup import keep_one
from curation.dedup.text_normalization import NORMALIZERS, NormalForm
from curation.step import Corpus, Documents, GlobalStep, Stage, StagePlan

_HASHES = pa.schema(
    [("to", pa.uint32()), ("hash", pa.binary(16)), ("doc_id", pa.binary(16)), ("address", pa.int64())],
)


@dataclass(frozen=True)
class ExactDedup(GlobalStep):
    """Keeps one of the documents with the same normalized text.

    normalise  what counts as the same text: none, whitespace, words or template (see text_normalization.py)
    prior_run  the directory of an earlier run with this step under the same options: its documents come first, so texts
               that it has are duplicates here. Its hashes are read, its texts are not. That run may have a prior run
               of its own

    Signals: duplicate; of, for a duplicate the doc_id (hex) of the kept document; copies, for a kept document the
    number of documents with its text, itself included, else null.
    """

    normalise: NormalForm = "whitespace"
    prior_run: str | None = None
    name: str = "exact_dedup"

    @property
    def signals(self) -> pa.Schema:
        return keep_one.SIGNALS

    def rules(self) -> dict[str, str]:
        return {"exact_duplicate": f"NOT {self.name}.duplicate"}

    def evidence(self) -> Sequence[str]:
        return ["of"]

    def stages(self, corpus: Corpus) -> StagePlan:
        partitions = keep_one.partition_count(corpus.documents)
        run, repartition = partial(_hash, self.normalise, partitions), partial(keep_one.repartition, partitions)
        yield Stage("hash", run, _HASHES, partitions, at="documents", reuse="rows", repartition=repartition)
        yield Stage("decide", partial(_decide, corpus.seed, corpus.prior_run_boundaries), keep_one.DECISIONS)


def text_hash(text: str, normalise: str = "none") -> bytes:
    """xxh3-128 of a normalized text, 16 bytes."""
    return xxhash.xxh3_128_digest(NORMALIZERS[normalise](text).encode())


def _hash(
    normalise: str, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    for batch in documents.batches(["doc_id", "text"]):
        hashes = pa.array([text_hash(t or "", normalise) for t in batch.column("text").to_pylist()], pa.binary(16))
        arrays = [keep_one.partition_of(hashes, partitions), hashes, batch.column("doc_id"), batch.column("address")]
        yield pa.RecordBatch.from_arrays(arrays, schema=_HASHES)


def _decide(seed: int, prior_run_boundaries: Sequence[int], rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _HASHES).combine_chunks()
    if table.num_rows:
        tasks = table["address"].to_numpy() >> 32
        run_number = np.searchsorted(np.array(prior_run_boundaries, np.int64), tasks, "right")
        yield keep_one.keep_one(table, run_number, seed, "exact_dedup")
