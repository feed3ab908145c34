"""A component of near-duplicates decided again without some of its documents, from the stored edges alone.

Taking one document away may bring back several that it removed, and each of those may remove others; which, is what
the first maximal independent set of the remaining graph says. Where the best document of a star of equal sets is taken
away (edges.py), the best of its copies takes its place, with its edges: their sets are the same, so the edges hold.

This equals a fresh run without those documents where no bucket held more than 256 different ones (beyond, other pairs
meet). For containment it need not: an edge is stored for one direction, and a copy of lower priority may turn it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.dedup.minhash import independent_set
from curation.dedup.minhash.duplicate_edges import AT_WORSE, EDGES, copies, twice
from curation.dedup.minhash.resolve_duplicates import Order, settled

ENDS = ("", "_id", "_level", "_size")


def again(table: pa.Table, order: Order, without: pa.Array) -> pa.Table:
    """The decision on whole components, as rows of EDGES: `worse` is a duplicate of `better`, which stays.

    table     all edges of the components (rows of EDGES; those of kind AT_WORSE count)
    without   doc_ids (binary(16)) that are there no longer
    Documents that appear in `table`, are not in `without` and are no row's `worse` stay.
    """
    table = table.filter(pc.equal(table["kind"], AT_WORSE)).combine_chunks()
    table = _without(table, order.seed, without.cast(pa.binary(16)))
    if not table.num_rows:
        return EDGES.empty_table()
    rows = list(settled(order, lambda ids, level: np.zeros(len(ids), np.uint32), table, 0))
    return pa.Table.from_batches(rows, EDGES)


def _without(table: pa.Table, seed: int, without: pa.Array) -> pa.Table:
    """The edges among the other documents, stars with a new best one where the old one is gone; both sides of each."""
    both, bs, ws = (table[c].to_numpy() for c in ("both", "better_size", "worse_size"))
    star = copies(bs, ws, both)
    gone = {end: pc.is_in(table[f"{end}_id"], value_set=without).to_numpy() for end in ("better", "worse")}
    heirs = np.flatnonzero(star & gone["better"] & ~gone["worse"])
    ids = table["worse_id"].combine_chunks().take(pa.array(heirs))
    level = table["worse_level"].to_numpy()[heirs]
    heirs = heirs[independent_set.order(independent_set.rank(level, ids, seed), ids)]
    left, first = np.unique(table["better"].to_numpy()[heirs], return_index=True)
    heir = heirs[first]  # the row that names the new best of each star whose best is `left`

    # every end that is such a document becomes its heir; 0 to n - 1: the end as it is, n + h: the heir in row h
    n = table.num_rows
    ends = {}
    for end in ("better", "worse"):
        at = np.searchsorted(left, table[end].to_numpy())
        inherited = np.isin(table[end].to_numpy(), left)
        ends[end] = np.arange(n)
        ends[end][inherited] = n + heir[at[inherited]]
    parts: dict[str, list[pa.Array]] = {"better": [], "worse": []}
    for end in ("better", "worse"):
        for suffix in ENDS:
            pool = pa.concat_arrays([table[e + suffix].combine_chunks() for e in (end, "worse")])
            parts[end].append(pool.take(pa.array(ends[end])))
    rank = [independent_set.rank(parts[e][2].to_numpy(), parts[e][1], seed) for e in ("better", "worse")]
    keep = ~pc.is_in(parts["better"][1], value_set=without).to_numpy(zero_copy_only=False)
    keep &= ~pc.is_in(parts["worse"][1], value_set=without).to_numpy(zero_copy_only=False)
    keep &= parts["better"][0].to_numpy() != parts["worse"][0].to_numpy()
    turned = ~independent_set.first_is_better(rank[0], parts["better"][1], rank[1], parts["worse"][1])
    columns: dict[str, pa.Array] = {"both": table["both"].combine_chunks()}
    for i, suffix in enumerate(ENDS):
        pool = pa.concat_arrays([parts["better"][i], parts["worse"][i]])
        columns[f"better{suffix}"] = pool.take(pa.array(np.where(turned, np.arange(n) + n, np.arange(n))))
        columns[f"worse{suffix}"] = pool.take(pa.array(np.where(turned, np.arange(n), np.arange(n) + n)))
    kept = pa.table(columns).filter(pa.array(keep))
    return pa.Table.from_batches(twice(kept, 1), EDGES).combine_chunks()
