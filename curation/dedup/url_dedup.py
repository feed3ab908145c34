"""Keeps one document per URL: a page that was crawled twice, or under two spellings of its URL, stays once.

URLs are equal if their canonical forms are (curation/canonical_url.py): without scheme, `www.`, fragment and tracking
parameters, among others. The document to keep is chosen by `prefer`; keep_one.py decides. Each document sends 60 bytes
to the partition of its URL's hash. URLs are compared as stored, so after `pii` without the personal data it removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from curation.canonical_url import TRACKING_PARAMETERS, canonicalize_url
from curation.dedup import keep_one
from curation.step import Corpus, Documents, GlobalStep, Stage, StagePlan

_HASHES = pa.schema(
    [
        ("to", pa.uint32()),
        ("hash", pa.binary(16)),
        ("priority", pa.int64()),  # the highest is kept
        ("doc_id", pa.binary(16)),
        ("address", pa.int64()),
    ]
)


@dataclass(frozen=True)
class UrlDedup(GlobalStep):
    """Keeps one of the documents with the same canonical URL. Documents without a URL are all kept.

    prefer   which one is kept: latest or earliest by `date` (documents without a date come last), or the longest text
    ignore   query parameters that do not count, in lower case; a `*` at the end matches any suffix

    Signals, null without a URL: duplicate; of, for a duplicate the doc_id (hex) of the kept document; copies, for a
    kept document the number of documents with its URL, itself included, else null.
    """

    prefer: Literal["latest", "earliest", "longest"] = "latest"
    ignore: list[str] = field(default_factory=lambda: list(TRACKING_PARAMETERS))
    name: str = "url_dedup"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", ("url", "text") if self.prefer == "longest" else ("url", "date"))

    @property
    def signals(self) -> pa.Schema:
        return keep_one.SIGNALS

    def rules(self) -> Mapping[str, str]:
        return {"same_url": f"coalesce(NOT {self.name}.duplicate, TRUE)"}

    def evidence(self) -> Sequence[str]:
        return ["of"]

    def stages(self, corpus: Corpus) -> StagePlan:
        partitions = keep_one.partition_count(corpus.documents)
        run, repartition = partial(_hash, self, partitions), partial(keep_one.repartition, partitions)
        yield Stage("urls", run, _HASHES, partitions, at="documents", reuse="rows", repartition=repartition)
        yield Stage("decide", partial(_decide, corpus.seed), keep_one.DECISIONS)


def _hash(
    step: UrlDedup, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    for batch in documents.batches(["doc_id", *step.reads]):
        batch = batch.filter(pc.is_valid(batch.column("url")))
        urls = [canonicalize_url(u, step.ignore) for u in batch.column("url").to_pylist()]
        hashes = pa.array([xxhash.xxh3_128_digest(u.encode("utf-8", "surrogatepass")) for u in urls], pa.binary(16))
        to = keep_one.partition_of(hashes, partitions)
        columns = [to, hashes, pa.array(_priority(step, batch)), batch.column("doc_id"), batch.column("address")]
        yield pa.RecordBatch.from_arrays(columns, schema=_HASHES)


def _priority(step: UrlDedup, batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    lowest = np.iinfo(np.int64).min
    if step.prefer == "longest":
        size: npt.NDArray[np.int64] = pc.binary_length(batch.column("text")).fill_null(0).to_numpy().astype(np.int64)
        return size
    seconds = batch.column("date").cast(pa.int64())
    if step.prefer == "earliest":
        seconds = pc.negate(seconds)
    return np.asarray(seconds.fill_null(lowest).to_numpy(), np.int64)


def _decide(seed: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _HASHES).combine_chunks()
    if table.num_rows:
        preference = ~table["priority"].to_numpy()  # reversed without overflow: the highest priority first
        yield keep_one.keep_one(table, preference, seed, "url_dedup")
