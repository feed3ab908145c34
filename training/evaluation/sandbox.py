"""Runs a program that a model wrote in a sandbox, and says whether it reaches its end.

Three layers, each of which holds by itself:

*bubblewrap* (`bwrap`): namespaces of its own, made by the kernel. The program sees Python and the system's libraries,
read-only, and an empty directory in memory; no file of the user's, no other process, no network.
*seccomp* (syscall_filter.py): it starts no process, opens no socket, signals and limits nobody.
*limits*: processor time, memory, file size, open files, wall time; and a hook in Python that refuses what the first two
refuse anyway, for machines where they do not exist.

Where bubblewrap does not work, code runs only if the user says so: then files of the user's are readable, and the hook
that keeps Python from changing them is no boundary.

A program is right if it reaches its end: the runner then copies a random word, unknown when the program was written,
from its input to its output. The tests run in the program's own process, so one that sets out to cheat can pass them.
"""

from __future__ import annotations

import functools
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence

from curation.core.errors import UserError
from training.evaluation.syscall_filter import build_filter

SECONDS, BYTES = 10, 1 << 30
_DISK = 16 << 20  # bytes of the directory that the program may write to
_HOME = "/sandbox"  # that directory
_TOKEN = 32  # bytes
REFUSED_EVENTS = (
    "os.chmod", "os.chown", "os.exec", "os.fork", "os.forkpty", "os.kill", "os.killpg", "os.link", "os.mkdir",
    "os.posix_spawn", "os.putenv", "os.remove", "os.removexattr", "os.rename", "os.rmdir", "os.setxattr", "os.spawn",
    "os.symlink", "os.system", "os.truncate", "os.utime", "pty.spawn", "resource.prlimit", "subprocess.Popen",
)  # fmt: skip
# Modules that open files, or call anything, without asking the hook
REFUSED_MODULES = ("_ctypes", "_dbm", "_gdbm", "_posixshmem", "_posixsubprocess", "_sqlite3", "readline")

# Runs before a program in its process: limits, the filter, and an audit hook (PEP 578), which cannot be removed. All of
# it is local to one function, so that nothing of it is left in a module where the program would find it.
_RUNNER = """import os, resource, sys

def run(seconds, size, calls, events, modules, token):
    def read(count):
        parts = b""
        while len(parts) < count:
            part = os.read(0, count - len(parts))
            if not part:
                os._exit(1)
            parts += part
        return parts

    source = read(int.from_bytes(read(8), "little"))
    given, said, null = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    if calls:
        import ctypes
        code = ctypes.create_string_buffer(calls, len(calls))
        class Program(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
        kernel, held = ctypes.CDLL(None), Program(len(calls) // 8, ctypes.addressof(code))
    for kind, most in (("CPU", seconds), ("AS", size), ("FSIZE", 1 << 20), ("NOFILE", 32), ("CORE", 0), ("NPROC", 0)):
        resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (most, most))
    if calls:  # no new privileges, then the filter: PR_SET_NO_NEW_PRIVS and PR_SET_SECCOMP
        if kernel.prctl(38, 1, 0, 0, 0) or kernel.prctl(22, 2, ctypes.byref(held), 0, 0):
            os._exit(1)
        for name in [n for n in sys.modules if n.partition(".")[0] in ("ctypes", "_ctypes")]:
            del sys.modules[name]
        del ctypes, code, Program, kernel, held
    inside, whole, text = os.path.realpath(os.getcwd()) + os.sep, os.path.realpath, os.fsdecode
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    copy, word, leave = os.write, os.read, os._exit  # not what a program puts in their place

    def hook(event, given):
        if event in events or event.startswith(("socket.", "ctypes.", "shutil.", "sqlite3.")):
            raise PermissionError(event)
        if event == "import" and given[0] in modules:
            raise ImportError(given[0])
        if event == "open" and given[2] & writing and not isinstance(given[0], int):
            if not whole(text(given[0])).startswith(inside):
                raise PermissionError(text(given[0]))

    program = compile(source, "program.py", "exec", dont_inherit=True)
    sys.addaudithook(hook)
    exec(program, {{"__name__": "__main__"}})
    copy(said, word(given, token))
    leave(0)

(lambda run: run)(globals().pop("run"))({seconds}, {size}, {calls}, {events}, {modules}, {token})
"""


def runs_to_end(program: str, seconds: float = SECONDS, size: int = BYTES, *, sandbox: bool | None = None) -> bool:
    """Whether a program reaches its end without an error and within its limits.

    sandbox  run it in bubblewrap, or (False) with the other layers only [default: in bubblewrap where that works]
    """
    if sandbox is None:
        sandbox = not explain_no_sandbox()
    runner = _RUNNER.format(
        seconds=math.ceil(seconds), size=size, calls=build_filter(), events=REFUSED_EVENTS,
        modules=REFUSED_MODULES, token=_TOKEN,
    )  # fmt: skip
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", runner]
    source, token = program.encode("utf-8", errors="surrogatepass"), secrets.token_bytes(_TOKEN)
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(len(source).to_bytes(8, "little") + source + token)
        given.seek(0)
        with tempfile.TemporaryDirectory(prefix="gristmill-") as folder:
            running = subprocess.Popen(
                [*_bubblewrap(), *command] if sandbox else command,
                cwd=folder,
                env={} if sandbox else {"TMPDIR": folder},
                stdin=given,
                stdout=said,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                ended = running.wait(2 * seconds + 1) == 0
            except subprocess.TimeoutExpired:
                ended = False
            finally:
                if running.poll() is None:
                    os.killpg(running.pid, signal.SIGKILL)
                    running.wait()
        said.seek(0)
        return ended and said.read(_TOKEN + 1) == token


def require_sandbox(user: str) -> None:
    """Raises UserError where bubblewrap does not work. `user` says what needs it."""
    if reason := explain_no_sandbox():
        raise UserError(
            f"{user}: runs code that the model wrote, in a sandbox made by bubblewrap, and {reason}\n"
            "  install it (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap) and allow user "
            "namespaces, run this in a container or virtual machine of its own with --no-sandbox, or leave the task out"
        )


@functools.cache
def explain_no_sandbox() -> str:
    """Why programs cannot run in bubblewrap here; empty where they can. Tries it once a process."""
    if shutil.which("bwrap") is None:
        return "there is no bwrap on this machine"
    # The empty program, and what bwrap says when it fails
    if runs_to_end("", sandbox=True):
        return ""
    tried = subprocess.run(
        [*_bubblewrap(), os.path.realpath(sys.executable), "-I", "-S", "-c", ""],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    lines = tried.stderr.strip().splitlines() or [f"it ends with exit code {tried.returncode}"]
    return f"that does not work here: {lines[-1][:300]}"


def _bubblewrap() -> Sequence[str]:
    """The command before a Python command that runs it with its own view of the machine."""
    seen = [
        *("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/nix/store", "/etc/ld.so.cache"),
        os.path.realpath(sys.executable),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")),
        str(sysconfig.get_config_var("LIBDIR") or "/usr/lib"),
    ]
    stdlib = [os.path.join(sys.base_prefix, "lib"), os.path.join(sys.base_prefix, "lib64")]
    binds = [word for path in dict.fromkeys([*seen, *stdlib]) for word in ("--ro-bind-try", path, path)]
    devices = [w for name in ("null", "zero", "urandom") for w in ("--dev-bind", f"/dev/{name}", f"/dev/{name}")]
    return [
        shutil.which("bwrap") or "bwrap",
        "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL",
        "--die-with-parent", "--new-session", "--clearenv", "--setenv", "TMPDIR", _HOME,
        *binds, *devices, "--size", str(_DISK), "--tmpfs", _HOME, "--remount-ro", "/", "--chdir", _HOME,
    ]  # fmt: skip
