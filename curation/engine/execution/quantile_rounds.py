"""Computes the quantiles that rules ask for, in four rounds of counting tasks (tasks/quantiles.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curation import storage
from curation.config.rules import Quantile
from curation.engine.execution.driver import Driver, Phase
from curation.engine.manifests.lazy_sequence import LazySequence
from curation.engine.planning import fingerprints
from curation.engine.tasks import quantiles


def compute_quantiles(
    driver: Driver, wanted: Sequence[Quantile], manifests: Sequence[Mapping[str, Any]], documents: str,
    types: Mapping[str, pa.DataType],
) -> dict[Quantile, Any]:  # fmt: skip
    """The values over the documents that the map tasks of these manifests kept.

    documents   fingerprint of which documents those are
    """
    size = quantiles.TASKS_PER_HISTOGRAM

    def spec(i: int) -> quantiles.HistogramSpec:
        return quantiles.HistogramSpec(i, [m["state"] for m in manifests[i * size : (i + 1) * size]])

    specs = LazySequence(-(-len(manifests) // size), spec)
    ids = [f"{i:06d}" for i in range(len(specs))]
    code = fingerprints.module_fingerprint(quantiles.__file__)
    signals = ", ".join(sorted({q.signal for q in wanted}))

    def count(bits: int, prefixes: Sequence[Mapping[str, int]]) -> Sequence[Mapping[str, Any]]:
        shared = quantiles.HistogramPhase(driver.storage.root, wanted, types, bits, prefixes)
        fingerprint = storage.fingerprint(
            [code, documents, [(q.signal, q.p, q.by) for q in wanted], bits, [dict(p) for p in prefixes]]
        )
        name = f"quantiles of {signals}, round {bits // 16 + 1}"
        return driver.run(Phase(name, fingerprint, quantiles.run_histogram, shared, specs, ids))

    return quantiles.select(wanted, count)
