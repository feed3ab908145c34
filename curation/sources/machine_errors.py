"""Separates errors of the machine (disk, network, permissions) from those that a damaged file causes."""

from __future__ import annotations

import errno
import gzip
import struct
import zipfile
import zlib

# What zipfile raises for damage; an OSError among them may be the machine's.
ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError, KeyError,
    struct.error, OverflowError, IndexError,
)  # fmt: skip
# What seeking to a place that damage made up raises.
_DAMAGE = (None, errno.EINVAL, errno.EOVERFLOW)


def raise_machine_error(error: BaseException) -> None:
    """Raises an error of the machine again, also where a library has turned it into an error of its own.

    It says nothing about the file: another try would read it. So the task fails and is tried again, and no record is
    left out. Libraries raise a plain OSError without a number for damage.
    """
    for cause in (error, error.__context__):
        if not isinstance(cause, OSError) or isinstance(cause, gzip.BadGzipFile):
            continue
        if cause.errno not in _DAMAGE or (cause.errno is None and type(cause) is not OSError):
            raise cause
