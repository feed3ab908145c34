"""One driver a run directory.

On a local disk the kernel holds the lock, so that it goes with the process however that ends. On an object store it
is an object with the time of the last heartbeat: another driver waits until that is a minute old.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

from curation.step import UserError
from curation.storage import Storage

HEARTBEAT = 10.0  # seconds
STALE = 60.0


@contextlib.contextmanager
def hold(storage: Storage) -> Iterator[None]:
    """Holds the run directory for this process; UserError if another driver has it."""
    if storage.local:
        with _hold_local(storage):
            yield
    else:
        with _hold_remote(storage):
            yield


def _busy(storage: Storage, holder: str) -> UserError:
    return UserError(
        f"another driver is at work on {storage.root} ({holder}). Wait for it, stop it, or give another run directory "
        "with --run."
    )


@contextlib.contextmanager
def _hold_local(storage: Storage) -> Iterator[None]:
    os.makedirs(storage.full(""), exist_ok=True)
    path = storage.full(".lock")
    with open(path, "a+", encoding="utf-8") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            f.seek(0)
            raise _busy(storage, f.read().strip() or "its name is not written yet") from None
        f.truncate(0)
        f.write(f"{socket.gethostname()}, process {os.getpid()}")
        f.flush()
        yield


@contextlib.contextmanager
def _hold_remote(storage: Storage) -> Iterator[None]:
    me = f"{socket.gethostname()}, process {os.getpid()}"
    if storage.exists(".lock"):
        with contextlib.suppress(ValueError, KeyError, FileNotFoundError):
            held = json.loads(storage.read_bytes(".lock"))
            if held["by"] != me and time.time() - held["at"] < STALE:
                raise _busy(storage, held["by"])
    ended = threading.Event()

    def beat() -> None:
        while not ended.is_set():
            storage.write_bytes(".lock", json.dumps({"by": me, "at": time.time()}).encode())
            ended.wait(HEARTBEAT)

    thread = threading.Thread(target=beat, daemon=True, name="gristmill-heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        storage.remove(".lock")
