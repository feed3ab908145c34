"""Reads and writes pipeline.yaml of a run directory: the resolved pipeline that the run was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation import storage
from curation.core import yaml_lines
from curation.core.errors import DamagedFile
from curation.storage import Storage

FILE = "pipeline.yaml"


def write_stored_pipeline(store: Storage, resolved: Mapping[str, Any]) -> None:
    """resolved  see `Pipeline.resolved`"""
    body = yaml_lines.dump(dict(resolved)).encode()
    store.write_bytes(FILE, _checksum(body) + body)


def read_stored_pipeline(store: Storage) -> dict[str, Any]:
    """What `write_stored_pipeline` was given. Raises FileNotFoundError for a run directory without one, DamagedFile for
    one that changed since: a changed digit would be another rule."""
    first, line_break, body = store.read_bytes(FILE).partition(b"\n")
    if first + line_break != _checksum(body):
        raise DamagedFile(FILE, "its content does not have the checksum that it was written with", store.root)
    resolved: dict[str, Any] = yaml_lines.parse(body, store.url(FILE)).root
    return resolved


def _checksum(body: bytes) -> bytes:
    return f"# checksum of what follows: {storage.digest(body)[:16]}\n".encode()
