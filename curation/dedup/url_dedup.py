"""One document a URL: a page crawled twice, or under two spellings of its address, stays once.

    same      by their canonical form (curation/canonical_url.py): without scheme, `www.`, fragment, tracking
    parameters, ... stays     by `prefer`: the latest, the earliest or the longest document; of equals the first by
    keyed hash of doc_id

Each document sends 60 bytes to the partition of its URL's hash. URLs are compared as they are stored, so where `pii`
has taken personal data out of two, what is left decides.
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
from curation.seeded_hash import keyed, words
from curation.step import Corpus, Documents, GlobalStep, Stage, StagePlan

ROWS_PER_PARTITION = 1 << 20  # of 60 bytes, and as much again while they are sorted

_SENT = pa.schema(
    [
        ("to", pa.uint32()),
        ("hash", pa.binary(16)),
        ("worth", pa.int64()),  # the larger stays
        ("doc_id", pa.binary(16)),
        ("address", pa.int64()),
    ]
)
_SIGNALS = pa.schema([("duplicate", pa.bool_()), ("of", pa.string()), ("copies", pa.int64())])
_DECIDED = pa.schema([("address", pa.int64()), *_SIGNALS])


@dataclass(frozen=True)
class UrlDedup(GlobalStep):
    """Keeps one of the documents whose URL is the same after normalisation. Documents without a URL all stay.

    prefer   which of them: latest or earliest by `date` (those without one come last), or longest text
    ignore   parameters of the query that do not count, in lower case; a `*` at the end stands for any rest

    Signals, null without a URL: duplicate; of, the doc_id (hex) of the document that stays where this is a duplicate;
    copies, how many documents that one stands for (itself included), null on duplicates.
    """

    prefer: Literal["latest", "earliest", "longest"] = "latest"
    ignore: list[str] = field(default_factory=lambda: list(TRACKING_PARAMETERS))
    name: str = "url_dedup"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reads", ("url", "text") if self.prefer == "longest" else ("url", "date"))

    @property
    def signals(self) -> pa.Schema:
        return _SIGNALS

    def rules(self) -> Mapping[str, str]:
        return {"same_url": f"coalesce(NOT {self.name}.duplicate, TRUE)"}

    def evidence(self) -> Sequence[str]:
        return ["of"]

    def stages(self, corpus: Corpus) -> StagePlan:
        partitions = max(1, -(-corpus.documents // ROWS_PER_PARTITION))
        run, repartition = partial(_send, self, partitions), partial(_repartition, partitions)
        yield Stage("urls", run, _SENT, partitions, at="documents", reuse="rows", repartition=repartition)
        yield Stage("decide", partial(_decide, corpus.seed), _DECIDED)


def _send(
    step: UrlDedup, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    for batch in documents.batches(["doc_id", *step.reads]):
        batch = batch.filter(pc.is_valid(batch.column("url")))
        urls = [canonicalize_url(u, step.ignore) for u in batch.column("url").to_pylist()]
        hashes = pa.array([xxhash.xxh3_128_digest(u.encode("utf-8", "surrogatepass")) for u in urls], pa.binary(16))
        to = (words(hashes)[:, 1] % np.uint64(partitions)).astype(np.uint32)
        columns = [pa.array(to), hashes, pa.array(_worth(step, batch)), batch.column("doc_id"), batch.column("address")]
        yield pa.RecordBatch.from_arrays(columns, schema=_SENT)


def _repartition(partitions: int, batch: pa.RecordBatch) -> pa.Array:
    return pa.array((words(batch.column("hash"))[:, 1] % np.uint64(partitions)).astype(np.uint32))


def _worth(step: UrlDedup, batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    least = np.iinfo(np.int64).min
    if step.prefer == "longest":
        worth: npt.NDArray[np.int64] = pc.binary_length(batch.column("text")).fill_null(0).to_numpy().astype(np.int64)
        return worth
    seconds = batch.column("date").cast(pa.int64())
    if step.prefer == "earliest":
        seconds = pc.negate(seconds)
    return np.asarray(seconds.fill_null(least).to_numpy(), np.int64)


def _decide(seed: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _SENT).combine_chunks()
    n = table.num_rows
    if n == 0:
        return
    hashes, ids = words(table["hash"]), words(table["doc_id"])
    worth = ~table["worth"].to_numpy()  # reversed without an overflow: the largest first
    order = np.lexsort((ids[:, 0], keyed(table["doc_id"], seed, "url_dedup"), worth, hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    first = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    starts = np.flatnonzero(first)
    counts = np.diff(np.append(starts, n))
    kept = np.repeat(order[starts], counts).tolist()
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
