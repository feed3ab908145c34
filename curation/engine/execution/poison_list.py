"""Keeps poison.jsonl of a run: records on which code fails or a worker dies, which later attempts leave out.

An entry holds as long as the code that failed and the file stay the same: it carries the version of the file and the
fingerprint of the step, with all that the step reads (where a worker died, of all steps of the phase).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from curation.core.errors import UserError
from curation.core.secrets import mask_secrets
from curation.engine.execution.executors import RunFailed
from curation.engine.planning.map_spec import FailedRecord
from curation.storage import Storage

FILE = "poison.jsonl"


class PoisonList:
    """The records on the list that count for a plan.

    An entry has doc_id (hex), source, file, version (of the file), step, fingerprint, reason, error and at (see
    `FailedRecord`).

    fingerprints   of the plan's steps, by name; under "" those that entries of dead workers may have
    versions       of the plan's files, by source and path
    """

    def __init__(
        self, store: Storage, fingerprints: Mapping[str, Sequence[str]], versions: Mapping[tuple[str, str], str]
    ) -> None:
        """Raises UserError for a list that cannot be read."""
        self.store, self.versions = store, versions
        there = _read(store)
        self.entries = [
            e for e in there
            if e.get("fingerprint") in fingerprints.get(e.get("step", ""), ())
            and e.get("version") == versions.get((e.get("source", ""), e["file"]), "")
        ]  # fmt: skip
        if len(self.entries) < len(there):
            self._write()

    def add(self, found: Sequence[FailedRecord], source: str, fingerprints: Mapping[str, str]) -> None:
        """Adds records of a source and writes the list, without the entries that do not count for the plan.

        fingerprints   by step. Raises RunFailed for a record that is on the list.
        """
        have = {e["doc_id"] for e in self.entries}
        for r in found:
            if r.doc_id in have:
                raise RunFailed(f"document {r.doc_id} of {r.file} still fails though it is left out: {r.reason}")
            self.entries.append(
                {
                    "doc_id": r.doc_id, "source": source, "file": r.file, "version": self.versions[source, r.file],
                    "step": r.step, "error": r.error, "at": r.at,
                    "reason": mask_secrets(f"{r.step}: {r.reason}" if r.step else r.reason),  # an error repeats URLs
                    "fingerprint": fingerprints[r.step],
                }
            )  # fmt: skip
        self._write()

    def _write(self) -> None:
        self.entries.sort(key=lambda e: e["doc_id"])
        lines = [json.dumps(e, sort_keys=True, ensure_ascii=False) + "\n" for e in self.entries]
        if lines:
            self.store.write_bytes(FILE, "".join(lines).encode())
        else:
            self.store.remove(FILE)

    def of_task(self, source: str, files: set[str]) -> list[tuple[str, str]]:
        """(doc_id, reason) of the records of these files of a source, sorted."""
        mine = (e for e in self.entries if e["source"] == source and e["file"] in files)
        return sorted((e["doc_id"], e["reason"]) for e in mine)

    def left_out(self) -> list[dict[str, Any]]:
        """What is left out because code failed: source, file, step, reason, at and records, by file and place."""
        count: Counter[tuple[str, ...]] = Counter()
        first: dict[tuple[str, ...], str] = {}
        for e in self.entries:
            key = (e["source"], e["file"], e["step"], e["error"], e["at"])
            count[key] += 1
            first.setdefault(key, e["reason"])
        return [
            {"source": key[0], "file": key[1], "step": key[2], "at": key[4], "reason": first[key], "records": n}
            for key, n in sorted(count.items())
        ]


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
