"""Reads and appends to JSONL logs: metrics.jsonl, speed.jsonl and sessions.jsonl of a training, events.jsonl of a run.

One rule for a last line without a line break: it is still being written, or a crash cut it off, and is not an entry.
Readers leave it out; the next `append` removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from curation.core.atomic_files import no_link
from curation.core.secrets import mask_secrets


def read(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The entries of a log, oldest first; none if there is no such file."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; only a missing file is caught here
    except FileNotFoundError:
        return
    with file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def encode(entry: Mapping[str, Any]) -> bytes:
    """The line of an entry, secrets in its texts masked."""
    entry = {name: mask_secrets(value) if isinstance(value, str) else value for name, value in entry.items()}
    return json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class Appender:
    """A log open for adding entries: for whoever writes many. Each is with the operating system when `add` returns;
    not flushed to the disk: a crash of the machine may lose it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Makes the file if there is none. Raises OSError where it is a symbolic link."""
        self._file = open(path, "ab+", buffering=0, opener=no_link)  # noqa: SIM115 - closed by `close`
        end = self._file.seek(0, os.SEEK_END)
        if end:
            self._file.seek(end - 1)
            if self._file.read(1) != b"\n":
                self._file.seek(0)
                self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Adds an entry, secrets in its texts masked."""
        self._file.write(encode(entry))

    def close(self) -> None:
        self._file.close()


def append(path: str | os.PathLike[str], entry: Mapping[str, Any]) -> None:
    """Adds an entry, secrets in its texts masked; makes the file if there is none. Not flushed to the disk: a crash may
    lose it.

    Raises OSError where the file is a symbolic link.
    """
    with contextlib.closing(Appender(path)) as log:
        log.add(entry)
