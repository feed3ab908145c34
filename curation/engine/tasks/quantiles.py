"""Computes exact quantiles of a signal over the corpus: nearest rank, by radix selection, in four counting phases.

A float64 maps to a uint64 of the same order. Each round counts, per quantile and group, how many values share the
prefix found so far by their next 16 bits; four rounds find the value itself. Counts are integers, so nothing depends
on the order of tasks, and a task holds no more than a histogram.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.config.rules import Quantile
from curation.engine.tasks.task_documents import State, TaskDocuments
from curation.storage import Storage

ALL = ""  # the group of a quantile without `by`
TASKS_PER_HISTOGRAM = 64  # map tasks counted by one task


@dataclass(frozen=True)
class HistogramPhase:
    """What the tasks of a round share: the quantiles, and the bits of each group's value that are known so far."""

    run: str
    quantiles: Sequence[Quantile]
    types: Mapping[str, pa.DataType]
    bits: int  # known so far: 0, 16, 32, 48
    prefixes: Sequence[Mapping[str, int]]  # a mapping a quantile; empty in the first round, where groups are found


@dataclass(frozen=True)
class HistogramSpec:
    index: int
    states: Sequence[Mapping[str, Any]]


def ordered_bits(values: np.ndarray) -> np.ndarray:
    """float64 -> uint64 with the same order; -0.0 counts as 0.0."""
    raw = (values + 0.0).view(np.uint64)
    sign = raw >> np.uint64(63)
    return np.where(sign == 1, ~raw, raw | np.uint64(1 << 63))


def from_ordered_bits(bits: int) -> float:
    """The float64 that `ordered_bits` made this of."""
    raw = bits ^ (1 << 63) if bits >> 63 else ~bits & 0xFFFFFFFFFFFFFFFF
    return float(np.uint64(raw).view(np.float64))


def run_histogram(phase: HistogramPhase, spec: HistogramSpec) -> dict[str, Any]:
    """Counts the next 16 bits of every value with a known prefix, of the documents that are left in these tasks."""
    storage = Storage(phase.run)
    counts: list[dict[str, dict[int, int]]] = [{} for _ in phase.quantiles]
    columns = sorted({c for q in phase.quantiles for c in (q.signal, q.by) if c})
    for state in spec.states:
        for batch in TaskDocuments(storage, 0, State.of(state), phase.types).batches(columns):
            for i, q in enumerate(phase.quantiles):
                _count(phase, i, batch.column(q.signal), batch.column(q.by) if q.by else None, counts[i])
    return {
        "index": spec.index,
        "counts": [{g: {str(k): v for k, v in c.items()} for g, c in m.items()} for m in counts],
    }


def _count(
    phase: HistogramPhase, i: int, signal: pa.Array, by: pa.Array | None, out: dict[str, dict[int, int]]
) -> None:
    values = signal.cast(pa.float64()).to_numpy(zero_copy_only=False)
    valid = ~np.isnan(values)  # null and NaN alike
    if by is None:
        groups = {ALL: valid}
    else:
        # Arrow prints booleans, integers and times as DuckDB's CAST AS VARCHAR does, by which rules look up a group
        names = np.array(by.cast(pa.string()).to_pylist(), dtype=object)
        groups = {g: valid & (names == g) for g in sorted({n for n in names if n is not None})}
    shift = np.uint64(48 - phase.bits)
    for group, mask in groups.items():
        if not mask.any():
            continue
        bits = ordered_bits(values[mask])
        if phase.bits:
            prefix = phase.prefixes[i].get(group)
            if prefix is None:
                continue
            bits = bits[bits >> np.uint64(64 - phase.bits) == np.uint64(prefix)]
        if not len(bits):
            continue
        found, n = np.unique((bits >> shift) & np.uint64(0xFFFF), return_counts=True)
        into = out.setdefault(group, {})
        for k, v in zip(found.tolist(), n.tolist(), strict=True):
            into[k] = into.get(k, 0) + v


def select(
    quantiles: Sequence[Quantile], round_: Callable[[int, Sequence[Mapping[str, int]]], Sequence[Mapping[str, Any]]]
) -> dict[Quantile, float | dict[str, float] | None]:
    """The values. `round_(bits, prefixes)` runs one counting phase and returns its manifests.

    Nearest rank: the value at the position `Quantile.rank` in ascending order.
    """
    prefixes: list[dict[str, int]] = [{} for _ in quantiles]
    ranks: list[dict[str, int]] = [{} for _ in quantiles]
    for bits in (0, 16, 32, 48):
        manifests = round_(bits, prefixes)
        for i, q in enumerate(quantiles):
            total: dict[str, dict[int, int]] = {}
            for manifest in manifests:
                for group, bins in manifest["counts"][i].items():
                    into = total.setdefault(group, {})
                    for k, v in bins.items():
                        into[int(k)] = into.get(int(k), 0) + v
            for group, histogram in sorted(total.items()):
                if bits == 0:
                    n = sum(histogram.values())
                    ranks[i][group] = q.rank(n)
                rank = ranks[i][group]
                for k in sorted(histogram):
                    if rank <= histogram[k]:
                        break
                    rank -= histogram[k]
                ranks[i][group] = rank
                prefixes[i][group] = (prefixes[i].get(group, 0) << 16) | k
    out: dict[Quantile, float | dict[str, float] | None] = {}
    for q, found in zip(quantiles, prefixes, strict=True):
        values = {g: from_ordered_bits(b) for g, b in found.items()}
        out[q] = values if q.by else values.get(ALL)
    return out
