"""Keeps poison.jsonl of a run: records on which a step fails or a worker dies, which later attempts leave out."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

from curation.core.errors import UserError
from curation.engine.execution.driver import RunFailed
from curation.storage import Storage

FILE = "poison.jsonl"


class PoisonList:
    """The records on the list: doc_id (hex), file, step, reason."""

    def __init__(self, store: Storage) -> None:
        """Raises UserError for a list that cannot be read."""
        self.store = store
        self.entries = _read(store)

    def add(self, found: Sequence[tuple[str, str, str, str]]) -> None:
        """Adds records (doc_id, file, step, reason) and writes the list. Raises RunFailed for one that is on it."""
        have = {e["doc_id"] for e in self.entries}
        for doc, file, step, reason in found:
            if doc in have:
                raise RunFailed(f"document {doc} of {file} still fails though it is left out: {reason}")
            self.entries.append(
                {"doc_id": doc, "file": file, "step": step, "reason": f"{step}: {reason}" if step else reason}
            )
        self.entries.sort(key=lambda e: e["doc_id"])
        lines = [json.dumps(e, sort_keys=True, ensure_ascii=False) + "\n" for e in self.entries]
        self.store.write_bytes(FILE, "".join(lines).encode())

    def of_files(self, files: Collection[str]) -> list[tuple[str, str]]:
        """(doc_id, reason) of the records of these files, sorted."""
        return sorted((e["doc_id"], e["reason"]) for e in self.entries if e["file"] in files)


def _read(store: Storage) -> list[dict[str, str]]:
    if not store.exists(FILE):
        return []
    entries = []
    for number, line in enumerate(store.read_bytes(FILE).splitlines(), 1):
        try:
            entry = json.loads(line) if line.strip() else None
        except ValueError:
            entry = line
        if entry is not None and not (isinstance(entry, dict) and {"doc_id", "file", "reason"} <= entry.keys()):
            raise UserError(
                f"{store.url(FILE)}, line {number}: expected an object with doc_id, file and reason, found "
                f"{line[:80].decode(errors='replace')}. Repair the line, or remove the file: "
                "the records are found again."
            )
        if entry is not None:
            entries.append(entry)
    return entries
