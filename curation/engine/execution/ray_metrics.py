"""Counts finished tasks, documents and bytes in Ray's metrics, for its dashboard and for Prometheus.

Counters of the driver, summed over all tasks: what a rate is taken of (documents/s, MB/s). In a process without Ray
nothing is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

# name -> what it counts, and by what
COUNTERS = {
    "gristmill_tasks": ("finished tasks", "phase"),
    "gristmill_bytes_read": ("bytes of input, as stored, of finished tasks", "phase"),
    "gristmill_documents_read": ("documents that came to a phase", "phase"),
    "gristmill_documents_kept": ("documents that a phase kept", "phase"),
    "gristmill_documents_computed": ("documents whose signals a step computed", "step"),
}


class RayMetrics:
    """The counters of one driver, made when the first task of a run on Ray is done."""

    def __init__(self) -> None:
        self._counters: dict[str, Any] = {}

    def task(self, phase: str, manifest: Mapping[str, Any], size: int) -> None:
        """Counts a finished task."""
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        if not self._counters:
            from ray.util.metrics import Counter

            for name, (what, by) in COUNTERS.items():
                self._counters[name] = Counter(name, description=what, tag_keys=(by,))
        self._add("gristmill_tasks", 1, phase=phase)
        if "in" in manifest:  # of a map task; others have no documents, and sizes that are not bytes
            self._add("gristmill_bytes_read", size, phase=phase)
            self._add("gristmill_documents_read", manifest["in"], phase=phase)
            self._add("gristmill_documents_kept", manifest["out"], phase=phase)
        for step, rows in manifest.get("computed", {}).items():
            self._add("gristmill_documents_computed", rows, step=step)

    def _add(self, name: str, value: float, **tags: str) -> None:
        if value:  # Ray refuses to count 0
            self._counters[name].inc(value, tags)
