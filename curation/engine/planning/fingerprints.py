"""Computes fingerprints of all that a result depends on: code, configuration, models, environment.

A fingerprint that misses something reuses stale results; one that includes too much discards good ones. Of code, what
counts is the syntax tree without docstrings and comments, of the step's own module and all modules of the project
that it imports. The environment counts by the versions of the packages whose output reaches the result.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import locale
import os
import platform
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import curation
from curation import storage
from curation.core.errors import UserError
from curation.step import Step

# Packages whose version can change a byte of the result. Ray and the command line cannot.
PACKAGES = (
    *("pyarrow", "numpy", "numba", "duckdb", "xxhash", "resiliparse", "trafilatura", "lxml"),
    *("fasttext", "kenlm", "datatrove", "datasketch", "presidio-analyzer", "phonenumbers", "spacy", "tldextract"),
    *("tokenizers", "tiktoken", "sentencepiece"),
)

_ROOT = Path(curation.__file__).resolve().parent.parent


@functools.cache
def environment() -> dict[str, str]:
    """Python, package versions and CPU features, which must be the same on a worker and its driver."""
    found = {"python": ".".join(map(str, sys.version_info[:3])), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    found["cpu"] = ",".join(_cpu_features())
    return found


def check_utf8() -> None:
    """Raises UserError where the default file encoding is not UTF-8. Libraries that steps use open files with the
    default (spaCy, in datatrove's blocks): with another one they fail on every document, or worse, read it wrongly."""
    encoding = locale.getencoding() if not sys.flags.utf8_mode else "utf-8"
    if encoding.lower().replace("-", "") != "utf8":
        raise UserError(
            f"files are read as {encoding} here by default, so the result would differ from other machines'. Set "
            "PYTHONUTF8=1, or LC_ALL to a UTF-8 locale such as C.UTF-8, on all machines that work."
        )


def _cpu_features() -> list[str]:
    # They decide which vectorised kernels numpy and arrow use, on which the last bits of a float can depend.
    from numpy._core._multiarray_umath import __cpu_features__  # type: ignore[attr-defined,unused-ignore]

    return sorted(k for k in ("AVX2", "FMA3", "AVX512F", "AVX512_SKX", "ASIMD", "SVE") if __cpu_features__.get(k))


@functools.cache
def environment_fingerprint() -> str:
    return storage.fingerprint(environment())


def code_fingerprint(cls: type) -> str:
    """Fingerprint of the module that defines `cls` and of all the project's modules that it imports, however deeply."""
    file = inspect.getsourcefile(cls)
    if file is None:
        return "builtin"
    return module_fingerprint(file)


def module_fingerprint(file: str) -> str:
    """Fingerprint of a module's file and of all modules of the project that it imports, directly or not."""
    seen: dict[str, str] = {}
    pending = [str(Path(file).resolve())]
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        stat = os.stat(path)
        seen[path], imports = _module(path, stat.st_mtime_ns, stat.st_size)
        pending.extend(imports)
    return storage.fingerprint(sorted(seen.values()))


@functools.cache
def _module(path: str, mtime_ns: int, size: int) -> tuple[str, list[str]]:
    """Hash and imports of a file. Cached by mtime and size: in a notebook a step's file changes between two runs."""
    tree = ast.parse(Path(path).read_bytes())
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = _absolute(path, node)
            imports += [module, *(f"{module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            imports += [a.name for a in node.names]
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and _docstring(node):
            assert isinstance(body, list)
            node.body = body[1:] or [ast.Pass()]
    # `curation.step` is the contract: it changes often, and no byte of any result depends on it
    ours = [n for n in imports if n.startswith("curation.") and n != "curation.step"]
    files = [f for f in map(_file_of, ours) if f]
    return hashlib.sha256(ast.dump(tree).encode("utf-8", "surrogatepass")).hexdigest(), files


def _absolute(path: str, node: ast.ImportFrom) -> str:
    """The absolute name of the module that an import names, relative or not."""
    if node.level == 0:
        return node.module or ""
    folder = Path(path).parents[node.level - 1]
    parts: list[str] = []
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join([*parts, *([node.module] if node.module else [])])


def _docstring(node: ast.AST) -> bool:
    body: list[Any] = getattr(node, "body", [])
    return bool(body) and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def module_file(module: str) -> str:
    """The source file of a module of the project, found without importing it."""
    file = _file_of(module)
    assert file is not None, module
    return file


def _file_of(module: str) -> str | None:
    """The file of a module of the project by its place, None for what is not one."""
    base = _ROOT.joinpath(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if file.is_file():
            return str(file)
    return None


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
            "code": code_fingerprint(cls),
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
