"""Writes the cards of a curation run beside its result: card.md (Hugging Face) and croissant.json."""

from __future__ import annotations

import json
import os

from curation.storage import Storage


def update_cards(run_dir: str) -> None:
    """Writes the cards of a run that is done, unless they describe its result already."""
    from curation.engine.runtime.status import run_status

    if run_status(run_dir)["state"] == "done" and not are_current(Storage(run_dir)):
        write_cards(run_dir)


def are_current(store: Storage) -> bool:
    """Whether the cards in a run directory describe the result that is there."""
    if not store.exists("card.md") or not store.exists("croissant.json"):
        return False
    described = store.read_plain_json("croissant.json")["citeAs"]
    return f"fingerprint {store.read_json('run.json')['fingerprint']}" in described


def write_cards(run_dir: str, out: str | None = None) -> list[str]:
    """Writes card.md and croissant.json into the run directory, or into the folder `out`; returns their paths.

    Raises UserError for a directory without a finished run.
    """
    from pipelines.cards import card_data, croissant, dataset

    data = card_data.gather(run_dir)
    target = Storage(out or run_dir)
    target.write_bytes("card.md", dataset.render(data).encode("utf-8", "replace"))
    text = json.dumps(croissant.render(data), indent=1, ensure_ascii=False)
    target.write_bytes("croissant.json", text.encode("utf-8", "replace"))
    return [os.path.join(out or run_dir, name) for name in ("card.md", "croissant.json")]
