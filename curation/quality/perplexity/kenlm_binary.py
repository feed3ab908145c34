"""KenLM's binary form of a model, which all processes of a machine map into memory and share.

An ARPA file is text: each process would parse it and hold a copy. KenLM's `build_binary` turns it into what is mapped.
It is taken from PATH, else from the cache of models, where `build_tool` puts it: compiled once from KenLM's source
distribution on PyPI, at a person's command (`gristmill models train ngram --out X.bin`, `gristmill models binary`) and
never during a run. A run that is given an ARPA file converts it once a machine where there is the tool, and says what
it costs where there is none. Binaries are kept under the SHA-256 of the ARPA, checksummed.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Iterator

from curation import models
from curation.core import atomic_files
from curation.core.errors import UserError

_MAGIC = b"mmap lm http://kheafield.com/code format version"
_SMALL = 8 << 20  # bytes of ARPA that KenLM parses in about 0.1 s: not worth a file in the cache
_VERSION = "0.3.0"  # its binaries are format 5, as those of every release since 2012
_SHA256 = "c4628bb9fb63c8a6f9240035b8b037385cfc404cb72e933cf48878291edac1e8"  # of the source distribution


def is_binary(path: str) -> bool:
    """Whether a file is in KenLM's binary form."""
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def mapped(path: str) -> str:
    """The path to open for a model: the same, or for a large ARPA file its binary, made now if it can be made.

    Where there is no tool it warns and gives back the ARPA. Processes that ask at once wait for the first.
    """
    if os.path.getsize(path) < _SMALL or is_binary(path):
        return path
    out = os.path.join(_directory(), models.sha256(path) + ".binary")
    tool = find_tool()
    if tool is None and not _whole(out):
        warnings.warn(
            f"{path} is an ARPA file: each process parses it and holds {os.path.getsize(path) >> 20} MB of text as a "
            f"copy of its own; `gristmill models binary {path} --out X.bin` makes what all of them share",
            stacklevel=2,
        )
        return path
    try:
        with _locked(out + ".lock"):
            if not _whole(out):
                convert(path, out, tool)
    except OSError as e:
        warnings.warn(f"{path} stays an ARPA file, a copy a process: {e}", stacklevel=2)
        return path
    return out


def convert(arpa: str, out: str, tool: str | None = None) -> None:
    """Writes the binary of an ARPA file to `out`, whole or not at all, and its SHA-256 beside it.

    It holds KenLM's probing hash table, which scores fastest and takes some 22 bytes an n-gram. Raises UserError for a
    file that build_binary refuses, and where there is no build_binary and none can be made.
    """
    tool = tool or find_tool() or build_tool()
    with atomic_files.replacing(out) as temporary:
        done = subprocess.run([tool, "-s", arpa, temporary], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip(" -*0123456789") not in ("", "ERROR")]
            raise UserError(f"{arpa}: {tool} cannot make a binary of it: {lines[-1] if lines else done.returncode}")
        with open(temporary, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    with open(out + ".sha256", "w") as file:
        file.write(f"{digest}  {os.path.basename(out)}\n")


def find_tool() -> str | None:
    """The path of build_binary: on PATH, or built before; None without either."""
    built = _tool_path()
    return shutil.which("build_binary") or (built if _whole(built) else None)


def build_tool() -> str:
    """Compiles build_binary from the source distribution of KenLM that pip brings, and keeps it; its path.

    Takes a C++ compiler and half a minute. The archive is checked against its SHA-256 before anything of it is run.
    Raises UserError saying what is missing.
    """
    advice = "install KenLM's build_binary on PATH"
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))), None)
    if compiler is None:
        raise UserError(f"no C++ compiler (c++, g++, clang++) to make KenLM's build_binary with: {advice}")
    out = _tool_path()
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gristmill-kenlm-") as folder, _locked(out + ".lock"):
        if _whole(out):
            return out
        _download(folder, advice)
        source = os.path.join(folder, f"kenlm-{_VERSION}")
        files = [
            os.path.relpath(path, source)
            for pattern in ("util/*.cc", "util/double-conversion/*.cc", "lm/*.cc")
            for path in sorted(glob.glob(os.path.join(source, pattern)))
            if not path.endswith(("main.cc", "test.cc"))
        ]
        made = os.path.join(folder, "build_binary")
        command = [compiler, "-w", "-std=c++11", "-O2", "-DNDEBUG", "-DKENLM_MAX_ORDER=6", "-I."]
        command += [*files, "lm/build_binary_main.cc", "-lpthread", "-o", made]
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            raise UserError(f"{compiler} cannot compile KenLM {_VERSION} ({lines[-1] if lines else ''}): {advice}")
        with atomic_files.replacing(out) as temporary:
            shutil.copy(made, temporary)
            with open(temporary, "rb") as file, open(out + ".sha256", "w") as beside:
                beside.write(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {os.path.basename(out)}\n")
    return out


def _download(folder: str, advice: str) -> None:
    """Unpacks KenLM's source distribution into `folder`. pip compares the hash before it looks inside."""
    wanted = os.path.join(folder, "requirements.txt")
    with open(wanted, "w") as file:
        file.write(f"kenlm=={_VERSION} --hash=sha256:{_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary=kenlm", "--require-hashes", "--dest", folder, "--requirement", wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    archives = glob.glob(os.path.join(folder, "kenlm-*.tar.gz"))
    if done.returncode or not archives:
        lines = done.stderr.strip().splitlines()
        raise UserError(f"pip cannot bring KenLM's sources ({lines[-1] if lines else 'nothing came'}): {advice}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")


def _directory() -> str:
    return os.path.join(models.directory(), "kenlm")


def _tool_path() -> str:
    return os.path.join(_directory(), f"build_binary-{_VERSION}-{platform.system()}-{platform.machine()}".lower())


def _whole(path: str) -> bool:
    """Whether a file is there and is what the checksum beside it says."""
    try:
        with open(path + ".sha256") as file:
            return models.sha256(path) == file.read().split()[0]
    except (OSError, IndexError, UserError):
        return False


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
