"""Makes a step of a plain Python function that is called once a document.

    - my_steps.py:shout: {limit: 0.3}

    def shout(text: str, url: str | None, *, limit: float = 0.2) -> float: ...

Parameters without a `*` before them are columns: a document's, or the name of an earlier step, whose signals come as a
dict. Those after the `*` are options. What the function is said to return decides what the step does:

    float, int, str, list[...], or any of these `| None`   one signal, named as the function
    a TypedDict                                            a signal for each key
    bool, tuple[bool, str], or both                        a filter: signals `keep` and `reason`, and a rule on `keep`

It costs a Python call a document; a step that works on Arrow arrays (curation/step.py) is faster.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pyarrow as pa

from curation.core.errors import UserError
from curation.document import with_column
from curation.step import MapStep

_PLAIN = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
_TAKEN = {
    bool: (bool, np.bool_), int: (int, np.integer), float: (float, int, np.floating, np.integer), str: (str,),
}  # fmt: skip
_RETURNS = (
    "expected `-> float`, int, str, a list of one of them, a TypedDict of several (a signal for each key), or "
    "`-> bool` or `-> tuple[bool, str]` for a filter with a reason"
)


@dataclasses.dataclass(frozen=True)
class FunctionStep(MapStep):
    """The step of a function; see `step_class`, which makes a subclass with the function's options as fields."""

    function: ClassVar[Callable[..., Any]]
    returns: ClassVar[Mapping[str, Any]]  # signal -> the Python type of its values
    is_filter: ClassVar[bool] = False
    name: str = ""

    @property
    def signals(self) -> pa.Schema:
        return pa.schema([(name, _arrow(kind)) for name, kind in self.returns.items()])

    def rules(self) -> Mapping[str, str]:
        return {"keep": f"{self.name}.keep"} if self.is_filter else {}

    def evidence(self) -> Sequence[str]:
        return ("reason",) if self.is_filter else ()

    def plugins(self) -> Sequence[type]:
        return (FunctionStep,)  # the class that `step_class` makes counts by the user's file

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = [_values(batch, name) for name in self.reads]
        names = {f.name for f in dataclasses.fields(self)} - {"name"}
        options = {name: getattr(self, name) for name in names}
        call = type(self).function
        rows = [self._row(call(*values, **options)) for values in zip(*columns, strict=True)]
        arrays = [pa.array([row[f.name] for row in rows], f.type) for f in self.signals]
        return with_column(batch, self.name, pa.StructArray.from_arrays(arrays, fields=list(self.signals)))

    def _row(self, result: Any) -> dict[str, Any]:
        """The signals of a document. Raises TypeError for a result of another type than the function announces."""
        if self.is_filter:
            keep, reason = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
            if keep is not None:  # a function that forgot its `return`
                return {
                    "keep": self._checked("keep", keep),
                    "reason": None if keep else self._checked("reason", reason),
                }
        elif isinstance(result, Mapping):
            if result.keys() <= self.returns.keys():
                return {name: self._checked(name, result.get(name)) for name in self.returns}
        elif list(self.returns) == [type(self).function.__name__]:
            (name,) = self.returns
            return {name: self._checked(name, result)}
        raise TypeError(f"{self._place()} returned {result!r:.100}, and is said to return {', '.join(self.returns)}")

    def _checked(self, name: str, value: Any) -> Any:
        if not _fits(value, self.returns[name]):
            wanted = getattr(self.returns[name], "__name__", self.returns[name])
            raise TypeError(
                f"{self._place()} returned {value!r:.100} ({type(value).__name__}) for {name}, and is said to return "
                f"{wanted}"
            )
        return value

    def _place(self) -> str:
        code = type(self).function.__code__
        return f"{type(self).function.__name__} ({code.co_filename}:{code.co_firstlineno})"


@functools.cache
def step_class(function: Callable[..., Any]) -> type:
    """The step of a function. Raises UserError for one whose parameters or return type say too little."""
    name = function.__name__
    code = function.__code__
    where = f"{name} ({code.co_filename}:{code.co_firstlineno})"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise UserError(f"{where}: is a generator or a coroutine\n  expected a function that returns its result")
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise UserError(
            f"{where}: an annotation cannot be resolved: {error}\n  import the name in its module"
        ) from None
    columns, fields = [], []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            columns.append(parameter.name)
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            if parameter.name not in hints or parameter.name == "name":
                raise UserError(f"{where}: option {parameter.name}: expected another name than `name`, and a type")
            default = () if parameter.default is inspect.Parameter.empty else (_default(parameter.default),)
            fields.append((parameter.name, hints[parameter.name], *default))
        else:
            raise UserError(
                f"{where}: parameter {parameter}: expected columns by name, and options after a `*`, as in "
                f"def {name}(text, url, *, limit: float = 0.5)"
            )
    if not columns:
        raise UserError(f"{where}: takes no column\n  expected a parameter such as `text: str`")
    returns, is_filter = _returns(hints.get("return"), name, where)
    fields.append(("name", str, dataclasses.field(default=name)))
    made = dataclasses.make_dataclass(
        name, fields, bases=(FunctionStep,), frozen=True, kw_only=True,
        namespace={
            "function": staticmethod(function), "returns": returns, "is_filter": is_filter, "reads": tuple(columns),
            "__doc__": function.__doc__, "__module__": function.__module__,
        },
    )  # fmt: skip
    made.__qualname__ = function.__qualname__
    return made


def _default(value: Any) -> Any:
    """A field with this default; of lists and the like a copy for each instance."""
    mutable = isinstance(value, (list, dict, set))
    return (
        dataclasses.field(default_factory=lambda: type(value)(value)) if mutable else dataclasses.field(default=value)
    )


def _returns(annotation: Any, name: str, where: str) -> tuple[dict[str, Any], bool]:
    """The signals of a return annotation with their types, and whether it is a filter's."""
    kinds = _alternatives(annotation)
    if kinds and all(k is bool or (get_origin(k) is tuple and get_args(k)[:1] == (bool,)) for k in kinds):
        return {"keep": bool, "reason": str}, True
    if len(kinds) == 1 and is_typeddict(kinds[0]):
        found = {key: _without_none(kind) for key, kind in get_type_hints(kinds[0]).items()}
    else:
        found = {name: _without_none(annotation)}
    for key, kind in found.items():
        if kind not in _PLAIN and not (get_origin(kind) is list and get_args(kind)[0] in _PLAIN):
            shown = "nothing" if annotation is None else getattr(kind, "__name__", kind)
            of = f" for {key!r}" if key != name else ""
            raise UserError(f"{where}: is said to return {shown}{of}\n  {_RETURNS}")
    return found, False


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types of a union but None; of any other annotation it alone."""
    if annotation is None:
        return ()
    union = get_origin(annotation) in (Union, types.UnionType)
    return tuple(k for k in (get_args(annotation) if union else (annotation,)) if k is not type(None))


def _without_none(annotation: Any) -> Any:
    kinds = _alternatives(annotation)
    return kinds[0] if len(kinds) == 1 else annotation


def _arrow(kind: Any) -> pa.DataType:
    return pa.list_(_PLAIN[get_args(kind)[0]]) if get_origin(kind) is list else _PLAIN[kind]


def _fits(value: Any, kind: Any) -> bool:
    if value is None:
        return True
    if get_origin(kind) is list:
        return isinstance(value, (list, tuple)) and all(_fits(v, get_args(kind)[0]) for v in value)
    return isinstance(value, _TAKEN[kind]) and (kind is bool or not isinstance(value, (bool, np.bool_)))


def _values(batch: pa.RecordBatch, name: str) -> list[Any]:
    """A column as Python values; `meta` decoded from its JSON."""
    values: list[Any] = batch.column(name).to_pylist()
    return [json.loads(v) if v else {} for v in values] if name == "meta" else values
