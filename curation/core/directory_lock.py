"""Locks a directory, so that one process at a time works in it, on this machine or on any that shares the folder.

The kernel holds the lock (flock), so that it goes with the process however that ends. Not every shared file system
passes it on to other machines, and some have none, so the file also says who holds it, in three lines: host and
process, the machine's boot id, and a token drawn for this session. The holder touches the file every few seconds. Who
finds another machine's record watches the file for as long as a live holder could be silent; no clock of another
machine counts.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple, TextIO

FILE = ".lock"
HEARTBEAT = 5.0  # seconds
STALE = 30.0  # seconds without a heartbeat after which a holder on another machine is gone
CONTEST = 1.0  # far longer than it takes to write a small file
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)  # any other error: this file system has no locks


class Holder(NamedTuple):
    """Who holds a directory."""

    name: str  # host and process, for people
    machine: str
    token: str


class DirectoryBusy(Exception):
    """Another process works in the directory; the text says which."""


class DirectoryLock:
    """A lock that is held: its token, which every process that sees the folder can read."""

    def __init__(self, folder: str, token: str) -> None:
        self.folder, self.token = folder, token

    def check(self) -> None:
        """Raises DirectoryBusy if another process has taken the lock since, which took this one for dead."""
        held = _read(self.folder)
        if held is None or held.token != self.token:
            raise DirectoryBusy(_name(self.folder))


@contextlib.contextmanager
def hold(folder: str | os.PathLike[str], *, patience: float = 0.0) -> Iterator[DirectoryLock]:
    """Holds a directory, and makes it if there is none.

    patience: seconds in which a holder on this machine, which may be about to end, can let go of it.

    Raises DirectoryBusy, and OSError where the file cannot be written.
    """
    place = os.fspath(folder)
    os.makedirs(place, exist_ok=True)
    descriptor = os.open(os.path.join(place, FILE), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "r+", encoding="utf-8") as file:
        kernel = _lock(file, place, patience)
        held = _read(place)
        if held is not None and not (kernel and held.machine == boot_id()):
            _wait_until_gone(place, held.name)
        mine = Holder(f"{socket.gethostname()}, process {os.getpid()}", boot_id(), uuid.uuid4().hex)
        file.truncate(0)
        file.write("".join(f"{line}\n" for line in mine))
        file.flush()
        os.fsync(descriptor)
        lock = DirectoryLock(place, mine.token)
        if not kernel:  # two may have begun at the same moment: the last one to write stays
            time.sleep(CONTEST)
            lock.check()
        with heartbeat(HEARTBEAT, lambda: os.utime(descriptor)):
            try:
                yield lock
            finally:
                with contextlib.suppress(DirectoryBusy, OSError):
                    lock.check()
                    file.truncate(0)


def read_token(folder: str | os.PathLike[str]) -> str | None:
    """The token of the session that holds a directory, as this machine sees it."""
    held = _read(os.fspath(folder))
    return None if held is None else held.token


def boot_id() -> str:
    """Identifies this boot of this kernel: within it the kernel's locks are the truth."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return socket.gethostname()


def _lock(file: TextIO, folder: str, patience: float) -> bool:
    """Takes the kernel's lock; False where the file system has none."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _TAKEN:
                return False
        if time.monotonic() >= deadline:
            raise DirectoryBusy(_name(folder))
        time.sleep(0.1)


def _wait_until_gone(folder: str, holder: str) -> None:
    """Watches for a heartbeat of the holder; raises DirectoryBusy at the first."""
    warnings.warn(
        f"{folder} was last used by {holder}; waiting {STALE:g} s to see whether it is still at work", stacklevel=4
    )
    first, deadline = _heard(folder), time.monotonic() + STALE
    while time.monotonic() < deadline:
        time.sleep(min(1.0, HEARTBEAT / 2))
        if _read(folder) is None:  # it ended
            return
        if _heard(folder) != first:
            raise DirectoryBusy(_name(folder))


@contextlib.contextmanager
def heartbeat(seconds: float, beat: Callable[[], None]) -> Iterator[None]:
    """Calls `beat` every so many seconds in a thread, until the block ends."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(seconds):
            with contextlib.suppress(OSError):  # the server is away for a moment; the next one may succeed
                beat()

    thread = threading.Thread(target=work, daemon=True, name="gristmill-heartbeat")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _heard(folder: str) -> int:
    """The time of the last heartbeat. The file is opened for it: only then does NFS ask the server."""
    with open(os.path.join(folder, FILE), "rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _read(folder: str) -> Holder | None:
    """The record in the file; None where there is none, or a part of one."""
    lines = _lines(folder)
    return Holder(*lines) if len(lines) == 3 else None


def _name(folder: str) -> str:
    return next(iter(_lines(folder)), "it has not written its name yet")


def _lines(folder: str) -> list[str]:
    try:
        with open(os.path.join(folder, FILE), encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
