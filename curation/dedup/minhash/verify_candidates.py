"""Verifies candidate pairs by exact similarity: shingle sets are sent to the task of the other document.

Texts are never sent. Of each pair the document of higher priority sends its shingle set, once to each task that has
partners of it. That task reads its own texts, computes their sets and counts the shared shingles.

A pair that an earlier run compared is not compared again: it is sent without a set, and the task looks up in the
edges of that run whether the pair is one.
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
from curation.dedup.minhash.jaccard import ShingleSets, threshold_fraction, verify_pairs
from curation.step import Documents, PriorRun

I64 = npt.NDArray[np.int64]

DOCUMENTS_AT_ONCE = 1024  # documents whose texts are read together: as many as the engine reads at once
PENDING_BYTES = 1 << 25  # shingle sets sent as one batch, and collected before they are compared
PENDING_PAIRS = 1 << 22  # pairs sorted at once; a pair found in several bands is merged within these

SHINGLES = pa.schema(
    [
        ("to", pa.uint32()),
        ("address", pa.int64()),
        ("doc_id", pa.binary(16)),
        ("level", pa.uint8()),
        ("shingles", pa.large_list(pa.uint64())),
        ("lower", pa.large_list(pa.int64())),
    ]
)


@dataclass(frozen=True)
class Comparison:
    """How documents are compared: shingles of `ngram` words or characters, measure, threshold; and where a document's
    priority comes from."""

    ngram: int
    unit: str
    threshold: float
    measure: independent_set.Measure
    seed: int
    priority: str | None = None  # the column of the priority; None: the length of the text, in doublings
    prior_run_boundaries: tuple[int, ...] = ()  # first task of each later run

    def columns(self) -> list[str]:
        """The columns needed of a document that is compared."""
        return ["doc_id", "text", "bytes", *([self.priority] if self.priority else [])]

    def sets(self, texts: pa.Array) -> ShingleSets:
        """The shingle set of each text."""
        from curation.dedup.minhash import shingles

        return ShingleSets(*shingles.flat_shingle_sets(texts, self.ngram, shingles.UNITS[self.unit]))

    def levels(self, batch: pa.RecordBatch, task: int) -> npt.NDArray[np.uint8]:
        """The priority level of each document of a batch: uint8 [n]; 32 levels per run, those of earlier runs first."""
        run_number = np.uint8(independent_set.LEVELS * sum(task >= first for first in self.prior_run_boundaries))
        if self.priority:
            values = batch.column(self.priority).to_numpy(zero_copy_only=False).astype(np.float64)
            return independent_set.priority_levels(values) + run_number
        sizes = batch.column("bytes").to_numpy()
        return independent_set.priority_levels(independent_set.length_priority(sizes)) + run_number


def count_edges(batch: pa.RecordBatch) -> Mapping[str, int]:
    """Counts edges, each of which is two rows."""
    return {"edges": int((batch.column("kind").to_numpy() == duplicate_edges.AT_LOWER).sum())}


def count_sent(batch: pa.RecordBatch) -> Mapping[str, int]:
    """Counts pairs to compare (sent), and pairs that an earlier run compared (known)."""
    partners = pc.list_value_length(batch.column("lower")).to_numpy()
    known = pc.list_value_length(batch.column("shingles")).to_numpy() == 0
    return {"sent": int(partners[~known].sum()), "known": int(partners[known].sum())}


# -- sending ----------------------------------------------------------------------------------------------------------


def send_shingles(
    comparison: Comparison, rows: Iterator[pa.RecordBatch], documents: Documents, prior_run: PriorRun
) -> Iterator[pa.RecordBatch]:
    """Sends the shingle set of each document of higher priority: one row for each task that has partners of it."""
    prior_pairs = [np.concatenate(parts) for parts in zip(*_merge_pairs(prior_run.inputs()), strict=True)]
    for higher, lower in _merge_pairs(rows):
        if prior_pairs:
            known = _isin_pairs(higher, lower, *prior_pairs)
            yield from _send_known_pairs(higher[known], lower[known])
            higher, lower = higher[~known], lower[~known]
            if not len(higher):
                continue
        # pairs are sorted by (higher, lower), so by the task of the lower within each higher: each run becomes one row
        change = (higher[1:] != higher[:-1]) | (lower[1:] >> 32 != lower[:-1] >> 32)
        starts = np.concatenate([[0], np.flatnonzero(change) + 1])
        who, ends = higher[starts], np.append(starts[1:], len(higher))
        documents_sent, first = np.unique(who, return_index=True)
        last = np.append(first[1:], len(who))
        for chunk in range(0, len(documents_sent), DOCUMENTS_AT_ONCE):
            addresses = documents_sent[chunk : chunk + DOCUMENTS_AT_ONCE]
            got = documents.take(pa.array(addresses), comparison.columns())
            sets, level = comparison.sets(got.column("text")), comparison.levels(got, documents.task)
            lo, hi = int(first[chunk]), int(last[chunk + len(addresses) - 1])
            sender = np.searchsorted(addresses, who[lo:hi])
            cut = _split_by_size(8 * np.diff(sets.at)[sender] + 8 * (ends - starts)[lo:hi], PENDING_BYTES)
            for a, b in itertools.pairwise(cut):
                mine, one, end = sender[a:b], starts[lo + a], ends[lo + b - 1]
                taken = pa.array(mine)
                at = np.append(starts[lo + a : lo + b], end) - one
                partners = lower[one:end]
                yield pa.RecordBatch.from_arrays(
                    [
                        pa.array((lower[starts[lo + a : lo + b]] >> 32).astype(np.uint32)),
                        pa.array(addresses[mine]),
                        got.column("doc_id").take(taken),
                        pa.array(level[mine]),
                        sets.take(mine).to_arrow(),
                        pa.LargeListArray.from_arrays(pa.array(at), pa.array(partners)),
                    ],
                    schema=SHINGLES,
                )


def _isin_pairs(higher: I64, lower: I64, other_higher: I64, other_lower: I64) -> npt.NDArray[np.bool_]:
    """Which of the first pairs, all distinct, are also among the other pairs: bool [n]."""
    n = len(higher)
    pairs = np.stack([np.concatenate([higher, other_higher]), np.concatenate([lower, other_lower])])
    order = np.lexsort((np.arange(pairs.shape[1]) >= n, pairs[1], pairs[0]))  # of equal pairs, one of the first n first
    same = (pairs[:, order[1:]] == pairs[:, order[:-1]]).all(axis=0)
    found = np.zeros(pairs.shape[1], bool)
    found[order[:-1][same]] = True
    return found[:n]


def _send_known_pairs(higher: I64, lower: I64) -> Iterator[pa.RecordBatch]:
    """Sends pairs that an earlier run compared to the tasks of the lower documents: one row each, with an empty set."""
    n = len(higher)
    if n:
        empty = pa.LargeListArray.from_arrays(pa.array(np.zeros(n + 1, np.int64)), pa.array([], pa.uint64()))
        one = pa.LargeListArray.from_arrays(pa.array(np.arange(n + 1)), pa.array(lower))
        no_id = pa.array([b"\0" * 16] * n, pa.binary(16))
        to, level = pa.array((lower >> 32).astype(np.uint32)), pa.array(np.zeros(n, np.uint8))
        yield pa.RecordBatch.from_arrays([to, pa.array(higher), no_id, level, empty, one], schema=SHINGLES)


def _split_by_size(sizes: I64, limit: int) -> list[int]:
    """Cuts that split a sequence of sizes into non-empty parts of about `limit`."""
    which = (np.cumsum(sizes) - 1) // limit
    return [0, *(np.flatnonzero(which[1:] != which[:-1]) + 1).tolist(), len(sizes)]


def _merge_pairs(rows: Iterator[pa.RecordBatch]) -> Iterator[tuple[I64, I64]]:
    """Yields pairs (higher, lower), sorted, without the repeats from several bands, about PENDING_PAIRS at a time."""
    parts: list[pa.RecordBatch] = []
    higher = lower = np.zeros(0, np.int64)
    size = 0
    for batch in itertools.chain(rows, [None]):
        if batch is not None:
            parts.append(batch)
            size += batch.num_rows
        if parts and (batch is None or size > PENDING_PAIRS):
            higher = np.concatenate([higher, *(p.column("higher").to_numpy() for p in parts)])
            lower = np.concatenate([lower, *(p.column("lower").to_numpy() for p in parts)])
            order = np.lexsort((lower, higher))
            higher, lower = higher[order], lower[order]
            new = np.ones(len(higher), bool)
            new[1:] = (higher[1:] != higher[:-1]) | (lower[1:] != lower[:-1])
            higher, lower, parts = higher[new], lower[new], []
            size = len(higher)
            if size > PENDING_PAIRS // 2:  # too few repeats: send these, and continue with the rest
                yield higher, lower
                higher = lower = np.zeros(0, np.int64)
                size = 0
    if len(higher):
        yield higher, lower


# -- verifying --------------------------------------------------------------------------------------------------------


def verify_candidates(
    comparison: Comparison, partitions: int, rows: Iterator[pa.RecordBatch], documents: Documents, prior_run: PriorRun
) -> Iterator[pa.RecordBatch]:
    """Yields the pairs that reach the threshold, for the owner partitions of both documents."""
    pending: list[pa.RecordBatch] = []
    known: list[tuple[I64, I64]] = []
    size = 0
    for batch in itertools.chain(rows, [None]):
        if batch is not None:
            is_known = pc.equal(pc.list_value_length(batch.column("shingles")), 0)
            if pc.any(is_known).as_py():
                part = batch.filter(is_known)
                known.append((part.column("address").to_numpy(), pc.list_flatten(part.column("lower")).to_numpy()))
                batch = batch.filter(pc.invert(is_known))
            if not batch.num_rows:
                continue
            pending.append(batch)
            size += batch.nbytes
        if pending and (batch is None or size > PENDING_BYTES):
            for table in _verify_batch(comparison, pending, documents):
                yield from duplicate_edges.to_both_owners(table, partitions)
            pending, size = [], 0

    if known:
        yield from _edges_of_prior_run(known, prior_run, partitions)


def _edges_of_prior_run(pairs: list[tuple[I64, I64]], prior_run: PriorRun, partitions: int) -> Iterator[pa.RecordBatch]:
    """Yields the edges of an earlier run that are among these pairs."""
    one, other = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    for batch in prior_run.outputs():
        batch = batch.filter(pc.equal(batch.column("kind"), duplicate_edges.AT_LOWER))
        higher, lower = batch.column("higher").to_numpy(), batch.column("lower").to_numpy()
        # an edge found in parts of a very large bucket is stored several times; and of two documents with equal rank
        # the higher one may have been sent as the lower
        distinct, back = np.unique(np.stack([higher, lower]), axis=1, return_inverse=True)
        first, second = distinct
        which = (_isin_pairs(first, second, one, other) | _isin_pairs(second, first, one, other))[back.reshape(-1)]
        table = pa.Table.from_batches([batch.filter(pa.array(which))])
        if table.num_rows:
            yield from duplicate_edges.to_both_owners(table.drop_columns(["to", "kind"]).combine_chunks(), partitions)


def _verify_batch(comparison: Comparison, pending: list[pa.RecordBatch], documents: Documents) -> Iterator[pa.Table]:
    """Yields the edges between the shingle sets received and the documents of this task."""
    threshold = threshold_fraction(comparison.threshold)
    table = pa.Table.from_batches(pending, SHINGLES).combine_chunks()
    sent = ShingleSets.from_arrow(table["shingles"].chunk(0))
    partners = table["lower"].chunk(0)
    at = partners.offsets.to_numpy()
    row = np.repeat(np.arange(table.num_rows), np.diff(at))
    lower = partners.values.to_numpy()[at[0] : at[-1]]
    order = np.lexsort((row, lower))
    row, lower = row[order], lower[order]
    local, first = np.unique(lower, return_index=True)
    last = np.append(first[1:], len(lower))
    sent_id, sent_level = table["doc_id"].chunk(0), table["level"].to_numpy()
    sent_rank = independent_set.priority_rank(sent_level, sent_id, comparison.seed)
    for chunk in range(0, len(local), DOCUMENTS_AT_ONCE):
        addresses = local[chunk : chunk + DOCUMENTS_AT_ONCE]
        got = documents.take(pa.array(addresses), comparison.columns())
        mine, ids = comparison.sets(got.column("text")), got.column("doc_id")
        level = comparison.levels(got, documents.task)
        rank = independent_set.priority_rank(level, ids, comparison.seed)
        pairs = slice(int(first[chunk]), int(last[chunk + len(addresses) - 1]))
        lefts, rights = row[pairs], np.searchsorted(addresses, lower[pairs])
        # buckets are ordered by rank alone, so two documents of equal rank may be in the wrong order
        swapped = sent_rank[lefts] >= rank[rights]
        if swapped.any():
            swapped[swapped] = ~independent_set.left_is_higher(
                sent_rank[lefts[swapped]], sent_id.take(pa.array(lefts[swapped])),
                rank[rights[swapped]], ids.take(pa.array(rights[swapped])),
            )  # fmt: skip
        which, intersection = verify_pairs(sent, lefts, mine, rights, threshold, comparison.measure, swapped)
        if not len(which):
            continue
        swap, one, other = swapped[which], lefts[which], rights[which]
        left = [sent.sizes()[one], sent_level[one], table["address"].to_numpy()[one]]
        right = [mine.sizes()[other], level[other], addresses[other]]
        size, lev, address = ([np.where(swap, b, a), np.where(swap, a, b)] for a, b in zip(left, right, strict=True))
        name = [sent_id.take(pa.array(one)), ids.take(pa.array(other))]
        if swap.any():
            flip, pool = np.arange(len(one)), pa.concat_arrays(name)
            name = [pool.take(pa.array(np.where(t, flip + len(one), flip))) for t in (swap, ~swap)]
        yield pa.table(
            {
                "higher": address[0], "lower": address[1], "higher_id": name[0], "lower_id": name[1],
                "higher_level": lev[0], "lower_level": lev[1], "intersection": intersection.astype(np.uint32),
                "higher_size": size[0].astype(np.uint32), "lower_size": size[1].astype(np.uint32),
            }
        )  # fmt: skip
