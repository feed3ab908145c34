"""Starts Ray on this machine, more than once if need be."""

from __future__ import annotations

from typing import Any

STARTS = 3


def start_local_ray(ray: Any, address: str | None = "local", **options: Any) -> None:
    """Starts Ray here with these options of `ray.init`; `ray` is the module, which not all that import this have.
    With the address None, joins the cluster that RAY_ADDRESS names, if it is set.

    On a busy machine Ray's processes may not answer in the time that Ray gives them. What does not start is ended and
    started again; the third time its error is raised.
    """
    for left in reversed(range(STARTS)):
        try:
            ray.init(address, **options)
            return
        except (TypeError, ValueError):  # of the options: another start would say the same
            raise
        except Exception:  # Ray raises its own, RuntimeErrors and bare Exceptions for processes that do not answer
            ray.shutdown()
            if not left:
                raise
