"""Replaces small local files atomically: a reader, or a crash, finds the old content or the new, never a part.

The new content goes to a temporary file in the same folder, is flushed to the disk and renamed; then the folder is
flushed, without which a crash may undo the rename. Files on other filesystems go through curation/storage.py.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

StrPath = str | os.PathLike[str]


def write(path: StrPath, data: bytes) -> None:
    """Replaces the content of a file that no other process writes.

    The temporary name is always the same, so that the next write removes what a killed process left.
    """
    temporary = f"{os.fspath(path)}.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # in somebody else's folder perhaps a link to a file of the user's
    with open(temporary, "xb") as f:
        f.write(data)
    _publish(temporary, path)


@contextlib.contextmanager
def replacing(path: StrPath) -> Iterator[str]:
    """A temporary path to write a file to: renamed to `path` when the block ends, removed if it raises.

    Makes the folder. Several processes may replace the same file at once; the last one stays.
    """
    os.makedirs(_folder(path), exist_ok=True)
    temporary = f"{os.fspath(path)}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        yield temporary
        _publish(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def no_link(path: str, flags: int) -> int:
    """Opener for `open` that refuses a symbolic link (OSError): a run directory may come from somebody else, and what
    is appended to its logs must not go into a file elsewhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def fsync(path: StrPath) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _publish(temporary: str, path: StrPath) -> None:
    fsync(temporary)
    os.replace(temporary, path)
    fsync(_folder(path))


def _folder(path: StrPath) -> str:
    return os.path.dirname(os.path.abspath(path))
