"""Notices an input file that was replaced between being listed and having been read."""

from __future__ import annotations

from curation import storage
from curation.input_files import InputFile, describe_input
from curation.step import InputSplit


class SourceChanged(Exception):
    """An input file is not the one that was listed: its task would be named after bytes that it did not read."""


def check_unchanged(root: str, split: InputSplit) -> None:
    """Compares a file's size and version with those of the listing: one stat, or one request, a split.

    Raises SourceChanged if they differ or the file is gone.
    """
    now = describe_input(root, split.path)
    if now != InputFile(split.path, split.size, split.version):
        found = f"{now.size:,} (version {now.version or 'unknown'})" if now is not None else "gone"
        raise SourceChanged(
            f"{storage.join(root, split.path)} was replaced while the run read it: listed with {split.size:,} bytes "
            f"(version {split.version or 'unknown'}), now {found}. Nothing of it was kept. Wait until nothing writes "
            "there, then run the same command again: it lists the input anew and reuses what it read of others."
        )
