"""Starts a Ray of this machine alone: it listens on loopback and keeps its files in the user's own folder.

By itself Ray listens on all interfaces, and whoever reaches its ports can run code; it keeps its sockets and logs in
/tmp/ray, which all users share; and without an address it joins the cluster that a file there names. On a busy machine
its processes may not answer in the time that it gives them: what does not start is started again.
"""

from __future__ import annotations

import os
from typing import Any

from curation.core.errors import UserError
from curation.core.private_directory import temporary_directory

STARTS = 3
MAX_DIRECTORY = 34  # bytes, of the 107 of a socket's path: Ray adds 5 + 43 for the session and 21 for the socket


def start_local_ray(ray: Any, **options: Any) -> None:
    """`ray.init` for this machine alone. `ray`: the module, which this package does not depend on.

    Raises UserError where another user has taken the name of the folder for Ray's files.
    """
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    # What Ray sets on macOS, where it has no clusters: 127.0.0.1 is this node's address, and all it binds to. It
    # replaces an address given as `_node_ip_address` by one that other machines reach.
    constants.ENABLE_RAY_CLUSTER = False
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns about GPUs otherwise
    try:
        init_ray(ray, "local", include_dashboard=False, log_to_driver=False, _temp_dir=ray_directory(), **options)
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def init_ray(ray: Any, address: str, **options: Any) -> None:
    """Calls `ray.init` with these options; what does not start is ended and started again. The third time its error is
    raised."""
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


def ray_directory() -> str:
    """Where Ray keeps its sockets and logs: RAY_TMPDIR, else a folder in the user's temporary directory."""
    if chosen := os.environ.get("RAY_TMPDIR"):
        return os.path.join(chosen, "ray")
    try:
        folder = temporary_directory()
        if len(os.fsencode(folder)) > MAX_DIRECTORY:  # TMPDIR is deep
            folder = temporary_directory("/tmp")
    except OSError as error:
        raise UserError(f"Ray has no folder for its files: {error}\n  or set RAY_TMPDIR to one of yours") from error
    return os.path.join(folder, "ray")  # Ray opens it to everybody, inside of a folder that nobody else enters
