"""Decides whose a run directory is: one training works in it at a time, and nothing that it did not write is touched.

A directory belongs to a training once it holds its data.json, the first file that a start writes. In any other
directory the names below are somebody else's files, and training there is refused. Removed are only checkpoints and
incidents, by the names that this program gives them.

The first rank holds the directory for as long as the training runs (curation/core/directory_lock.py). Its token is in
the lock's file, and every rank reads it there before anything else: nodes that do not share the folder would train to
the end and leave checkpoints that cannot be loaded.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist

from curation.core import directory_lock
from curation.core.directory_lock import DirectoryBusy, DirectoryLock
from curation.core.errors import UserError
from training.checkpoint import save_load
from training.distributed.parallel import Ranks
from training.distributed.watchdog import MARKER

CONFIG, DATA = "train.yaml", "data.json"
# Written over, cut back or removed by a training; what else lies in the directory is left alone
NAMES = (CONFIG, DATA, "metrics.jsonl", "speed.jsonl", "sessions.jsonl", "checkpoints", "incidents", MARKER)
ENDING = 5.0  # seconds in which an earlier process of the same training may still be ending (torchrun, Ray)
VISIBLE = 15.0  # seconds in which a file of one node appears on another (a network file system's cache)
INCIDENT = re.compile(r"\d{4,}\.json")


def read_data_record(run: Path) -> dict[str, Any] | None:
    """A run's data.json: its shards, its tokenizer and what it began from; None where a training wrote none."""
    try:
        record = json.loads((run / DATA).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):  # not ours
        return None
    return record if isinstance(record, dict) and {"manifest", "tokenizer"} <= record.keys() else None


def refuse_foreign_files(run: Path, tokenizer: str) -> None:
    """Raises UserError for a directory with files that no training wrote, under names that one would write over.

    tokenizer: the name of the tokenizer's file.
    """
    if not run.exists() or read_data_record(run) is not None:
        return
    if not run.is_dir():
        raise UserError(f"{run} is a file; give a directory for the training run")
    found = [name for name in (*NAMES, tokenizer) if (run / name).exists() and not _empty_folder(run / name)]
    if found:
        raise UserError(
            f"{run} holds {', '.join(found)}, and no training run wrote {'it' if len(found) == 1 else 'them'}: there "
            f"is no {DATA} of one. Training there would overwrite or remove files that are not its own; give another "
            "directory with --run"
        )


def _empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def remove_earlier_start(run: Path) -> None:
    """Removes the checkpoints and incidents of a start that trained nothing, so that the run begins anew."""
    if read_data_record(run) is None:
        return
    save_load.remove_partial(run / "checkpoints")
    for path in save_load.checkpoints(run / "checkpoints"):
        save_load.remove(path)
    incidents = run / "incidents"
    for path in incidents.iterdir() if incidents.is_dir() else ():
        if INCIDENT.fullmatch(path.name.removesuffix(".tmp")):
            path.unlink()


@contextlib.contextmanager
def hold_run_directory(run: Path, ranks: Ranks) -> Iterator[Callable[[], None]]:
    """Holds the directory for this training, and checks that all ranks see the same one. Collective.

    Gives a function for the first rank that raises UserError if another training has taken the directory since. Raises
    UserError if another training has it, or if a rank does not see it.
    """
    with contextlib.ExitStack() as stack:
        held: list[DirectoryLock] = []

        def take() -> str:
            held.append(stack.enter_context(_hold(run)))
            return held[0].token

        def check() -> None:
            try:
                for lock in held:
                    lock.check()
            except DirectoryBusy as error:
                raise _busy(run, error) from None

        _check_shared(run, ranks.broadcast_from_rank0(take), ranks)
        yield check


@contextlib.contextmanager
def _hold(run: Path) -> Iterator[DirectoryLock]:
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(directory_lock.hold(run, patience=ENDING))
        except DirectoryBusy as error:
            raise _busy(run, error) from None
        except OSError as error:
            if error.errno == errno.ENOSPC:  # said by the caller
                raise
            raise UserError(f"cannot write to the run directory {run}: {error.strerror}; give another --run") from error
        yield lock


def _busy(run: Path, holder: DirectoryBusy) -> UserError:
    return UserError(
        f"another training is at work in {run} ({holder}). Wait for it, stop it, or give another directory with --run"
    )


def _check_shared(run: Path, token: str, ranks: Ranks) -> None:
    if ranks.world == 1:
        return
    deadline = time.monotonic() + VISIBLE
    while not (seen := directory_lock.read_token(run) == token) and time.monotonic() < deadline:
        time.sleep(0.2)
    every: list[Any] = [None] * ranks.world
    dist.all_gather_object(every, (socket.gethostname(), seen), group=ranks.host)
    blind = [f"rank {rank} on {host}" for rank, (host, sees) in enumerate(every) if not sees]
    if blind:
        raise UserError(
            f"{os.path.abspath(run)} is not the same directory on all nodes: rank 0 on {every[0][0]} wrote "
            f"{directory_lock.FILE} there, and {', '.join(blind[:4])}{' and others' if len(blind) > 4 else ''} cannot "
            "see it. Checkpoints would be spread over the nodes and could not be loaded; give a directory on a file "
            "system that all nodes share with --run"
        )
