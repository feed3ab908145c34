"""Files that are there whole or not at all, whatever is cut short: written aside, flushed, renamed, the folder flushed.

Checkpoints have steps of their own between these, so that each can be tried to fail (checkpoint.py).
"""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Puts data in the place of what is there."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    temporary.rename(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """What the system still holds of a file, or of the names in a folder, to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
