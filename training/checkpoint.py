"""Checkpoints that are whole or not there, and that show when they are damaged.

A checkpoint is a directory named by its iteration: tensors as torch.distributed.checkpoint writes them (so another
number of ranks can read them), `state.json` for everything else, and `manifest.json` with the size and SHA-256 of both.
It is written under a temporary name, every file and directory flushed to disk, and then renamed: a name of digits is a
whole checkpoint. Loading checks the checksums and goes back to the one before where they differ, saying so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

MANIFEST, STATE = "manifest.json", "state.json"
_NAME = re.compile(r"\d{8,}")


class CheckpointError(Exception):
    """A checkpoint that is damaged or does not belong to this run."""


@dataclass(frozen=True)
class Loaded:
    """What loading found: the `state` that was saved, where, and what it had to say about others."""

    path: Path
    state: dict[str, Any]
    notes: tuple[str, ...] = ()


def _nothing(_: str) -> None:
    pass


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    """Weights and, with an optimizer, its moments, by parameter name; what is saved, and what loading fills in place.

    A parameter without moments yet gets zeros, as its first step would.
    """
    names = dict(model.named_parameters())  # a tied head appears once
    state: dict[str, Any] = {"model": {name: p.detach() for name, p in names.items()}}
    if optimizer is not None:
        moments: dict[str, dict[str, Tensor]] = {}
        for name, p in names.items():
            if not optimizer.state[p]:
                optimizer.state[p].update(
                    step=torch.zeros((), dtype=torch.float32, device=p.device),
                    exp_avg=torch.zeros_like(p, memory_format=torch.preserve_format),
                    exp_avg_sq=torch.zeros_like(p, memory_format=torch.preserve_format),
                )
            moments[name] = dict(optimizer.state[p])
        state["optimizer"] = moments
    return state


def save(
    folder: Path,
    iteration: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    *,
    keep: int,
    failpoint: Callable[[str], None] = _nothing,
) -> Path:
    """Writes the checkpoint of an iteration below `folder`, then removes all but the last `keep`.

    `state`: what else there is to know, as JSON. `failpoint` is called before every step at which a crash must do no
    harm.
    """
    final, temporary, old = (
        folder / f"{iteration:08d}",
        folder / f"{iteration:08d}.tmp",
        folder / f"{iteration:08d}.old",
    )
    clean(folder)
    failpoint("write tensors")
    with _alone():
        save_tensors(tensors(model, optimizer), checkpoint_id=temporary, no_dist=True)
    failpoint("write state")
    (temporary / STATE).write_text(json.dumps(state, sort_keys=True))
    files = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(temporary.iterdir())}
    failpoint("write manifest")
    (temporary / MANIFEST).write_text(json.dumps({"format": 1, "iteration": iteration, "files": files}, sort_keys=True))
    for path in [*sorted(temporary.iterdir()), temporary]:
        failpoint(f"fsync {path.name}")
        _fsync(path)
    if final.exists():  # a damaged one that loading went back past
        final.rename(old)
    failpoint("rename")
    temporary.rename(final)
    _fsync(folder)
    failpoint("remove old")
    shutil.rmtree(old, ignore_errors=True)
    for path in checkpoints(folder)[:-keep]:
        failpoint(f"remove {path.name}")
        shutil.rmtree(path.rename(path.with_suffix(".old")))
    return final


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), key=lambda p: int(p.name))


def clean(folder: Path) -> None:
    """Removes what a crash left half written or half removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.suffix in (".tmp", ".old"):
            shutil.rmtree(path)


def verify(path: Path) -> dict[str, Any]:
    """Compares every file of a checkpoint with its manifest; returns its state. Raises CheckpointError."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files, iteration = manifest["files"], manifest["iteration"]
        if int(path.name) != iteration or manifest["format"] != 1 or STATE not in files:
            raise CheckpointError(f"{path}: the manifest is of another checkpoint or format")
        for name, entry in files.items():
            file = path / name
            if file.stat().st_size != entry["bytes"] or _sha256(file) != entry["sha256"]:
                raise CheckpointError(f"{path}: {name} is not as it was written (size or checksum differs)")
        state: dict[str, Any] = json.loads((path / STATE).read_text())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error
    return state


def newest(folder: Path) -> Loaded | None:
    """The newest undamaged checkpoint, without its tensors; None where there is none at all.

    Raises CheckpointError where there are checkpoints and all are damaged: starting over is for a person to decide.
    """
    notes: list[str] = []
    for path in reversed(checkpoints(folder)):
        try:
            return Loaded(path, verify(path), tuple(notes))
        except CheckpointError as error:
            notes.append(f"{error}; going back to the one before")
    if notes:
        raise CheckpointError(
            f"{folder}: no checkpoint is undamaged ({len(notes)} tried); remove them to start from the beginning"
        )
    return None


def restore(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Fills model and optimizer in place from a checkpoint; without an optimizer, weights only."""
    with _alone():
        load_tensors(tensors(model, optimizer), checkpoint_id=path, no_dist=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """torch warns that there is no process group; here that is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
