"""Encodes JSON files with a checksum of their own content, and refuses those whose bytes changed since.

The first member of the object, `checksum`, is a hash of the file without that line. A changed digit in a count or a
path is valid JSON: only a checksum shows it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from curation.core.errors import DamagedFile

_FIRST_LINES = re.compile(rb'\{\n "checksum": "([0-9a-f]{16})",?\n')


def encode(value: Mapping[str, Any], default: Any = None) -> bytes:
    """Canonical JSON: sorted keys, one trailing newline, so that equal values are equal bytes.

    `default`: as in json.dumps.
    """
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, default=default)
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
    return dict(json.loads(body))


def is_checked(data: bytes) -> bool:
    """Whether a file begins with a checksum, as `encode` writes it."""
    return _FIRST_LINES.match(data) is not None


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:16].encode()
