"""Loads the model of a training run with its tokenizer, ready for evaluation, generation or export."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.core.errors import UserError
from curation.core.relative_paths import check_name
from training.checkpoint import run_directory, save_load
from training.checkpoint.run_directory import CONFIG, DATA
from training.checkpoint.save_load import Checkpoint
from training.config import load
from training.cost.device_specs import check_device
from training.data.data_order import OrderLog
from training.model.transformer import Model, ModelConfig


@dataclass(frozen=True)
class LoadedModel:
    """A trained model in evaluation mode, with what turns text into its tokens and back."""

    model: Model
    tokenizer: Any
    tokenizer_file: Path
    eos: int
    max_seq_len: int  # the longest sequence length that it was trained on
    vocab: int | None = None  # the tokenizer's, where the embedding is longer; None: the embedding's
    checkpoint: Checkpoint | None = None  # where it was loaded from; None: from memory

    def encode(self, text: str) -> list[int]:
        """Text as tokens, special ones spelled out in it included; no EOS before it."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return text


def load_model(place: str, device: str = "cpu") -> LoadedModel:
    """The newest undamaged checkpoint of a training run, or the checkpoint at this path.

    `checkpoint` of the result says which one it is. Raises UserError where there is none, CheckpointError for damage.
    """
    check_device(device)
    path = Path(place)
    if not (save_load.is_checkpoint(path) or any(save_load.checkpoints(f) for f in (path / "checkpoints", path))):
        raise UserError(f"{place}: no checkpoint here; `gristmill train` writes them")
    found = save_load.find_checkpoint(path)
    run = save_load.run_of(found.path)
    data = run_directory.read_data_record(run)
    if data is None or not (run / CONFIG).exists():
        raise UserError(f"{found.path}: {run} is not a training run: it lacks {CONFIG} or {DATA}, which say what it is")
    config = load(str(run / CONFIG))
    told = data["tokenizer"]
    file = run / check_name(told["file"], str(run / DATA))
    tokenizer = load_tokenizer(file, told["kind"], told.get("sha256"))
    model = Model(ModelConfig(**found.state["model_config"]))
    save_load.restore(found.path, model, None)
    model.eval().to(device)
    state, length = found.state, config.data.seq_len
    if "order" in state:  # an imported model has none
        length = OrderLog.from_dict(state["order"]).max_seq_len(state["sequences"])
    return LoadedModel(model, tokenizer, file, int(told["eos"]), length, int(told["vocab"]), found)


def load_or_use(model: str | LoadedModel, device: str = "cpu") -> LoadedModel:
    """The model itself, or that of a run or checkpoint; warns where it is not the newest because that is damaged."""
    if isinstance(model, LoadedModel):
        return model
    loaded = load_model(model, device)
    assert loaded.checkpoint is not None
    for note in loaded.checkpoint.notes:
        warnings.warn(note, stacklevel=3)
    return loaded


def load_tokenizer(path: Path, kind: str, sha256: str | None) -> Any:
    """A run's tokenizer, which takes special tokens spelled out in text for text. Raises UserError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the run's tokenizer cannot be read: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(
            f"{path}: is not the tokenizer that the run was trained with (its checksum differs from the one in "
            "data.json); copy it again from where the run was made"
        )
    return parse_tokenizer(data, path, kind)


def parse_tokenizer(data: bytes, path: Path, kind: str) -> Any:
    """As `load_tokenizer`, from the bytes of a tokenizer.json; `path` and `kind` are for the error."""
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{path}: not a tokenizer.json (it is of the kind {kind}): {error}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer
