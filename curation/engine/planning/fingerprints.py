"""Computes fingerprints of all that a result depends on: code, configuration, models, environment.

A fingerprint that misses something reuses stale results; one that includes too much discards good ones. Code counts
with all that it imports, however deeply (core/imported_code.py): sources by their syntax trees, installed distributions
by their versions. So a step runs again when a package that it uses has another version, and not for any other. The
machine counts by Python's version and the CPU's features.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import locale
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import curation
from curation import storage
from curation.core import cpu_level, imported_code
from curation.core.errors import UserError
from curation.core.imported_code import ImportedCode
from curation.step import Step

# The contract between steps and engine: it changes often, and no byte of any result depends on it.
_SKIP = ("curation.step",)

_ROOT = Path(curation.__file__).resolve().parent.parent


@functools.cache
def machine(cpu_level: str | None = None) -> dict[str, str]:
    """Python's version and the CPU's features, which every result depends on; or the level that it is declared for."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, "machine": platform.machine(), "cpu": cpu_level or ",".join(_used_features())}


def environment(codes: Iterable[ImportedCode], cpu_level: str | None = None) -> dict[str, str]:
    """The machine, and the versions of all distributions that the code imports: equal on a worker and its driver."""
    found: dict[str, str] = {}
    for code in codes:
        found |= code.distributions
    return machine(cpu_level) | dict(sorted(found.items()))


def differences(expected: Mapping[str, str]) -> dict[str, str]:
    """What this process has of an `environment` where it has something else."""
    level = expected.get("cpu")
    here = machine(level if level in cpu_level.LEVELS and cpu_level.keeps(level, cpu_features()) else None)
    found = imported_code.versions(name for name in expected if name not in here) | here
    return {name: found[name] for name in expected if found[name] != expected[name]}


def check_utf8() -> None:
    """Raises UserError where the default file encoding is not UTF-8. Libraries that steps use open files with the
    default (spaCy, in datatrove's blocks): with another one they fail on every document, or worse, read it wrongly."""
    encoding = locale.getencoding() if not sys.flags.utf8_mode else "utf-8"
    if encoding.lower().replace("-", "") != "utf8":
        raise UserError(
            f"files are read as {encoding} here by default, so the result would differ from other machines'. Set "
            "PYTHONUTF8=1, or LC_ALL to a UTF-8 locale such as C.UTF-8, on all machines that work."
        )


def cpu_features() -> Mapping[str, bool]:
    """The CPU's features, without those that numpy was told not to use."""
    from numpy._core._multiarray_umath import __cpu_features__  # type: ignore[attr-defined,unused-ignore]

    return dict(__cpu_features__)


def _used_features() -> list[str]:
    # They decide which vectorised kernels numpy and arrow use, on which the last bits of a float can depend.
    # X86_V3 and V4 are what numpy 2.4 chooses by: an operator may switch them off where the CPU has them.
    names = ("AVX2", "FMA3", "AVX512F", "AVX512_SKX", "X86_V3", "X86_V4", "ASIMD", "SVE")
    return sorted(k for k in names if cpu_features().get(k))


def code_of(cls: type) -> ImportedCode:
    """The module that defines a class, and all that it imports."""
    file = inspect.getsourcefile(cls)
    return module_code(file) if file is not None else ImportedCode({}, {})


def module_code(file: str) -> ImportedCode:
    """A module's file and all that it imports."""
    return imported_code.imported_code(file, _SKIP)


def code_fingerprint(*classes: type) -> str:
    """Fingerprint of the modules that define the classes, and of all modules and distributions that these import."""
    return storage.fingerprint([_summary(code_of(cls)) for cls in classes])


def module_fingerprint(file: str) -> str:
    """Fingerprint of a module's file and of all modules and distributions that it imports, directly or not."""
    return storage.fingerprint(_summary(module_code(file)))


def source_fingerprint(file: str) -> str:
    """As `module_fingerprint`, without the versions of distributions."""
    return storage.fingerprint(module_code(file).sources)


def _summary(code: ImportedCode) -> list[Any]:
    return [code.sources, dict(code.distributions)]


def module_file(module: str) -> str:
    """The source file of a module of the project, by its place: nothing is imported."""
    file = _ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert file.is_file(), module
    return str(file)


def options(instance: Any) -> dict[str, Any]:
    """The configured fields of a step or reader, JSON-able; fields that `open` fills in are not among them."""
    return {
        f.name: getattr(instance, f.name) for f in dataclasses.fields(instance) if f.init and not f.name.startswith("_")
    }


def step_fingerprint(step: Step) -> str:
    """Fingerprint of a step by itself: class, version, options, code, checksums of its models and other input files."""
    from curation import models

    cls = type(step)
    # a user's file is imported under a generated module name, which must not count
    name = cls.__qualname__ if cls.__module__.startswith("_gristmill_") else f"{cls.__module__}.{cls.__qualname__}"
    return storage.fingerprint(
        {
            "class": name,
            "version": step.version,
            "options": options(step),
            "code": code_fingerprint(cls, *step.plugins()),
            "packages": imported_code.providers(step.packages()),
            "models": [models.sha256(m) for m in step.models()],
            "inputs": list(file_checksums(step.inputs())),
        }
    )


def file_checksums(patterns: Iterable[str]) -> Iterable[tuple[str, str]]:
    """(name, SHA-256) of every file that the patterns match, in order. UserError for a pattern that matches nothing."""
    for pattern in patterns:
        fs, inner = storage.filesystem(pattern)
        if any(c in inner for c in "*?["):
            names = sorted(n for n in fs.glob(inner) if fs.isfile(n))
        else:
            names = sorted(fs.find(inner)) if fs.isdir(inner) else [inner]  # a model may be a folder
        if not names or not all(fs.exists(n) for n in names):
            raise UserError(f"no file matches {pattern!r}: check the path, which is relative to the pipeline file")
        for name in names:
            with fs.open(name, "rb") as f:
                yield name.rsplit("/", 1)[-1], hashlib.file_digest(f, "sha256").hexdigest()
