"""Removes the files of a run's cache that its newest result does not refer to: `gristmill gc`.

Whatever a run computes stays, so that a rule that is changed back costs nothing. Each change with an effect adds files,
and nothing else removes them. A finished run lists the manifests that its result came from (cache/used.json); what they
name, and what later runs of a step with `prior_run` read, is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from curation.core.errors import UserError
from curation.engine.manifests import phase_records
from curation.engine.runtime import lock
from curation.engine.runtime.run_record import read_run
from curation.storage import Storage

USED = "cache/used.json"


@dataclass(frozen=True)
class FolderSizes:
    """Files and bytes of a folder of the cache that are kept, and that are removed."""

    kept_files: int = 0
    kept_bytes: int = 0
    removed_files: int = 0
    removed_bytes: int = 0


def write_used(store: Storage, manifests: Iterable[str]) -> None:
    """Lists the manifests of phases and records of stages that the result came from."""
    store.write_json(USED, {"manifests": sorted(manifests)})


def prune_cache(run_dir: str, *, dry_run: bool = False) -> dict[str, FolderSizes]:
    """Removes what no kept result refers to; returns the sizes by folder of the cache.

    dry_run   remove nothing

    Raises UserError for a run that is not finished, or that another process works on.
    """
    store = Storage(run_dir)
    made = read_run(store)
    if made.get("done") is None:
        raise UserError(
            f"{run_dir} is not a finished run, and so what it needs is not known: let `gristmill curate` finish first"
        )
    with lock.hold(store):
        sizes = store.sizes("cache")
        if sizes and USED not in sizes:
            raise UserError(
                f"{run_dir} does not list what its result was made of; `gristmill curate FILE --check` writes the list"
            )
        kept = _referred(store) if sizes else set()
        found: dict[str, FolderSizes] = {}
        for path, size in sorted(sizes.items()):
            folder = "/".join(path.split("/")[:2]) if path.count("/") > 1 else "cache"
            s = found.get(folder, FolderSizes())
            if path in kept:
                s = FolderSizes(s.kept_files + 1, s.kept_bytes + size, s.removed_files, s.removed_bytes)
            else:
                s = FolderSizes(s.kept_files, s.kept_bytes, s.removed_files + 1, s.removed_bytes + size)
                if not dry_run:
                    store.remove(path)
            found[folder] = s
    return found


def _referred(store: Storage) -> set[str]:
    """The manifests of the newest result, and all files of the cache that they name."""
    manifests = list(store.read_json(USED)["manifests"])
    manifests += [f"cache/prior_run/{name}" for name in store.names("cache/prior_run")]
    kept = {USED, *manifests}
    for path in manifests:
        if path.endswith(phase_records.SUFFIX):
            for manifest in phase_records.read(store, path).tasks.values():
                kept.update(_paths(manifest))
        else:
            kept.update(_paths(store.read_json(path)))
    return kept


def _paths(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if value.startswith("cache/"):
            yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from _paths(v)
    elif isinstance(value, list):
        for v in value:
            yield from _paths(v)
