"""Writes a run's cards beside its result: card.md and croissant.json."""

from __future__ import annotations

import json
import os

from curation.storage import Storage


def current(store: Storage) -> bool:
    """Whether the run's card speaks of the result that is there."""
    if not store.exists("card.md") or not store.exists("croissant.json"):
        return False
    return f"fingerprint {store.read_json('run.json')['fingerprint']}" in store.read_json("croissant.json")["citeAs"]


def write(run_dir: str, out: str | None = None) -> list[str]:
    """Writes card.md and croissant.json into the run directory, or into the folder `out`; returns their paths.

    Raises UserError for a directory that holds no finished run.
    """
    from pipelines.cards import croissant, dataset, facts

    found = facts.gather(run_dir)
    target = Storage(out or run_dir)
    target.write_bytes("card.md", dataset.render(found).encode("utf-8", "replace"))
    text = json.dumps(croissant.render(found), indent=1, ensure_ascii=False)
    target.write_bytes("croissant.json", text.encode("utf-8", "replace"))
    return [os.path.join(out or run_dir, name) for name in ("card.md", "croissant.json")]
