"""Candidate pairs become verified edges: shingle sets travel to where the other text lies, and are compared there.

Texts never travel. Of each pair the better document sends its set, once to a task, however many documents there it is
to be compared with; that task reads its own texts and counts. Requests are sorted by where the text lies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..step import Documents
from . import cluster
from .verify import Sets, compare, fraction

TAKE = 256  # documents whose text is looked at together
PENDING_BYTES = 1 << 26  # shingle sets gathered before the texts they are compared with are fetched
PENDING_PAIRS = 1 << 22  # pairs gathered before those that met in several bands are merged

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
EDGES = pa.schema(
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


@dataclass(frozen=True)
class Comparison:
    """What is compared: shingles of `ngram` words or characters, and from which Jaccard on a pair is an edge."""

    ngram: int
    unit: str
    threshold: float

    def sets(self, texts: pa.Array) -> list[npt.NDArray[np.uint64]]:
        from . import shingles

        which = {"words": shingles.WORDS, "characters": shingles.CHARACTERS}[self.unit]
        return shingles.shingle_sets(texts, ngram=self.ngram, unit=which)


def sizes(texts: pa.Array) -> npt.NDArray[np.int64]:
    """Bytes of each text."""
    from .shingles import buffers

    return np.diff(buffers(texts)[1])


def count(batch: pa.RecordBatch) -> Mapping[str, int]:
    return {"edges": batch.num_rows}


def send(compared: Comparison, rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    """Each better document's shingle set, a row for each task that has documents to compare with it."""
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
        sets = compared.sets(got.column("text"))
        level = cluster.levels(sizes(got.column("text")))
        out: dict[str, list[Any]] = {name: [] for name in SENT.names}
        size = 0
        for i in range(len(asked)):
            for run in range(first[chunk + i], last[chunk + i]):
                partners = worse[starts[run] : ends[run]]
                values = (int(partners[0] >> 32), int(asked[i]), got.column("doc_id")[i].as_py(), int(level[i]))
                for name, value in zip(SENT.names, (*values, sets[i], partners), strict=True):
                    out[name].append(value)
                size += sets[i].nbytes
                if size > PENDING_BYTES:
                    yield _sent(out)
                    out, size = {name: [] for name in SENT.names}, 0
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
    return pa.RecordBatch.from_arrays([pa.array(out[f.name], f.type) for f in SENT], schema=SENT)


def verify(compared: Comparison, rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    """The pairs that reach the threshold."""
    pending: list[pa.RecordBatch] = []
    size = 0
    for batch in rows:
        pending.append(batch)
        size += batch.nbytes
        if size > PENDING_BYTES:
            yield from _compare(compared, pending, documents)
            pending, size = [], 0
    if pending:
        yield from _compare(compared, pending, documents)


def _compare(compared: Comparison, pending: list[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    """Edges among the shingle sets that came and the documents here they are to be compared with."""
    threshold = fraction(compared.threshold)
    table = pa.Table.from_batches(pending, SENT).combine_chunks()
    if table.num_rows == 0:
        return
    sent = Sets.from_arrow(table["shingles"].chunk(0))
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
        mine = Sets.of(compared.sets(got.column("text")))
        level = cluster.levels(sizes(got.column("text")))
        pairs = slice(first[chunk], last[chunk + len(asked) - 1])
        lefts, rights = row[pairs], np.searchsorted(asked, worse[pairs])
        which, both, either = compare(sent, lefts, mine, rights, threshold)
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
            schema=EDGES,
        )
