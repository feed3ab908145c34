"""Steps made of plain functions: what they may take and return, and how what they may not is refused."""

from __future__ import annotations

from typing import Any, TypedDict

import pyarrow as pa
import pytest

from curation.core.errors import UserError
from curation.document import BASE
from curation.function_step import step_class


class Counts(TypedDict):
    words: int
    mean: float | None
    longest: str
    sizes: list[int]


def batch(*texts: str, **more: list[Any]) -> pa.RecordBatch:
    n = len(texts)
    columns = {"text": list(texts), "url": [f"https://x.y/{i}" for i in range(n)]} | more
    arrays = [pa.array(columns.get(f.name, [None] * n), f.type) for f in BASE if f.name != "doc_id"]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([f for f in BASE if f.name != "doc_id"]))


def run(function: Any, data: pa.RecordBatch, **options: Any) -> Any:
    step = step_class(function)(**options)
    return step(data).column(step.name).to_pylist()


def counts(text: str) -> Counts:
    words = text.split()
    sizes = [len(w) for w in words]
    mean = sum(sizes) / len(sizes) if sizes else None
    return {"words": len(words), "mean": mean, "longest": max(words, key=len, default=""), "sizes": sizes}


def test_a_typed_dict_is_a_signal_a_key() -> None:
    assert step_class(counts)().signals == pa.schema(
        [("words", pa.int64()), ("mean", pa.float64()), ("longest", pa.string()), ("sizes", pa.list_(pa.int64()))]
    )
    assert run(counts, batch("a mill", "")) == [
        {"words": 2, "mean": 2.5, "longest": "mill", "sizes": [1, 4]},
        {"words": 0, "mean": None, "longest": "", "sizes": []},
    ]
    assert step_class(counts)().rules() == {}


def share(text: str, url: str | None, meta: dict[str, Any], *, of: str = "a", names: list[str] | None = None) -> float:
    return text.count(of) + len(names or []) + (meta.get("n", 0) if url else 0)


def test_columns_and_options() -> None:
    data = batch("banana", "b", meta=['{"n": 4}', None])
    assert run(share, data) == [{"share": 7.0}, {"share": 0.0}]
    assert run(share, data, of="n", names=["x"], name="other") == [{"share": 7.0}, {"share": 1.0}]
    assert step_class(share).reads == ("text", "url", "meta")
    assert step_class(share) is step_class(share)


def either(text: str) -> bool | tuple[bool, str]:
    return (False, "empty") if not text else "mill" in text


def reasons(text: str) -> tuple[bool, str]:
    return bool(text), "no text"


def test_a_filter_has_a_rule_and_a_reason() -> None:
    data = batch("mill", "brook", "")
    assert [r["keep"] for r in run(either, data)] == [True, False, False]
    assert [r["reason"] for r in run(either, data)] == [None, None, "empty"]
    assert run(reasons, data)[::2] == [{"keep": True, "reason": None}, {"keep": False, "reason": "no text"}]
    step = step_class(either)(name="mill")
    assert step.rules() == {"keep": "mill.keep"} and step.evidence() == ("reason",)


def of_an_earlier_step(language: dict[str, Any]) -> str | None:
    return language["code"] if language else None


def test_signals_of_an_earlier_step() -> None:
    kind = pa.struct([("code", pa.string())])
    data = batch("a", "b").append_column("language", pa.array([{"code": "en"}, None], kind))
    assert run(of_an_earlier_step, data) == [{"of_an_earlier_step": "en"}, {"of_an_earlier_step": None}]


def wrong_type(text: str) -> float:
    return text  # type: ignore[return-value]


def wrong_key(text: str) -> Counts:
    return {"word": 1}  # type: ignore[typeddict-item,typeddict-unknown-key]


def truth_for_a_number(text: str) -> int:
    return True


def no_return(text: str) -> bool:  # type: ignore[return]
    text.strip()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (wrong_type, "returned 'mill' (str) for wrong_type, and is said to return float"),
        (wrong_key, "is said to return words, mean, longest, sizes"),
        (truth_for_a_number, "returned True (bool)"),
        (no_return, "returned None"),
    ],
)
def test_another_result_than_announced_is_an_error_that_names_the_function(function: Any, words: str) -> None:
    with pytest.raises(TypeError) as error:
        run(function, batch("mill"))
    assert words in str(error.value) and f"test_function_step.py:{function.__code__.co_firstlineno}" in str(error.value)


def no_annotation(text):  # type: ignore[no-untyped-def]
    return 1.0


def returns_a_mapping(text: str) -> dict[str, float]:
    return {}


def two_kinds(text: str) -> int | str:
    return 1


def any_columns(*columns: str) -> float:
    return 1.0


def no_column(*, limit: int = 1) -> float:
    return 1.0


def untyped_option(text: str, *, limit=1) -> float:  # type: ignore[no-untyped-def]
    return 1.0


async def later(text: str) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (no_annotation, "is said to return nothing\n  expected `-> float`"),
        (returns_a_mapping, "a TypedDict of several"),
        (two_kinds, "is said to return"),
        (any_columns, "options after a `*`"),
        (no_column, "takes no column"),
        (untyped_option, "option limit: expected"),
        (later, "is a generator or a coroutine"),
    ],
)
def test_functions_that_say_too_little_are_refused(function: Any, words: str) -> None:
    with pytest.raises(UserError) as error:
        step_class(function)
    assert words in str(error.value)
