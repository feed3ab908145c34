"""Removes exact duplicates: keeps one of the documents with the same normalized text.

The text is compared by its xxh3-128, which is computed while the text is in memory; for `normalise: none` it is the
hash beside the stored text. Each document sends 48 bytes to the partition of its hash. keep_one.py decides.
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
from curation.document import with_column
from curation.step import Corpus, Documents, GlobalStep, MapStep, Stage, StagePlan

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

    def features(self) -> TextHash | None:
        return TextHash(self.normalise, f"{self.name}-hash") if self.normalise != "none" else None

    def stages(self, corpus: Corpus) -> StagePlan:
        partitions, features = keep_one.partition_count(corpus.documents), self.features()
        column = f"{features.name}.hash" if features is not None else "text_hash"
        run, repartition = partial(_hash, column, partitions), partial(keep_one.repartition, partitions)
        yield Stage(
            "hash", run, _HASHES, partitions, at="documents", reuse="rows", repartition=repartition, features=features
        )
        yield Stage("decide", partial(_decide, corpus.seed, corpus.prior_run_boundaries), keep_one.DECISIONS)


@dataclass(frozen=True)
class TextHash(MapStep):
    """The xxh3-128 of each normalized text."""

    normalise: NormalForm
    name: str

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([("hash", pa.binary(16))])

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        form = NORMALIZERS[self.normalise]
        texts = batch.column("text").to_pylist()
        hashes = pa.array([xxhash.xxh3_128_digest(form(t or "").encode()) for t in texts], pa.binary(16))
        return with_column(batch, self.name, pa.StructArray.from_arrays([hashes], fields=list(self.signals)))


def _hash(
    column: str, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    for batch in documents.batches(["doc_id", column]):
        hashes = batch.column(column)
        arrays = [keep_one.partition_of(hashes, partitions), hashes, batch.column("doc_id"), batch.column("address")]
        yield pa.RecordBatch.from_arrays(arrays, schema=_HASHES)


def _decide(seed: int, prior_run_boundaries: Sequence[int], rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _HASHES).combine_chunks()
    if table.num_rows:
        tasks = table["address"].to_numpy() >> 32
        run_number = np.searchsorted(np.array(prior_run_boundaries, np.int64), tasks, "right")
        yield keep_one.keep_one(table, run_number, seed, "exact_dedup")
