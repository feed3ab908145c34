"""Lays `--set a.b.c=value` over a pipeline file: items of the lists `steps` and `sources` go by their names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from curation.core.errors import UserError
from curation.core.renamed_keys import PIPELINE_KEYS, renamed
from curation.core.yaml_lines import (
    Path,
    YamlTree,
    parse_value,
    remember_references,
    replace_variables,
    set_value,
    split_override,
)

BESIDE_STEP = ("keep", "where", "resources")  # keys that stand beside a step's name


def apply_overrides(tree: YamlTree, sets: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
    """Changes the tree in place; an error about a value that was set names its `--set`.

    sets       as on the command line, such as "steps.language.keep.language=language.score > 0.9"
    variables  values of `${VAR}` [default: the environment]
    """
    environment = os.environ if variables is None else variables
    for given in sets:
        key, text, place = split_override(given)
        if not isinstance(tree.root, dict):
            tree.root = {}
        path = _find(tree, key, place)
        written, text = text, replace_variables(text, place, environment)
        if path[0] == "steps" and len(path) > 2 and path[2] in ("keep", "where"):
            # SQL: a colon or a quote in it is not YAML's
            set_value(tree, path, None if text in ("null", "~", "") else text, place)
        else:
            set_value(tree, path, parse_value(text, place), place)
        remember_references(tree, path, written, environment)


def _find(tree: YamlTree, key: str, place: str) -> Path:
    """The path in the tree that a dotted key means."""
    head, _, rest = key.partition(".")
    items = tree.root.get(head)
    if head not in ("steps", "sources") or not isinstance(items, list) or not rest:
        return tuple(key.split("."))
    names: list[str] = []
    for i, item in enumerate(items):
        kind = next((k for k in item if k not in BESIDE_STEP), None) if isinstance(item, dict) else item
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
                raise UserError(f"{place}: sets all of {head}.{name}\n  expected a key below it")
            if not isinstance(item, dict):  # "- exact_dedup" without options
                items[i] = item = {kind: {}}
            if head == "sources":
                return (head, i, *below.split("."))
            if message := renamed((head, below), PIPELINE_KEYS):
                raise UserError(f"{place}: {message}")
            first, dot, rule = below.partition(".")
            if below == "where":
                return (head, i, "where")
            if first == "resources":
                return (head, i, *below.split("."))
            return (head, i, "keep", rule) if first == "keep" and dot else (head, i, kind, *below.split("."))
        names += [n for n in called if isinstance(n, str)]
    raise UserError(
        f"{place}: no such name among {head}\n  expected one of {', '.join(dict.fromkeys(names)) or '(none)'}"
    )
