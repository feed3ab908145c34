"""YAML that remembers where every value stands, so that an error can name file, line and key.

PyYAML composes nodes with marks; here they become plain values beside a table of places. `${VAR}` is replaced before a
value gets its type, and `--set a.b=c` lays values over the tree, each with its own place ("--set a.b=c").

Scalars follow YAML 1.2: `no` is a string (and Norwegian a language), 1e9 a number, 12:30 no number in base 60.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from curation.core.errors import UserError
from curation.core.renamed_keys import PIPELINE_KEYS, renamed
from curation.storage import is_remote, open_input

_INT = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_DEEPEST = 40  # levels; a file that nests deeper refers to itself by an anchor
_TAGS = {f"tag:yaml.org,2002:{t}" for t in ("str", "seq", "map")}
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False, "True": True, "False": False}

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Composes only; scalars get their types here, not by YAML 1.1's resolvers."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  (PyYAML's own way of saying it)


@dataclass
class Located:
    """A parsed file: `tree` of plain values, and for each path in it the place where it was written."""

    file: str
    tree: Any = None
    places: dict[Path, str] = field(default_factory=dict)

    def where(self, *path: str | int) -> str:
        """`pipeline.yaml:12: steps[1].language.model` for a path, or for the nearest part of it that was written."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        place = self.places.get(known, self.file)
        shown = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in known).lstrip(".")
        return f"{place}: {shown}" if shown else place


def load(path: str, variables: Mapping[str, str] | None = None) -> Located:
    """Reads a YAML file (local, or any URL that fsspec knows).

    Raises UserError for a file that is absent or no YAML, a key given twice, a variable that is not set.
    """
    try:
        with open_input("", path) as f:
            data = f.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file\n  expected the path of a YAML file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder\n  expected the path of a YAML file") from None
    located = Located(file=path)
    try:
        node = yaml.compose(data.decode("utf-8-sig"), Loader=_Loader)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 (byte {error.start})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        line = data.decode("utf-8-sig").splitlines()[mark.line : mark.line + 1] if mark else []
        hint = '\n  inside { } write a variable in quotes: "${VAR}"' if "${" in "".join(line) else ""
        raise UserError(f"{place}: is not YAML: {error.problem or error.context}{hint}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML: {str(error).splitlines()[0]}") from None
    environment = os.environ if variables is None else variables
    located.tree = None if node is None else _build(node, (), located, environment)
    return located


def _build(node: yaml.Node, path: Path, located: Located, variables: Mapping[str, str]) -> Any:
    place = f"{located.file}:{node.start_mark.line + 1}"
    located.places.setdefault(path, place)
    if len(path) > _DEEPEST:
        raise UserError(f"{place}: is nested deeper than {_DEEPEST} levels; does an anchor refer to itself?")
    if node.tag not in _TAGS:
        raise UserError(f"{place}: has the tag {node.tag}, which means nothing here\n  expected a plain value")
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*path, i), located, variables) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key, child in node.value:
            line = f"{located.file}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{line}: has a key that is a list or a mapping\n  expected a word as key")
            name = _replace(key.value, line, variables)
            if name in result:
                first = located.places[(*path, name)]
                raise UserError(f"{line}: has the key {name!r} a second time\n  the first is at {first}")
            located.places[(*path, name)] = line
            result[name] = _build(child, (*path, name), located, variables)
        return result
    assert isinstance(node, yaml.ScalarNode)
    text = _replace(node.value, place, variables)
    # inside { } YAML wants "${VAR}" in quotes: alone in double quotes a variable still gets its type
    typed = node.style is None or (node.style == '"' and _VARIABLE.fullmatch(node.value))
    return scalar(text) if typed else text


def scalar(text: str) -> Any:
    """The value of an unquoted scalar: null, a truth value, a number, else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        # 2e9 is how people write large counts; 2.0 stays a float
        return int(number) if "." not in text and "-" not in text[1:] and number.is_integer() else number
    if text.lower() in (".inf", "+.inf", "-.inf", ".nan"):
        return float(text.replace(".", ""))
    return text


def _replace(text: str, place: str, variables: Mapping[str, str]) -> str:
    """`${VAR}` and `${VAR:-default}` by their values; `$${VAR}` stands for `${VAR}` itself."""

    def value(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match.group()[1:]
        found = variables.get(name, default)
        if found is None:
            raise UserError(
                f"{place}: the variable {name} in {text!r} is not set\n"
                f"  set it in the environment, or give a default: ${{{name}:-value}}"
            )
        return found

    return _VARIABLE.sub(value, text) if "${" in text else text


def override(located: Located, sets: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
    """Lays `a.b.c=value` over the tree. Items of the lists `steps` and `sources` go by their names."""
    environment = os.environ if variables is None else variables
    for given in sets:
        place = f"--set {given}"
        key, equals, text = given.partition("=")
        if not equals or not key.strip():
            raise UserError(f"{place}: has no {'key' if equals else 'value'}\n  expected --set key.below=value")
        if not isinstance(located.tree, dict):
            located.tree = {}
        path = _find(located, key.strip(), place)
        target: Any = located.tree
        for i, part in enumerate(path[:-1]):
            if isinstance(target, dict) and target.get(str(part)) is None and isinstance(part, str):
                target[part] = {}
                located.places[path[: i + 1]] = place
            target = target[part]
            if not isinstance(target, (dict, list)):
                shown = ".".join(str(p) for p in path[: i + 1])
                raise UserError(f"{place}: {shown} is {target!r}, which has no keys below it")
        if not isinstance(target, dict):
            raise UserError(f"{place}: {path[-1]!r} is not the name of one in this list")
        target[str(path[-1])] = _value(_replace(text, place, environment), path, place)
        for known in [p for p in located.places if p[: len(path)] == path]:
            del located.places[known]
        located.places[path] = place


def _find(located: Located, key: str, place: str) -> Path:
    """The path in the tree that a dotted key means."""
    head, _, rest = key.partition(".")
    items = located.tree.get(head)
    if head not in ("steps", "sources") or not isinstance(items, list) or not rest:
        return tuple(key.split("."))
    names: list[str] = []
    for i, item in enumerate(items):
        kind = next((k for k in item if k not in ("keep", "where")), None) if isinstance(item, dict) else item
        if not isinstance(kind, str):
            continue
        options = item.get(kind) if isinstance(item, dict) else None
        if head == "sources":
            called = [item.get("name")]
        else:
            alias = options.get("name") if isinstance(options, dict) else None
            called = [alias] if alias else [kind, kind.rpartition(":")[2]]
        for name in called:
            if not isinstance(name, str) or not (rest == name or rest.startswith(f"{name}.")):
                continue
            below = rest[len(name) + 1 :]
            if not below:
                raise UserError(f"{place}: names {head}.{name} as a whole\n  expected a key below it")
            if not isinstance(item, dict):  # "- exact_dedup" without options
                items[i] = item = {kind: {}}
            if head == "sources":
                return (head, i, *below.split("."))
            first, dot, rule = below.partition(".")
            if below == "where":
                return (head, i, "where")
            if message := renamed((head, below), PIPELINE_KEYS):
                raise UserError(f"{place}: {message}")
            return (head, i, "keep", rule) if first == "keep" and dot else (head, i, kind, *below.split("."))
        names += [n for n in called if isinstance(n, str)]
    raise UserError(
        f"{place}: no such name among {head}\n  expected one of {', '.join(dict.fromkeys(names)) or '(none)'}"
    )


def _value(text: str, path: Path, place: str) -> Any:
    if path[0] == "steps" and len(path) > 2 and path[2] in ("keep", "where"):
        return None if text in ("null", "~", "") else text  # SQL: a colon or a quote in it is not YAML's
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        raise UserError(f"{place}: {text!r} is not YAML\n  quote it for YAML if it is a string") from None
    return None if node is None else _build(node, (), Located(place), {})


def beside(file: str, path: str) -> str:
    """A path as written in a file, seen from the file's folder; absolute and remote paths are left alone."""
    if is_remote(path) or posixpath.isabs(path):
        return path
    folder = file.rpartition("/")[0] if is_remote(file) else os.path.dirname(os.path.abspath(file))
    return posixpath.normpath(posixpath.join(folder, path)) if not is_remote(folder) else posixpath.join(folder, path)
