"""Converts ARPA files to KenLM binaries, which all processes of a machine map into memory and share.

An ARPA file is text: each process would parse it and hold its own copy. KenLM's `build_binary` converts it to a file
that can be mapped. It is taken from PATH, else from the model cache, where `compile_build_binary` stores it: compiled
once from KenLM's source distribution on PyPI, by a user's command (`gristmill models train ngram --out X.bin`,
`gristmill models binary`) and never during a run. A run with an ARPA file converts it once per machine if the tool is
available, and otherwise warns about the cost. Binaries are cached under the SHA-256 of the ARPA file, with a checksum.
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
from curation.quality.ngram.tokenize_text import facts_path

_MAGIC = b"mmap lm http://kheafield.com/code format version"
_SMALL_ARPA_BYTES = 8 << 20  # KenLM parses this many bytes of ARPA in about 0.1 s: not worth a file in the cache
_VERSION = "0.3.0"  # its binaries are format 5, as those of every release since 2012
_SHA256 = "c4628bb9fb63c8a6f9240035b8b037385cfc404cb72e933cf48878291edac1e8"  # of the source distribution


def is_binary(path: str) -> bool:
    """Whether a file is in KenLM's binary form."""
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def cached_binary(path: str) -> str:
    """The path to open for a model: `path` itself, or for a large ARPA file its cached binary, converted now if
    possible.

    Without build_binary it warns and returns the ARPA file. Concurrent processes wait for the first one.
    """
    if os.path.getsize(path) < _SMALL_ARPA_BYTES or is_binary(path):
        return path
    out = os.path.join(_cache_directory(), models.sha256(path) + ".binary")
    tool = find_build_binary()
    if tool is None and not _matches_checksum(out):
        warnings.warn(
            f"{path} is an ARPA file: each process parses it and holds a copy of {os.path.getsize(path) >> 20} MB of "
            f"text; `gristmill models binary {path} --out X.bin` makes a binary that all processes share",
            stacklevel=2,
        )
        return path
    try:
        with _file_lock(out + ".lock"):
            if not _matches_checksum(out):
                convert_to_binary(path, out, tool)
    except OSError as e:
        warnings.warn(f"{path} is used as an ARPA file, with a copy in each process: {e}", stacklevel=2)
        return path
    return out


def convert_to_binary(arpa: str, out: str, tool: str | None = None) -> None:
    """Converts an ARPA file to a binary at `out`, atomically, and writes its SHA-256 beside it.

    The binary holds KenLM's probing hash table, which scores fastest and takes about 22 bytes per n-gram. Raises
    UserError for a file that build_binary refuses, and where build_binary is missing and cannot be compiled.
    """
    tool = tool or find_build_binary() or compile_build_binary()
    with atomic_files.replacing(out) as temporary:
        done = subprocess.run([tool, "-s", arpa, temporary], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip(" -*0123456789") not in ("", "ERROR")]
            raise UserError(f"{arpa}: {tool} cannot convert it to a binary: {lines[-1] if lines else done.returncode}")
        with open(temporary, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    with open(out + ".sha256", "w") as file:
        file.write(f"{digest}  {os.path.basename(out)}\n")
    if os.path.isfile(facts_path(arpa)):  # the form that its text had
        shutil.copyfile(facts_path(arpa), facts_path(out))


def find_build_binary() -> str | None:
    """The path of build_binary, on PATH or compiled earlier; None without either."""
    built = _build_binary_path()
    return shutil.which("build_binary") or (built if _matches_checksum(built) else None)


def compile_build_binary() -> str:
    """Compiles build_binary from KenLM's source distribution, which pip downloads, and returns its path in the cache.

    Needs a C++ compiler and half a minute. The archive's SHA-256 is checked before anything in it is run. Raises
    UserError naming what is missing.
    """
    advice = "install KenLM's build_binary on PATH"
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))), None)
    if compiler is None:
        raise UserError(f"no C++ compiler (c++, g++, clang++) to compile KenLM's build_binary with: {advice}")
    out = _build_binary_path()
    os.makedirs(os.path.dirname(out), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gristmill-kenlm-") as folder, _file_lock(out + ".lock"):
        if _matches_checksum(out):
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
    """Downloads and unpacks KenLM's source distribution into `folder`. pip checks the hash first."""
    wanted = os.path.join(folder, "requirements.txt")
    with open(wanted, "w") as file:
        file.write(f"kenlm=={_VERSION} --hash=sha256:{_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary=kenlm", "--require-hashes", "--dest", folder, "--requirement", wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    archives = glob.glob(os.path.join(folder, "kenlm-*.tar.gz"))
    if done.returncode or not archives:
        lines = done.stderr.strip().splitlines()
        raise UserError(
            f"pip cannot download KenLM's sources ({lines[-1] if lines else 'no file was downloaded'}): {advice}"
        )
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")


def _cache_directory() -> str:
    return os.path.join(models.directory(), "kenlm")


def _build_binary_path() -> str:
    return os.path.join(_cache_directory(), f"build_binary-{_VERSION}-{platform.system()}-{platform.machine()}".lower())


def _matches_checksum(path: str) -> bool:
    """Whether a file exists and matches the checksum beside it."""
    try:
        with open(path + ".sha256") as file:
            return models.sha256(path) == file.read().split()[0]
    except (OSError, IndexError, UserError):
        return False


@contextlib.contextmanager
def _file_lock(path: str) -> Iterator[None]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
