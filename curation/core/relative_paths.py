"""Checks paths that were read from a file, so that none leads out of the folder that the file describes.

Manifests, cards, indexes and lists name files beside themselves, and may come from anybody: joined to the folder, an
absolute path, a `..` or a URL would be read, or written over, anywhere. Every such name passes through `check_relative`
before it is joined.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from curation.core.errors import UserError

# A URL and fsspec's chains (`zip::s3://`), which name another filesystem wherever they stand in a path
_ELSEWHERE = re.compile(r"://|::")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHOWN = 120  # characters of a path that an error repeats


def check_relative(path: Any, where: str, error: type[Exception] = UserError) -> str:
    """The path itself, if it is relative and stays below its folder. `where`: the file that names it, for the error.

    Raises `error` for anything else: no text, empty, absolute, with `..`, a URL, or with control characters.
    """
    wrong = _fault(path)
    if wrong is None:
        return str(path)
    raise error(
        f"{where}: names the file {repr(path)[:_SHOWN]}, which {wrong}; a file may only be named by its path below the "
        "folder it belongs to, so this one was damaged or made to reach other files. Get it again from its source"
    )


def check_all_relative(paths: Sequence[Any], where: str, error: type[Exception] = UserError) -> None:
    """Checks each of many paths as `check_relative` does.

    First all at once: 20,000 paths take 7 ms, and 60 ms one by one, four times what reading their manifest takes.
    """
    try:
        joined = "".join(paths)
        lines = "\n".join(("", *paths, ""))
    except TypeError:  # one that is not text
        joined = lines = "\n"
    if joined.isprintable() and not any(bad in lines for bad in ("..", "://", "::", "\n/", "\n\\", "\n\n")):
        return
    for path in paths:
        check_relative(path, where, error)


def check_name(name: Any, where: str, error: type[Exception] = UserError) -> str:
    """A name that becomes a folder or part of a file's name: as `check_relative`, and without `/`."""
    if isinstance(name, str) and re.search(r"[/\\]", name):
        raise error(
            f"{where}: has the name {name[:_SHOWN]!r}, which is a path; it was damaged or made to reach other files"
        )
    return check_relative(name, where, error)


def _fault(path: Any) -> str | None:
    if not isinstance(path, str):
        return "is not text"
    if not path or _CONTROL.search(path):
        return "is empty or has control characters"
    if path.startswith(("/", "\\")):
        return "is an absolute path"
    if ".." in re.split(r"[/\\]", path):
        return "leads out of its folder by `..`"
    return "is a URL" if _ELSEWHERE.search(path) else None
