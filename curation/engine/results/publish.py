"""Publishes the result tree: builds it next to the old one, then replaces that.

Files are staged by sink tasks under names that carry their fingerprints. Publishing links them into a fresh tree and
swaps it for the old one, so that a reader finds the old result or the new one, never half of each.

    result/    the result of the newest run that came to its end
    decided/   the ledger of a run that stopped after it had decided about documents; gone when a run ends or begins
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from curation.storage import Storage, Written

RESULT, DECIDED = "result", "decided"


def newest_tree(store: Storage) -> str | None:
    """The tree with the newest ledger: of the run that stopped, else of the finished one; None if there is neither."""
    return next((tree for tree in (DECIDED, RESULT) if store.exists(f"{tree}/ledger")), None)


@dataclass
class ResultFiles:
    """Staged files of a result, small files with their content, and counts for run.json."""

    staged: list[dict[str, Any]] = field(default_factory=list)
    small: dict[str, bytes] = field(default_factory=dict)  # path below result/ -> content; the manifest goes last
    counts: dict[str, Any] = field(default_factory=dict)


def publish(store: Storage, made: ResultFiles, tree: str = RESULT) -> list[Written]:
    """Makes the tree hold exactly these files."""
    if store.local:
        return _publish_local(store, made, tree)
    return _publish_remote(store, made, tree)


def _publish_local(store: Storage, made: ResultFiles, tree: str) -> list[Written]:
    fresh, old = f"{tree}.new", f"{tree}.old"
    store.remove(fresh)
    written = _fill(store, made, fresh)
    store.sync(fresh)
    store.remove(old)
    if store.exists(tree):
        store.rename(tree, old)
    store.rename(fresh, tree)
    store.remove(old)
    return [Written(w.path.replace(fresh, tree, 1), w.size, w.sha256) for w in written]


def _publish_remote(store: Storage, made: ResultFiles, tree: str) -> list[Written]:
    # No rename here: readers go by the manifest, so that is removed first and written last.
    store.remove(f"{tree}/shards/manifest.json")
    present = set(store.walk(tree))
    written = _fill(store, made, tree)
    for stale in sorted(present - {w.path for w in written}):
        store.remove(stale)
    return written


def _fill(store: Storage, made: ResultFiles, directory: str) -> list[Written]:
    written = []
    for file in sorted(made.staged, key=lambda f: str(f["path"])):
        target = f"{directory}/{file['path'].removeprefix(file['directory'] + '/')}"
        store.link(file["path"], target)
        written.append(Written(target, file["bytes"], file["sha256"]))
    for path, content in sorted(made.small.items(), key=lambda item: (item[0].endswith("manifest.json"), item[0])):
        written.append(store.write_bytes(f"{directory}/{path}", content))
    return written
