"""Candidate pairs become verified edges: shingle sets travel to where the other text lies, and are compared there.

Texts never travel. Of each pair the better document sends its set, once to a task, however many documents there it is
to be compared with; that task reads its own texts and counts. Requests are sorted by where the text lies.

A pair that was compared in an earlier run is not compared again: it is sent without a set, and the task that compared
it then finds in what it wrote whether it is an edge.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.dedup.minhash import duplicate_edges, independent_set
from curation.dedup.minhash.jaccard import Sets, compare, fraction
from curation.step import Documents, PriorRun

I64 = npt.NDArray[np.int64]

TAKE = 1024  # documents whose text is looked at together: as many as the engine reads at once
PENDING_BYTES = 1 << 25  # shingle sets sent as one batch, and gathered before they are compared
PENDING_PAIRS = 1 << 22  # pairs sorted at once; those of one document that meet in several bands are merged among these

SENT = pa.schema(
    [
        ("to", pa.uint32()),
        ("address", pa.int64()),
        ("doc_id", pa.binary(16)),
        ("level", pa.uint8()),
        ("shingles", pa.large_list(pa.uint64())),
        ("worse", pa.large_list(pa.int64())),
    ]
)


@dataclass(frozen=True)
class Comparison:
    """What is compared: shingles of `ngram` words or characters, by which measure, from which similarity on a pair is
    an edge; and how a document's priority is found."""

    ngram: int
    unit: str
    threshold: float
    measure: independent_set.Measure
    seed: int
    priority: str | None = None  # the column that holds it; None: the length of the text, in doublings
    prior_run_boundaries: tuple[int, ...] = ()  # the first task of each later run: documents of earlier ones come first

    def columns(self) -> list[str]:
        """What has to be known of a document that is compared."""
        return ["doc_id", "text", *([self.priority] if self.priority else [])]

    def sets(self, texts: pa.Array) -> Sets:
        from curation.dedup.minhash import shingles

        return Sets(*shingles.sets(texts, self.ngram, shingles.UNITS[self.unit]))

    def levels(self, batch: pa.RecordBatch, task: int) -> npt.NDArray[np.uint8]:
        """The level of priority of each document of a batch of a task: 32 for each run."""
        from curation.dedup.minhash.shingles import buffers

        run_number = np.uint8(independent_set.LEVELS * sum(task >= first for first in self.prior_run_boundaries))
        if self.priority:
            values = batch.column(self.priority).to_numpy(zero_copy_only=False).astype(np.float64)
            return independent_set.levels(values) + run_number
        return independent_set.levels(independent_set.doublings(np.diff(buffers(batch.column("text"))[1]))) + run_number


def count(batch: pa.RecordBatch) -> Mapping[str, int]:
    """Edges, each of which is two rows."""
    return {"edges": int((batch.column("kind").to_numpy() == duplicate_edges.AT_WORSE).sum())}


def count_sent(batch: pa.RecordBatch) -> Mapping[str, int]:
    """Pairs to be compared, and pairs that were compared in an earlier run."""
    partners = pc.list_value_length(batch.column("worse")).to_numpy()
    known = pc.list_value_length(batch.column("shingles")).to_numpy() == 0
    return {"sent": int(partners[~known].sum()), "known": int(partners[known].sum())}


# -- sending ----------------------------------------------------------------------------------------------------------


def send(
    compared: Comparison, rows: Iterator[pa.RecordBatch], documents: Documents, prior_run: PriorRun
) -> Iterator[pa.RecordBatch]:
    """Each better document's shingle set, a row for each task that has documents to compare with it."""
    old = [np.concatenate(parts) for parts in zip(*_pairs(prior_run.inputs()), strict=True)]
    for better, worse in _pairs(rows):
        if old:
            known = _among(better, worse, *old)
            yield from _without_sets(better[known], worse[known])
            better, worse = better[~known], worse[~known]
            if not len(better):
                continue
        # sorted by (better, worse), so by the task of the worse within each better: a run is what goes out as one row
        change = (better[1:] != better[:-1]) | (worse[1:] >> 32 != worse[:-1] >> 32)
        starts = np.concatenate([[0], np.flatnonzero(change) + 1])
        who, ends = better[starts], np.append(starts[1:], len(better))
        senders, first = np.unique(who, return_index=True)
        last = np.append(first[1:], len(who))
        for chunk in range(0, len(senders), TAKE):
            asked = senders[chunk : chunk + TAKE]
            got = documents.take(pa.array(asked), compared.columns())
            sets, level = compared.sets(got.column("text")), compared.levels(got, documents.task)
            lo, hi = int(first[chunk]), int(last[chunk + len(asked) - 1])
            sender = np.searchsorted(asked, who[lo:hi])
            cut = _parts(8 * np.diff(sets.at)[sender] + 8 * (ends - starts)[lo:hi], PENDING_BYTES)
            for a, b in itertools.pairwise(cut):
                mine, one, end = sender[a:b], starts[lo + a], ends[lo + b - 1]
                taken = pa.array(mine)
                at = np.append(starts[lo + a : lo + b], end) - one
                partners = worse[one:end]
                yield pa.RecordBatch.from_arrays(
                    [
                        pa.array((worse[starts[lo + a : lo + b]] >> 32).astype(np.uint32)),
                        pa.array(asked[mine]),
                        got.column("doc_id").take(taken),
                        pa.array(level[mine]),
                        sets.take(mine).to_arrow(),
                        pa.LargeListArray.from_arrays(pa.array(at), pa.array(partners)),
                    ],
                    schema=SENT,
                )


def _among(better: I64, worse: I64, other_better: I64, other_worse: I64) -> npt.NDArray[np.bool_]:
    """Which of the first pairs, all different, are among the others."""
    n = len(better)
    b, w = np.concatenate([better, other_better]), np.concatenate([worse, other_worse])
    order = np.lexsort((np.arange(len(b)) >= n, w, b))  # of two equal pairs the first kind comes first
    same = (b[order][1:] == b[order][:-1]) & (w[order][1:] == w[order][:-1])
    found = np.zeros(len(b), bool)
    found[order[:-1][same]] = True
    return found[:n]


def _without_sets(better: I64, worse: I64) -> Iterator[pa.RecordBatch]:
    """Pairs for the tasks of the worse documents, a row each, with an empty set."""
    n = len(better)
    if n:
        empty = pa.LargeListArray.from_arrays(pa.array(np.zeros(n + 1, np.int64)), pa.array([], pa.uint64()))
        one = pa.LargeListArray.from_arrays(pa.array(np.arange(n + 1)), pa.array(worse))
        no_id = pa.array([b"\0" * 16] * n, pa.binary(16))
        to, level = pa.array((worse >> 32).astype(np.uint32)), pa.array(np.zeros(n, np.uint8))
        yield pa.RecordBatch.from_arrays([to, pa.array(better), no_id, level, empty, one], schema=SENT)


def _parts(sizes: I64, limit: int) -> list[int]:
    """Cuts of a row of sizes into parts of about `limit`, none empty."""
    which = (np.cumsum(sizes) - 1) // limit
    return [0, *(np.flatnonzero(which[1:] != which[:-1]) + 1).tolist(), len(sizes)]


def _pairs(rows: Iterator[pa.RecordBatch]) -> Iterator[tuple[I64, I64]]:
    """Pairs (better, worse), sorted, those that met in several bands merged, PENDING_PAIRS at a time."""
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
            better, worse, parts = better[new], worse[new], []
            size = len(better)
            if size > PENDING_PAIRS // 2:  # merging won too little: on with these, and the others after them
                yield better, worse
                better = worse = np.zeros(0, np.int64)
                size = 0
    if len(better):
        yield better, worse


# -- verifying --------------------------------------------------------------------------------------------------------


def verify(
    compared: Comparison, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents, prior_run: PriorRun
) -> Iterator[pa.RecordBatch]:
    """The pairs that reach the threshold, to the homes of both documents."""
    pending: list[pa.RecordBatch] = []
    known: list[tuple[I64, I64]] = []
    size = 0
    for batch in itertools.chain(rows, [None]):
        if batch is not None:
            told = pc.equal(pc.list_value_length(batch.column("shingles")), 0)
            if pc.any(told).as_py():
                these = batch.filter(told)
                known.append((these.column("address").to_numpy(), pc.list_flatten(these.column("worse")).to_numpy()))
                batch = batch.filter(pc.invert(told))
            if not batch.num_rows:
                continue
            pending.append(batch)
            size += batch.nbytes
        if pending and (batch is None or size > PENDING_BYTES):
            for table in _compare(compared, pending, documents):
                yield from duplicate_edges.twice(table, partitions)
            pending, size = [], 0

    if known:
        yield from _known(known, prior_run, partitions)


def _known(pairs: list[tuple[I64, I64]], prior_run: PriorRun, partitions: int) -> Iterator[pa.RecordBatch]:
    """The edges of an earlier run among these pairs."""
    one, other = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    for batch in prior_run.outputs():
        batch = batch.filter(pc.equal(batch.column("kind"), duplicate_edges.AT_WORSE))
        better, worse = batch.column("better").to_numpy(), batch.column("worse").to_numpy()
        # an edge found in parts of a very large bucket is there several times; and of documents of equal rank the
        # better one may have come as the worse
        alone, back = np.unique(np.stack([better, worse]), axis=1, return_inverse=True)
        which = (_among(alone[0], alone[1], one, other) | _among(alone[1], alone[0], one, other))[back.reshape(-1)]
        table = pa.Table.from_batches([batch.filter(pa.array(which))])
        if table.num_rows:
            yield from duplicate_edges.twice(table.drop_columns(["to", "kind"]).combine_chunks(), partitions)


def _compare(compared: Comparison, pending: list[pa.RecordBatch], documents: Documents) -> Iterator[pa.Table]:
    """Edges among the shingle sets that came and the documents here they are to be compared with."""
    threshold = fraction(compared.threshold)
    table = pa.Table.from_batches(pending, SENT).combine_chunks()
    sent = Sets.from_arrow(table["shingles"].chunk(0))
    partners = table["worse"].chunk(0)
    at = partners.offsets.to_numpy()
    row = np.repeat(np.arange(table.num_rows), np.diff(at))
    worse = partners.values.to_numpy()[at[0] : at[-1]]
    order = np.lexsort((row, worse))  # by where the text lies
    row, worse = row[order], worse[order]
    here, first = np.unique(worse, return_index=True)
    last = np.append(first[1:], len(worse))
    sent_id, sent_level = table["doc_id"].chunk(0), table["level"].to_numpy()
    sent_rank = independent_set.rank(sent_level, sent_id, compared.seed)
    for chunk in range(0, len(here), TAKE):
        asked = here[chunk : chunk + TAKE]
        got = documents.take(pa.array(asked), compared.columns())
        mine, level, ids = compared.sets(got.column("text")), compared.levels(got, documents.task), got.column("doc_id")
        rank = independent_set.rank(level, ids, compared.seed)
        pairs = slice(int(first[chunk]), int(last[chunk + len(asked) - 1]))
        lefts, rights = row[pairs], np.searchsorted(asked, worse[pairs])
        # buckets are ordered by rank alone: two documents of equal rank may be the wrong way round
        turned = sent_rank[lefts] >= rank[rights]
        if turned.any():
            turned[turned] = ~independent_set.first_is_better(
                sent_rank[lefts[turned]], sent_id.take(pa.array(lefts[turned])),
                rank[rights[turned]], ids.take(pa.array(rights[turned])),
            )  # fmt: skip
        which, both = compare(sent, lefts, mine, rights, threshold, compared.measure, turned)
        if not len(which):
            continue
        turn, one, other = turned[which], lefts[which], rights[which]
        left = [sent.sizes()[one], sent_level[one], table["address"].to_numpy()[one]]
        right = [mine.sizes()[other], level[other], asked[other]]
        size, lev, address = ([np.where(turn, b, a), np.where(turn, a, b)] for a, b in zip(left, right, strict=True))
        name = [sent_id.take(pa.array(one)), ids.take(pa.array(other))]
        if turn.any():
            flip, pool = np.arange(len(one)), pa.concat_arrays(name)
            name = [pool.take(pa.array(np.where(t, flip + len(one), flip))) for t in (turn, ~turn)]
        yield pa.table(
            {
                "better": address[0], "worse": address[1], "better_id": name[0], "worse_id": name[1],
                "better_level": lev[0], "worse_level": lev[1], "both": both.astype(np.uint32),
                "better_size": size[0].astype(np.uint32), "worse_size": size[1].astype(np.uint32),
            }
        )  # fmt: skip
