"""Reads exclude lists: documents and URLs that a run leaves out, by the rule `exclude`, when it reads its input.

A list is JSON Lines: `doc_id` (32 hexadecimal digits) or `url` (as crawled), and optionally `reason` and `by`, which go
into the ledger with the drop. Lists come from people, from deletions of this run (results/generations.py) and from
training, which writes the documents that caused a loss spike to one.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xxhash

from curation import storage
from curation.core.errors import UserError


@dataclass(frozen=True)
class ExcludeList:
    """Documents and URLs to leave out, each with what its first entry says about it."""

    doc_ids: Mapping[bytes, str | None] = field(default_factory=dict)
    urls: Mapping[str, str | None] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """Equal for lists that leave out the same documents and URLs for the same reasons."""
        ids = sorted((doc_id.hex(), why) for doc_id, why in self.doc_ids.items())
        return storage.fingerprint([ids, sorted(self.urls.items())])


def read_exclude_lists(paths: Sequence[str]) -> ExcludeList:
    """The entries of all lists. Raises UserError for a list that does not exist and for a line that is not an entry."""
    doc_ids: dict[bytes, str | None] = {}
    urls: dict[str, str | None] = {}
    for path in paths:
        fs, inner = storage.filesystem(path)
        if not fs.exists(inner):
            raise UserError(f"the exclude list {path} does not exist (an empty file is a valid list)")
        with fs.open(inner, "rb") as f:
            lines = f.read().splitlines()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                if entry.get("doc_id"):
                    (doc_id,) = struct.unpack("16s", bytes.fromhex(entry["doc_id"]))
                    doc_ids.setdefault(doc_id, _reason(entry))
                else:
                    url_key(entry["url"])
                    urls.setdefault(entry["url"], _reason(entry))
            except (ValueError, KeyError, AttributeError, TypeError, struct.error):
                raise UserError(
                    f"{path}, line {number}: expected an object with `doc_id` (32 hexadecimal digits) or `url`, "
                    f"found {line[:80].decode(errors='replace')}"
                ) from None
    return ExcludeList(doc_ids, urls)


def url_key(url: str) -> int:
    """The key that documents are looked up under by URL: xxh3-64 of the URL as crawled."""
    return xxhash.xxh3_64_intdigest(url.encode("utf-8", "surrogateescape"))


def _reason(entry: Mapping[str, Any]) -> str | None:
    """Reason and author of an entry in one string: `a spike (by training)`."""
    found = [str(entry[k]) if entry.get(k) else "" for k in ("reason", "by")]
    reason, by = (s.encode("utf-8", "replace").decode() for s in found)
    return f"{reason} (by {by})".lstrip() if by else reason or None
