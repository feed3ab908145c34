"""Counters of a run in Ray's metrics, as Prometheus fetches them from a node."""

from __future__ import annotations

import time
import urllib.request
from typing import Any

import pytest

from curation.engine.execution.ray_metrics import COUNTERS, RayMetrics
from tests.conftest import HANG
from tests.curation.engine.execution.test_ray_actors import two_gpus

__all__ = ["two_gpus"]


def test_without_ray_nothing_is_counted() -> None:
    metrics = RayMetrics()
    metrics.task("0: read", {"in": 3, "out": 2}, 10)
    assert metrics._counters == {}


@pytest.mark.slow
def test_prometheus_finds_what_was_counted(two_gpus: Any) -> None:
    import ray

    ray.init(address=two_gpus.address, log_to_driver=False)
    try:
        metrics = RayMetrics()
        for documents in (30, 12):
            metrics.task("0: read, words", {"in": documents, "out": 2, "computed": {"words": documents}}, 1000)
        metrics.task("exact_dedup: hash", {"counters": {}}, 1)
        port, end, found = ray.nodes()[0]["MetricsExportPort"], time.monotonic() + HANG / 4, ""
        while "gristmill_tasks" not in found and time.monotonic() < end:
            time.sleep(1)  # a driver reports every ten seconds
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                found = page.read().decode()
    finally:
        ray.shutdown()
    lines = [line for line in found.splitlines() if line.startswith("ray_gristmill_")]
    values = {
        (line.split("{")[0].removeprefix("ray_").removesuffix("_total"), line.rpartition(" ")[2]) for line in lines
    }
    assert {name for name, _ in values} == set(COUNTERS), found[:2000]
    assert ("gristmill_documents_read", "42.0") in values and ("gristmill_documents_computed", "42.0") in values
    assert ("gristmill_documents_kept", "4.0") in values and ("gristmill_bytes_read", "2000.0") in values
    assert {v for name, v in values if name == "gristmill_tasks"} == {"2.0", "1.0"}
