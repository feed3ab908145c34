"""Reads and writes pipeline.yaml of a run directory: the resolved pipeline that the run was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation.core import yaml_lines
from curation.storage import Storage

FILE = "pipeline.yaml"


def write_stored_pipeline(store: Storage, resolved: Mapping[str, Any]) -> None:
    """resolved  see `Pipeline.resolved`"""
    store.write_bytes(FILE, yaml_lines.dump(dict(resolved)).encode())


def read_stored_pipeline(store: Storage) -> dict[str, Any]:
    """What `write_stored_pipeline` was given. Raises FileNotFoundError for a run directory without one."""
    resolved: dict[str, Any] = yaml_lines.parse(store.read_bytes(FILE), store.url(FILE)).root
    return resolved
