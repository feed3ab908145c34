"""Errors of pydantic in the words of a YAML file: place, what was found, what was expected."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, model_validator

from curation.core import yaml_lines
from curation.core.errors import UserError
from curation.core.schema import Section, nearest, validate


class Inner(Section):
    at: Annotated[int, Field(ge=1)]
    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5


class Outer(Section):
    name: str
    flag: bool = False
    inner: Inner | None = None
    many: tuple[Inner, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    weights: dict[str, Annotated[float, Field(ge=0)]] | Literal["natural"] = "natural"
    names: Annotated[list[str], Field(min_length=2)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Outer:
        if self.name == "bad":
            raise ValueError("the name bad is not allowed, choose another")
        return self


def check(text: str) -> Outer:
    tree = yaml_lines.parse(text, "f.yaml")
    return validate(Outer, tree.root, tree)


def test_lists_are_tuples_and_whole_numbers_are_floats() -> None:
    made = check("name: a\npair: [1, 2.5]\nmany: [{at: 1}, {at: 2, ratio: 1}]\nweights: {no: 1}")
    assert made.pair == (1.0, 2.5) and made.many == (Inner(at=1), Inner(at=2, ratio=1.0))
    assert made.weights == {"no": 1.0} and made.inner is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flag: true", "f.yaml:1: the required key 'name' is missing"),
        ("name: 3", "f.yaml:1: name: is 3\n  expected a string"),
        ("name: a\nflag: 1", "f.yaml:2: flag: is 1\n  expected true or false"),
        ("name: a\ninner: {at: 1.5}", "f.yaml:2: inner.at: is 1.5\n  expected an integer"),
        ("name: a\ninner:\n  at: '1'", "f.yaml:3: inner.at: is '1'\n  expected an integer"),
        ("name: a\ninner: 3", "f.yaml:2: inner: is 3\n  expected a mapping"),
        ("name: a\ninner: {at: 1, ratio: 2}", "f.yaml:2: inner.ratio: is 2\n  expected at most 1"),
        ("name: a\nmany:\n- at: 1\n- at: 0", "f.yaml:4: many[1].at: is 0\n  expected at least 1"),
        ("name: a\nmany: [{ad: 1, at: 1}]", "f.yaml:2: many[0].ad: unknown key 'ad'\n  did you mean at?"),
        ("name: a\nmany: {}", "f.yaml:2: many: is {}\n  expected a list"),
        ("name: a\nweights: {web: -1}", "f.yaml:2: weights.web: is -1\n  expected at least 0"),
        ("name: a\nweights: even", "f.yaml:2: weights: is 'even'\n  expected a mapping or 'natural'"),
        ("name: a\nnames: [b]", "f.yaml:2: names: is ['b']\n  expected a list of 2 or more"),
        ("name: bad", "f.yaml:1: the name bad is not allowed, choose another"),
        ("- 1", "f.yaml:1: is [1]\n  expected a mapping"),
        (
            "name: 1\nflag: 2",
            "f.yaml:1: name: is 1\n  expected a string\nf.yaml:2: flag: is 2\n  expected true or false",
        ),
    ],
)
def test_an_error_says_where_what_and_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        check(text)
    assert str(error.value) == expected


def test_a_long_value_is_cut() -> None:
    with pytest.raises(UserError) as error:
        check(f"name: [{'x' * 200}]")
    assert str(error.value) == f"f.yaml:1: name: is ['{'x' * 77}…\n  expected a string"


def test_nearest_names() -> None:
    assert nearest("langage", ["language", "pii"]) == "did you mean language?"
    assert nearest("q", ["b", "a"]) == "expected one of: a, b"
    assert nearest("q", []) == "expected no keys here"
