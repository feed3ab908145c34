"""Recognises writes that found no space on a disk, and says what to do."""

from __future__ import annotations

import errno
import tempfile

from curation.engine.execution.executors import RunFailed
from curation.storage import Storage


def is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(storage: Storage, error: BaseException) -> RunFailed:
    """The error for a write that found no space, in a task or in the driver."""
    return RunFailed(
        f"the disk is full ({error}): that of {storage.root}, or of the temporary directory {tempfile.gettempdir()} of "
        "the machine that ran the task. Finished tasks are safe: free some space and run the same command again to "
        "resume."
    )
