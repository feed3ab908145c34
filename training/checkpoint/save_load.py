"""Saves and loads checkpoints that are complete or absent, and detects damaged ones.

A checkpoint is a directory named by its step: the tensors as safetensors files that any number of ranks can read
(tensor_files.py), `state.json` for everything else, and `manifest.json` with the size and SHA-256 of all files. It may
come from anybody: nothing in it is unpickled, and one with other files than these is refused before any is opened.
Training copies its tensors and continues; a thread of each rank writes them under a temporary name, flushes them to
disk and sends its checksums to the first rank, which writes the manifest and renames: a directory named by digits is a
complete checkpoint. Loading verifies the checksums and falls back to the checkpoint before a damaged one, with a note.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from curation.core.atomic_files import fsync
from training.checkpoint import tensor_files
from training.checkpoint.tensor_files import INDEX, SafetensorsReader, SafetensorsWriter
from training.checkpoint.tensor_files import CheckpointError as CheckpointError  # part of this module's interface
from training.distributed.parallel import Ranks
from training.optim.optimizers import Optimizers

MANIFEST, STATE = "manifest.json", "state.json"
FORMAT = 4  # of manifest, state and tensors; up to 3 the tensors were torch's own files, which hold pickles
_NAME = re.compile(r"\d{8,}")
_PARTIAL = re.compile(r"\d{8,}\.(tmp|old)")
# Files that opening would unpickle, and that no checkpoint of this format holds
_PICKLES = (".metadata", ".distcp", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
SINGLE_PROCESS = Ranks(0, 1, torch.device("cpu"))

# torch warns whenever one process saves or loads alone, in its own thread too, where a context would not reach.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its directory, the `state` that was saved, and notes about damaged ones passed over."""

    path: Path
    state: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """Which checkpoint this is, and whether it is the newest of its run; `notes` say why it is not."""
        last = checkpoints(self.path.parent)[-1:]
        older = f", not the newest, which is {last[0].name}" if last and last[0].name != self.path.name else ""
        return f"checkpoint {self.path} (step {self.state['step']:,}{older})"


@dataclass(frozen=True)
class Retention:
    """Which checkpoints are kept: the last `keep`, multiples of `every`, the `good` one and the next candidate."""

    keep: int
    every: int | None = None
    good: int | None = None

    def select(self, steps: Collection[int]) -> set[int]:
        """The steps whose checkpoints are kept."""
        ordered = sorted(steps)
        kept = set(ordered[-self.keep :])
        if self.every:
            kept |= {i for i in ordered if i % self.every == 0}
        if self.good is not None:
            kept |= {*[i for i in ordered if i <= self.good][-1:], *[i for i in ordered if i > self.good][:1]}
        return kept


def _no_failpoint(_: str) -> None:
    pass


def tensors(model: nn.Module, optimizers: Optimizers | None) -> dict[str, Any]:
    """Weights and, with optimizers, their moments, by parameter name: what is saved, and filled in place by loading."""
    names = dict(model.named_parameters())  # a tied head appears once
    state: dict[str, Any] = {"model": {name: p.detach() for name, p in names.items()}}
    if optimizers is not None:
        state["optimizer"] = {name: optimizers.state_tensors(p) for name, p in names.items()}
    return state


class CheckpointSaver:
    """Writes the checkpoints of a run, one at a time, in the background."""

    def __init__(
        self,
        folder: Path,
        ranks: Ranks = SINGLE_PROCESS,
        *,
        background: bool = True,
        before_commit: Callable[[], None] = lambda: None,
        failpoint: Callable[[str], None] = _no_failpoint,
    ) -> None:
        """`before_commit` is called on the first rank before a checkpoint gets its name, and may raise.

        `failpoint` is called before every operation at which a crash must do no harm (for tests).
        """
        self.folder, self.ranks, self.background, self._failpoint = folder, ranks, background, failpoint
        self._before_commit = before_commit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
            elif self._pending is not None and self.ranks.world == 1:
                with contextlib.suppress(Exception):  # the first error is the one to report
                    self._pending.result()
        finally:
            self._thread.shutdown(wait=kind is None)

    def wait(self) -> None:
        """Waits until the last checkpoint is complete; raises its error if it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def save(
        self, step: int, model: nn.Module, optimizers: Optimizers, state: dict[str, Any], retention: Retention
    ) -> None:
        """Copies the tensors and returns; `state`: everything else, as JSON values. Collective."""
        self.wait()
        temporary = self.folder / f"{step:08d}.tmp"
        self.ranks.broadcast_from_rank0(lambda: remove_partial(self.folder))
        self._failpoint("write tensors")
        content, alone = tensors(model, optimizers), self.ranks.world == 1
        writer = SafetensorsWriter(temporary)
        written: Any = None
        if self.background:
            written = async_save(content, storage_writer=writer, process_group=self.ranks.files, no_dist=alone)
        else:
            save_tensors(content, storage_writer=writer, process_group=self.ranks.files, no_dist=alone)
        text = json.dumps(state, sort_keys=True)
        self._pending = self._thread.submit(self._commit, written, temporary, step, text, retention)
        if not self.background:
            self.wait()

    def _commit(self, written: Any, temporary: Path, step: int, state: str, retention: Retention) -> None:
        if written is not None:
            written.result()
        sums = {}
        for path in temporary.glob(tensor_files.file_of_rank(self.ranks.rank)):
            self._failpoint(f"fsync {path.name}")
            fsync(path)
            sums[path.name] = _entry(path)
        every: list[Any] = [sums]
        if self.ranks.world > 1:
            every = [None] * self.ranks.world
            dist.all_gather_object(every, sums, group=self.ranks.files)
        if self.ranks.first:
            self._finish(temporary, step, state, {k: v for part in every for k, v in part.items()}, retention)
        if self.ranks.world > 1:
            dist.barrier(group=self.ranks.files)

    def _finish(self, temporary: Path, step: int, state: str, files: Any, retention: Retention) -> None:
        """The first rank's part: state, manifest, the name that makes it a checkpoint, and the removal of old ones."""
        final = self.folder / f"{step:08d}"
        self._write(temporary / STATE, state)
        for name in (INDEX, STATE):
            files[name] = _entry(temporary / name)
        for name, entry in files.items():  # those of other ranks too: a node may have written to a disk of its own
            size = (temporary / name).stat().st_size if (temporary / name).exists() else None
            if size != entry["bytes"]:
                raise CheckpointError(
                    f"{temporary}: {name} was written with {entry['bytes']} bytes and "
                    f"{'is not there' if size is None else f'has {size} here'}; the run directory must be on a file "
                    "system that all nodes share"
                )
        manifest = {"format": FORMAT, "step": step, "files": dict(sorted(files.items()))}
        self._write(temporary / MANIFEST, json.dumps(manifest, sort_keys=True))
        for path in (temporary / INDEX, temporary):
            self._failpoint(f"fsync {path.name}")
            fsync(path)
        self._before_commit()
        if final.exists():  # a damaged one that loading passed over
            self._failpoint("rename old")
            final.rename(final.with_suffix(".old"))
        self._failpoint("rename")
        temporary.rename(final)
        self._failpoint("fsync folder")
        fsync(self.folder)
        kept = retention.select([int(p.name) for p in checkpoints(self.folder)])
        for path in [final.with_suffix(".old"), *checkpoints(self.folder)]:
            if path.exists() and (path.suffix or int(path.name) not in kept):
                self._failpoint(f"remove {path.name}")
                remove(path)

    def _write(self, path: Path, text: str) -> None:
        self._failpoint(f"write {path.name}")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            self._failpoint(f"fsync {path.name}")
            os.fsync(f.fileno())


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), key=lambda p: int(p.name))


def remove_partial(folder: Path) -> None:
    """Removes checkpoints that a crash left half written or half removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if _PARTIAL.fullmatch(path.name):  # other names are not ours
            remove(path)


def remove(path: Path) -> None:
    """Removes a checkpoint: first its name, then its files, so that an incomplete one is never named by digits."""
    unnamed = path if path.suffix else path.rename(path.with_suffix(".old"))
    if unnamed.is_symlink():  # somebody moved it to another disk: only the link is in the run
        unnamed.unlink()
    else:
        shutil.rmtree(unnamed)


def verify(path: Path) -> dict[str, Any]:
    """Compares every file of a checkpoint with its manifest; returns its state. Raises CheckpointError."""
    return _verify(path, None)


def read_state(path: Path) -> dict[str, Any]:
    """As `verify`, but reads no tensors: only the state is compared with the manifest."""
    return _verify(path, STATE)


def _verify(path: Path, only: str | None) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise CheckpointError(
                f"{path}: has checkpoint format {manifest['format']}, this version reads format {FORMAT}; "
                "use the version that wrote it"
            )
        files = manifest["files"]
        if int(path.name) != manifest["step"] or not {STATE, INDEX} <= files.keys():
            raise CheckpointError(f"{path}: the manifest belongs to another checkpoint")
        _refuse_foreign_files(path, files)
        for name, entry in files.items():
            if only in (None, name) and _entry(path / name, entry["bytes"]) != entry:
                raise CheckpointError(f"{path}: {name} is damaged (its size or checksum differs from the manifest)")
        if only is None:
            tensor_files.check_index(path, files)
        state: dict[str, Any] = json.loads((path / STATE).read_text())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged: {error}") from error
    return state


def newest(folder: Path, upto: int | None = None, read: Callable[[Path], dict[str, Any]] = verify) -> Checkpoint | None:
    """The newest undamaged checkpoint (not past step `upto`), without its tensors; None where there is none.

    read: `verify`, or `read_state` where the tensors are not needed.

    Raises CheckpointError where there are checkpoints and none can be read: starting over is for the user to decide.
    """
    notes: list[str] = []
    for path in reversed([p for p in checkpoints(folder) if upto is None or int(p.name) <= upto]):
        try:
            return Checkpoint(path, read(path), tuple(notes))
        except CheckpointError as error:
            notes.append(f"{error}; trying the checkpoint before it")
    if notes:
        raise CheckpointError(
            f"{folder}: no checkpoint can be read ({len(notes)} tried; {notes[0].partition(';')[0]}); "
            "remove them to start from the beginning"
        )
    return None


def summarize_checkpoints(folder: Path) -> list[dict[str, Any]]:
    """Step, bytes, tokens, incidents and whether the guard calls it good, of each checkpoint; None: unreadable.

    Reads no tensors; `verify` does.
    """
    rows: list[dict[str, Any]] = []
    for path in checkpoints(folder):
        try:
            state = json.loads((path / STATE).read_text())
            known = {"tokens": state["tokens"], "incidents": state["guard"]["incidents"]}
            good = state["guard"]["good"]
        except (OSError, ValueError, KeyError, TypeError):
            known, good = {"tokens": None, "incidents": None}, None
        size = sum(f.stat().st_size for f in path.iterdir())
        rows.append({"step": int(path.name), "bytes": size, **known, "good": good})
    newest_good = next((r["good"] for r in reversed(rows) if r["good"] is not None), None)
    return [{**r, "good": None if r["good"] is None else r["step"] == newest_good} for r in rows]


def find_checkpoint(place: str | Path, read: Callable[[Path], dict[str, Any]] = verify) -> Checkpoint:
    """The newest checkpoint of a run or of its `checkpoints` folder, or `place` itself. Raises CheckpointError.

    A checkpoint that was asked for by its own path is taken or refused; only among those of a run is another tried.
    """
    path = Path(place)
    if is_checkpoint(path):
        if not path.is_dir():
            there = ", ".join(p.name for p in checkpoints(path.parent)) or "none"
            raise CheckpointError(f"{place}: no checkpoint here; the checkpoints in {path.parent} are: {there}")
        return Checkpoint(path, read(path))
    found = newest(path / "checkpoints", read=read) or newest(path, read=read)
    if found is None:
        raise CheckpointError(f"{place}: no checkpoint here; `gristmill train` writes them")
    return found


def is_checkpoint(path: Path) -> bool:
    """Whether a path names a checkpoint, there or not; a run may have a date of eight digits for a name."""
    return bool(_NAME.fullmatch(path.name)) and (path.parent.name == "checkpoints" or (path / MANIFEST).exists())


def run_of(checkpoint: Path) -> Path:
    """The run directory around a checkpoint."""
    return checkpoint.absolute().parent.parent


def restore(path: Path, model: nn.Module, optimizers: Optimizers | None, ranks: Ranks = SINGLE_PROCESS) -> None:
    """Loads a checkpoint of any number of ranks into model and optimizers; without optimizers, the weights only."""
    alone = ranks.world == 1
    reader = SafetensorsReader(path)
    load_tensors(tensors(model, optimizers), storage_reader=reader, process_group=ranks.host, no_dist=alone)


def _refuse_foreign_files(path: Path, listed: Collection[str]) -> None:
    """Raises CheckpointError for a listed file that no checkpoint has, and for any file that opening would unpickle."""
    for name in listed:
        if name not in (STATE, INDEX) and not tensor_files.is_tensor_file(name):
            raise CheckpointError(
                f"{path}: its manifest lists {name!r}, which is no file of a checkpoint; do not use it"
            )
    for file in path.iterdir():
        if file.name.endswith(_PICKLES):
            raise CheckpointError(
                f"{path}: holds {file.name}, a pickle, which can run code when it is opened and is no file of a "
                "checkpoint; it was not opened. Remove it if you know where it comes from"
            )


def _entry(path: Path, size: int | None = None) -> dict[str, Any]:
    """Size and SHA-256; a file whose size is not `size` is not read."""
    length = path.stat().st_size
    if size is not None and length != size:
        return {"bytes": length}
    with open(path, "rb") as f:
        return {"bytes": length, "sha256": hashlib.file_digest(f, "sha256").hexdigest()}
