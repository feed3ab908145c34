"""Publishes the result tree: builds it next to the old one, then replaces that.

Files are staged by sink tasks under names that carry their fingerprints. Publishing links them into a fresh tree and
swaps it for the old one, so that a reader finds the old result or the new one, never half of each. An object store has
no rename: there each result has a folder of its own, and one small object names the newest (core/published_tree.py).

    result/    the result of the newest run that came to its end
    decided/   the ledger of a run that stopped after it had decided about documents; gone when a run ends or begins
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.core import published_tree
from curation.core.errors import DamagedFile, UserError
from curation.storage import Storage, Written, digest, fingerprint

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
    copied = _pointed(store, tree) is not None  # of a run that was copied from an object store
    written = _fill(store, made, fresh)
    store.sync(fresh)
    store.remove(old)
    if copied:
        store.remove(published_tree.pointer(tree))
    if store.exists(tree):
        store.rename(tree, old)
    store.rename(fresh, tree)
    store.remove(old)
    for directory in published_directories(store, tree) if copied else ():
        store.remove(directory)
    return [Written(w.path.replace(fresh, tree, 1), w.size, w.sha256) for w in written]


def _pointed(store: Storage, tree: str) -> str | None:
    """The directory that a pointer names; None where there is none, or a file of somebody's that has its name."""
    try:
        return published_tree.decode(store.read_bytes(published_tree.pointer(tree)), published_tree.pointer(tree))
    except (FileNotFoundError, DamagedFile):
        return None


def published_directories(store: Storage, tree: str = RESULT) -> list[str]:
    """The directories of a tree on an object store: of the newest, of the one before, and of what was not finished."""
    found = {"/".join(path.split("/")[:2]) for path in store.walk(published_tree.FOLDER)}
    return sorted(path for path in found if path.startswith(f"{published_tree.FOLDER}/{tree}-"))


def _check_whole(store: Storage, directory: str, written: Sequence[Written]) -> set[str]:
    """All files of a directory. Raises UserError where some that were just written are gone: a driver whose lock was
    taken for dead may still be at work, and what it publishes removes trees that are neither its own nor the one
    before."""
    there = set(store.walk(directory))
    if missing := {w.path for w in written} - there:
        raise UserError(
            f"{store.root}: {len(missing)} files of the result are gone while it is published, first {min(missing)}: "
            "another driver works in this directory. Stop it and run again."
        )
    return there


def _publish_remote(store: Storage, made: ResultFiles, tree: str) -> list[Written]:
    small = {path: digest(content) for path, content in made.small.items()}
    name = fingerprint([sorted((f["path"], f["sha256"]) for f in made.staged), small])
    directory = f"{published_tree.FOLDER}/{tree}-{name}"
    store.forget_trees()
    before = store.full(tree)
    written = _fill(store, made, directory)
    for stale in sorted(_check_whole(store, directory, written) - {w.path for w in written}):
        store.remove(stale)
    if before == store.full("") + f"/{tree}":  # of a version that wrote over files in place
        store.remove(tree)
    store.write_bytes(published_tree.pointer(tree), published_tree.encode(directory))
    store.forget_trees()
    # The tree before stays for those who read it; it goes when the next result is published
    if _pointed(store, tree) == directory:
        for path in published_directories(store, tree):
            if path != directory and store.full(path) != before:
                store.remove(path)
    _check_whole(store, directory, written)
    return [Written(w.path.replace(directory, tree, 1), w.size, w.sha256) for w in written]


def remove_older_texts(store: Storage) -> None:
    """On an object store, removes what the results before the newest have besides shards: texts and ledgers, which
    documents were deleted from. Trainings that began with their shards go on."""
    newest = _pointed(store, RESULT)
    for directory in published_directories(store) if newest is not None else ():
        if directory != newest:
            for path in store.walk(directory):
                if not path.startswith(f"{directory}/shards/"):
                    store.remove(path)


def remove_tree(store: Storage, tree: str) -> None:
    """Removes a tree: first what names it, so that nobody finds half of it."""
    if not store.local:
        store.forget_trees()
        directory = store.full(tree)[len(store.full("")) + 1 :]
        store.remove(published_tree.pointer(tree))
        store.forget_trees()
        store.remove(directory)
    store.remove(tree)


def _fill(store: Storage, made: ResultFiles, directory: str) -> list[Written]:
    written = []
    for file in sorted(made.staged, key=lambda f: str(f["path"])):
        target = f"{directory}/{file['path'].removeprefix(file['directory'] + '/')}"
        store.link(file["path"], target)
        written.append(Written(target, file["bytes"], file["sha256"]))
    for path, content in sorted(made.small.items(), key=lambda item: (item[0].endswith("manifest.json"), item[0])):
        written.append(store.write_bytes(f"{directory}/{path}", content))
    return written
