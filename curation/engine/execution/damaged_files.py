"""Finds damaged files of the cache and invalidates them: they count as absent and are computed again.

A task that opens a file checks it (checked_parquet.py, partition_files.py), so damage is found when a file is read.
Files that no task reads before they are published are compared with their manifests: see `check`. What is named by a
manifest that names a damaged file counts as not finished: its tasks run again, and all others are reused.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from curation import storage as stores
from curation.core.errors import DamagedFile
from curation.engine.execution.driver import CacheDamaged, Driver
from curation.engine.execution.executors import RunFailed
from curation.engine.manifests import phase_records
from curation.engine.tasks.check_files import CheckPhase, run_check
from curation.storage import Storage

CHECK_BYTES = 256 << 20  # that one task of `check` reads, a second or less
MAX_DAMAGES = 3  # of one file in one session: then it is not the file


def start_over(driver: Driver, found: CacheDamaged, before: Counter[str]) -> None:
    """Names the damaged files, invalidates them and reads anew what is finished.

    before   how often each file was damaged in this session; counted on. Raises RunFailed for a file of another run,
             which cannot be computed here, and for one that is damaged whenever it is written.
    """
    for path, reason in sorted(found.files.items()):
        if posixpath.isabs(path) or stores.is_remote(path):
            raise RunFailed(
                f"{path}, which a step's prior_run or a pinned file refers to, is damaged: {reason}. Run `gristmill "
                "curate --check` on the run that it belongs to, which makes it again, and then this command."
            )
        before[path] += 1
        if before[path] >= MAX_DAMAGES:
            raise RunFailed(
                f"{driver.storage.url(path)} was computed {before[path] - 1} times and is damaged again: {reason}. "
                "The disk or the memory of this machine changes what is written: check both, then run again."
            )
        driver.progress.note(f"{path} is damaged ({reason}): it counts as absent and is computed again")
    invalidate(driver.storage, found.files)
    driver.load_finished_tasks()


def invalidate(storage: Storage, paths: Collection[str]) -> None:
    """Removes these files, and everything that says that they exist: manifests of tasks and records of stages."""
    for path in phase_records.paths(storage):
        try:
            record = phase_records.read(storage, path)
        except DamagedFile:
            storage.remove(path)
            continue
        left = [task for task, manifest in record.tasks.items() if not _mentions(manifest, paths)]
        if len(left) < len(record.tasks):
            found = dict.fromkeys(left, record.tasks)
            phase_records.merge(storage, path, record.kind, record.name, left, found, None)
    for folder in ("cache/reuse", "cache/prior_run"):
        for name in storage.names(folder):
            path = f"{folder}/{name}"
            try:
                if not _mentions(storage.read_json(path), paths):
                    continue
            except DamagedFile:
                pass
            storage.remove(path)
    for path in storage.walk("cache/tasks"):
        try:
            if not _mentions(storage.read_json(path), paths):
                continue
        except DamagedFile:
            pass
        storage.remove(path)
    for path in paths:
        storage.remove(path)


def _mentions(value: Any, paths: Collection[str]) -> bool:
    if isinstance(value, str):
        return value in paths
    if isinstance(value, Mapping):
        return any(_mentions(v, paths) for v in value.values())
    return isinstance(value, list) and any(_mentions(v, paths) for v in value)


def check(driver: Driver, files: Sequence[Mapping[str, Any]]) -> None:
    """Reads files (path, bytes, sha256) in tasks. Raises CacheDamaged for those that are not what was written."""
    groups: list[list[Mapping[str, Any]]] = []
    size = CHECK_BYTES
    for file in files:
        if size >= CHECK_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(file)
        size += file["bytes"]
    damaged: dict[str, str] = {}
    shared = driver.executor.share(CheckPhase(driver.storage.root)) if groups else None
    for group in groups:
        outcome = driver.wait_for(run_check, shared, group)
        if outcome.value is None:
            raise outcome.error or RunFailed(f"the worker died while it checked files: {outcome.death}")
        damaged |= outcome.value["damaged"]
    if damaged:
        raise CacheDamaged(damaged)


def check_all(driver: Driver) -> None:
    """Checks every file that a manifest of the cache names. Raises CacheDamaged."""
    files: dict[str, Mapping[str, Any]] = {}
    for record in filter(None, map(driver.read_phase, phase_records.paths(driver.storage))):
        files |= {f["path"]: f for m in record.tasks.values() for f in m.get("files", ())}
    for path in driver.storage.walk("cache/tasks"):
        files |= {f["path"]: f for f in (driver.read_manifest(path) or {}).get("files", ())}
    check(driver, [files[p] for p in sorted(files)])
