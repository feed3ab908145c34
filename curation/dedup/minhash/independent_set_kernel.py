"""Compiled: one walk down the priority order, deciding each document by its better neighbours."""

from __future__ import annotations

from curation.dedup.minhash.shingles import jit


@jit
def walk(starts, source, kind, here, both, whole, status, best, waits):  # type: ignore[no-untyped-def]
    """Decides the documents 0 (best) to n - 1 as far as what is known allows.

    Edges starts[v] to starts[v + 1] lead from v to better documents source[e], best first; kind[e] says what is known
    of that one: 0 nothing yet (then, if it is `here`, its status is as decided by this walk), 1 it stays, 2 it goes.
    both[e] / whole[e] is the similarity. Filled in: status (0 not known, 1 stays, 2 goes), best[v] the edge to the most
    similar one that stays (the better one of equals, -1 for none), waits[v] how many better ones are not known.
    """
    for v in range(len(starts) - 1):
        if not here[v]:
            continue
        for e in range(starts[v], starts[v + 1]):
            u = source[e]
            if kind[e] == 0 and here[u]:
                kind[e] = status[u]
            if kind[e] == 0:
                waits[v] += 1
            elif kind[e] == 1 and (best[v] < 0 or both[e] * whole[best[v]] > both[best[v]] * whole[e]):
                best[v] = e
        if best[v] >= 0:
            status[v] = 2
        elif waits[v] == 0:
            status[v] = 1
