"""Notices an input file that was replaced between being listed and having been read."""

from __future__ import annotations

import os

from curation import storage
from curation.step import InputSplit


class SourceChanged(Exception):
    """An input file is not the one that was listed: its task would be named after bytes that it did not read."""


def check_unchanged(root: str, split: InputSplit) -> None:
    """Compares a file's size and version with those of the listing: one stat, or one request, a split.

    Raises SourceChanged if they differ or the file is gone.
    """
    full = storage.join(root, split.path)
    try:
        if storage.is_remote(full):
            fs, inner = storage.filesystem(full)
            info = fs.info(inner)
            version = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or ""
            found = (int(info["size"]), str(version).strip('"'))
        else:
            status = os.stat(full.removeprefix("file://"))
            found = (status.st_size, str(status.st_mtime_ns))
    except FileNotFoundError:
        found = (0, "gone")
    if found != (split.size, split.version.removesuffix(" unreadable")):
        raise SourceChanged(
            f"{full} was replaced while the run read it: listed with {split.size:,} bytes (version "
            f"{split.version or 'unknown'}), now {found[0]:,} (version {found[1] or 'unknown'}). Nothing of it was "
            "kept. Wait until nothing writes there, then run the same command again: it lists the input anew and "
            "reuses what it read of the other files."
        )
