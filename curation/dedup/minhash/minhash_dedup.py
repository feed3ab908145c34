"""Removes near-duplicates: MinHash LSH proposes pairs, exact Jaccard similarity decides, and the evidence is stored.

Stages, each with one partition or one task of documents in memory:

    bands       documents   the key of each band of the signature, to the partition of the key       53 bytes a band
    pairs       partition   documents with a key in common become candidates (candidate_pairs.py)    20 bytes a pair
    send        documents   the shingle set of the document of higher priority, to the other's task
    edges       documents   pairs whose exact similarity reaches the threshold                       134 bytes an edge
    round n     partition   which documents are kept (independent_set.py, resolve_duplicates.py)
    decisions   partition   the results, to the tasks of the documents
    signals     documents   one row for every document

Signatures are computed in the phase before, while texts are in memory; texts of candidates are read again to compare
them. Texts are never sent, and a shingle set is sent once per task, however many documents there it is compared with.
The result depends on documents, options and seed, not on tasks, partitions or order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa

from curation.core.errors import UserError
from curation.dedup.minhash import (
    candidate_pairs,
    duplicate_edges,
    independent_set,
    jaccard,
    resolve_duplicates,
    signatures,
    verify_candidates,
)
from curation.dedup.scope import check_scope, scope_expression, scope_salts
from curation.document import with_column
from curation.seeded_hash import mix64
from curation.step import Corpus, Documents, GlobalStep, MapStep, Stage, StagePlan

# Band rows of one partition: 53 bytes each, sorted in memory at two to three times that. Beyond MAX_PARTITIONS (at
# 3 x 10^8 documents) partitions grow instead, up to 16 times: more of them would get few rows from each of many files.
ROWS_PER_PARTITION = 1 << 20
MAX_PARTITIONS = 4096
NUM_PERM = 112

_BANDS = pa.schema(
    [
        ("to", pa.uint32()),
        ("key", pa.uint64()),
        ("other", pa.uint64()),  # the key of the next band, for sub-buckets
        ("content", pa.uint64()),  # the same for equal shingle sets (of one scope)
        ("sketch", pa.uint64()),
        ("rank", pa.uint64()),  # low for documents of high priority
        ("address", pa.int64()),
        ("band", pa.uint8()),
    ]
)
_PAIRS = pa.schema([("to", pa.uint32()), ("higher", pa.int64()), ("lower", pa.int64())])


@dataclass(frozen=True)
class MinHashDedup(GlobalStep):
    """Removes documents that are verified similar to one that is kept.

    ngram, unit   words (or characters) per shingle; shingles.py defines words and the shingles of short documents
    num_bands     with rows_per_band the shape of the LSH: pairs of Jaccard similarity s are compared with probability
                  1 - (1 - s^rows_per_band)^num_bands; both null: chosen for the threshold within 112 permutations
    threshold     the similarity from which a pair is a duplicate, exact
    similarity    jaccard: shared shingles divided by those of both documents together; containment: divided by those of
                  the document of lower priority, which is then contained in the other. The LSH finds pairs by Jaccard
                  in either case, so to find short documents inside long ones use many bands of few rows
    scope         which documents are compared: all; site, those of one host; source, of the same domain and source
                  folder (a dump); language, of the same language.code; or SQL such as domain: those of equal value
                  (scope.py)
    priority      SQL that gives a number: of two duplicates the one with the higher number is kept. Its integer part
                  counts, from 0 to 31; ties go to the first by keyed hash of doc_id. Null: the length in bytes, one
                  more for each doubling. Example, quality in 8 steps, then length in 4:
                  `4 * floor(8 * quality.score) + least(3, length(url) / 64)`
    prior_run     the directory of an earlier run that has this step with the same options. Its documents have a higher
                  priority than all of this run: they keep their decisions, and documents similar to a kept one of them
                  are removed. Its signatures and verified pairs are reused; of its texts only those with a candidate in
                  this run are read. That run may itself have a prior run

    Signals, for every document: duplicate; of and similarity, for a duplicate the doc_id (hex) of the most similar kept
    document and the exact similarity, else null; copies, for a kept document the number of documents that it
    represents, itself included, else null.
    """

    ngram: int = 5
    num_bands: int | None = 14
    rows_per_band: int | None = 8
    threshold: float = 0.72
    similarity: Literal["jaccard", "containment"] = "jaccard"
    scope: str = "all"
    priority: str | None = None
    unit: Literal["words", "characters"] = "words"
    prior_run: str | None = None
    name: str = "minhash_dedup"

    @property
    def signals(self) -> pa.Schema:
        return resolve_duplicates.SIGNALS

    def rules(self) -> Mapping[str, str]:
        return {"near_duplicate": f"NOT {self.name}.duplicate"}

    def evidence(self) -> list[str]:
        return ["of", "similarity"]

    def expressions(self) -> Mapping[str, str]:
        found = dict(scope_expression(self.scope))
        if self.priority is not None:
            found["@priority"] = f"CAST(({self.priority}\n) AS DOUBLE)"
        return found

    def not_judged(self) -> Mapping[str, str]:
        return {"without_words": "documents without a word, which are compared with none"}

    def packages(self) -> Sequence[str]:
        return ("datasketch", "numba")

    def check(self) -> None:
        if self.ngram < 1:
            raise UserError(f"{self.name}: ngram is {self.ngram}; give at least 1")
        if not 0 < self.threshold <= 1:
            raise UserError(f"{self.name}: threshold is {self.threshold}; give a similarity above 0, up to 1")
        if jaccard.threshold_fraction(self.threshold).denominator > jaccard.MAX_DENOMINATOR:
            raise UserError(f"{self.name}: threshold is {self.threshold}; give at most 6 decimals")
        if (self.num_bands is None) != (self.rows_per_band is None):
            raise UserError(
                f"{self.name}: give both num_bands and rows_per_band, or set both to null to have them chosen"
            )
        bands, rows = self.num_bands, self.rows_per_band
        if bands is not None and rows is not None and not (1 <= bands <= 255 and rows >= 1):
            raise UserError(
                f"{self.name}: num_bands is {bands} and rows_per_band {rows}; give 1 to 255 bands of at least 1 row"
            )
        check_scope(self.name, self.scope)
        if self.priority is not None and not self.priority.strip():
            raise UserError(f"{self.name}: priority is empty; leave it out, or give SQL such as quality.score")

    def lsh_shape(self) -> tuple[int, int]:
        """(num_bands, rows_per_band), as given or as chosen for the threshold."""
        if self.num_bands is None or self.rows_per_band is None:
            return signatures.choose_bands(self.threshold, NUM_PERM)
        return self.num_bands, self.rows_per_band

    def comparison(self, seed: int, prior_run_boundaries: tuple[int, ...] = ()) -> verify_candidates.Comparison:
        """How documents are compared, for the stages."""
        priority = "@priority" if self.priority is not None else None
        return verify_candidates.Comparison(
            self.ngram, self.unit, self.threshold, self.similarity, seed, priority, prior_run_boundaries
        )

    def features(self) -> BandKeys:
        return BandKeys(*self.lsh_shape(), self.ngram, self.unit, f"{self.name}-bands")

    def stages(self, corpus: Corpus) -> StagePlan:
        bands, rows = self.lsh_shape()
        tasks, comparison = corpus.tasks, self.comparison(corpus.seed, corpus.prior_run_boundaries)
        boundaries = corpus.prior_run_boundaries
        if len(boundaries) >= independent_set.RANKS // independent_set.LEVELS:
            raise UserError(
                f"{self.name}: prior_run {self.prior_run} makes a chain of {len(boundaries) + 1} runs; at most "
                f"{independent_set.RANKS // independent_set.LEVELS} are possible: curate the earlier ones as one run"
            )
        partitions = partition_count(corpus.documents * bands)
        hash_bands, repartition = partial(_hash_bands, self, comparison, partitions), partial(_repartition, partitions)
        features = self.features()
        yield Stage(
            "bands", hash_bands, _BANDS, partitions, at="documents", reuse="rows", repartition=repartition,
            features=features, counters=_counts_in_metadata,
        )  # fmt: skip
        # for containment, a sketch tells nothing without the sizes of the sets
        max_distance = (
            signatures.max_sketch_distance(self.threshold, bands * rows) if self.similarity == "jaccard" else 64
        )
        met = yield Stage("pairs", partial(_find_pairs, max_distance), _PAIRS, tasks, counters=_count_pairs)
        send = partial(verify_candidates.send_shingles, comparison)
        sent, sent_counters = verify_candidates.SHINGLES, verify_candidates.count_sent
        yield Stage("send", send, sent, tasks, at="documents", counters=sent_counters, reuse="prior_run")
        owners = max(1, -(-met.counters.get("candidates", 0) // duplicate_edges.EDGES_PER_PARTITION))
        verify = partial(verify_candidates.verify_candidates, comparison, owners)
        edges, edge_counters = duplicate_edges.EDGES, verify_candidates.count_edges
        yield Stage("edges", verify, edges, owners, at="documents", counters=edge_counters, reuse="prior_run")
        options = resolve_duplicates.ResolveOptions(corpus.seed, self.similarity)
        yield from resolve_duplicates.resolve_stages(options, owners, tasks)


def partition_count(rows: int) -> int:
    """The number of partitions for that many band rows."""
    size = ROWS_PER_PARTITION
    while rows > size * MAX_PARTITIONS and size < 16 * ROWS_PER_PARTITION:
        size *= 2
    return max(1, -(-rows // size))


@dataclass(frozen=True)
class BandKeys(MapStep):
    """What stays of a text's MinHash signature: the keys of its bands, a hash of its shingle set (0: it has none), a
    sketch. 8 bytes a band and 16 more, beside texts of some thousand."""

    num_bands: int
    rows_per_band: int
    ngram: int
    unit: str
    name: str

    @property
    def signals(self) -> pa.Schema:
        keys = ("keys", pa.binary(8 * self.num_bands))
        return pa.schema([keys, ("content", pa.uint64()), ("sketch", pa.uint64())])

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        bands, rows, texts = self.num_bands, self.rows_per_band, batch.column("text")
        signature, content = signatures.signatures_and_contents(
            texts, ngram=self.ngram, num_perm=bands * rows, unit=self.unit
        )
        keys = np.ascontiguousarray(signatures.band_keys(signature, bands, rows))
        packed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8 * bands), len(keys), [None, pa.py_buffer(keys)])
        columns = [packed, pa.array(content), pa.array(signatures.sketches(signature))]
        return with_column(batch, self.name, pa.StructArray.from_arrays(columns, fields=list(self.signals)))


def _hash_bands(
    step: MinHashDedup, comparison: verify_candidates.Comparison, partitions: int, rows: Iterator[pa.RecordBatch],
    documents: Documents,
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    features = step.features()
    bands, names = features.num_bands, [f"{features.name}.{f.name}" for f in features.signals]
    without_words = 0
    for batch in documents.batches(["doc_id", "bytes", *names, *step.expressions()]):
        packed, content, sketch = (batch.column(name) for name in names)
        keys = np.frombuffer(packed.buffers()[1], "<u8", bands * len(packed), 8 * bands * packed.offset)
        keys, content, sketch = keys.reshape(-1, bands), content.to_numpy(), sketch.to_numpy()
        salt = scope_salts(batch)
        if salt is not None:
            keys = mix64(keys + salt[:, None])
        rank = independent_set.priority_rank(
            comparison.levels(batch, documents.task), batch.column("doc_id"), comparison.seed
        )
        some = np.flatnonzero(content != 0)  # documents without shingles are similar to nothing
        n = len(some)
        without_words += batch.num_rows - n
        content = content[some] if salt is None else mix64(content[some] + salt[some])
        key = keys[some].reshape(-1)
        yield pa.RecordBatch.from_arrays(
            [
                pa.array((key % np.uint64(partitions)).astype(np.uint32)),
                pa.array(key),
                pa.array(np.roll(keys[some], -1, axis=1).reshape(-1)),
                pa.array(np.repeat(content, bands)),
                pa.array(np.repeat(sketch[some], bands)),
                pa.array(np.repeat(rank[some], bands)),
                pa.array(np.repeat(batch.column("address").to_numpy()[some], bands)),
                pa.array(np.tile(np.arange(bands, dtype=np.uint8), n)),
            ],
            schema=_BANDS,
        )
    yield pa.RecordBatch.from_pylist([], schema=_BANDS.with_metadata({"without_words": str(without_words)}))


def _repartition(partitions: int, batch: pa.RecordBatch) -> pa.Array:
    return pa.array((batch.column("key").to_numpy() % np.uint64(partitions)).astype(np.uint32))


def _find_pairs(max_distance: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _BANDS).combine_chunks()
    if table.num_rows == 0:
        return
    columns = {name: table[name].to_numpy() for name in _BANDS.names}
    del table
    by_key = np.argsort(columns["key"])
    key = columns["key"][by_key]
    same = key[1:] == key[:-1]
    shared = by_key[np.append(same, False) | np.insert(same, 0, False)]  # most documents are alone in most buckets
    order = shared[np.lexsort((columns["address"][shared], columns["rank"][shared], columns["key"][shared]))]
    address = columns["address"][order]
    key, other, content, sketch, band = (columns[name][order] for name in ("key", "other", "content", "sketch", "band"))
    buckets = candidate_pairs.Buckets(key, other, content, sketch, band, max_distance)
    for higher, lower in buckets.pairs():
        to = pa.array((address[higher] >> 32).astype(np.uint32))
        pair = pa.array(address[higher]), pa.array(address[lower])
        yield pa.RecordBatch.from_arrays([to, *pair], schema=_PAIRS)
    # counts that do not follow from the pairs are sent in the metadata of a batch without rows
    counts = {name: str(n) for name, n in buckets.counts.items()}
    yield pa.RecordBatch.from_pylist([], schema=_PAIRS.with_metadata(counts))


def _count_pairs(batch: pa.RecordBatch) -> Mapping[str, int]:
    counts = _counts_in_metadata(batch)
    return {"candidates": batch.num_rows, **counts} if batch.num_rows else counts


def _counts_in_metadata(batch: pa.RecordBatch) -> dict[str, int]:
    return {name.decode(): int(n) for name, n in (batch.schema.metadata or {}).items()}
