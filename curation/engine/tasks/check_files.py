"""Compares files with the size and the SHA-256 that the manifest of their task recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curation.storage import Storage


@dataclass(frozen=True)
class CheckPhase:
    run: str


def run_check(phase: CheckPhase, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The damaged ones among these files (path, bytes, sha256 of each), with the reason: {"damaged": {path: reason}}"""
    storage = Storage(phase.run)
    damaged = {}
    for file in files:
        try:
            with storage.open(file["path"]) as f:
                found = hashlib.file_digest(f, "sha256").hexdigest()
        except FileNotFoundError:
            damaged[file["path"]] = "it is missing"
            continue
        if found != file["sha256"]:
            damaged[file["path"]] = "its bytes are not those that were written"
    return {"damaged": damaged}
