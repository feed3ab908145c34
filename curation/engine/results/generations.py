"""What a run remembers of having forgotten: its own exclude list, and what stays as it was in the next generation.

    deleted_documents.jsonl   documents and URLs that were deleted from this run: an exclude list of its own
    generation.json           the number of the generation that the next result is, and what is pinned for it
    pinned/                   the tokenizer and the quantiles of the generation before
    generations/<n>/          the shards of an older generation, for trainings that still read it

A generation is a state of `result/shards` that trainings may be reading. Rules that are changed make the result anew
under the same number; forgetting raises it, and keeps what was there. Tokenizer and quantiles are pinned so that
nothing moves but what the forgotten documents touched; a pin holds as long as the part of the pipeline file that it was
made from stays as it was.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from curation import storage
from curation.config.pipeline import Pipeline, Tokenizer
from curation.storage import Storage

DELETED, STATE, MANIFEST = "deleted_documents.jsonl", "generation.json", "result/shards/manifest.json"


def applied(store: Storage, pipeline: Pipeline) -> Pipeline:
    """The pipeline as this run is to read it: with the documents deleted from it and what is pinned."""
    if store.exists(DELETED):
        pipeline = dataclasses.replace(pipeline, exclude=(*pipeline.exclude, store.url(DELETED)))
    pins = _state(store)
    tokenizer, quantiles = pins.get("tokenizer"), pins.get("quantiles")
    if tokenizer and tokenizer["of"] == _tokenizer_of(pipeline):
        pipeline = dataclasses.replace(pipeline, tokenizer=Tokenizer(path=store.url(tokenizer["file"])))
    if quantiles and pipeline.quantiles is None and quantiles["of"] == _rules_of(pipeline):
        pipeline = dataclasses.replace(pipeline, quantiles=store.url(quantiles["file"]))
    return pipeline


def number(store: Storage) -> int:
    """Of the generation that a result of this run is."""
    return int(_state(store).get("number", 0))


def deleted_entries(store: Storage) -> list[dict[str, Any]]:
    """The documents and URLs deleted from this run so far."""
    if not store.exists(DELETED):
        return []
    return [json.loads(line) for line in store.read_bytes(DELETED).splitlines() if line.strip()]


def begin(store: Storage, pipeline: Pipeline, entries: Sequence[dict[str, str]]) -> None:
    """Adds entries to the list of deleted documents and makes the next result a new generation.

    pipeline   as in its file, not as `applied`. Done again after an interruption, it changes nothing.
    """
    at = current(store)
    pins: dict[str, Any] = {"number": at + 1}
    before = _state(store)
    of = _tokenizer_of(pipeline)
    if of is not None:
        file = "result/shards/tokenizer.json"
        name = f"pinned/tokenizer-{storage.digest(store.read_bytes(file))[:12]}.json"
        if not store.exists(name):
            store.write_bytes(name, store.read_bytes(file))
        pins["tokenizer"] = {"file": name, "of": of}
    quantiles = store.read_json("run.json").get("quantiles")
    if quantiles and pipeline.quantiles is None:
        name = f"pinned/quantiles-{storage.fingerprint(quantiles)[:12]}.json"
        store.write_json(name, {"quantiles": quantiles})
        pins["quantiles"] = {"file": name, "of": _rules_of(pipeline)}
    elif "quantiles" in before and before["number"] == at + 1:  # begun before, and interrupted while it was made
        pins["quantiles"] = before["quantiles"]
    store.write_json(STATE, pins)
    lines = [*deleted_entries(store), *entries]
    text = "".join(json.dumps(e, sort_keys=True, ensure_ascii=False) + "\n" for e in lines)
    store.write_bytes(DELETED, text.encode())


def keep(store: Storage) -> None:
    """Before a new generation is published: keeps the shards of the one that is there below generations/."""
    old = current(store)
    if not store.exists(MANIFEST) or old == number(store) or store.exists(f"generations/{old}/shards/manifest.json"):
        return
    files = store.walk("result/shards")
    files.sort(key=lambda f: f == MANIFEST)  # the manifest last: a generation without it is not there
    for file in files:
        store.link(file, f"generations/{old}/{file.removeprefix('result/')}")
    store.sync(f"generations/{old}")


def current(store: Storage) -> int:
    """Of the shards that are there; without shards, of the result."""
    return int(store.read_json(MANIFEST)["generation"]) if store.exists(MANIFEST) else number(store)


def _state(store: Storage) -> dict[str, Any]:
    return dict(store.read_json(STATE)) if store.exists(STATE) else {}


def _tokenizer_of(pipeline: Pipeline) -> dict[str, Any] | None:
    wanted = pipeline.tokenizer
    return wanted.train.model_dump() if wanted is not None and wanted.train is not None else None


def _rules_of(pipeline: Pipeline) -> str:
    return storage.fingerprint([(e.name, list(e.rules.items())) for e in pipeline.steps])
