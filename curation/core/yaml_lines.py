"""Reads YAML files and remembers the line of every value, so that an error can name file, line and key.

PyYAML composes nodes with their positions; here they become plain values beside a table of places. `${VAR}` is replaced
before a value gets its type; the text with `${VAR}` in it is remembered, because what is written to a disk has that and
not the variable's value, which may be a secret. Values given on the command line are laid over the tree with
`set_value`, each with its own place (`--set a.b=c`).

Scalars follow YAML 1.2: `no` is a string (Norwegian, as a language code), 1e9 a number, 12:30 no number in base 60.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import yaml

from curation.core.errors import UserError

_INT = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 400  # characters; Python refuses to read an integer of more than 4,300
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_MAX_DEPTH = 40  # levels; a file that nests deeper refers to itself by an anchor
# Values that aliases (`*name`) may add to those written. A kilobyte of aliases to lists of aliases stands for 10^12; no
# recipe has a thousand values.
MAX_ALIASED = 10_000
_TAGS = {f"tag:yaml.org,2002:{t}" for t in ("str", "seq", "map")}
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False, "True": True, "False": False}

Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """Composes nodes only; `scalar` gives them their types, not the resolvers of YAML 1.1."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012  (how PyYAML declares it)


class Unresolved(str):
    """A string with `${VAR}` as it was written: `dump` keeps it, and the next `parse` replaces it."""


class KeepVariables(dict[str, str]):
    """For `parse`: every `${VAR}` stays as it is."""

    def get(self, key: str, default: Any = None) -> Any:
        return f"${{{key}}}"


class _Dumper(yaml.SafeDumper):
    """Quotes every string that `scalar` would read as something else, and escapes `${` in it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = None if isinstance(scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", escape_variables(text), style=style)


_Dumper.add_representer(str, _represent)
_Dumper.add_representer(Unresolved, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text)))


@dataclass
class YamlTree:
    """A parsed file: `root` holds plain values, and `places` says where each path in it was written."""

    file: str
    root: Any = None
    places: dict[Path, str] = field(default_factory=dict)
    references: dict[Path, str] = field(default_factory=dict)  # texts with ${VAR} in them, as written
    variables: dict[str, str] = field(default_factory=dict)  # the values that were put in

    def where(self, *path: str | int) -> str:
        """`pipeline.yaml:12: steps[1].language.model` for a path, or for the nearest part of it that was written."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        place = self.places.get(known, self.file)
        shown = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in known).lstrip(".")
        return f"{place}: {shown}" if shown else place

    def references_below(self, key: str) -> dict[Path, str]:
        """The references inside of one value of the root, by their paths in it: of a file that holds another inline."""
        return {path[1:]: text for path, text in self.references.items() if path[0] == key and len(path) > 1}


def open_local(path: str) -> IO[bytes]:
    """Opens a local file for reading: what `load` does unless it is given another opener."""
    return open(path, "rb")


def load(
    path: str, variables: Mapping[str, str] | None = None, *, opener: Callable[[str], IO[bytes]] = open_local
) -> YamlTree:
    """Reads a YAML file.

    variables  values of `${VAR}` [default: the environment]
    opener     opens a path or URL for reading bytes, for files on other filesystems

    Raises UserError for a file that is absent or not YAML, a key given twice, a variable that is not set.
    """
    try:
        with opener(path) as f:
            data = f.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file\n  expected the path of a YAML file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder\n  expected the path of a YAML file") from None
    except PermissionError:
        raise UserError(f"{path}: permission denied\n  expected a YAML file that this user may read") from None
    return parse(data, path, variables)


def parse(data: bytes | str, file: str, variables: Mapping[str, str] | None = None) -> YamlTree:
    """As `load`, from bytes or text; `file` is the name that errors give."""
    tree = YamlTree(file)
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 (byte {error.start})") from None
    try:
        node = compose(text, file)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        line = text.splitlines()[mark.line : mark.line + 1] if mark else []
        hint = '\n  inside { } write a variable in quotes: "${VAR}"' if "${" in "".join(line) else ""
        raise UserError(f"{place}: is not YAML: {error.problem or error.context}{hint}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: is not YAML: {str(error).splitlines()[0]}") from None
    tree.root = None if node is None else _build(node, (), tree, os.environ if variables is None else variables)
    return tree


def compose(text: str, file: str, loader: type[yaml.SafeLoader] = _Loader) -> yaml.Node | None:
    """The nodes of YAML text, None for none. Aliases stay references: the same node at several places.

    Raises UserError where they would make too much of little text, and YAMLError.
    """
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=loader)
    except RecursionError:
        raise UserError(f"{file}: is nested deeper than {_MAX_DEPTH} levels") from None
    if node is not None:
        values: dict[int, int] = {}
        added = _count(node, values, file) - len(values)
        if added > MAX_ALIASED:
            raise UserError(
                f"{file}: its aliases (*name) repeat {added:,} values, and may repeat {MAX_ALIASED:,}\n"
                "  write out what is needed, without aliases to lists of aliases"
            )
    return node


def _count(node: yaml.Node, values: dict[int, int], file: str) -> int:
    """The values that a node stands for, those of nodes below it at each place where they are; `values`: by node."""
    known = values.get(id(node))
    if known is not None:
        if not known:
            raise UserError(
                f"{file}:{node.start_mark.line + 1}: is nested without end; does an anchor refer to itself?"
            )
        return known
    values[id(node)] = 0  # until it is known
    below = node.value if isinstance(node, yaml.CollectionNode) else []
    children = [n for item in below for n in (item if isinstance(item, tuple) else (item,))]
    values[id(node)] = total = 1 + sum(_count(child, values, file) for child in children)
    return total


def dump(value: Any) -> str:
    """Plain values as YAML text from which `parse` gives the same values: strings that contain `${` are escaped."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def escape_variables(text: str) -> str:
    """The text with `$${VAR}` for `${VAR}`, so that it is not replaced."""
    return _VARIABLE.sub(lambda match: f"${match.group()}", text)


def has_variables(text: str) -> bool:
    """Whether `${VAR}` in the text would be replaced; `$${VAR}` is not."""
    return "${" in text and any(not match[1] for match in _VARIABLE.finditer(text))


def lay_references(value: Any, references: Mapping[Path, str]) -> Any:
    """A copy of the value in which strings at these paths have `${VAR}` again. Numbers stay: they are no secrets, and
    what compares two files needs them."""
    made = copy.deepcopy(value)
    for path, text in references.items():
        inner = made
        try:
            for part in path[:-1]:
                inner = inner[part]
            if isinstance(inner[path[-1]], str):
                inner[path[-1]] = Unresolved(text)
        except (KeyError, IndexError, TypeError):  # a value that is not stored
            continue
    return made


def _build(node: yaml.Node, path: Path, tree: YamlTree, variables: Mapping[str, str] | None) -> Any:
    """The plain value of a node; places go into the tree. With `variables` None, `${VAR}` stays as it is."""
    place = f"{tree.file}:{node.start_mark.line + 1}"
    tree.places.setdefault(path, place)
    if len(path) > _MAX_DEPTH:
        raise UserError(f"{place}: is nested deeper than {_MAX_DEPTH} levels; does an anchor refer to itself?")
    if node.tag not in _TAGS:
        raise UserError(f"{place}: has the tag {node.tag}, which is not supported\n  expected a plain value")
    if isinstance(node, yaml.SequenceNode):
        return [_build(child, (*path, i), tree, variables) for i, child in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key, child in node.value:
            line = f"{tree.file}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{line}: has a key that is a list or a mapping\n  expected a word as key")
            name = replace_variables(key.value, line, variables)
            if name in result:
                first = tree.places[(*path, name)]
                raise UserError(f"{line}: has the key {name!r} a second time\n  the first is at {first}")
            tree.places[(*path, name)] = line
            result[name] = _build(child, (*path, name), tree, variables)
        return result
    assert isinstance(node, yaml.ScalarNode)
    text = replace_variables(node.value, place, variables)
    if variables is not None and has_variables(node.value):
        tree.references[path] = node.value
        tree.variables |= {m[2]: variables.get(m[2], m[3]) for m in _VARIABLE.finditer(node.value) if not m[1]}
    # inside { } YAML wants "${VAR}" in quotes: alone in double quotes a variable still gets its type
    typed = node.style is None or (node.style == '"' and _VARIABLE.fullmatch(node.value))
    return scalar(text) if typed else text


def scalar(text: str) -> Any:
    """The value of an unquoted scalar: null, a truth value, a number, else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        number = float(text.replace("_", ""))
        # 2e9 is how people write large counts; 2.0 stays a float
        return int(number) if "." not in text and "-" not in text[1:] and number.is_integer() else number
    if text.lower() in (".inf", "+.inf", "-.inf", ".nan"):
        return float(text.replace(".", ""))
    return text


def replace_variables(text: str, place: str, variables: Mapping[str, str] | None) -> str:
    """Replaces `${VAR}` and `${VAR:-default}` by their values; `$${VAR}` becomes `${VAR}` itself.

    With `variables` None the text stays as it is. Raises UserError, naming `place`, for a variable without value and
    default.
    """

    def value(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return match.group()[1:]
        found = default if variables is None else variables.get(name, default)
        if found is None:
            raise UserError(
                f"{place}: the variable {name} in {text!r} is not set\n"
                f"  set it in the environment, or give a default: ${{{name}:-value}}"
            )
        return found

    return _VARIABLE.sub(value, text) if variables is not None and "${" in text else text


def parse_value(text: str, place: str) -> Any:
    """The value of YAML text such as `3e-4`, `{web: 1}` or `[a, b]`; `${VAR}` in it stays. Raises UserError."""
    try:
        node = compose(text, place)
    except yaml.YAMLError:
        raise UserError(f"{place}: {text!r} is not YAML\n  quote it for YAML if it is a string") from None
    return None if node is None else _build(node, (), YamlTree(place), None)


def remember_references(tree: YamlTree, path: Path, text: str, variables: Mapping[str, str]) -> None:
    """After an override was set at a path: remembers the parts of its text that have `${VAR}` in them."""
    if not has_variables(text):
        return
    tree.variables |= {m[2]: variables.get(m[2], m[3]) for m in _VARIABLE.finditer(text) if not m[1]}
    try:
        written = parse_value(text, "")
    except UserError:  # SQL
        written = text

    def walk(value: Any, at: Path) -> None:
        if isinstance(value, str) and has_variables(value):
            tree.references[at] = value
        for key, inner in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            walk(inner, (*at, key))

    walk(written if isinstance(written, (dict, list)) else text, path)


def split_override(text: str) -> tuple[str, str, str]:
    """(key, value, place) of an override as given on the command line, `a.b=c`. UserError where either is missing."""
    place = f"--set {text}"
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"{place}: has no {'key' if equals else 'value'}\n  expected --set key.below=value")
    return key.strip(), value, place


def set_value(tree: YamlTree, path: Path, value: Any, place: str) -> None:
    """Puts a value at a path, making the mappings above it; from then on `place` is where it was written.

    Raises UserError for a path that goes through a plain value or a list.
    """
    if not isinstance(tree.root, dict):
        tree.root = {}
    target: Any = tree.root
    for i, part in enumerate(path[:-1]):
        if isinstance(target, dict) and target.get(str(part)) is None and isinstance(part, str):
            target[part] = {}
            tree.places[path[: i + 1]] = place
        target = target[part]
        if not isinstance(target, dict) and not (isinstance(target, list) and isinstance(path[i + 1], int)):
            shown = ".".join(str(p) for p in path[: i + 1])
            raise UserError(f"{place}: {shown} is {target!r}, which has no keys below it")
    target[str(path[-1])] = value
    for table in (tree.places, tree.references):
        for known in [p for p in table if p[: len(path)] == path]:
            del table[known]
    tree.places[path] = place
