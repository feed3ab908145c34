"""Compiled: visits documents in order of priority and decides each one by its neighbours of higher priority.

The greedy maximal independent set: a document is kept unless a neighbour of higher priority is kept.
"""

from __future__ import annotations

from curation.kernels import kernel


@kernel()
def greedy_independent_set(  # type: ignore[no-untyped-def]
    starts, source, known, owned, intersection, denominator, status, best, undecided
):
    """Decides the documents 0 (of the highest priority) to n - 1 as far as possible.

    Edges starts[v] to starts[v + 1] lead from v to documents source[e] of higher priority, the highest first. known[e]
    is the status of that document: 0 unknown (if it is `owned`, the status that this call found), 1 kept, 2 removed.
    intersection[e] / denominator[e] is the similarity. Filled in: status (0 undecided, 1 kept, 2 removed); best[v], the
    edge to the most similar kept document (of equal ones that of the highest priority, -1: none); undecided[v], the
    number of neighbours of higher priority whose status is unknown.
    """
    for v in range(len(starts) - 1):
        if not owned[v]:
            continue
        for e in range(starts[v], starts[v + 1]):
            u = source[e]
            if known[e] == 0 and owned[u]:
                known[e] = status[u]
            if known[e] == 0:
                undecided[v] += 1
            elif known[e] == 1 and (
                best[v] < 0 or intersection[e] * denominator[best[v]] > intersection[best[v]] * denominator[e]
            ):
                best[v] = e
        if best[v] >= 0:
            status[v] = 2
        elif undecided[v] == 0:
            status[v] = 1
