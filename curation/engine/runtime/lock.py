"""Locks a run directory, so that only one driver works in it.

In a folder the lock is a file (curation/core/directory_lock.py). On an object store it is an object with the time of
the last heartbeat: another driver is refused until that is a minute old, unless the holder ran on the same machine and
is gone. Two drivers that start at the same moment both write it, wait a second, and read who was last. Where both go
on all the same, what they commit has the same names and bytes, and publishing ends with an error where files that it
wrote are gone (results/publish.py).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

from curation.core import directory_lock
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
        f"another driver is working in {storage.root} ({holder}). Wait for it, stop it, or give another run directory "
        "with --run."
    )


@contextlib.contextmanager
def _hold_local(storage: Storage) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(directory_lock.hold(storage.full("")))
        except directory_lock.DirectoryBusy as error:
            raise _busy(storage, str(error)) from None
        except OSError as error:
            if error.errno == errno.ENOSPC:  # reported by the caller
                raise
            raise UserError(
                f"cannot write to the run directory {storage.root}: {error.strerror or error}. Make it writable, or "
                "give another one with --run."
            ) from error
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

    def beat() -> None:
        if (_read(storage) or mine)["token"] == mine["token"]:
            storage.write_bytes(".lock", json.dumps(mine | {"at": time.time()}).encode())

    try:
        with directory_lock.heartbeat(HEARTBEAT, beat):
            yield
    finally:
        if (_read(storage) or mine)["token"] == mine["token"]:
            storage.remove(".lock")


def _read(storage: Storage) -> dict[str, Any] | None:
    try:
        held = json.loads(storage.read_bytes(".lock"))
        return held if {"by", "at", "token"} <= held.keys() else None
    except (FileNotFoundError, ValueError):
        return None


def _machine() -> str:
    """Identifies this boot of this kernel and this process namespace, in which process ids can be compared."""
    try:
        return f"{directory_lock.boot_id()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # equal to no other, so that only the heartbeat counts


def _gone(held: Mapping[str, Any]) -> bool:
    """Whether the holder ran on this machine and has ended, so that its heartbeat need not be waited for."""
    if held.get("machine") != _machine():
        return False
    try:
        return bool(psutil.Process(held["process"]).create_time() != held["started"])
    except psutil.NoSuchProcess:
        return True
