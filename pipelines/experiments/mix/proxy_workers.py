"""Trains proxies in parallel as Ray tasks, each with a share of a CPU or GPU, or one by one in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.experiments.mix import proxy_run
from pipelines.experiments.mix.proxy_run import Proxy

RETRIES = 2  # of a proxy whose worker died; it resumes from its last checkpoint


def inline(proxies: Sequence[Proxy]) -> None:
    """Trains proxies one by one in this process."""
    for p in proxies:
        proxy_run.train(p)


def on_ray(
    address: str | None = None, *, cpus: float = 1.0, gpus: float = 0.0, done: Callable[[int, int], None] | None = None
) -> Callable[[Sequence[Proxy]], None]:
    """A function that trains proxies as Ray tasks. done: called with (finished, all) as they end."""

    def train(proxies: Sequence[Proxy]) -> None:
        import ray

        if not ray.is_initialized():
            quiet: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
            if address is None:
                os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
                from curation.core.start_ray import start_local_ray

                start_local_ray(ray, include_dashboard=False, object_store_memory=150 << 20, **quiet)
            else:
                from curation.engine.execution.executors import connect_to_cluster

                connect_to_cluster(ray, address, **quiet)
        call: Any = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES)(proxy_run.train)
        waiting = [call.remote(p) for p in proxies]
        while waiting:
            ready, waiting = ray.wait(waiting)
            ray.get(ready)  # raises the error of a failed proxy
            if done is not None:
                done(len(proxies) - len(waiting), len(proxies))

    return train
