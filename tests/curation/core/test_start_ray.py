"""Ray that does not answer in time is started again, a bounded number of times."""

from __future__ import annotations

from typing import Any

import pytest

from curation.core.start_ray import STARTS, start_local_ray


class Ray:
    """Fails its first starts as Ray does on a machine that is too busy."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error, self.calls = failures, error, list[Any]()

    def init(self, address: str, **options: Any) -> None:
        self.calls.append((address, options))
        if len(self.calls) <= self.failures * 2:
            raise self.error

    def shutdown(self) -> None:
        self.calls.append("shutdown")


BUSY = Exception("The current node timed out during startup.")


@pytest.mark.parametrize("failures", range(STARTS))
def test_started_again(failures: int) -> None:
    ray = Ray(failures, BUSY)
    start_local_ray(ray, num_cpus=2)
    assert ray.calls == [("local", {"num_cpus": 2}), "shutdown"] * failures + [("local", {"num_cpus": 2})]


def test_not_for_ever() -> None:
    ray = Ray(STARTS, BUSY)
    with pytest.raises(Exception, match="timed out during startup"):
        start_local_ray(ray)
    assert len(ray.calls) == 2 * STARTS


def test_wrong_options_are_said_at_once() -> None:
    ray = Ray(1, ValueError("num_cpus must be positive"))
    with pytest.raises(ValueError, match="num_cpus"):
        start_local_ray(ray, num_cpus=-1)
    assert len(ray.calls) == 1
