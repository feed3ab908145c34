"""Checks whether this machine can run Gristmill, and says what to do where it cannot (`gristmill doctor`).

Each finding is one line: what was checked, the result, and advice where the result is not good. "warn" slows or
limits a run, "bad" stops it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from curation.core import packages
from pipelines.number_format import format_bytes

State = Literal["good", "warn", "bad"]

MEMORY = 4 << 30  # a worker holds 1 to 2 GB with its models; below two of them a laptop starts to swap
DISK = 5 << 30
SHARED_MEMORY = 1 << 30  # Ray's object store lives in /dev/shm, and says so itself only once it is slow


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    state: State
    said: str
    advice: str = ""


def examine(storage: str = "runs") -> list[Finding]:
    """Looks at everything. Starts nothing and leaves nothing behind."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _packages,
        _memory,
        lambda: _storage(storage),
        _models,
        _ray,
        _accelerator,
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    version = platform.python_version()
    good = (3, 11) <= sys.version_info[:2] < (3, 14)
    advice = "" if good else "install Python 3.11 to 3.13 and make a new environment with it"
    return [
        Finding("Python", "good" if good else "bad", f"{version} on {platform.system()} {platform.machine()}", advice)
    ]


def _packages() -> list[Finding]:
    """The default install, and which extras are there. A machine that only curates or only trains is a warning."""
    missing = [m for m in packages.DEFAULT if not packages.is_installed(m)]
    found = [Finding("packages", "good", ", ".join(_versions(m for m in packages.DEFAULT if m not in missing)))]
    if missing:
        said, state = f"missing: {', '.join(missing)}", "bad"
        if set(missing) <= set(packages.TRAINING_ONLY):
            said, state = f"{said}; this machine can curate but not train", "warn"
        elif "duckdb" in missing and not set(missing) & set(packages.TRAINING):
            said, state = f"{said}; this machine can train but not curate", "warn"
        found.append(Finding("packages", state, said, packages.pip_command(missing)))  # type: ignore[arg-type]
    complete, absent = [], []
    for extra, modules in packages.EXTRAS.items():
        lacking = [m for m in modules if not packages.is_installed(m)]
        if lacking:
            absent.append(f"{extra} without {' and '.join(lacking)} ({packages.pip_command(lacking)})")
        else:
            complete.append(extra)
    said = f"installed: {', '.join(complete) or 'none'}"
    return [*found, Finding("extras", "good", f"{said}; not installed: {'; '.join(absent)}" if absent else said)]


def _versions(modules: Iterable[str]) -> Iterator[str]:
    for module in modules:
        name = packages.DEFAULT[module].partition("[")[0]
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:  # importable, but not installed by pip
            yield name


def _memory() -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fit = max(1, memory.available // MEMORY * 2)
    short = memory.available < MEMORY
    found = [
        Finding(
            "memory",
            "warn" if short else "good",
            f"{format_bytes(memory.available)} free of {format_bytes(memory.total)}, {cores} cores",
            f"give --workers {min(cores, fit)} so that workers do not push each other out" if short else "",
        )
    ]
    if os.path.isdir("/dev/shm"):
        stat = os.statvfs("/dev/shm")
        free = stat.f_bavail * stat.f_frsize
        small = free < SHARED_MEMORY
        advice = "in a container start it with --shm-size=2g; Ray falls back to the disk otherwise" if small else ""
        found.append(
            Finding("shared memory", "warn" if small else "good", f"{format_bytes(free)} free in /dev/shm", advice)
        )
    return found


def _storage(root: str) -> list[Finding]:
    """Writes a file and reads it back where runs would go."""
    from curation.core.errors import UserError
    from curation.storage import Storage

    existed = os.path.isdir(root)
    try:
        store = Storage(root)
        name = f".doctor-{os.getpid()}"
        written = store.write_bytes(name, b"gristmill")
        good = store.read_bytes(name) == b"gristmill" and written.size == 9
        store.remove(name)
        free = store.free_bytes()
        if not existed and store.local and not os.listdir(root):
            os.rmdir(root)
    except (OSError, ValueError, ImportError, UserError) as error:
        advice = (
            packages.pip_command(["s3fs"])
            if root.startswith("s3://") and not packages.is_installed("s3fs")
            else "choose a directory you may write to"
        )
        return [Finding("storage", "bad", f"{root}: {error}", advice)]
    if not good:
        return [
            Finding("storage", "bad", f"{root}: what was written is not what is read", "do not run on this filesystem")
        ]
    if free is None:
        return [Finding("storage", "good", f"{root} can be written and read")]
    short = free < DISK
    advice = "free some space, or put runs elsewhere with --run" if short else ""
    return [
        Finding("storage", "warn" if short else "good", f"{root} can be written, {format_bytes(free)} free", advice)
    ]


def _models() -> list[Finding]:
    from curation import models
    from curation.core.errors import UserError

    found = []
    for row in models.listing():
        if not row.present:
            state: State = "warn" if row.name == "lid.176" else "good"  # the one that most pipelines use
            found.append(Finding("model", state, f"{row.name} is not here", f"gristmill models pull {row.name}"))
            continue
        try:
            models.resolve(row.name)
            found.append(Finding("model", "good", f"{row.name}: {row.path}"))
        except UserError as error:  # its message ends with what to do
            found.append(Finding("model", "bad", str(error), f"then try: gristmill models pull {row.name}"))
    return found


def _ray() -> list[Finding]:
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        return []
    address = os.environ.get("RAY_ADDRESS")
    if address:
        return [Finding("Ray", "good", f"{version}; RAY_ADDRESS={address}: --address auto goes there")]
    return [Finding("Ray", "good", f"{version}; starts here by itself, or give --address")]


def _accelerator() -> list[Finding]:
    """nvidia-smi's answer, without loading torch (two seconds) just to ask."""
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as f:
            return [Finding("GPU", "good", f.readline().strip())]
    except OSError:
        return [Finding("GPU", "good", "none: training uses the processor, which is right for small models")]


def show(console: Any, results: list[Finding]) -> None:
    """One line each, advice below."""
    marks = {"good": ("✓", "green"), "warn": ("!", "yellow"), "bad": ("✗", "red")}
    for finding in results:
        mark, style = marks[finding.state]
        console.print(f"{mark} {finding.what}: {finding.said}", style=style, markup=False, highlight=False)
        if finding.advice and finding.state != "good":
            console.print(f"    {finding.advice}", markup=False, highlight=False)
