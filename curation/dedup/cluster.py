"""Who stays among verified near-duplicates: the lexicographically first maximal independent set.

Documents stand in priority order. Going down it, a document stays unless one that already stays is verified similar
to it. So every removal points at a *kept* document that really is that similar, no kept two are similar, and nothing
is removed through a chain: with A~B and B~C but not A~C, B goes because of A, and C stays.

The set is unique for a graph and an order, so it does not depend on how the edges were found or dealt out. Here the
edges are gathered and walked once in order, which costs a few bytes an edge; the rounds of Blelloch, Fineman and Shun
(2012) reach the same set without gathering.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..keyed import keyed, words

I64 = npt.NDArray[np.int64]

LEVELS = 32


def levels(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Length in bytes as one of 32 levels, 0 the longest: one level for each doubling.

    Quantised, because a fine order of lengths lets versions of a growing page stand in one long chain of decisions;
    within a level the keyed hash scatters them.
    """
    bits = np.frexp(sizes.astype(np.float64))[1]  # of an integer: its bit length
    return (LEVELS - 1 - np.minimum(bits, LEVELS - 1)).astype(np.uint8)


def priority(level: npt.NDArray[np.uint8], doc_ids: pa.Array, seed: int) -> tuple[npt.NDArray[np.generic], ...]:
    """Keys for np.lexsort, least significant first: level, then keyed hash of the doc_id, then the doc_id."""
    pair = words(doc_ids)
    return pair[:, 1], pair[:, 0], keyed(doc_ids, seed, "minhash_dedup"), level


@dataclass(frozen=True)
class Decision:
    """For each document, by position in priority order."""

    of: I64  # the kept document it is a duplicate of, -1 for those kept
    edge: I64  # the edge that says so, -1 for those kept
    copies: I64  # how many documents a kept one stands for, itself included; 0 for duplicates


def first_independent_set(documents: int, better: I64, worse: I64, both: I64, either: I64) -> Decision:
    """Decides over positions 0 (best) to documents - 1 and edges better[e] < worse[e] of similarity both/either.

    A duplicate counts for the most similar of its kept neighbours, the better one of equals.
    """
    from .cluster_kernel import walk

    order = np.lexsort((better, worse))
    starts = np.searchsorted(worse[order], np.arange(documents + 1)).astype(np.int64)
    of, edge = np.full(documents, -1, np.int64), np.full(documents, -1, np.int64)
    walk(starts, order.astype(np.int64), better, both, either, of, edge)
    copies = np.where(of < 0, 1, 0).astype(np.int64)
    np.add.at(copies, of[of >= 0], 1)
    return Decision(of, edge, copies)
