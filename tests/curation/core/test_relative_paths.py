"""Paths read from files stay below their folder: everything else is refused, whatever the folder is."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.core.errors import UserError
from curation.core.relative_paths import check_all_relative, check_name, check_relative


@pytest.mark.parametrize(
    "path",
    ["a", "a/b.arrow", "train/web/00000.arrow", ".hidden", "..a", "a..b", "...", "a/./b", "a b/ü", "a:b"],
)
def test_names_below_the_folder_pass(path: str) -> None:
    assert check_relative(path, "manifest.json") == path


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../x", "leads out of its folder"),
        ("..", "leads out of its folder"),
        ("a/../../x", "leads out of its folder"),
        ("a/..", "leads out of its folder"),
        ("..\\x", "leads out of its folder"),
        ("/etc/passwd", "is an absolute path"),
        ("\\\\host\\x", "is an absolute path"),
        ("s3://bucket/x", "is a URL"),
        ("file:///etc/passwd", "is a URL"),
        ("x::file", "is a URL"),
        ("", "is empty"),
        ("a\0b", "control characters"),
        ("a\x1b[2J", "control characters"),
        (None, "is not text"),
        (7, "is not text"),
        (["a"], "is not text"),
    ],
)
def test_everything_else_is_refused(path: object, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        check_relative(path, "manifest.json")
    assert str(caught.value).startswith("manifest.json: names the file ")
    assert "\x1b" not in str(caught.value)
    with pytest.raises(ValueError, match=said):
        check_relative(path, "manifest.json", ValueError)


@given(st.text(st.sampled_from("./\\ab:~\0"), max_size=12))
def test_whatever_passes_stays_below(path: str) -> None:
    try:
        check_relative(path, "m")
    except UserError:
        return
    joined = posixpath.normpath(posixpath.join("/folder", path))
    assert joined == "/folder" or joined.startswith("/folder/")
    assert os.path.abspath(os.path.join("/folder", path)) == joined


@given(st.lists(st.text(st.sampled_from("./\\ab:\n\0")) | st.none(), max_size=4))
def test_many_paths_are_checked_as_each_alone(paths: list[str | None]) -> None:
    def refused(check: Callable[[], object]) -> str | None:
        try:
            check()
        except UserError as error:
            return str(error)
        return None

    first = next((said for p in paths if (said := refused(partial(check_relative, p, "m")))), None)
    assert refused(partial(check_all_relative, paths, "m")) == first


def test_a_name_is_no_path() -> None:
    assert check_name("web.v2", "m") == "web.v2"
    for name in ("a/b", "a\\b", "..", "", None, "/"):
        with pytest.raises(UserError):
            check_name(name, "m")
