"""What a model wrote is held: in bubblewrap, and, as far as the page says, where there is none.

Covers: training/evaluation/syscall_filter.py.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from curation.core.errors import UserError
from training.evaluation.sandbox import explain_no_sandbox, require_sandbox, runs_to_end
from training.evaluation.syscall_filter import build_filter

no_sandbox = explain_no_sandbox()
in_sandbox = pytest.param(True, marks=pytest.mark.skipif(bool(no_sandbox), reason=no_sandbox))
either = pytest.mark.parametrize("inside", [in_sandbox, False])
filtered = pytest.mark.skipif(not build_filter(), reason="no seccomp filter for this system or processor")


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process of the user's."""
    running = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield running
    running.kill()
    running.wait()


ESCAPES = {
    "sqlite3": "import sqlite3\nsqlite3.connect({file!r}).execute('create table t (x)')",
    "sqlite3 below": "import _sqlite3\n_sqlite3.connect({file!r}).execute('create table t (x)')",
    "dbm": "import dbm.gnu\ndbm.gnu.open({file!r}, 'c')",
    "mknod": "import os\nos.mkfifo({file!r})",
    "dir_fd": "import os\nf = os.open({folder!r}, os.O_RDONLY)\n"
    "os.write(os.open('victim', os.O_WRONLY | os.O_CREAT, dir_fd=f), b'x')",
    "dir_fd append": "import os\nos.chdir({folder!r})\nopen('victim', 'a').write('x')",
    "link": "import os\nos.link({file!r}, 'a')",
    "rename": "import os\nos.rename({file!r}, 'a')",
    "xattr": "import os\nos.setxattr({file!r}, 'user.x', b'y')",
    "pidfd": "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open({pid}), signal.SIGKILL)",
    "kill": "import os\nos.kill({pid}, 9)",
    "kill parent": "import os\nos.kill(os.getppid(), 9)",
    "prlimit": "import resource\nresource.prlimit({pid}, resource.RLIMIT_CPU, (1, 1))",
    "own limits": "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))",
    "fork_exec": "import _posixsubprocess, os\n_posixsubprocess.fork_exec([b'/bin/true'], [b'/bin/true'], True, (), "
    "None, None, -1, -1, -1, -1, -1, -1, *os.pipe(), False, False, 0, None, None, None, -1, None, False)",
    "fork": "import os\nos.fork()",
    "posix": "import posix\nposix.fork()",
    "exec": "import os\nos.execv('/bin/true', ['true'])",
    "thread that forks": "import os, _thread, time\nmade = []\n"
    "_thread.start_new_thread(lambda: made.append(os.fork()), ())\ntime.sleep(0.5)\nassert made",
    "socket": "import _socket\n_socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)",
    "unix socket": "import socket\nsocket.socketpair()",
    "ctypes": "import ctypes\nctypes.CDLL(None).getpid()",
    "_ctypes": "import _ctypes\n_ctypes.dlopen(None, 0)",
    "shared memory": "from multiprocessing import shared_memory\nshared_memory.SharedMemory('gristmill', True, 8)",
    "_ctypes by its loader": "import importlib.util\nspec = importlib.util.find_spec('_ctypes')\n"
    "spec.loader.create_module(spec).dlopen(None, 0)",
    "_sqlite3 by its loader": "import importlib.util\nspec = importlib.util.find_spec('_sqlite3')\n"
    "m = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(m)\nm.connect({file!r})",
}  # fmt: skip


@either
@pytest.mark.parametrize("name", ESCAPES)
def test_nothing_outside_is_reached(name: str, inside: bool, tmp_path: Path, victim: subprocess.Popen[bytes]) -> None:
    file = tmp_path / "victim"
    file.write_text("the user's own")
    program = ESCAPES[name].format(file=str(file), folder=str(tmp_path), pid=victim.pid)
    assert not runs_to_end(program, seconds=2, sandbox=inside)
    assert file.read_text() == "the user's own" and [p.name for p in tmp_path.iterdir()] == ["victim"]
    assert victim.poll() is None
    assert not os.path.exists("/dev/shm/gristmill")


@either
@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(77)", "import os\nos._exit(77)", "raise SystemExit(77)", "import sys\nsys.exit(0)",
        "import os\nos._exit(0)", "exit = 0\nquit()", "import __main__\n__main__.run",
        "import __main__\n__main__.finish()", "import os\nos.write(1, bytes(32))\nos._exit(0)",
        "import os\nfor i in range(3, 32):\n try: os.write(i, bytes(32))\n except OSError: pass\nos._exit(0)",
        "import os, signal\nsignal.raise_signal(signal.SIGTERM)", "import atexit\natexit.register(print)\n1 / 0",
    ],
)  # fmt: skip
def test_only_the_end_is_the_end(program: str, inside: bool) -> None:
    """No exit code is the right one: the end is a word that is drawn for each program."""
    assert not runs_to_end(program, seconds=2, sandbox=inside)


@either
@pytest.mark.parametrize(
    "program",
    [
        "import threading",
        "open('a', 'w').write('x')\nopen('a', 'a').write('y')\nassert open('a').read() == 'xy'",
        "import resource\nassert resource.getrlimit(resource.RLIMIT_NPROC) == (0, 0)",
        "import os\nos.open('.', os.O_RDONLY)\nassert os.listdir() == []",
        "import random, time, datetime, decimal, fractions, json, string, functools, zlib, unittest\nrandom.random()",
        "import sys\nassert sys.stdin.read() == ''\nprint('x' * 10_000)\nprint('y', file=sys.stderr)",
    ],
)
def test_what_programs_do_every_day_works(program: str, inside: bool) -> None:
    assert runs_to_end(program, sandbox=inside)


@pytest.mark.skipif(bool(no_sandbox), reason=no_sandbox)
@pytest.mark.parametrize(
    ("program", "right"),
    [
        ("open({file!r}).read()", False),
        ("import os\nos.listdir({folder!r})", False),
        ("import os\nassert not os.path.exists('/proc') and not os.path.exists('/home')", True),
        ("import os\nassert os.getuid() == 65534 and dict(os.environ).keys() <= {{'TMPDIR', 'PWD', 'LC_CTYPE'}}", True),
        ("for i in range(64): open(f'f{{i}}', 'wb').write(bytes(1 << 20))", False),
        ("open('/x', 'w')", False),
        ("import os\nos.makedirs(os.path.dirname(os.__file__) + '/x')", False),
    ],
)
def test_the_sandbox_shows_no_file_of_the_user(program: str, right: bool, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("secret")
    assert runs_to_end(program.format(file=str(file), folder=str(tmp_path)), sandbox=True) is right


def test_without_bubblewrap_code_runs_only_if_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    explain_no_sandbox.cache_clear()
    try:
        with pytest.raises(UserError, match=r"(?s)he: .*there is no bwrap on this machine.*apt install.*--no-sandbox"):
            require_sandbox("he")
        assert runs_to_end("assert 1 + 1 == 2") and not runs_to_end("assert 1 + 1 == 3")
    finally:
        explain_no_sandbox.cache_clear()


def test_a_bubblewrap_that_does_not_work_is_told_from_one_that_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As in a container, or where user namespaces are switched off: what bwrap says is passed on."""
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    explain_no_sandbox.cache_clear()
    try:
        with pytest.raises(UserError, match="setting up uid map: Permission denied"):
            require_sandbox("he")
    finally:
        explain_no_sandbox.cache_clear()


LOADED = """
import ctypes, errno, os, resource, signal, socket, sys, threading
calls = {calls}
code = ctypes.create_string_buffer(calls, len(calls))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
kernel, held = ctypes.CDLL(None, use_errno=True), Program(len(calls) // 8, ctypes.addressof(code))
assert kernel.prctl(38, 1, 0, 0, 0) == 0 and kernel.prctl(22, 2, ctypes.byref(held), 0, 0) == 0
def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except (PermissionError, ValueError):  # the latter: what setrlimit makes of it
        return
    raise AssertionError(call)
here = os.open(".", os.O_RDONLY)
for call in (
    lambda: os.fork(), lambda: os.execv(sys.executable, ["x"]), lambda: os.posix_spawn(sys.executable, ["x"], {{}}),
    lambda: os.kill({pid}, 9), lambda: os.pidfd_open({pid}), lambda: socket.socket(), lambda: socket.socketpair(),
    lambda: os.mkfifo("fifo"), lambda: resource.prlimit({pid}, resource.RLIMIT_CPU, (1, 1)),
    lambda: resource.setrlimit(resource.RLIMIT_CPU, (9, 9)), lambda: os.setxattr("a", "user.a", b"b"),
    lambda: os.open("b", os.O_CREAT | os.O_WRONLY, dir_fd=here), lambda: os.chroot("."),
    lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)), lambda: os.setpriority(0, 0, 5),
):
    refused(call)
for number, arguments in {{{raw}}}.items():
    assert kernel.syscall(number, *arguments) == -1 and ctypes.get_errno() == errno.EPERM, number
assert kernel.syscall(435, 0, 0) == -1 and ctypes.get_errno() == errno.ENOSYS  # clone3
threads = [threading.Thread(target=len, args=("",)) for _ in range(3)]
[t.start() for t in threads], [t.join() for t in threads]
open("a", "w").write("x"), os.read(os.open("a", os.O_RDONLY, dir_fd=here), 1)
resource.getrlimit(resource.RLIMIT_CPU), os.listdir(), os.getpid()
print("held")
"""


@filtered
def test_the_filter_holds_whatever_library_makes_the_call(tmp_path: Path, victim: subprocess.Popen[bytes]) -> None:
    """Python's own functions, and raw system calls through the C library."""
    (tmp_path / "a").write_text("x")
    raw = "101: (16, {pid}, 0, 0), 310: ({pid}, 0, 0, 0, 0, 0), 425: (1, 0), 321: (0, 0, 0), 272: (0x10000000,)"
    program = LOADED.format(calls=build_filter(), pid=victim.pid, raw=raw.format(pid=victim.pid) if _x86() else "")
    ran = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.stdout == "held\n", ran.stderr
    assert victim.poll() is None and sorted(os.listdir(tmp_path)) == ["a"]


def _x86() -> bool:
    return platform.machine() == "x86_64"


def test_the_filters_of_both_processors_are_whole() -> None:
    """Every jump ends inside the program, and no other processor gets one."""
    for machine in ("x86_64", "aarch64"):
        code = build_filter(machine)
        steps = [code[i : i + 8] for i in range(0, len(code), 8)]
        assert len(code) % 8 == 0 and len(steps) < 4096  # BPF_MAXINSNS
        for at, step in enumerate(steps):
            kind, if_true, if_false = step[0] | step[1] << 8, step[2], step[3]
            if kind & 0x07 == 0x05:
                assert at + 1 + max(if_true, if_false) < len(steps)
        assert steps[-1][:2] == b"\x06\x00"
    assert build_filter("riscv64") == b""
