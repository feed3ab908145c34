"""A directory belongs to one process at a time, on this machine and on others."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from curation.core import directory_lock
from curation.core.directory_lock import FILE, DirectoryBusy, hold, read_token

HOLDER = (
    "import sys, time\nfrom curation.core.directory_lock import hold\n"
    "with hold(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(600)\n"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that holds the folder until it is killed."""
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_one_at_a_time_and_a_killed_holder_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    child = holder(folder)
    try:
        with pytest.raises(DirectoryBusy, match=rf", process {child.pid}$"), hold(folder):
            pass
    finally:
        child.kill()
        child.wait()
    with hold(folder) as lock:
        assert read_token(folder) == lock.token
        lock.check()
        with pytest.raises(DirectoryBusy, match=rf", process {os.getpid()}$"), hold(folder):
            pass
    assert read_token(folder) is None, "let go of, so that another machine need not wait"


def test_patience_for_a_holder_that_is_about_to_end(tmp_path: Path) -> None:
    child = holder(tmp_path)
    threading.Timer(0.3, child.send_signal, (signal.SIGKILL,)).start()
    with hold(tmp_path, patience=60):
        pass
    child.wait()


def other_machine(folder: Path) -> None:
    (folder / FILE).write_text("mill-7, process 4711\nanother boot\nanother token\n")


@pytest.mark.parametrize("locks", [True, False])
def test_a_holder_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
    """The kernel knows nothing of it, or has no locks at all: its heartbeat decides."""
    if not locks:

        def none(*_: object) -> None:
            raise OSError(errno.ENOLCK, "no locks available")

        monkeypatch.setattr(fcntl, "flock", none)
        monkeypatch.setattr(directory_lock, "CONTEST", 0.01)
    monkeypatch.setattr(directory_lock, "HEARTBEAT", 0.02)
    monkeypatch.setattr(directory_lock, "STALE", 0.3)
    other_machine(tmp_path)
    with pytest.warns(UserWarning, match="was last used by mill-7, process 4711; waiting"), hold(tmp_path):
        pass
    other_machine(tmp_path)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.01):
            os.utime(tmp_path / FILE)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.warns(UserWarning), pytest.raises(DirectoryBusy, match="mill-7, process 4711"), hold(tmp_path):
            pass
    finally:
        ended.set()
        thread.join()


def test_the_heartbeat_is_the_time_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_lock, "HEARTBEAT", 0.01)
    with hold(tmp_path):
        first = (tmp_path / FILE).stat().st_mtime_ns
        for _ in range(1000):
            time.sleep(0.01)
            if (tmp_path / FILE).stat().st_mtime_ns > first:
                break
        else:
            raise AssertionError("never touched")


def test_who_was_taken_for_dead_learns_of_it(tmp_path: Path) -> None:
    with hold(tmp_path) as lock:
        other_machine(tmp_path)
        with pytest.raises(DirectoryBusy, match="mill-7"):
            lock.check()
    assert read_token(tmp_path) == "another token", "and leaves the other one's record alone"
