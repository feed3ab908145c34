"""Defines the errors that every part of the project raises and the command line prints without a traceback."""

from __future__ import annotations

import posixpath
from typing import Any


class UserError(Exception):
    """Something the user has to change: shown without a traceback, exit code 2.

    The message says what is wrong, where, and what to do about it.
    """


class DamagedFile(ValueError):
    """A file that this program wrote is missing, or its bytes are not those that were written.

    `path` is below `root`, the directory or URL of the run that it belongs to.
    """

    def __init__(self, path: str, reason: str, root: str = "") -> None:
        super().__init__(
            f"{posixpath.join(root, path)} is damaged: {reason}. `gristmill curate --check` with the pipeline file and "
            "the directory of that run finds all damaged files and makes them again."
        )
        self.path, self.reason, self.root = path, reason, root

    def __reduce__(self) -> Any:
        return type(self), (self.path, self.reason, self.root)
