"""Checks values of a YAML file against pydantic models, with errors in the file's own words.

Every error names file, line and key, what was found and what was expected; all errors of a model come at once. Types
are strict (no "3" for 3), except that YAML has no tuples and writes whole numbers without a point: values are checked
as JSON, where a list fits a tuple and 1 fits a float.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from curation.core.errors import UserError
from curation.core.yaml_lines import Path, YamlTree

M = TypeVar("M", bound=BaseModel)

_SHOWN = 80  # characters of a wrong value that an error repeats
# pydantic's error types in the words of a YAML file; the others keep pydantic's own message
_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "none_required": "null",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} or fewer",
}


class Section(BaseModel):
    """A section of a file: unknown keys are refused, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validate(model: type[M], value: Any, tree: YamlTree, path: Path = ()) -> M:
    """The model of `value`, which was written at `path` of the tree. Raises UserError with every error found."""
    try:
        return model.model_validate_json(json.dumps(value, default=repr), strict=True)
    except ValidationError as error:
        places = [(detail, _place(detail["loc"], value)) for detail in error.errors()]
        found: dict[str, list[str]] = {}  # what is wrong and where -> what would fit; alternatives of a union together
        for detail, place in places:
            if any(len(other) > len(place) and other[: len(place)] == place for _, other in places):
                continue  # another alternative of a union, where the one that was meant has an error further below
            problem, expected = _explain(model, detail, tree.where(*path, *place))
            found.setdefault(problem, []).extend(expected)
        raise UserError("\n".join(_joined(problem, expected) for problem, expected in found.items())) from None


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean language?`, or the list of the names that exist."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"expected one of: {', '.join(sorted(names))}" if names else "expected no keys here"


def _place(location: Sequence[int | str], value: Any) -> Path:
    """The part of pydantic's location that the file has: it also names the alternatives of a union."""
    place: Path = ()
    for part in location:
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            value = value[part]  # type: ignore[index]
            place = (*place, part)
    return place


def _explain(model: type[BaseModel], detail: Any, where: str) -> tuple[str, list[str]]:
    """What is wrong, and what was expected there."""
    kind, location = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key {location[-1]!r}", [nearest(str(location[-1]), _keys(model, location[:-1]))]
    if kind == "missing":
        return f"{where}: the required key {location[-1]!r} is missing", []
    if kind in ("value_error", "assertion_error"):  # raised by a check of the model, whose message says it all
        return f"{where}: {detail['msg'].partition(', ')[2]}", []
    shown = repr(detail["input"])
    shown = shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
    if kind in _EXPECTED:
        bounds = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in detail.get("ctx", {}).items()}
        expected = _EXPECTED[kind].format(**bounds)
    else:
        expected = detail["msg"].removeprefix("Input should be ")
    return f"{where}: is {shown}", [f"expected {expected}"]


def _joined(problem: str, expected: Sequence[str]) -> str:
    first, *others = dict.fromkeys(expected) or [""]
    return f"{problem}\n  {' or '.join([first, *(o.removeprefix('expected ') for o in others)])}" if first else problem


def _keys(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys that a model has below a path of keys."""
    for part in location:
        if part in model.model_fields:
            below = next(_models(model.model_fields[str(part)].annotation), None)
            if below is None:
                return []
            model = below
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
