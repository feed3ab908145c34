"""Near-duplicate removal that can be trusted: MinHash proposes, exact Jaccard decides, and the evidence is kept.

Six stages, each of which holds one partition or one task of documents at a time:

    bands     documents   signature -> a key for each band, sent to the partition of the key       41 bytes a band
    pairs     partition   documents that share a key become candidate pairs (candidates.py)        28 bytes a pair
    send      documents   the better document of each pair sends its shingle set to the other one's task (edges.py)
    verify    documents   exact Jaccard; pairs that reach the threshold are edges                   76 bytes an edge
    decide    partition   the first maximal independent set of the edges (cluster.py, decide.py)
    tell      documents   a row for every document

Texts never travel, and a shingle set travels once to a task, however many documents there it is compared with. What
is decided depends on the documents, the options and the seed; not on tasks, partitions or order.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ..step import Corpus, Documents, GlobalStep, Stage, StagePlan, UserError
from . import candidates, cluster, decide, edges, minhash, verify

ROWS_PER_PARTITION = 1 << 21  # band rows held and sorted at once: about 200 MB
NUM_PERM = 112

_BANDS = pa.schema(
    [
        ("to", pa.uint32()),
        ("key", pa.uint64()),
        ("other", pa.uint64()),  # the key of the next band, for sub-buckets
        ("address", pa.int64()),
        ("doc_id", pa.binary(16)),
        ("level", pa.uint8()),
    ]
)
_PAIRS = pa.schema([("to", pa.uint32()), ("better", pa.int64()), ("worse", pa.int64()), ("unmet", pa.int64())])


@dataclass(frozen=True)
class MinHashDedup(GlobalStep):
    """Removes documents that are verified similar to one that is kept.

    ngram, unit   words (or characters) in a shingle; shingles.py says what a word is and what short documents do
    bands, rows   the shape of the LSH: pairs of Jaccard s are looked at with a chance of 1 - (1 - s^rows)^bands; both
                  null: chosen for the threshold within 112 permutations
    threshold     the Jaccard similarity from which a pair counts as duplicates, exact
    scope         all; source: documents are compared with those of the same domain whose files lie in the same folder
                  (a dump); or a column, or a field of one, such as domain or language.code: within equal values

    The longer document stays (by doublings of its bytes), among equals the first by keyed hash of doc_id.

    Signals, for every document: duplicate; of, the doc_id (hex) of the kept document it is most similar to;
    similarity, their exact Jaccard; copies, how many documents a kept one stands for (itself included). The latter
    is null on duplicates, the two before on the others.
    """

    ngram: int = 5
    bands: int | None = 14
    rows: int | None = 8
    threshold: float = 0.72
    scope: str = "all"
    unit: Literal["words", "characters"] = "words"
    name: str = "minhash_dedup"

    def __post_init__(self) -> None:
        base = self.scope.split(".")[0]
        columns = {"all": (), "source": ("domain", "source")}.get(self.scope, (base,))
        object.__setattr__(self, "reads", ("text", *columns))

    @property
    def signals(self) -> pa.Schema:
        return decide.SIGNALS

    def rules(self) -> Mapping[str, str]:
        return {"near_duplicate": f"NOT {self.name}.duplicate"}

    def evidence(self) -> Sequence[str]:
        return ["of", "similarity"]

    def check(self) -> None:
        if self.ngram < 1:
            raise UserError(f"{self.name}: ngram is {self.ngram}; a shingle has at least 1 word")
        if not 0 < self.threshold <= 1:
            raise UserError(f"{self.name}: threshold is {self.threshold}; it is a Jaccard similarity in (0, 1]")
        if verify.fraction(self.threshold).denominator > verify.FINEST:
            raise UserError(f"{self.name}: threshold is {self.threshold}; write it with at most 6 decimals")
        if (self.bands is None) != (self.rows is None):
            raise UserError(f"{self.name}: give both bands and rows, or both as null to have them chosen")
        if self.bands is not None and self.rows is not None and (self.bands < 1 or self.rows < 1):
            raise UserError(f"{self.name}: bands ({self.bands}) and rows ({self.rows}) are at least 1")
        if not self.scope or not all(self.scope.split(".")) or self.scope.count(".") > 1:
            raise UserError(
                f"{self.name}: scope is {self.scope!r}; give all, source, or a column such as domain or language.code"
            )

    def shape(self) -> tuple[int, int]:
        """(bands, rows) as given or chosen."""
        if self.bands is None or self.rows is None:
            return minhash.choose_bands(self.threshold, NUM_PERM)
        return self.bands, self.rows

    def stages(self, corpus: Corpus) -> StagePlan:
        bands, _ = self.shape()
        tasks = corpus.tasks
        partitions = max(1, -(-corpus.documents * bands // ROWS_PER_PARTITION))
        yield Stage("bands", partial(_bands, self, partitions), _BANDS, partitions, at="documents")
        yield Stage("pairs", partial(_pairs, corpus.seed), _PAIRS, tasks, tally=_count_pairs)
        compare = edges.Comparison(self.ngram, self.unit, self.threshold)
        yield Stage("send", partial(edges.send, compare), edges.SENT, tasks, at="documents")
        yield Stage("verify", partial(edges.verify, compare), edges.EDGES, 1, at="documents", tally=edges.count)
        yield Stage("decide", partial(decide.decide, corpus.seed), decide.DECIDED, tasks)
        yield Stage("tell", decide.tell, decide.TOLD, at="documents")


def _salt(step: MinHashDedup, batch: pa.RecordBatch) -> npt.NDArray[np.uint64] | None:
    """A number for the scope of each document, the same for equal scopes."""
    if step.scope == "all":
        return None
    if step.scope == "source":
        domains, sources = batch.column("domain").to_pylist(), batch.column("source").to_pylist()
        values: list[Any] = [
            (d, posixpath.dirname((s or {}).get("file") or "")) for d, s in zip(domains, sources, strict=True)
        ]
    else:
        base, _, inner = step.scope.partition(".")
        column = batch.column(base)
        if inner:
            column = pc.struct_field(column, inner)
        values = column.to_pylist()
    return np.array([xxhash.xxh3_64_intdigest(repr(v).encode()) for v in values], np.uint64)


def _bands(
    step: MinHashDedup, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    bands, depth = step.shape()
    for batch in documents.batches(["doc_id", *step.reads]):
        texts = batch.column("text")
        signature = minhash.signatures(texts, ngram=step.ngram, num_perm=bands * depth, unit=step.unit)
        keys = minhash.band_keys(signature, bands, depth, _salt(step, batch))
        level = cluster.levels(edges.sizes(texts))
        some = np.flatnonzero((signature != minhash.EMPTY).any(axis=1))  # without shingles: similar to nothing
        who = pa.array(np.repeat(some, bands))
        key = keys[some].reshape(-1)
        yield pa.RecordBatch.from_arrays(
            [
                pa.array((key % np.uint64(partitions)).astype(np.uint32)),
                pa.array(key),
                pa.array(np.roll(keys[some], -1, axis=1).reshape(-1)),
                batch.column("address").take(who),
                batch.column("doc_id").take(who),
                pa.array(level).take(who),
            ],
            schema=_BANDS,
        )


def _pairs(seed: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _BANDS).combine_chunks()
    if table.num_rows == 0:
        return
    key = table["key"].to_numpy()
    order = np.lexsort((*cluster.priority(table["level"].to_numpy(), table["doc_id"], seed), key))
    address = table["address"].to_numpy()[order]
    key, other = key[order], table["other"].to_numpy()[order]
    lost = candidates.unmet(key, other)
    for better, worse in candidates.pairs(key, other):
        b, w = address[better], address[worse]
        count = np.zeros(len(b), np.int64)
        count[0], lost = lost, 0  # rides on a row, so that it is counted
        columns = [pa.array((b >> 32).astype(np.uint32)), pa.array(b), pa.array(w), pa.array(count)]
        yield pa.RecordBatch.from_arrays(columns, schema=_PAIRS)


def _count_pairs(batch: pa.RecordBatch) -> Mapping[str, int]:
    return {"candidates": batch.num_rows, "unmet": int(batch.column("unmet").to_numpy().sum())}
