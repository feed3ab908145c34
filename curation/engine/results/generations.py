"""Keeps a run's deleted documents, and what must stay the same when its shards are made anew without them.

    deleted_documents.jsonl   documents and URLs that were deleted from this run: an exclude list of its own
    generation.json           the number of the generation that the next result is, and what is pinned for it
    pinned/                   the tokenizer and the quantiles of the generation before
    generations/<n>/          the shards of an older generation, for trainings that still read it

A generation is a state of `result/shards` that trainings may be reading. A changed rule makes the result anew under the
same number; a deletion raises the number and keeps the shards that were there. Tokenizer and quantiles are pinned so
that nothing changes but what the deleted documents affected; a pin holds as long as the part of the pipeline file that
it was made from stays the same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from curation import storage
from curation.config.pipeline import Pipeline, Tokenizer
from curation.core.errors import DamagedFile, UserError
from curation.core.relative_paths import check_relative
from curation.storage import Storage

DELETED, STATE, MANIFEST = "deleted_documents.jsonl", "generation.json", "result/shards/manifest.json"


def apply_deletions(store: Storage, pipeline: Pipeline) -> Pipeline:
    """The pipeline with this run's deleted documents as a further exclude list, and with what is pinned."""
    if store.exists(DELETED):
        pipeline = dataclasses.replace(pipeline, exclude=(*pipeline.exclude, store.url(DELETED)))
    pins = _state(store)
    tokenizer, quantiles = pins.get("tokenizer"), pins.get("quantiles")
    if tokenizer:
        _check_pinned_tokenizer(store, tokenizer["file"])
    if tokenizer and tokenizer["of"] == _tokenizer_of(pipeline):
        pipeline = dataclasses.replace(pipeline, tokenizer=Tokenizer(path=store.url(tokenizer["file"])))
    if quantiles and pipeline.quantiles is None and quantiles["of"] == _rules_of(pipeline):
        pipeline = dataclasses.replace(pipeline, quantiles=store.url(quantiles["file"]))
    return pipeline


def next_generation(store: Storage) -> int:
    """The generation number of the next result of this run."""
    return int(_state(store).get("number", 0))


def deleted_entries(store: Storage) -> list[dict[str, Any]]:
    """The documents and URLs deleted from this run so far."""
    if not store.exists(DELETED):
        return []
    return [json.loads(line) for line in store.read_bytes(DELETED).splitlines() if line.strip()]


def begin_generation(store: Storage, pipeline: Pipeline, entries: Sequence[dict[str, str]]) -> None:
    """Adds entries to the list of deleted documents and makes the next result a new generation.

    pipeline   as in its file, not as `apply_deletions`. Repeating it after an interruption changes nothing.
    """
    at = current_generation(store)
    pins: dict[str, Any] = {"number": at + 1}
    before = _state(store)
    of = _tokenizer_of(pipeline)
    if of is not None:
        file = "result/shards/tokenizer.json"
        data = store.read_bytes(file)
        if storage.digest(data) != store.read_plain_json(MANIFEST)["tokenizer"]["sha256"]:
            raise DamagedFile(file, "it is not the tokenizer of these shards", store.root)
        name = f"pinned/tokenizer-{storage.digest(data)[:12]}.json"
        if not store.exists(name):
            store.write_bytes(name, data)
        pins["tokenizer"] = {"file": name, "of": of}
    quantiles = store.read_json("run.json").get("quantiles")
    if quantiles and pipeline.quantiles is None:
        name = f"pinned/quantiles-{storage.fingerprint(quantiles)[:12]}.json"
        store.write_json(name, {"quantiles": quantiles})
        pins["quantiles"] = {"file": name, "of": _rules_of(pipeline)}
    elif "quantiles" in before and before["number"] == at + 1:  # an interrupted run of the same generation
        pins["quantiles"] = before["quantiles"]
    store.write_json(STATE, pins)
    lines = [*deleted_entries(store), *entries]
    text = "".join(json.dumps(e, sort_keys=True, ensure_ascii=False) + "\n" for e in lines)
    store.write_bytes(DELETED, text.encode())


def keep_previous_shards(store: Storage) -> None:
    """Keeps the present shards below generations/ before a new generation is published."""
    old = current_generation(store)
    if not store.exists(MANIFEST) or old == next_generation(store):
        return
    if store.exists(f"generations/{old}/shards/manifest.json"):
        return
    files = store.walk("result/shards")
    files.sort(key=lambda f: f == MANIFEST)  # the manifest last: a generation counts once it has one
    for file in files:
        store.link(file, f"generations/{old}/{file.removeprefix('result/')}")
    store.sync(f"generations/{old}")


def current_generation(store: Storage) -> int:
    """The generation number of the present shards; without shards, of the result."""
    return int(store.read_plain_json(MANIFEST)["generation"]) if store.exists(MANIFEST) else next_generation(store)


def _state(store: Storage) -> dict[str, Any]:
    try:
        state = store.read_json(STATE) if store.exists(STATE) else {}
    except DamagedFile as error:
        raise UserError(
            f"{store.url(STATE)} is damaged: {error.reason}. It says which generation the shards are and what is "
            "pinned for them, and cannot be made again: restore it from a copy, or curate into a new directory with "
            f"{store.url(DELETED)} as an `exclude` list."
        ) from None
    for pin in ("tokenizer", "quantiles"):
        if pin in state:
            check_relative(state[pin]["file"], store.url(STATE))
    return state


def _check_pinned_tokenizer(store: Storage, file: str) -> None:
    """Compares the file with the start of its checksum, which is in its name. Raises UserError."""
    if not store.exists(file) or f"-{storage.digest(store.read_bytes(file))[:12]}." not in file:
        raise UserError(
            f"{store.url(file)} is missing or damaged: it is the tokenizer that this run's generations share. Copy "
            "tokenizer.json of the run's shards or of a generation there, or curate into a new directory with "
            f"{store.url(DELETED)} as an `exclude` list."
        )


def _tokenizer_of(pipeline: Pipeline) -> dict[str, Any] | None:
    wanted = pipeline.tokenizer
    return wanted.train.model_dump() if wanted is not None and wanted.train is not None else None


def _rules_of(pipeline: Pipeline) -> str:
    return storage.fingerprint([(e.name, list(e.rules.items())) for e in pipeline.steps])
