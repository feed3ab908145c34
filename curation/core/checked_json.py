"""Encodes JSON files with a checksum of their own content, and refuses those whose bytes changed since.

The first member of the object, `checksum`, is a hash of the file without that line. A changed digit in a count or a
path is valid JSON: only a checksum shows it.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from curation.core.errors import DamagedFile

_FIRST_LINES = re.compile(rb'\{\n "checksum": "([0-9a-f]{16})",?\n')


def encode(value: Mapping[str, Any], default: Any = None, *, indent: int | None = 1) -> bytes:
    """Canonical JSON: sorted keys, one trailing newline, so that equal values are equal bytes.

    `default` and `indent` as in json.dumps. Without an indent it is two thirds of the size, and C code encodes it: 10
    us instead of 80 for a manifest of 400 bytes.
    """
    text = json.dumps(value, sort_keys=True, indent=indent, ensure_ascii=False, default=default)
    if indent is None:
        text = "{\n" + text[1:]
    body = (text.replace("{}", "{\n}", 1) if not value else text).encode("utf-8", "surrogateescape") + b"\n"
    comma = b"," if value else b""
    return b'{\n "checksum": "%s"%s\n' % (_digest(body), comma) + body.removeprefix(b"{\n")


def decode(data: bytes, path: str, root: str = "") -> dict[str, Any]:
    """The value that `encode` was given, without its checksum. Raises DamagedFile, which names the path."""
    start = _FIRST_LINES.match(data)
    if start is None:
        raise DamagedFile(path, "it does not begin with its checksum", root)
    body = b"{\n" + data[start.end() :]
    if _digest(body) != start[1]:
        raise DamagedFile(path, "its content does not have the checksum that it was written with", root)
    return _load(body)


def _load(body: bytes) -> dict[str, Any]:
    """Parses without the garbage collector where that looks at each new object again and again: 7 us instead of 11 for
    each of 4,096 manifests, and nothing here is garbage."""
    pause = len(body) > 1 << 20 and gc.isenabled()
    if pause:
        gc.disable()
    try:
        return dict(json.loads(body))
    finally:
        if pause:
            gc.enable()


def is_checked(data: bytes) -> bool:
    """Whether a file begins with a checksum, as `encode` writes it."""
    return _FIRST_LINES.match(data) is not None


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:16].encode()
