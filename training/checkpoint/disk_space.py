"""Estimates what a run's checkpoints need on disk, and says in words that a disk is full.

torch wraps what its ranks raise in an exception of its own, which is not an Exception and keeps theirs in `failures`.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from training.checkpoint.tensor_files import CheckpointError
from training.config import TrainConfig

PARAMETER_BYTES = 12  # a weight and AdamW's two moments, fp32
_FULL = (errno.ENOSPC, errno.EDQUOT)


def checkpoint_bytes(config: TrainConfig, parameters: int) -> tuple[int, int]:
    """Bytes of one checkpoint, and how many a run holds at most: the one being written, those kept, the guard's two."""
    kept = config.checkpoint.keep + (2 if config.guard.action == "rollback" else 0)
    if config.checkpoint.keep_every:
        kept += config.steps // config.checkpoint.keep_every
    return PARAMETER_BYTES * parameters, min(kept, config.steps // config.checkpoint.every + 2) + 1


def free_bytes(run: Path) -> int:
    """Bytes free where a run is, or will be."""
    there = next(p for p in (run.absolute(), *run.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free


@contextlib.contextmanager
def full_disk_in_words(run: Path) -> Iterator[None]:
    """Turns the errors of a full disk into a CheckpointError that says so; all others pass."""
    try:
        yield
    except BaseException as error:
        if not is_disk_full(error):
            raise
        raise CheckpointError(
            f"{run}: no space is left on the disk ({free_bytes(run) / 1e6:,.1f} MB free); the last checkpoint is "
            "whole\n  free space there (or lower checkpoint.keep) and run the same command: it resumes"
        ) from error


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that of a full disk or quota."""
    while error is not None:
        inner = [f[0] if isinstance(f, tuple) else f for f in getattr(error, "failures", {}).values()]
        for found in (error, *inner):
            if isinstance(found, OSError) and found.errno in _FULL:
                return True
        error = error.__cause__ or error.__context__
    return False
