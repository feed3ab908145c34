"""Finds the class of a step or reader by its word in a file and builds it from checked options.

Steps and readers are dataclasses whose fields are their options. A catalogue maps words to classes, or to
"module:Class" imported when the word is used. A user's own step is written as `my_steps.py:ShoutStep` (a file beside
the pipeline file) or `package.module:Class`, or names a function, of which a step is made (function_step.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from curation.core.errors import UserError
from curation.core.imported_code import imported_code
from curation.core.packages import explain_import_error
from curation.core.schema import nearest
from curation.core.yaml_lines import Path, YamlTree
from curation.step import GlobalStep, MapStep
from curation.storage import path_beside


def find_class(kind: str, catalogue: Mapping[str, str | type], tree: YamlTree, path: Path, what: str) -> type:
    """The class that a word in the file means. Raises UserError naming near words, or what went wrong on import."""
    where = tree.where(*path)
    target = catalogue.get(kind)
    if target is None and (":" in kind):
        return load_class(user_target(kind, tree.file), where)
    if target is None:
        hint = nearest(kind, catalogue)
        own = "\n  a step of your own is written file.py:name or package.module:name, of a function or class"
        raise UserError(f"{where}: unknown {what} {kind!r}\n  {hint}{own if what == 'step' else ''}")
    return load_class(target, where) if isinstance(target, str) else target


def find_known_class(kind: str, catalogue: Mapping[str, str | type], file: str) -> type:
    """As `find_class`, for a word that a run directory stores: imports nothing but the catalogue's own classes.

    Run directories are passed on, and looking at one must not run code that it names. A user's own class is given only
    where this process has imported it already. Raises UserError for any other.
    """
    if kind in catalogue or ":" not in kind:
        return find_class(kind, catalogue, YamlTree(file, {}), (), "step")
    target = user_target(kind, file)
    module, _, name = target.rpartition(":")
    if module.endswith(".py"):
        module = _module_name(module) if os.path.isfile(module) else ""
    found = getattr(sys.modules.get(module), name, None)
    if inspect.isfunction(found):
        return _function_step(found)
    if not isinstance(found, type) or not issubclass(found, (MapStep, GlobalStep)):
        raise UserError(f"{kind} is code that the run names; looking at a run does not import it")
    return found


def user_target(kind: str, file: str) -> str:
    """`my_steps.py:Shout` with the path made absolute, as `load_class` takes it on any machine that has the file."""
    module, _, name = kind.rpartition(":")
    return f"{path_beside(file, module)}:{name}" if module.endswith(".py") else kind


def load_class(target: str, where: str = "") -> type:
    """Imports "package.module:Class" or "/path/file.py:Class"; of a function gives the step that is made of it. The
    same file gives the same module every time, on every machine that has it; an edited one another."""
    module_name, _, class_name = target.rpartition(":")
    prefix = f"{where}: " if where else ""
    if module_name.endswith(".py"):
        path = module_name
        if not os.path.isfile(path):
            raise UserError(f"{prefix}no such file: {path}\n  expected the path of a Python file beside this one")
        module_name = _module_name(path)
        if module_name not in sys.modules:
            spec = importlib.util.spec_from_file_location(module_name, path)
            assert spec is not None and spec.loader is not None  # for a .py file there is one
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:  # the user's own code may raise anything
                del sys.modules[module_name]
                raise UserError(f"{prefix}{path} cannot be imported: {type(error).__name__}: {error}") from error
    else:
        try:
            importlib.import_module(module_name)
        except ImportError as error:
            missing = explain_import_error(error)
            reason = f": {missing}" if missing else f" cannot be imported: {error}"
            raise UserError(f"{prefix}{module_name}{reason}") from error
    _check_current(sys.modules[module_name], prefix)
    found = getattr(sys.modules[module_name], class_name, None)
    if inspect.isfunction(found):
        return _function_step(found, prefix)
    if not isinstance(found, type):
        raise UserError(f"{prefix}{target.rpartition(':')[0]} has no class or function {class_name}")
    return found


def _function_step(function: Callable[..., Any], prefix: str = "") -> type:
    from curation.function_step import step_class

    try:
        return step_class(function)
    except UserError as error:
        raise UserError(f"{prefix}{error}") from None


_imported: dict[str, tuple[int, int]] = {}  # the user's files when this process imported them: mtime and size


def _check_current(module: ModuleType, prefix: str) -> None:
    """Raises UserError where a file of the user's that the module imports was changed after this process imported it:
    Python keeps what it has imported, while fingerprints are of what the files say."""
    if module.__name__.startswith("curation.") or not module.__file__:
        return
    for file in imported_code(module.__file__).foreign_files():
        if file == os.path.realpath(module.__file__) and module.__name__.startswith("_gristmill_"):
            continue  # a changed one is another module
        stat = os.stat(file)
        if _imported.setdefault(file, (stat.st_mtime_ns, stat.st_size)) != (stat.st_mtime_ns, stat.st_size):
            raise UserError(
                f"{prefix}{file} was changed after this process imported it, so the old code would run\n"
                "  start a new process (in a notebook: restart the kernel)"
            )


def _module_name(path: str) -> str:
    """The name under which the code that is in a file now is imported."""
    with open(path, "rb") as f:
        state = hashlib.sha256(path.encode() + b"\0" + f.read()).hexdigest()[:8]
    return f"_gristmill_{os.path.basename(path)[:-3]}_{state}"


def build(cls: type, options: Mapping[str, Any], tree: YamlTree, path: Path, what: str) -> Any:
    """An instance of a dataclass from options, each checked against its field's type.

    Types are strict (no "3" for 3) but for what YAML cannot say: a list where a tuple is meant, an integer for a float.
    """
    if not dataclasses.is_dataclass(cls):
        raise UserError(f"{tree.where(*path)}: {cls.__name__} is not a dataclass\n  its fields would be its options")
    try:
        hints = get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise UserError(
            f"{tree.where(*path)}: an annotation of {cls.__name__} cannot be resolved: {error}\n"
            "  import the name where the class is defined, outside of `if TYPE_CHECKING:`"
        ) from None
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init and not f.name.startswith("_")}
    for key in options:
        if key not in fields:
            raise UserError(f"{tree.where(*path, key)}: {what} has no option {key!r}\n  {nearest(key, fields)}")
    missing = [
        name
        for name, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and name not in options
    ]
    if missing:
        needs = ", ".join(f"{n} ({_type_name(hints[n])})" for n in missing)
        raise UserError(f"{tree.where(*path)}: {what} needs {needs}")
    values = {}
    for key, value in options.items():
        annotation = hints[key]
        try:
            values[key] = TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            inner = tuple(p for p in first["loc"] if isinstance(p, int) or (isinstance(value, dict) and p in value))
            where = tree.where(*path, key, *inner)
            expected = _type_name(annotation)
            raise UserError(
                f"{where}: is {json.dumps(first['input'], ensure_ascii=False)}\n  expected {expected}"
            ) from None
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"{tree.where(*path)}: {error}") from None


def _type_name(annotation: Any) -> str:
    """A type in the words of a pipeline file."""
    names = {
        str: "a string",
        int: "an integer",
        float: "a number",
        bool: "true or false",
        type(None): "null",
        list: "a list",
        dict: "a mapping",
    }
    origin, arguments = getattr(annotation, "__origin__", None), getattr(annotation, "__args__", ())
    if annotation in names:
        return names[annotation]
    if (origin is not None and getattr(origin, "_name", None) == "Literal") or str(annotation).startswith(
        "typing.Literal"
    ):
        return "one of " + ", ".join(json.dumps(a) for a in arguments)
    if origin in (list, tuple, set, frozenset) and arguments:
        return f"a list of {_several(_type_name(arguments[0]))}"
    if origin is dict and arguments:
        return f"a mapping to {_several(_type_name(arguments[1]))}"
    if arguments and (origin is None or "Union" in str(origin)):
        return " or ".join(_type_name(a) for a in arguments)
    return str(getattr(annotation, "__name__", annotation))


def _several(name: str) -> str:
    """`a string` as `strings`; `one of …` stays."""
    return f"{name.removeprefix('a ').removeprefix('an ')}s" if name.startswith(("a ", "an ")) else name


def anchor(instance: Any, paths: Iterable[str], file: str, *, must_exist: bool) -> Any:
    """The same step with those of its options that are one of `paths` made relative to the file's folder.

    With `must_exist` only where there is such a file: a model's name is then left to the catalogue of models.
    """
    known = set(paths)

    def moved(value: Any) -> Any:
        if isinstance(value, str) and value in known:
            there = path_beside(file, value)
            return there if not must_exist or os.path.exists(there) else value
        if isinstance(value, dict):
            return {k: moved(v) for k, v in value.items()}
        return type(value)(moved(v) for v in value) if isinstance(value, (list, tuple)) else value

    changes = {}
    for f in dataclasses.fields(instance):
        if f.init and not f.name.startswith("_"):
            old = getattr(instance, f.name)
            new = moved(old)
            if new != old:
                changes[f.name] = new
    return dataclasses.replace(instance, **changes) if changes else instance
