"""Loads the model of a training run with its tokenizer, ready for evaluation, generation or export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.core.errors import UserError
from training.checkpoint import save_load
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

    def encode(self, text: str) -> list[int]:
        """Text as tokens, special ones spelled out in it included; no EOS before it."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return text


def load_model(run_dir: str, device: str = "cpu") -> LoadedModel:
    """The newest undamaged checkpoint of a training run. Raises UserError where there is none."""
    check_device(device)
    run = Path(run_dir)
    found = save_load.newest(run / "checkpoints")
    if found is None:
        raise UserError(f"{run_dir}: no checkpoint here; `gristmill train` writes them")
    data = json.loads((run / "data.json").read_text())
    config = load(str(run / "train.yaml"))
    file = run / data["tokenizer"]["file"]
    tokenizer = load_tokenizer(file, data["tokenizer"]["kind"])
    model = Model(ModelConfig(**found.state["model_config"]))
    save_load.restore(found.path, model, None)
    model.eval().to(device)
    state, length = found.state, config.data.seq_len
    if "order" in state:  # an imported model has none
        length = OrderLog.from_dict(state["order"]).max_seq_len(state["sequences"])
    return LoadedModel(model, tokenizer, file, int(data["tokenizer"]["eos"]), length)


def load_tokenizer(path: Path, kind: str) -> Any:
    """A run's tokenizer, which takes special tokens spelled out in text for text. Raises UserError."""
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{path}: not a tokenizer.json (it is of the kind {kind}): {error}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer
