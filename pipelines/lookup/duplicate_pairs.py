"""Shows a duplicate beside the kept document, with the shared text marked, and finds the largest duplicate clusters.

Shared text is marked as deduplication counts it: a word is shared if it is part of a shingle that both texts have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.core.errors import UserError
from curation.engine.results.explain import explain
from curation.storage import Storage, is_remote
from pipelines.lookup.document_samples import TEXT_LENGTH, Sample, load_texts
from pipelines.lookup.ledger import read_ledger

PAIR_LENGTH = 4000  # characters shown of each document of a pair
CLUSTERS, MEMBERS = 5, 3  # clusters of each step, and members of each cluster, that are shown

Segment = tuple[str, bool]  # a piece of text, and whether the other document shares it


def duplicate_pair(run_dir: str, answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """A duplicate and the kept document, from the answer of `explain` on the duplicate.

    Returns {of, url, run, ngram, dropped, kept}, the last two as lists of [text, shared]; None for a document that was
    not dropped as a duplicate, or if the text of one of the two cannot be read.
    """
    evidence = answer["outcome"].get("evidence")
    if not isinstance(evidence, dict) or not evidence.get("of"):
        return None
    step, of = answer["outcome"]["step"], str(evidence["of"])
    found = _find_kept(run_dir, step, of)
    if found is None:
        return None
    other_run, other = found
    options = _options(run_dir, step)
    ngram = int(options.get("ngram", 5))
    dropped, kept = _text(run_dir, answer), _text(other_run, other)
    if dropped is None or kept is None:
        return None
    left, right = mark_shared(dropped, kept, ngram)
    return {
        "of": of, "url": other["url"], "run": other_run, "ngram": ngram, "dropped": [list(s) for s in left],
        "kept": [list(s) for s in right],
    }  # fmt: skip


def mark_shared(left: str, right: str, ngram: int) -> tuple[list[Segment], list[Segment]]:
    """Both texts in segments, True where the words are part of a shingle of `ngram` words that both texts have.

    A shorter text is one shingle, as in `curation.dedup.minhash.shingles`."""
    sides = [_words(text) for text in (left, right)]
    shingles = []
    for words in sides:
        n = min(ngram, len(words)) or 1
        shingles.append([tuple(w for *_, w in words[i : i + n]) for i in range(len(words) - n + 1)] if words else [])
    common = set(shingles[0]) & set(shingles[1])
    out: list[list[Segment]] = []
    for text, words, mine in zip((left, right), sides, shingles, strict=True):
        shared = [False] * len(words)
        for i, shingle in enumerate(mine):
            if shingle in common:
                shared[i : i + len(shingle)] = [True] * len(shingle)
        segments: list[Segment] = []
        at = 0
        for i, (_, end, _) in enumerate(words):
            if i + 1 == len(words) or shared[i + 1] != shared[i]:
                end = len(text) if i + 1 == len(words) else end
                segments.append((text[at:end], shared[i]))
                at = end
        out.append(segments or ([(text, False)] if text else []))
    return out[0], out[1]


def _words(text: str) -> list[tuple[int, int, int]]:
    """(first character, character after the last, hash) of each word, as deduplication cuts text."""
    import numpy as np

    from curation.word_hashes import hash_words
    from curation.words import character_table

    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    hashes, bounds = np.empty(len(data) + 1, np.uint64), np.empty((len(data) + 1, 2), np.int64)
    count = hash_words(data, 0, len(data), character_table(), hashes, bounds)
    characters = np.concatenate([[0], np.cumsum(data & 0xC0 != 0x80)])  # that begin before each byte
    places = characters[bounds[:count]]
    return list(zip(*places.T.tolist(), hashes[:count].tolist(), strict=True)) if count else []


def _options(run_dir: str, step: str) -> dict[str, Any]:
    from curation.config.stored_pipeline import read_stored_pipeline

    pipeline = read_stored_pipeline(Storage(run_dir), values=True)
    return next((dict(s["options"]) for s in pipeline["steps"] if s["name"] == step), {})


def _find_kept(run_dir: str, step: str, doc: str) -> tuple[str, dict[str, Any]] | None:
    """The run that holds the kept document, and what `explain` says of it: this run, or a prior run of the step."""
    while True:
        try:
            return run_dir, explain(run_dir, doc)
        except UserError:
            prior_run = _options(run_dir, step).get("prior_run") if Storage(run_dir).exists("pipeline.yaml") else None
            if not prior_run:
                return None
        base = os.path.dirname(Storage(run_dir).read_json("run.json").get("file", ""))
        run_dir = prior_run if is_remote(prior_run) else os.path.join(base, prior_run)


def _text(run_dir: str, answer: Mapping[str, Any]) -> str | None:
    store = Storage(run_dir)
    sample = Sample(answer["doc_id"], answer["url"], answer["domain"], None, source=answer["source"])
    load_texts(store, store.read_json("run.json"), [sample], PAIR_LENGTH)
    return sample.text


@dataclass
class Cluster:
    """A kept document, the size of its cluster, and some of its duplicates."""

    step: str
    copies: int  # documents in the cluster, with the kept one
    kept: Sample
    members: list[Sample]


def largest_clusters(store: Storage, run: Mapping[str, Any]) -> list[Cluster]:
    """The largest clusters of each deduplication step.

    Reads the ledger twice: once for the kept documents, once for their duplicates.
    """
    best: dict[str, list[tuple[int, bytes]]] = {}
    for batch in read_ledger(store):
        for field in batch.schema:
            if not pa.types.is_struct(field.type) or field.type.get_field_index("copies") < 0:
                continue
            if field.type.get_field_index("duplicate") < 0:
                continue
            copies = pc.fill_null(pc.struct_field(batch.column(field.name), "copies"), 0)
            many = pc.greater(copies, 1)
            found = zip(copies.filter(many).to_pylist(), batch.column("doc_id").filter(many).to_pylist(), strict=True)
            have = best.setdefault(field.name, [])
            have[:] = sorted([*have, *found], key=lambda c: (-c[0], c[1]))[:CLUSTERS]
    clusters = {
        (step, doc.hex()): Cluster(step, copies, Sample(doc.hex(), None, None, None), [])
        for step, rows in best.items()
        for copies, doc in rows
    }
    if clusters:
        _fill_clusters(store, clusters)
        samples = [s for c in clusters.values() for s in (c.kept, *c.members)]
        load_texts(store, run, samples, TEXT_LENGTH)
    return list(clusters.values())


def _fill_clusters(store: Storage, clusters: Mapping[tuple[str, str], Cluster]) -> None:
    columns = ["doc_id", "url", "domain", "source", "step", "evidence"]
    kept: dict[str, list[Cluster]] = {}
    for (_, doc), cluster in clusters.items():
        kept.setdefault(doc, []).append(cluster)
    wanted = pa.array([bytes.fromhex(d) for d in kept], pa.binary(16))
    prefix = '{"of": "'  # evidence is JSON with sorted keys; `of` comes first in every deduplication step
    ids = pa.array(list(kept), pa.string())
    for batch in read_ledger(store, columns):
        duplicate_of = pc.utf8_slice_codeunits(
            pc.fill_null(batch.column("evidence"), ""), len(prefix), len(prefix) + 32
        )
        which = pc.or_(pc.is_in(batch.column("doc_id"), wanted), pc.is_in(duplicate_of, ids))
        rows = batch.append_column("duplicate_of", duplicate_of).filter(which).to_pylist()
        for row in rows:
            sample = Sample(row["doc_id"].hex(), row["url"], row["domain"], None, None, row["evidence"], row["source"])
            for cluster in kept.get(sample.doc_id, ()):
                cluster.kept = sample
            member_of = clusters.get((row["step"], row["duplicate_of"]))
            if member_of is not None and len(member_of.members) < MEMBERS:
                member_of.members.append(sample)


def split_lines(segments: Sequence[Sequence[Any]]) -> list[list[Segment]]:
    """The segments of each line of text."""
    rows: list[list[Segment]] = [[]]
    for text, shared in segments:
        parts = str(text).split("\n")
        for i, part in enumerate(parts):
            if i:
                rows.append([])
            if part:
                rows[-1].append((part, bool(shared)))
    return rows
