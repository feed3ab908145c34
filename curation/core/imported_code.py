"""Finds the code that a Python file depends on: the source files and distributions it imports, without importing any.

Imports are read from syntax trees, also those inside functions, and followed into every module outside the standard
library and installed distributions: of this project, of the user, of an editable install. Such a file counts by its
syntax tree without docstrings and comments. An installed distribution counts by its version, and so do the
distributions that it requires.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from curation.core.private_directory import private_directory

_ABSENT = "absent"  # instead of a version, for what is not installed: a later installation counts as a change
_STANDARD = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
_STANDARD |= {os.path.join(folder, "lib-dynload") for folder in _STANDARD}
_OWN = ("curation", "training", "pipelines")  # followed by their files however they are installed
_PROJECT = tuple(f"{Path(__file__).resolve().parents[2] / name}{os.sep}" for name in _OWN)
_API = "curation.api"  # what `import curation` offers on first use: all the rest imports it, and uses none of it
_SUFFIXES = importlib.machinery.all_suffixes()
# Requirements that nothing we import of a distribution imports, as a test checks.
_NEVER_IMPORTED = {"resiliparse": frozenset({"fastwarc"})}


@dataclass(frozen=True)
class ImportedCode:
    """What a file depends on, itself included."""

    files: Mapping[str, str]  # path -> SHA-256 of its syntax tree; of its bytes for a compiled module
    distributions: Mapping[str, str]  # name -> version

    @property
    def sources(self) -> list[str]:
        """Hashes of the files, without their paths: code that moved is the same code."""
        return sorted(self.files.values())

    def foreign_files(self) -> list[str]:
        """Those of its files that are not of this project."""
        return sorted(f for f in self.files if not f.startswith(_PROJECT))


def imported_code(file: str, skip: Iterable[str] = ()) -> ImportedCode:
    """The code that a source file depends on. Modules named in `skip` are not followed."""
    start = os.path.realpath(file)
    find = _Finder({*_OWN, *_package_of(start)[:1]}).find
    skipped = [find(name)[0] for name in (*skip, _API)]
    left_out = {paths[-1] for paths in skipped if paths}  # before the module come the packages that it is in
    files: dict[str, str] = {}
    named: set[str] = set()
    pending = [start, *_parents(start)]
    while pending:
        path = pending.pop()
        if path in files or path in left_out:
            continue
        stat = os.stat(path)
        files[path], imports = _read(path, stat.st_mtime_ns, stat.st_size)
        for name in imports:
            found, distributions = find(name)
            pending.extend(found)
            named.update(distributions)
    return ImportedCode(files, versions(named))


def providers(modules: Iterable[str]) -> dict[str, str]:
    """Versions of the distributions of modules given by name, and of what these require."""
    find = _Finder(set(_OWN)).find
    return versions(name for module in modules for name in find(module)[1])


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """Versions of distributions and of all that they require, directly or not, by name; extras do not count, nor does
    what is required and not installed, which is for other platforms."""
    found: dict[str, str] = {}
    pending = sorted(set(distributions))
    while pending:
        name = pending.pop()
        if name not in found:
            found[name], required = _distribution(name)
            pending.extend(r for r in required if _distribution(r)[0] != _ABSENT)
    return dict(sorted(found.items()))


# -- one file ----------------------------------------------------------------------------------------------------------


@functools.cache
def _read(path: str, mtime_ns: int, size: int) -> tuple[str, tuple[str, ...]]:
    """Hash and imports of a file. Cached by mtime and size: in a notebook a step's file changes between two runs."""
    data = Path(path).read_bytes()
    if not path.endswith(".py"):
        return hashlib.sha256(data).hexdigest(), ()
    package = _package_of(path)
    key = hashlib.sha256(b"\0".join([_parser(), ".".join(package).encode(), data])).hexdigest()
    stored = _stored(key)
    if stored is None:
        stored = _parsed(data, package)
        _store(key, stored)
    return stored


def _parsed(data: bytes, package: list[str]) -> tuple[str, tuple[str, ...]]:
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):  # importing it fails too; it may never be imported
        return hashlib.sha256(data).hexdigest(), ()
    imports: dict[str, None] = {}
    for node in _running(tree):
        imports |= dict.fromkeys(_names(node, package))
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and _docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.dump(tree).encode("utf-8", "surrogatepass")).hexdigest(), tuple(imports)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but the imports for type checkers alone."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def _names(node: ast.AST, package: list[str]) -> Iterator[str]:
    """The modules that a node imports; of `from a import b` also a.b, which may be a module."""
    if isinstance(node, ast.Import):
        yield from (a.name for a in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = ".".join([*package[: len(package) - node.level + 1], node.module or ""]) if node.level else node.module
        base = (base or "").strip(".")
        yield base
        yield from (f"{base}.{a.name}" for a in node.names)  # a.*: all modules of a package, see _find
    elif isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name = getattr(node.args[0], "value", None)
        if called in ("import_module", "__import__") and isinstance(name, str):
            yield name if not name.startswith(".") else ".".join([*package, name.lstrip(".")])


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)


def _package_of(path: str) -> list[str]:
    """The names of the packages that a file is in, outermost first."""
    folder = os.path.dirname(path)
    names: list[str] = []
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        names.insert(0, os.path.basename(folder))
        folder = os.path.dirname(folder)
    return names


def _parents(path: str) -> list[str]:
    """The `__init__.py` of the packages that a file is in: importing a module runs them."""
    return [os.path.join(Path(path).parents[i], "__init__.py") for i, _ in enumerate(_package_of(path))]


# -- what parsing gave, kept between processes -------------------------------------------------------------------------
# Parsing takes 10 to 20 ms a file, and a plan and each of its workers read some 150: 2 s of CPU.


@functools.cache
def _parser() -> bytes:
    """What a syntax tree depends on beside the source: the Python that parses, and this file."""
    return sys.version.encode() + hashlib.sha256(Path(__file__).read_bytes()).digest()


@functools.cache
def _directory() -> str | None:
    """Where results are kept, below the user's cache directory; None where no private directory can be made."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    try:  # fingerprints are made of them: nobody else may write there
        return private_directory(os.path.join(base, "gristmill", "imports"))
    except OSError:
        return None


def _stored(key: str) -> tuple[str, tuple[str, ...]] | None:
    directory = _directory()
    if directory is None:
        return None
    try:
        digest, imports = json.loads(Path(directory, key).read_bytes())
        return str(digest), tuple(map(str, imports))
    except (OSError, ValueError, TypeError):  # not there yet, or cut off
        return None


def _store(key: str, found: tuple[str, tuple[str, ...]]) -> None:
    directory = _directory()
    if directory is None:
        return
    with contextlib.suppress(OSError):  # a full disk: it is parsed again
        temporary = os.path.join(directory, f"{key}.{os.getpid()}")
        Path(temporary).write_bytes(json.dumps(found).encode())
        os.replace(temporary, os.path.join(directory, key))


# -- from names to files and distributions -----------------------------------------------------------------------------


class _Finder:
    """Finds modules for one question, while no file comes or goes: most names are imported by many files."""

    def __init__(self, own: set[str]) -> None:
        self.own = own  # top-level modules that are followed by their files wherever they are
        self.path_state = _search_path()
        self.find = functools.cache(self._find)
        self._listing = functools.cache(_names_in)

    def _find(self, module: str) -> tuple[list[str], list[str]]:
        """The files that importing a module runs, or the distributions that it is part of. Neither for the standard
        library and for names that are no module."""
        top, *rest = module.split(".")
        found = _top(top, self.path_state) if top else None
        if found is None:
            return [], [] if not top or top in sys.builtin_module_names or top in sys.stdlib_module_names else [top]
        origin, folders = found
        if top not in self.own:
            site = os.path.dirname(folders[0] if folders else str(origin))
            distributions = _providers(top, site) if _is_site(site) else ()
            if distributions or (site in _STANDARD and top in sys.stdlib_module_names):
                return [], list(distributions)
        files = [origin] if origin else []
        for name in rest:
            if name == "*":
                files += [p for folder in folders for p in _modules_in(folder)]
                break
            file, folders = self._below(folders, name)
            if file is None and not folders:
                break
            files += [file] if file else []
        return [f for f in files if os.path.isfile(f)], []

    def _below(self, folders: list[str], name: str) -> tuple[str | None, list[str]]:
        """(file, folders of submodules) of the module `name` in a package's folders, found by its place."""
        inner = [os.path.join(folder, name) for folder in folders if name in self._listing(folder)]
        inner = [folder for folder in inner if os.path.isdir(folder)]
        for folder, stem in (*((folder, "__init__") for folder in inner), *((folder, name) for folder in folders)):
            for suffix in _SUFFIXES:
                if stem + suffix in self._listing(folder):
                    return os.path.join(folder, stem + suffix), [folder] if stem == "__init__" else []
        return None, inner  # a folder without __init__.py is a package too


# The folders that modules are looked for in, each with the time when a file last came into it or went.
PathState = tuple[tuple[str, int], ...]


@functools.lru_cache(4096)  # a plan asks for some 300 names 30 times each, which took 2 s
def _top(name: str, path_state: PathState) -> tuple[str | None, list[str]] | None:
    """(file, folders of submodules) of a top-level module, None without one. Imports nothing."""
    spec = importlib.machinery.PathFinder.find_spec(name, [folder for folder, _ in path_state])
    try:
        spec = spec or importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a finder that refuses it; a module without a spec, such as __main__
        spec = None
    if spec is None:
        return None
    origin = os.path.realpath(spec.origin) if spec.has_location and spec.origin else None
    folders = [os.path.realpath(folder) for folder in spec.submodule_search_locations or ()]
    return (origin, folders) if origin or folders else None


def _names_in(folder: str) -> frozenset[str]:
    return frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()


def _modules_in(folder: str) -> list[str]:
    return [e.path for e in sorted(os.scandir(folder), key=lambda e: e.name) if e.name.endswith(".py") and e.is_file()]


def _search_path() -> PathState:
    """`sys.path` without folders inside of installed packages. Importing ray prepends one, with its own psutil and
    colorama: the same code would have another fingerprint in a process that has imported ray."""
    folders = [os.path.abspath(p) for p in sys.path if not _in_site(p)]
    return tuple((folder, os.stat(folder).st_mtime_ns) for folder in folders if os.path.exists(folder))


@functools.cache
def _in_site(folder: str) -> bool:
    return any(_is_site(str(parent)) for parent in Path(folder).parents)


@functools.cache
def _is_site(folder: str) -> bool:
    """Whether distributions are installed in a folder: a checkout that shadows one, or is an editable one, is not."""
    return os.path.isdir(folder) and any(name.endswith(".dist-info") for name in os.listdir(folder))


@functools.cache
def _providers(top: str, site: str) -> tuple[str, ...]:
    """The distributions that install a top-level module into a folder; none for a file that somebody put there."""
    named = list(metadata.Distribution.discover(name=top, path=[site]))
    # most are called like their module, and reading the lists of files of all others takes 0.1 s
    found = [d for d in named if _lists(d, top)] or [d for d in metadata.distributions(path=[site]) if _lists(d, top)]
    return tuple(sorted({_normal(d.metadata["Name"]) for d in found}))


def _lists(distribution: metadata.Distribution, top: str) -> bool:
    listed = distribution.read_text("RECORD") or distribution.read_text("top_level.txt") or ""
    return re.search(rf"^{re.escape(top)}(/|,|\.(?!dist-info)|$)", listed, re.MULTILINE) is not None


@functools.cache
def _distribution(name: str) -> tuple[str, tuple[str, ...]]:
    """(version, names of the distributions that it requires without extras)."""
    found = next(iter(metadata.Distribution.discover(name=name, path=[f for f, _ in _search_path()])), None)
    if found is None:
        return _ABSENT, ()
    wanted = [r for r in found.requires or () if not re.search(r";.*\bextra\b", r)]
    matches = [re.match(r"[A-Za-z0-9._-]+", r) for r in wanted]
    names = {_normal(m.group()) for m in matches if m}
    return found.version, tuple(sorted(names - _NEVER_IMPORTED.get(_normal(name), frozenset())))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
