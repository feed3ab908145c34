"""Compiled: one walk down the priority order, deciding each document by its better neighbours."""

from __future__ import annotations

from .shingles import jit


@jit
def walk(starts, edges, better, both, either, of, edge):  # type: ignore[no-untyped-def]
    """Fills `of` and `edge`, preset to -1; edges[starts[v]:starts[v + 1]] lead from v to better ones, best first."""
    for v in range(len(starts) - 1):
        for k in range(starts[v], starts[v + 1]):
            e = edges[k]
            u = better[e]
            if of[u] >= 0:
                continue  # a duplicate itself: removes nothing
            # similarities compared as fractions: both/either > both'/either'
            if edge[v] < 0 or both[e] * either[edge[v]] > both[edge[v]] * either[e]:
                of[v] = u
                edge[v] = e
