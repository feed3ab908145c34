"""Near-duplicate removal that can be trusted: MinHash proposes, exact Jaccard decides, and the evidence is kept.

Stages, each of which holds one partition or one task of documents at a time:

    bands     documents   signature -> a key for each band, sent to the partition of the key       53 bytes a band
    pairs     partition   documents that share a key become candidate pairs (candidates.py)        20 bytes a pair
    send      documents   the better document of each pair sends its shingle set to the other one's task (compare.py)
    edges     documents   exact similarity; pairs that reach the threshold (edges.py)              134 bytes an edge
    round n   partition   the first maximal independent set of the edges (cluster.py, decide.py)
    report    partition   what was decided, to the tasks of the documents
    tell      documents   a row for every document

Texts never travel, and a shingle set travels once to a task, however many documents there it is compared with. What
is decided depends on the documents, the options and the seed; not on tasks, partitions or order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

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
from curation.seeded_hash import mix
from curation.step import Corpus, Documents, GlobalStep, Stage, StagePlan

# Band rows held and sorted at once: 53 bytes each, and twice that on the way. Beyond MOST_PARTITIONS (at 3 x 10^8
# documents) they grow in size instead, up to 16 times: more of them would each get a few rows from each of many files.
ROWS_PER_PARTITION = 1 << 20
MOST_PARTITIONS = 4096
NUM_PERM = 112

_BANDS = pa.schema(
    [
        ("to", pa.uint32()),
        ("key", pa.uint64()),
        ("other", pa.uint64()),  # the key of the next band, for sub-buckets
        ("content", pa.uint64()),  # the same for equal shingle sets (of one scope)
        ("sketch", pa.uint64()),
        ("rank", pa.uint64()),  # small for documents of high priority
        ("address", pa.int64()),
        ("band", pa.uint8()),
    ]
)
_PAIRS = pa.schema([("to", pa.uint32()), ("better", pa.int64()), ("worse", pa.int64())])


# Words that `scope` knows; anything else is SQL as it stands.
_SCOPES = {
    "source": "domain || chr(10) || regexp_extract(source.file, '^(.*)/', 1)",
    "language": "language.code",
}


@dataclass(frozen=True)
class MinHashDedup(GlobalStep):
    """Removes documents that are verified similar to one that is kept.

    ngram, unit   words (or characters) in a shingle; shingles.py says what a word is and what short documents do
    num_bands     with rows_per_band the shape of the LSH: pairs of Jaccard s are compared with probability
                  1 - (1 - s^rows_per_band)^num_bands; both null: chosen for the threshold within 112 permutations
    threshold     the similarity from which a pair counts as duplicates, exact
    similarity    jaccard: shared shingles among those of either; containment: among those of the document of lower
                  priority, which is then inside the other one. The LSH finds pairs by their Jaccard in either case,
                  so to find short documents inside long ones give it many bands of few rows
    scope         all; source: documents are compared with those of the same domain whose files lie in the same folder
                  (a dump); language: of the same language.code; or any SQL: within equal values
    priority      SQL, a number: the document of the higher one stays. Its whole part counts, from 0 to 31, and among
                  equals the first by keyed hash of doc_id. Null: the length in bytes, one more for each doubling.
                  Say, quality in 8 steps, then length in 4: `4 * floor(8 * quality.score) + least(3, length(url) / 64)`

    prior_run     the directory of an earlier run with this step under the same options: its documents come first, so
                  they stay as they were decided there, and what is similar to a kept one of them goes. Its signatures
                  and verified pairs are used again; of its texts those are read that have a candidate here. That run
                  may itself have a prior run

    Signals, for every document: duplicate; of, the doc_id (hex) of the kept document it is most similar to;
    similarity, exact; copies, how many documents a kept one stands for (itself included). The latter is null on
    duplicates, the two before on the others.
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
        found = {}
        if self.scope != "all":
            found["@scope"] = f"CAST(({_SCOPES.get(self.scope, self.scope)}\n) AS VARCHAR)"
        if self.priority is not None:
            found["@priority"] = f"CAST(({self.priority}\n) AS DOUBLE)"
        return found

    def packages(self) -> Sequence[str]:
        return ("datasketch", "numba")

    def check(self) -> None:
        if self.ngram < 1:
            raise UserError(f"{self.name}: ngram is {self.ngram}; a shingle has at least 1 word")
        if not 0 < self.threshold <= 1:
            raise UserError(f"{self.name}: threshold is {self.threshold}; it is a similarity in (0, 1]")
        if jaccard.fraction(self.threshold).denominator > jaccard.FINEST:
            raise UserError(f"{self.name}: threshold is {self.threshold}; write it with at most 6 decimals")
        if (self.num_bands is None) != (self.rows_per_band is None):
            raise UserError(f"{self.name}: give both num_bands and rows_per_band, or both as null to have them chosen")
        bands, rows = self.num_bands, self.rows_per_band
        if bands is not None and rows is not None and not (1 <= bands <= 255 and rows >= 1):
            raise UserError(f"{self.name}: num_bands ({bands}) is 1 to 255 and rows_per_band ({rows}) at least 1")
        for option in ("scope", "priority"):
            if getattr(self, option) is not None and not getattr(self, option).strip():
                raise UserError(f"{self.name}: {option} is empty; leave it out, or give SQL such as domain")

    def shape(self) -> tuple[int, int]:
        """(num_bands, rows_per_band) as given or chosen."""
        if self.num_bands is None or self.rows_per_band is None:
            return signatures.choose_bands(self.threshold, NUM_PERM)
        return self.num_bands, self.rows_per_band

    def comparison(self, seed: int, prior_run_boundaries: tuple[int, ...] = ()) -> verify_candidates.Comparison:
        priority = "@priority" if self.priority is not None else None
        return verify_candidates.Comparison(
            self.ngram, self.unit, self.threshold, self.similarity, seed, priority, prior_run_boundaries
        )

    def stages(self, corpus: Corpus) -> StagePlan:
        bands, rows = self.shape()
        tasks, compared = corpus.tasks, self.comparison(corpus.seed, corpus.prior_run_boundaries)
        boundaries = corpus.prior_run_boundaries
        if len(boundaries) >= independent_set.RANKS // independent_set.LEVELS:
            raise UserError(
                f"{self.name}: prior_run {self.prior_run} makes a chain of {len(boundaries) + 1} runs; the priority has "
                f"room for {independent_set.RANKS // independent_set.LEVELS}: curate the earlier ones together once"
            )
        partitions = partitions_for(corpus.documents * bands)
        looked, repartition = partial(_bands, self, compared, partitions), partial(_repartition, partitions)
        yield Stage("bands", looked, _BANDS, partitions, at="documents", reuse="rows", repartition=repartition)
        # of containment a sketch says nothing before the sizes are known
        differ = signatures.sketch_distance(self.threshold, bands * rows) if self.similarity == "jaccard" else 64
        met = yield Stage("pairs", partial(_pairs, differ), _PAIRS, tasks, counters=_count_pairs)
        send = partial(verify_candidates.send, compared)
        yield Stage(
            "send",
            send,
            verify_candidates.SENT,
            tasks,
            at="documents",
            counters=verify_candidates.count_sent,
            reuse="prior_run",
        )
        homes = max(1, -(-met.counters.get("candidates", 0) // duplicate_edges.EDGES_PER_HOME))
        run = partial(verify_candidates.verify, compared, homes)
        yield Stage(
            "edges",
            run,
            duplicate_edges.EDGES,
            homes,
            at="documents",
            counters=verify_candidates.count,
            reuse="prior_run",
        )
        yield from resolve_duplicates.stages(resolve_duplicates.Order(corpus.seed, self.similarity), homes, tasks)


def partitions_for(rows: int) -> int:
    """How many partitions so many band rows are dealt over."""
    size = ROWS_PER_PARTITION
    while rows > size * MOST_PARTITIONS and size < 16 * ROWS_PER_PARTITION:
        size *= 2
    return max(1, -(-rows // size))


def _salt(scope: pa.Array) -> npt.NDArray[np.uint64]:
    """A number for the scope of each document, the same for equal scopes."""
    coded = scope.dictionary_encode()
    hashes = [xxhash.xxh3_64_intdigest(v.encode()) for v in coded.dictionary.to_pylist()]
    index = coded.indices.fill_null(len(hashes)).to_numpy()
    salts: npt.NDArray[np.uint64] = np.array([*hashes, 0], np.uint64)[index]
    return salts


def _bands(
    step: MinHashDedup, compared: verify_candidates.Comparison, partitions: int, rows: Iterator[pa.RecordBatch],
    documents: Documents,
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    bands, depth = step.shape()
    for batch in documents.batches(["doc_id", "text", *step.expressions()]):
        signature, content = signatures.signatures_and_contents(
            batch.column("text"), ngram=step.ngram, num_perm=bands * depth, unit=step.unit
        )
        salt = _salt(batch.column("@scope")) if step.scope != "all" else None
        keys = signatures.band_keys(signature, bands, depth, salt)
        rank = independent_set.rank(compared.levels(batch, documents.task), batch.column("doc_id"), compared.seed)
        some = np.flatnonzero(content != 0)  # without shingles: similar to nothing
        n = len(some)
        content = content[some] if salt is None else mix(content[some] + salt[some])
        key = keys[some].reshape(-1)
        yield pa.RecordBatch.from_arrays(
            [
                pa.array((key % np.uint64(partitions)).astype(np.uint32)),
                pa.array(key),
                pa.array(np.roll(keys[some], -1, axis=1).reshape(-1)),
                pa.array(np.repeat(content, bands)),
                pa.array(np.repeat(signatures.sketches(signature)[some], bands)),
                pa.array(np.repeat(rank[some], bands)),
                pa.array(np.repeat(batch.column("address").to_numpy()[some], bands)),
                pa.array(np.tile(np.arange(bands, dtype=np.uint8), n)),
            ],
            schema=_BANDS,
        )


def _repartition(partitions: int, batch: pa.RecordBatch) -> pa.Array:
    return pa.array((batch.column("key").to_numpy() % np.uint64(partitions)).astype(np.uint32))


def _pairs(differ: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
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
    buckets = candidate_pairs.Buckets(key, other, content, sketch, band, differ)
    for better, worse in buckets.pairs():
        b, w = address[better], address[worse]
        to = pa.array((b >> 32).astype(np.uint32))
        yield pa.RecordBatch.from_arrays([to, pa.array(b), pa.array(w)], schema=_PAIRS)
    # what the pairs themselves do not show is counted by a batch without rows
    said = {name: str(n) for name, n in buckets.counts.items()}
    yield pa.RecordBatch.from_pylist([], schema=_PAIRS.with_metadata(said))


def _count_pairs(batch: pa.RecordBatch) -> Mapping[str, int]:
    said = {name.decode(): int(n) for name, n in (batch.schema.metadata or {}).items()}
    return {"candidates": batch.num_rows, **said} if batch.num_rows else said
