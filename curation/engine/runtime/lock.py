"""One driver a run directory.

On a local disk the kernel holds the lock, so that it goes with the process however that ends. On an object store it
is an object with the time of the last heartbeat: another driver is refused until that is a minute old, or at once
taken in where the holder ran on the same machine and is gone. Two that come at the same moment both write, wait a
second, and read who was last. Nothing breaks if both go on: what they commit has the same names and bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

from curation.core.errors import UserError
from curation.storage import Storage

HEARTBEAT = 10.0  # seconds
STALE = 60.0
CONTEST = 1.0  # far longer than it takes to write a small object


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
    try:
        os.makedirs(storage.full(""), exist_ok=True)
        descriptor = os.open(storage.full(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # the caller's to tell
            raise
        raise UserError(
            f"cannot write to the run directory {storage.root}: {error.strerror or error}. Make it writable, or give "
            "another one with --run."
        ) from error
    with open(descriptor, "a+", encoding="utf-8") as f:
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
    mine = {"by": f"{socket.gethostname()}, process {os.getpid()}", "process": os.getpid(), "machine": _machine()}
    mine["started"], mine["token"] = psutil.Process().create_time(), uuid.uuid4().hex
    held = _read(storage)
    if held is not None and time.time() - held["at"] < STALE and not _gone(held):
        raise _busy(storage, held["by"])
    storage.write_bytes(".lock", json.dumps(mine | {"at": time.time()}).encode())
    time.sleep(CONTEST)
    held = _read(storage)
    if held is not None and held["token"] != mine["token"]:
        raise _busy(storage, held["by"])
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # a store that is away for a moment; the next beat may reach it
                if (_read(storage) or mine)["token"] == mine["token"]:
                    storage.write_bytes(".lock", json.dumps(mine | {"at": time.time()}).encode())

    thread = threading.Thread(target=beat, daemon=True, name="gristmill-heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if (_read(storage) or mine)["token"] == mine["token"]:
            storage.remove(".lock")


def _read(storage: Storage) -> dict[str, Any] | None:
    try:
        held = json.loads(storage.read_bytes(".lock"))
        return held if {"by", "at", "token"} <= held.keys() else None
    except (FileNotFoundError, ValueError):
        return None


def _machine() -> str:
    """Where a process number means what it means here: this boot of this kernel, this namespace of processes."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f"{f.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # unlike any other: then only the heartbeat tells


def _gone(held: Mapping[str, Any]) -> bool:
    """Whether the holder ran where this process runs, and runs no more: no need to wait for its heart to stop."""
    if held.get("machine") != _machine():
        return False
    try:
        return bool(psutil.Process(held["process"]).create_time() != held["started"])
    except psutil.NoSuchProcess:
        return True
