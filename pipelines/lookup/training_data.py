"""Finds which documents a training step read, at which steps a document was read, and where a token comes from.

Needs only files of the run: train.yaml, data.json (which shards) and the order log of the newest checkpoint. Reads no
tensors and uses no device.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curation.core import published_tree
from curation.core.errors import UserError
from curation.shards import Manifest, ShardEntry, read_manifest, read_tokenizer
from curation.storage import Storage

if TYPE_CHECKING:
    from training.checkpoint.save_load import Checkpoint

CONTEXT = 300  # characters of the original text shown before and after the passage


class TrainingData:
    """The data of a training run: manifest, order log, and how much of it was read."""

    def __init__(self, place: str) -> None:
        """place: a training run, whose newest checkpoint says what was read, or one of its checkpoints.

        Raises UserError for a folder without a training run, or if its shards have changed since, and CheckpointError
        where every checkpoint is damaged.
        """
        from training.checkpoint import save_load
        from training.config import load
        from training.data.data_order import OrderLog
        from training.data.data_schedule import new_data_order

        named = save_load.is_checkpoint(Path(place))
        run_dir = str(save_load.run_of(Path(place))) if named else place
        self.run_dir = run_dir
        paths = {name: os.path.join(run_dir, name) for name in ("train.yaml", "data.json")}
        if not all(os.path.isfile(p) for p in paths.values()):
            raise UserError(f"{run_dir} is not a training run: it lacks {' or '.join(paths)}")
        config = load(paths["train.yaml"])
        with open(paths["data.json"], encoding="utf-8") as f:
            head = json.load(f)
        self.manifest = read_manifest(head.get("roots") or head["root"])
        if hashlib.sha256(self.manifest.dumps()).hexdigest() != head["manifest"]:
            raise UserError(
                f"{run_dir} was trained on shards that {self.manifest.root} no longer has, so what it read is unknown"
            )
        self.data, self.log, _ = new_data_order(
            self.manifest, config.data, config.seed, config.batch.global_size, config.steps
        )
        self.steps = config.steps
        self.checkpoint: Checkpoint | None  # None: the run has none, and nothing of it counts as read
        self.sequences_read = 0
        if named:
            self.checkpoint = save_load.find_checkpoint(place, save_load.read_state)
        else:
            self.checkpoint = save_load.newest(Path(place) / "checkpoints", read=save_load.read_state)
        if self.checkpoint is not None:
            self.log = OrderLog.from_dict(self.checkpoint.state["order"])
            self.sequences_read = int(self.checkpoint.state["sequences"])

    def step(self, number: int) -> list[dict[str, Any]]:
        """The sequences of a step (counted from 1, as in metrics.jsonl), each with its documents."""
        if number < 1:
            raise UserError(f"--step {number}: steps count from 1, as in metrics.jsonl")
        first, last = self.log.step_range(number - 1)
        answer = []
        for sequence in self.data.sequences(self.log, first, last):
            shard = self.data.domains[sequence.domain].shard(sequence.shard)
            starts = sequence.document_starts
            rows = shard.documents.slice(sequence.first_document, len(starts)).to_pylist()
            answer.append(
                {
                    "sequence": sequence.index,
                    "domain": sequence.domain,
                    "epoch": sequence.epoch,
                    "shard": self.data.domains[sequence.domain].shards[sequence.shard].path,
                    "token": sequence.start,
                    "documents": [
                        {
                            "doc_id": row["doc_id"].hex(),
                            "url": row["url"],
                            "source": row["source"],
                            "inputs": [int(start), int(end)],
                        }
                        for row, start, end in zip(
                            rows,
                            sequence.document_starts,
                            [*sequence.document_starts[1:], len(sequence.tokens) - 1],
                            strict=True,
                        )
                    ],
                }
            )
        return answer

    def verify(self) -> dict[str, Any]:
        """Replays what the run has read (before its first checkpoint: what it will read) and counts it."""
        from training.data.read_history import replay_order

        sequences = self.sequences_read or self.log.step_range(self.steps)[0]
        counted = replay_order(self.log, self.data.orders, sequences)
        return {
            "sequences": sequences,
            "steps": self.log.step_of(sequences - 1) + 1 if sequences else 0,
            "segments": len(self.log.segments),
            "domains": {name: vars(count) for name, count in counted.items()},
        }

    def document_reads(self, doc_id: str) -> dict[str, Any]:
        """Where the run has read a document so far.

        Trained on several runs, more than one may contain it. Raises UserError for an id that no shard contains.
        """
        from training.data.read_history import find_reads

        places = find_document(self.manifest, doc_id)
        split, domain, number, row = next((p for p in places if p[0] == "train"), places[0])
        entry = self.manifest.splits[split][domain][number]
        answer: dict[str, Any] = {"doc_id": doc_id, "split": split, "domain": domain, "shard": entry.path, "row": row}
        reads: list[Any] = []
        tokens = 0
        for split, domain, number, row in places:
            if split == "train" and domain in self.data.orders:
                offsets = self.data.domains[domain].shard(number).offsets
                first, last = int(offsets[row]), int(offsets[row + 1])
                tokens = last - first
                reads += find_reads(self.log, self.data.orders[domain], number, first, last, self.sequences_read)
        reads.sort(key=lambda r: r.sequence)
        rows = [{"step": r.step, "sequence": r.sequence, "epoch": r.epoch} for r in reads]
        return {**answer, **({"tokens": tokens} if tokens else {}), "reads": rows}


def find_document(manifest: Manifest, doc_id: str) -> list[tuple[str, str, int, int]]:
    """(split, domain, shard, row) of a document, in every run of the manifest that has it.

    Looks first in the shards that its hash points to, then in all others. Raises UserError if no shard contains it.
    """
    from curation.seeded_hash import hash_with_seed, prefix
    from curation.shards import open_shard

    if not re.fullmatch(r"[0-9a-f]{32}", doc_id):
        raise UserError(f"{doc_id!r} is not a doc_id: expected 32 hex digits")
    wanted = pa.scalar(bytes.fromhex(doc_id), pa.binary(16))
    key = hash_with_seed(pa.array([wanted.as_py()], pa.binary(16)), manifest.seed, "order")
    likely: list[tuple[str, str, int, ShardEntry]] = []
    others: list[tuple[str, str, int, ShardEntry]] = []
    for split, domains in manifest.splits.items():
        for domain, entries in domains.items():
            folders: dict[str, int] = {}  # of a run -> its last shard
            for entry in entries.shards:
                folder, name = posixpath.split(entry.path)
                folders[folder] = max(folders.get(folder, 0), int(name.split(".")[0]))
            slots = {folder: int(prefix(key, top.bit_length())[0]) for folder, top in folders.items()}
            for number, entry in enumerate(entries.shards):
                folder, name = posixpath.split(entry.path)
                here = (split, domain, number, entry)
                (likely if name == f"{slots[folder]:05d}.arrow" else others).append(here)
    for among in (likely, others):
        found = []
        for split, domain, number, entry in among:
            row = open_shard(manifest.path(entry), entry=entry).documents.column("doc_id").index(wanted).as_py()
            if row >= 0:
                found.append((split, domain, number, row))
        if found:
            return found
    raise UserError(
        f"no shard of {manifest.root} contains the document {doc_id}\n  gristmill explain says what happened to it"
    )


def trace_token(place: str, shard: str, token: int) -> dict[str, Any]:
    """The document that a token of a shard belongs to, where it was crawled, and the source text around it."""
    from curation.shards import open_shard, verify_entry

    manifest, entry, domain = _find_shard(place, shard)
    verify_entry(manifest, entry)
    opened = open_shard(manifest.path(entry), entry=entry, tokenizer=manifest.tokenizer.sha256)
    if not 0 <= token < entry.tokens:
        raise UserError(f"--token {token}: {entry.path} has tokens 0 to {entry.tokens - 1}")
    row = int(opened.offsets.searchsorted(token, side="right")) - 1
    begin, end = int(opened.offsets[row]) + 1, int(opened.offsets[row + 1])
    document = opened.documents.slice(row, 1).to_pylist()[0]
    decode = make_decoder(manifest)
    passage = decode(opened.tokens[max(begin, token - 24) : min(end, token + 25)].tolist())
    answer = {
        "shard": entry.path,
        "token": token,
        "in_document": token - begin,
        "text": passage,
        "doc_id": document["doc_id"].hex(),
        "url": document["url"],
        "source": document["source"],
    }
    original = original_texts(manifest, entry, [(domain, document["source"])])[0]
    return {**answer, "original": excerpt_around(original, passage)}


def _find_shard(place: str, shard: str) -> tuple[Manifest, ShardEntry, str]:
    training = os.path.join(place, "data.json")
    if os.path.isfile(training):
        with open(training, encoding="utf-8") as f:
            head = json.load(f)
        manifest = read_manifest(head.get("roots") or head["root"])
    else:
        manifest = read_manifest(place)
    names = []
    for _, domain, entry in manifest.entries():
        if shard in (entry.path, manifest.path(entry)):
            return manifest, entry, domain
        names.append(entry.path)
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise UserError(f"--shard {shard}: {manifest.root} has no such shard; it has {shown}")


def make_decoder(manifest: Manifest) -> Any:
    """A function from token ids to text, with the run's own tokenizer."""
    from curation.packing.tokenizer.encode import Encoder

    data = read_tokenizer(manifest)
    from curation.packing.tokenizer.load_tokenizer import eos_token_name

    return Encoder(data, eos=eos_token_name(data, manifest.tokenizer.eos)).decode


def original_texts(
    manifest: Manifest, entry: ShardEntry, wanted: Sequence[tuple[str, Mapping[str, Any] | None]]
) -> list[str | None]:
    """The source text of documents, with personal data removed as the run does; None for one that cannot be read."""
    from pipelines.lookup.original_text import OriginalTexts

    root = manifest.path(entry)[: -len(entry.path.split("/", 1)[1] if entry.path.startswith("@") else entry.path)]
    place = published_tree.split_place(root)
    run = place[0] if place is not None else root.rstrip("/")
    store = Storage(run)
    if not store.exists("pipeline.yaml"):
        return [None] * len(wanted)
    opened = OriginalTexts(store, store.read_json("run.json"))
    known = opened.domains
    # the shards of a mix group have a domain of their own, which no source has
    sought = [(d, s) for domain, s in wanted for d in ([domain] if domain in known else known)]
    texts = iter(opened.read(sought, 1 << 24))
    found = [[next(texts) for _ in ([domain] if domain in known else known)] for domain, _ in wanted]
    return [next((t for t in each if t is not None), None) for each in found]


def excerpt_around(text: str | None, passage: str) -> str | None:
    """The part of a source text around a passage of the document; its beginning if the passage is not found."""
    if text is None:
        return None
    words = re.findall(r"\S{1,10}", passage)  # pieces, which a script without spaces has, too
    for size in range(len(words), 1, -2):
        for start in range(0, len(words) - size + 1, 2):
            match = re.search(r"\s*".join(re.escape(w) for w in words[start : start + size]), text)
            if match:
                return text[max(0, match.start() - CONTEXT) : match.end() + CONTEXT]
    return text[: 2 * CONTEXT]
