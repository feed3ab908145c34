"""Reads and writes pipeline.yaml of a run directory: the resolved pipeline that the run was made with.

Strings that have `${VAR}` in the pipeline file have it here too: values of variables, which may be secrets, are not
stored. Beside them is a digest of 16 bits of each variable's value, enough to notice that it has changed and too little
to find out what it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from curation import storage
from curation.core import yaml_lines
from curation.core.errors import DamagedFile, UserError
from curation.storage import Storage

FILE = "pipeline.yaml"


def write_stored_pipeline(
    store: Storage, stored: Mapping[str, Any], variables: Mapping[str, str] | None = None
) -> None:
    """stored     see `Pipeline.stored`
    variables  those that the pipeline file uses, with their values
    """
    digests = {name: _digest(name, value) for name, value in sorted((variables or {}).items())}
    body = yaml_lines.dump({**stored, **({"variables": digests} if digests else {})}).encode()
    store.write_bytes(FILE, _checksum(body) + body)


def read_stored_pipeline(store: Storage, *, values: bool = False) -> dict[str, Any]:
    """What `write_stored_pipeline` was given.

    values  put the values of the environment in place of `${VAR}`, for what evaluates rules or opens files; otherwise
            it stays, for what is shown or written

    Raises FileNotFoundError for a run directory without one, DamagedFile for one that changed since (a changed digit
    would be another rule), UserError for a variable that has no value now or another than when the run was made.
    """
    file = store.url(FILE)
    first, line_break, data = store.read_bytes(FILE).partition(b"\n")
    if first + line_break != _checksum(data):
        raise DamagedFile(FILE, "its content does not have the checksum that it was written with", store.root)
    stored: dict[str, Any] = yaml_lines.parse(data, file, yaml_lines.KeepVariables()).root
    digests = stored.pop("variables", {})
    if not values or not digests:
        return stored
    tree = yaml_lines.parse(data, file, os.environ)
    changed = [name for name, value in tree.variables.items() if digests.get(name) != _digest(name, value)]
    if changed:
        raise UserError(
            f"{file}: the run was made with another value of {' and '.join(sorted(changed))}\n"
            "  set the variable to the value of then, or run gristmill curate with the new one"
        )
    del tree.root["variables"]
    return dict(tree.root)


def _checksum(body: bytes) -> bytes:
    return f"# checksum of what follows: {storage.digest(body)[:16]}\n".encode()


def _digest(name: str, value: str) -> str:
    return "v" + hashlib.sha256(f"{name}={value}".encode()).hexdigest()[:4]
