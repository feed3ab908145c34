"""Makes directories that other users of the machine cannot have planted and cannot write to.

A name in /tmp that can be guessed can be taken first: another user makes the folder, or a link in it, and this user's
files overwrite what the link points to, or their code is loaded from there. So a directory that is shared by the
processes of a user is made with mode 0700, and one that exists is used only if it is no link, belongs to this user and
is writable by nobody else.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile


class NotPrivateError(OSError):
    """The directory is a link, belongs to another user, or others may write to it."""


def private_directory(path: str) -> str:
    """Makes the directory, and those above it that are missing, for this user only; returns its path.

    Raises NotPrivateError for one that another user may have planted, OSError where it cannot be made.
    """
    if not os.path.isdir(os.path.dirname(path)):
        private_directory(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        problem = "is a link, or no directory"
    elif found.st_uid != os.geteuid():
        problem = f"belongs to another user (uid {found.st_uid})"
    elif found.st_mode & 0o022:
        problem = f"can be written by other users (mode {stat.S_IMODE(found.st_mode):04o})"
    else:
        return path
    raise NotPrivateError(f"{path} {problem}; remove it, or set TMPDIR to a directory of your own")


def temporary_directory(base: str | None = None) -> str:
    """This user's directory for what their processes share on this machine.

    base  the directory that it is in [default: the machine's temporary directory]
    """
    path = private_directory(os.path.join(base or tempfile.gettempdir(), f"gristmill-{os.geteuid()}"))
    os.chmod(path, 0o700)  # nobody else may look into it either, whatever made it
    return path
