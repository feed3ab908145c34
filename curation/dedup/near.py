"""Near-duplicate removal that can be trusted: MinHash proposes, exact Jaccard decides, and the evidence is kept.

Six stages, each of which holds one partition or one task of documents at a time:

    bands     documents   signature -> a key for each band, sent to the partition of the key       41 bytes a band
    pairs     partition   documents that share a key become candidate pairs (candidates.py)        28 bytes a pair
    send      documents   the better document of each pair sends its shingle set to the other one's task
    verify    documents   exact Jaccard; pairs that reach the threshold are edges                   76 bytes an edge
    decide    partition   the first maximal independent set of the edges (cluster.py)
    tell      documents   a row for every document

Texts never travel, and a shingle set travels once to a task, however many documents there it is compared with. What
is decided depends on the documents, the options and the seed; not on tasks, partitions or order.
"""

from __future__ import annotations

import itertools
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
from . import candidates, cluster, minhash, verify

ROWS_PER_PARTITION = 1 << 21  # band rows held and sorted at once: about 200 MB
TAKE = 256  # documents whose text is looked at together
PENDING_BYTES = 1 << 26  # shingle sets gathered before the texts they are compared with are fetched
PENDING_PAIRS = 1 << 22  # pairs gathered before those that met in several bands are merged
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
_SENT = pa.schema(
    [
        ("to", pa.uint32()),
        ("address", pa.int64()),
        ("doc_id", pa.binary(16)),
        ("level", pa.uint8()),
        ("shingles", pa.large_list(pa.uint64())),
        ("worse", pa.large_list(pa.int64())),
    ]
)
_EDGES = pa.schema(
    [
        ("to", pa.uint32()),
        ("better", pa.int64()),
        ("worse", pa.int64()),
        ("better_id", pa.binary(16)),
        ("worse_id", pa.binary(16)),
        ("better_level", pa.uint8()),
        ("worse_level", pa.uint8()),
        ("both", pa.int64()),
        ("either", pa.int64()),
    ]
)
_SIGNALS = pa.schema(
    [("duplicate", pa.bool_()), ("of", pa.string()), ("similarity", pa.float64()), ("copies", pa.int64())]
)
_DECIDED = pa.schema([("to", pa.uint32()), ("address", pa.int64()), *_SIGNALS])
_TOLD = pa.schema([("address", pa.int64()), *_SIGNALS])


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
        return _SIGNALS

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
        yield Stage("send", partial(_send, self), _SENT, tasks, at="documents")
        yield Stage("verify", partial(_verify, self), _EDGES, 1, at="documents", tally=_count_edges)
        yield Stage("decide", partial(_decide, corpus.seed), _DECIDED, tasks)
        yield Stage("tell", _tell, _TOLD, at="documents")


def _unit(step: MinHashDedup) -> int:
    from . import shingles

    return {"words": shingles.WORDS, "characters": shingles.CHARACTERS}[step.unit]


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


def _sizes(texts: pa.Array) -> npt.NDArray[np.int64]:
    from .shingles import buffers

    return np.diff(buffers(texts)[1])


def _bands(
    step: MinHashDedup, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents
) -> Iterator[pa.RecordBatch]:
    bands, depth = step.shape()
    for batch in documents.batches(["doc_id", *step.reads]):
        texts = batch.column("text")
        signature = minhash.signatures(texts, ngram=step.ngram, num_perm=bands * depth, unit=step.unit)
        keys = minhash.band_keys(signature, bands, depth, _salt(step, batch))
        level = cluster.levels(_sizes(texts))
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


def _count_edges(batch: pa.RecordBatch) -> Mapping[str, int]:
    return {"edges": batch.num_rows}


def _send(step: MinHashDedup, rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    from .shingles import shingle_sets

    better, worse = _merged(rows)
    if len(better) == 0:
        return
    # sorted by (better, worse), so by the task of the worse within each better: a run is what goes out as one row
    change = (better[1:] != better[:-1]) | (worse[1:] >> 32 != worse[:-1] >> 32)
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    ends = np.append(starts[1:], len(better))
    who = better[starts]
    senders, first = np.unique(who, return_index=True)
    last = np.append(first[1:], len(who))
    for chunk in range(0, len(senders), TAKE):
        asked = senders[chunk : chunk + TAKE]
        got = documents.take(pa.array(asked), ["doc_id", "text"])
        sets = shingle_sets(got.column("text"), ngram=step.ngram, unit=_unit(step))
        level = cluster.levels(_sizes(got.column("text")))
        out: dict[str, list[Any]] = {name: [] for name in _SENT.names}
        size = 0
        for i in range(len(asked)):
            for run in range(first[chunk + i], last[chunk + i]):
                partners = worse[starts[run] : ends[run]]
                values = (int(partners[0] >> 32), int(asked[i]), got.column("doc_id")[i].as_py(), int(level[i]))
                for name, value in zip(_SENT.names, (*values, sets[i], partners), strict=True):
                    out[name].append(value)
                size += sets[i].nbytes
                if size > PENDING_BYTES:
                    yield _sent(out)
                    out, size = {name: [] for name in _SENT.names}, 0
        if out["to"]:
            yield _sent(out)


def _merged(rows: Iterator[pa.RecordBatch]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All pairs (better, worse), sorted, each once: one pair meets in several bands."""
    parts: list[pa.RecordBatch] = []
    better = worse = np.zeros(0, np.int64)
    size = 0
    for batch in itertools.chain(rows, [None]):
        if batch is not None:
            parts.append(batch)
            size += batch.num_rows
        if parts and (batch is None or size > PENDING_PAIRS):
            better = np.concatenate([better, *(p.column("better").to_numpy() for p in parts)])
            worse = np.concatenate([worse, *(p.column("worse").to_numpy() for p in parts)])
            order = np.lexsort((worse, better))
            better, worse = better[order], worse[order]
            new = np.ones(len(better), bool)
            new[1:] = (better[1:] != better[:-1]) | (worse[1:] != worse[:-1])
            better, worse = better[new], worse[new]
            parts, size = [], 0
    return better, worse


def _sent(out: dict[str, list[Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(out[f.name], f.type) for f in _SENT], schema=_SENT)


def _verify(step: MinHashDedup, rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    pending: list[pa.RecordBatch] = []
    size = 0
    for batch in rows:
        pending.append(batch)
        size += batch.nbytes
        if size > PENDING_BYTES:
            yield from _compare(step, pending, documents)
            pending, size = [], 0
    if pending:
        yield from _compare(step, pending, documents)


def _compare(step: MinHashDedup, pending: list[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    """Edges among the shingle sets that came and the documents here they are to be compared with."""
    from .shingles import shingle_sets

    threshold = verify.fraction(step.threshold)
    table = pa.Table.from_batches(pending, _SENT).combine_chunks()
    if table.num_rows == 0:
        return
    sent = verify.Sets.from_arrow(table["shingles"].chunk(0))
    partners = table["worse"].chunk(0)
    row = np.repeat(np.arange(table.num_rows), np.diff(partners.offsets.to_numpy()))
    worse = partners.flatten().to_numpy()
    order = np.lexsort((row, worse))  # by where the text lies
    row, worse = row[order], worse[order]
    here, first = np.unique(worse, return_index=True)
    last = np.append(first[1:], len(worse))
    for chunk in range(0, len(here), TAKE):
        asked = here[chunk : chunk + TAKE]
        got = documents.take(pa.array(asked), ["doc_id", "text"])
        mine = verify.Sets.of(shingle_sets(got.column("text"), ngram=step.ngram, unit=_unit(step)))
        level = cluster.levels(_sizes(got.column("text")))
        pairs = slice(first[chunk], last[chunk + len(asked) - 1])
        lefts, rights = row[pairs], np.searchsorted(asked, worse[pairs])
        which, both, either = verify.compare(sent, lefts, mine, rights, threshold)
        if len(which) == 0:
            continue
        left, right = pa.array(lefts[which]), pa.array(rights[which])
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(np.zeros(len(which), np.uint32)),
                table["address"].chunk(0).take(left),
                pa.array(asked).take(right),
                table["doc_id"].chunk(0).take(left),
                got.column("doc_id").take(right),
                table["level"].chunk(0).take(left),
                pa.array(level).take(right),
                pa.array(both),
                pa.array(either),
            ],
            schema=_EDGES,
        )


def _decide(seed: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _EDGES).combine_chunks()
    edges = table.num_rows
    if edges == 0:
        return
    ends = np.concatenate([table["better"].to_numpy(), table["worse"].to_numpy()])
    address, index, node = np.unique(ends, return_index=True, return_inverse=True)
    doc_ids = pa.concat_arrays([table[c].combine_chunks() for c in ("better_id", "worse_id")]).take(pa.array(index))
    level = np.concatenate([table["better_level"].to_numpy(), table["worse_level"].to_numpy()])[index]
    order = np.lexsort(cluster.priority(level, doc_ids, seed))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    node = place[node]
    both, either = table["both"].to_numpy(), table["either"].to_numpy()
    decision = cluster.first_independent_set(len(order), node[:edges], node[edges:], both, either)
    gone = decision.of >= 0
    names = np.array([v.hex() for v in doc_ids.to_pylist()], object)[order]
    similar = np.where(gone, both[decision.edge] / either[decision.edge], 0.0)
    address = address[order]
    for task in np.unique(address >> 32):
        here = np.flatnonzero(address >> 32 == task)
        mask = gone[here]
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(np.full(len(here), task, np.uint32)),
                pa.array(address[here]),
                pa.array(mask),
                pa.array(names[decision.of[here]], pa.string(), mask=~mask),
                pa.array(similar[here], pa.float64(), mask=~mask),
                pa.array(decision.copies[here], pa.int64(), mask=mask),
            ],
            schema=_DECIDED,
        )


def _tell(rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(rows, _DECIDED).combine_chunks()
    decided = table["address"].to_numpy()
    order = np.argsort(decided)
    table, decided = table.take(pa.array(order)).combine_chunks(), decided[order]
    for batch in documents.batches([]):
        address = batch.column("address").to_numpy()
        at = np.searchsorted(decided, address)
        known = at < len(decided)
        known[known] = decided[at[known]] == address[known]
        chosen = table.take(pa.array(at, pa.int64(), mask=~known))
        columns = [chosen[f.name].combine_chunks() for f in _SIGNALS]
        columns[0] = columns[0].fill_null(False)
        columns[3] = pc.if_else(pa.array(known), columns[3], pa.scalar(1, pa.int64()))
        yield pa.RecordBatch.from_arrays([batch.column("address"), *columns], schema=_TOLD)
