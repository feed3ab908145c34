"""Verified edges become signals: who stays among near-duplicates, told to the tasks where the documents lie.

Here the edges come together in one partition, 76 bytes each. Rounds that decide partition by partition can take the
place of `decide`: they reach the same set (cluster.py), and what they hand to `tell` is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..step import Documents
from . import cluster
from .edges import EDGES

SIGNALS = pa.schema(
    [("duplicate", pa.bool_()), ("of", pa.string()), ("similarity", pa.float64()), ("copies", pa.int64())]
)
DECIDED = pa.schema([("to", pa.uint32()), ("address", pa.int64()), *SIGNALS])
TOLD = pa.schema([("address", pa.int64()), *SIGNALS])


def decide(seed: int, rows: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The decision on every document that has an edge, sent to its task."""
    table = pa.Table.from_batches(rows, EDGES).combine_chunks()
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
            schema=DECIDED,
        )


def tell(rows: Iterator[pa.RecordBatch], documents: Documents) -> Iterator[pa.RecordBatch]:
    """The signals of every document: as decided, or kept where it has no edge."""
    table = pa.Table.from_batches(rows, DECIDED).combine_chunks()
    decided = table["address"].to_numpy()
    order = np.argsort(decided)
    table, decided = table.take(pa.array(order)).combine_chunks(), decided[order]
    for batch in documents.batches([]):
        address = batch.column("address").to_numpy()
        at = np.searchsorted(decided, address)
        known = at < len(decided)
        known[known] = decided[at[known]] == address[known]
        chosen = table.take(pa.array(at, pa.int64(), mask=~known))
        columns = [chosen[f.name].combine_chunks() for f in SIGNALS]
        columns[0] = columns[0].fill_null(False)
        columns[3] = pc.if_else(pa.array(known), columns[3], pa.scalar(1, pa.int64()))
        yield pa.RecordBatch.from_arrays([batch.column("address"), *columns], schema=TOLD)
