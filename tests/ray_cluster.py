"""Starts a Ray cluster of several nodes on this machine for a test, again if it does not answer in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curation.core.local_ray import STARTS


def start_cluster(*nodes: Mapping[str, Any], connect: bool = False) -> tuple[Any, Sequence[Any]]:
    """(cluster, its nodes after the head), one for each mapping of options. `connect`: this process joins it."""
    import ray
    from ray.cluster_utils import Cluster

    for left in reversed(range(STARTS)):
        made = Cluster()
        try:
            added = [made.add_node(**node) for node in nodes]
            if connect:
                ray.init(address=made.address, log_to_driver=False)
            return made, added[1:]
        except Exception:  # of whatever kind Ray's is this time
            ray.shutdown()
            made.shutdown()
            if not left:
                raise
    raise AssertionError
