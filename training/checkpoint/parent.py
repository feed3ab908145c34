"""Finds the checkpoint that a new run begins from, and checks that it fits: `init_from` and `branch_from`.

`init_from` takes weights: optimizer, schedule and data begin anew. `branch_from` takes everything, so that the branch
goes on where the parent was: moments, step, data position, and the spike guard's memory. Its learning-rate schedule and
its mix may differ from there on, as for two anneals from one stable run; what binds it is what the data position and
the moments mean: seed, shards, shuffle block, sizes, the kind of optimizer, precision.

The parent is a path only until the run has begun. Its step, the digest of its checkpoint and its tokenizer's hash are
kept in the run's data.json, and once the run has a checkpoint of its own the parent is not read again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.core.errors import UserError
from curation.shards import Manifest, read_tokenizer
from training.checkpoint import save_load
from training.checkpoint.run_directory import CONFIG, read_data_record
from training.checkpoint.save_load import MANIFEST, Checkpoint
from training.checkpoint.tensor_files import CheckpointError
from training.config import TrainConfig, load
from training.model.transformer import ModelConfig

# Sizes that weights cannot do without; rope_theta and norm_eps may change (a longer context)
_SIZES = ("num_layers", "hidden_size", "num_heads", "num_kv_heads", "intermediate_size", "tie_embeddings", "qk_norm")
_BOUND = ("seed", "precision", "optimizer.kind", "data.shuffle_block")  # of a branch, beside the sizes and the shards


@dataclass(frozen=True)
class Parent:
    """Where a run begins: the checkpoint, whether all of it is taken, what data.json keeps of it, and notes."""

    checkpoint: Checkpoint
    branch: bool
    record: dict[str, Any]
    notes: tuple[str, ...]


def find_parent(config: TrainConfig, run: Path, manifest: Manifest, digest: str) -> Parent | None:
    """The parent of a run that has no checkpoint yet; None for one that begins with random weights.

    digest: of the shards' manifest. Raises UserError where it does not fit, and CheckpointError where there is none.
    """
    key = "branch_from" if config.branch_from is not None else "init_from"
    place = config.branch_from or config.init_from
    if place is None:
        return None
    found = save_load.find_checkpoint(place)
    origin = save_load.run_of(found.path)
    record, where = read_data_record(origin), f"{key} {place}"
    ours = ModelConfig(**config.model.sizes(manifest.tokenizer.vocab))
    notes = [*found.notes, f"{key}: {found.description}"]
    notes += _compare_sizes(where, found.state["model_config"], ours, manifest.tokenizer.vocab)
    tokenizer = _tokenizer_hash(origin, record)
    if tokenizer is None:
        notes.append(f"{where}: which tokenizer it was trained with is unknown; it was not compared with the shards'")
    elif tokenizer != manifest.tokenizer.sha256 and not _same_tokenizer(origin, record, manifest):
        raise UserError(
            f"{where} was trained with another tokenizer than the shards in {manifest.root}: the same ids mean other "
            f"text. Curate with its tokenizer (tokenizer: {{path: {origin}/tokenizer.json}}), or start without {key}"
        )
    if key == "branch_from":
        _check_branch(where, config, origin, record, digest, found)
        guard = {**found.state["guard"], "good": found.state["step"], "incidents": 0}  # of this run's own checkpoints
        found = Checkpoint(found.path, {**found.state, "guard": guard}, found.notes)
    kept = {"from": key, "path": str(found.path.absolute()), "step": found.state["step"]}
    kept |= {"sha256": checkpoint_digest(found.path), "tokenizer": tokenizer}
    earlier = (read_data_record(run) or {}).get("parent")
    if earlier is not None and earlier["sha256"] != kept["sha256"]:
        notes.append(f"{where}: this run was first started from step {earlier['step']}; now it is step {kept['step']}")
    return Parent(found, key == "branch_from", kept, tuple(notes))


def checkpoint_digest(path: Path) -> str:
    """Identifies a checkpoint by its content: its manifest has the checksums of all its files."""
    return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()


def is_same_parent(place: str, record: dict[str, Any] | None) -> bool:
    """Whether a path leads to the checkpoint that a run was begun from; False where nothing can be read there."""
    try:
        return record is not None and checkpoint_digest(save_load.find_checkpoint(place).path) == record["sha256"]
    except CheckpointError:
        return False


def _compare_sizes(where: str, theirs: dict[str, Any], ours: ModelConfig, vocab: int) -> list[str]:
    """Notes about what differs and may; raises UserError for what may not."""
    mine = vars(ours)
    differ = [f"{k} is {theirs[k]} there and {mine[k]} here" for k in _SIZES if theirs[k] != mine[k]]
    if theirs["vocab_size"] > max(vocab, ours.vocab_size):
        differ.append(
            f"its embedding has {theirs['vocab_size']:,} rows and the tokenizer's vocabulary is {vocab:,} (set "
            f"model.pad_vocab: {theirs['vocab_size']})"
        )
    elif theirs["vocab_size"] != ours.vocab_size:
        differ.append(f"its vocabulary is {theirs['vocab_size']:,} and here it is {ours.vocab_size:,}")
    if differ:
        raise UserError(f"{where}: its model does not fit this configuration: {'; '.join(differ)}. Change `model:`")
    free = [k for k in ("rope_theta", "norm_eps") if theirs[k] != mine[k]]
    return [f"{where}: {k} is {theirs[k]:g} there and {mine[k]:g} here" for k in free]


def _tokenizer_hash(run: Path, record: dict[str, Any] | None) -> str | None:
    """The hash of the tokenizer that a run has beside its checkpoints; None where it has none."""
    if record is None:
        return None
    file = run / Path(record["tokenizer"]["file"]).name
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else record["tokenizer"].get("sha256")


def _same_tokenizer(run: Path, record: dict[str, Any] | None, manifest: Manifest) -> bool:
    """Whether two tokenizer.json differ in their layout alone."""
    assert record is not None
    try:
        theirs = json.loads((run / Path(record["tokenizer"]["file"]).name).read_bytes())
        return bool(theirs == json.loads(read_tokenizer(manifest)))
    except (OSError, ValueError):
        return False


def _check_branch(
    where: str, config: TrainConfig, origin: Path, record: dict[str, Any] | None, digest: str, found: Checkpoint
) -> None:
    if record is None or not (origin / CONFIG).exists() or "order" not in found.state:
        raise UserError(f"{where} is no checkpoint of a training run: a branch needs its data order. Use init_from")
    if record["manifest"] != digest:
        raise UserError(
            f"{where} was trained on other shards, so its place in the data means nothing here. Use init_from"
        )
    theirs, ours = load(str(origin / CONFIG)).model_dump(mode="json"), config.model_dump(mode="json")
    pairs = [(key, _at(theirs, key), _at(ours, key)) for key in _BOUND]
    differ = "; ".join(f"{key} is {there} there and {here} here" for key, there, here in pairs if there != here)
    if differ:
        raise UserError(f"{where}: a branch keeps these of its parent: {differ}. Change them back, or use init_from")
    if found.state["step"] >= config.steps:
        raise UserError(
            f"{where} is at step {found.state['step']}, and steps is {config.steps}: a branch counts on from its "
            "parent's step; raise steps"
        )


def _at(value: Any, key: str) -> Any:
    for part in key.split("."):
        value = value[part]
    return value
