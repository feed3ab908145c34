"""YAML with places: scalars of YAML 1.2, variables, values laid over the tree, and text that reads back the same.

Covers: errors.py
"""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.core import yaml_lines
from curation.core.errors import UserError
from curation.core.yaml_lines import MAX_ALIASED, YamlTree, dump, parse, parse_value, set_value


def test_scalars_of_yaml_1_2() -> None:
    text = "[no, on, yes, 1e5, 2.0, 0o7, 12:30, 1_000, true, ~, null, .inf, 1e-3, '1', \"2\", -4]"
    assert parse(text, "f").root == [
        *("no", "on", "yes", 100_000, 2.0, "0o7", "12:30", 1000, True, None, None, float("inf"), 0.001, "1", "2", -4)
    ]


def test_another_opener_and_what_cannot_be_read(tmp_path: Any) -> None:
    tree = yaml_lines.load("s3://bucket/f.yaml", opener=lambda path: io.BytesIO(b"a: {b: 1}\nc: 2\n"))
    assert tree.root == {"a": {"b": 1}, "c": 2}
    assert tree.where("c") == "s3://bucket/f.yaml:2: c" and tree.where("a", "b", "x") == "s3://bucket/f.yaml:1: a.b"
    for path, words in ((tmp_path / "none.yaml", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(UserError, match=words):
            yaml_lines.load(str(path))


def test_setting_values() -> None:
    tree = parse("a: {b: 1, c: [1, 2]}\nd:\n", "f.yaml")
    set_value(tree, ("a", "b"), {"x": 1}, "--set a.b={x: 1}")
    set_value(tree, ("d", "e", "f"), 3, "--set d.e.f=3")
    assert tree.root == {"a": {"b": {"x": 1}, "c": [1, 2]}, "d": {"e": {"f": 3}}}
    assert tree.where("a", "b", "x") == "--set a.b={x: 1}: a.b" and tree.where("d", "e", "f") == "--set d.e.f=3: d.e.f"
    for path in (("a", "c", "x"), ("a", "c", "x", "y"), ("d", "e", "f", "g")):
        with pytest.raises(UserError, match="has no keys below it"):
            set_value(tree, path, 1, "--set")
    empty = YamlTree("f.yaml")
    set_value(empty, ("a",), 1, "--set a=1")
    assert empty.root == {"a": 1}


text = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))) | st.sampled_from(
    ["1e5", "no", "null", "~", "12:30", "0x10", "${A}", "$${A}", "${A:-b}", "${1}", ".inf", "- a", "a: b", "true", ""]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=8,
)


@given(values)
def test_what_is_dumped_reads_back_the_same(value: Any) -> None:
    found = parse(dump({"value": value}), "f", {}).root["value"]
    assert found == value and type(found) is type(value)


def test_the_core_needs_pydantic_and_yaml_alone() -> None:
    script = (
        "import sys, pkgutil, importlib, curation.core\n"
        "for m in pkgutil.iter_modules(curation.core.__path__): importlib.import_module(f'curation.core.{m.name}')\n"
        "print([m for m in ('pyarrow', 'numpy', 'fsspec', 'torch', 'curation.storage') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


def test_aliases_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kilobyte that stands for 10^12 values: refused without making one of them."""
    monkeypatch.setattr(yaml_lines, "_build", None)
    assert len(LAUGHS) < 1000
    with pytest.raises(
        UserError, match=r"f\.yaml: its aliases \(\*name\) repeat [0-9,]+ values, and may repeat 10,000"
    ):
        parse(LAUGHS, "f.yaml")
    with pytest.raises(UserError, match="aliases"):
        parse_value("[&a [1, 1], &b [*a, *a], " + "*b, " * MAX_ALIASED + "]", "--set x")


def test_every_file_that_a_user_gives_has_the_budget(tmp_path: Any) -> None:
    from curation.config.load_pipeline import load_pipeline
    from curation.safety.pii.custom_recognizers import parse_recognizers
    from training.config import load

    (tmp_path / "p.yaml").write_text(LAUGHS)
    for reader in (load_pipeline, load, lambda path: parse_recognizers(LAUGHS, path)):
        with pytest.raises(UserError, match="aliases"):
            reader(str(tmp_path / "p.yaml"))


def test_aliases_within_the_budget_are_values() -> None:
    text = "a: &a {x: 1, y: [2, 3]}\nb: *a\nc: [*a, *a]"
    made = {"x": 1, "y": [2, 3]}
    assert parse(text, "f").root == {"a": made, "b": made, "c": [made, made]}
    many = parse("a: &a x\nb: [" + "*a, " * MAX_ALIASED + "]", "f").root["b"]
    assert many == ["x"] * MAX_ALIASED


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000])
def test_nesting_without_end_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^f: (is nested deeper|is not YAML)|^f:1"):
        parse(text, "f")


def test_a_number_of_thousands_of_digits_is_no_number() -> None:
    assert parse("a: " + "1" * 5000, "f").root == {"a": "1" * 5000}
    assert parse("a: 1__0", "f").root == {"a": 10}
