"""What a model says: sampling from the newest checkpoint of a run.

The prompt is encoded as text (no special token can be written in it) behind the EOS that opens every document. Tokens
are drawn from softmax(logits / temperature), cut to the `top_k` likeliest and to the fewest that hold `top_p` of the
probability (Holtzman et al. 2020). The same seed says the same on the same machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curation.core.errors import UserError
from training.checkpoint import save_load
from training.config import parse
from training.data.data_order import OrderLog
from training.model.transformer import Cache, Model, Shape


def generate(
    run_dir: str,
    prompt: str,
    *,
    tokens: int = 128,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = 0.95,
    seed: int = 17,
) -> str:
    """The prompt and up to `tokens` tokens after it, ended early where the model ends the document.

    Temperature 0 takes the likeliest token each time. Raises UserError for a directory without a trained model and for
    settings out of range, CheckpointError where every checkpoint is damaged.
    """
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise UserError(
            f"temperature {temperature} must be at least 0, top_k {top_k} at least 1, "
            f"and top_p {top_p} above 0 and at most 1"
        )
    loaded = load(run_dir)
    ids = [loaded.eos, *loaded.encode(prompt)]
    ids += say(loaded, ids, tokens, temperature, top_k, top_p, torch.Generator().manual_seed(seed))
    return loaded.decode(ids[1:])


@dataclass(frozen=True)
class Trained:
    """A trained model in evaluation mode, with what turns text into its tokens and back."""

    model: Model
    tokenizer: Any
    tokenizer_file: Path
    eos: int
    sequence: int  # the longest window that it was trained on

    def encode(self, text: str) -> list[int]:
        """Text as tokens, special ones spelled out in it included; no EOS before it."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return text


def load(run_dir: str, device: str = "cpu") -> Trained:
    """The newest undamaged checkpoint of a training run. Raises UserError where there is none."""
    run = Path(run_dir)
    found = save_load.newest(run / "checkpoints")
    if found is None:
        raise UserError(f"{run_dir}: no checkpoint here; `gristmill train` writes them")
    data = json.loads((run / "data.json").read_text())
    config = parse((run / "train.yaml").read_text(), str(run / "train.yaml"))
    file = run / data["tokenizer"]["file"]
    tokenizer = open_tokenizer(file, data["tokenizer"]["kind"])
    model = Model(Shape(**found.state["shape"]))
    save_load.restore(found.path, model, None)
    model.eval().to(device)
    state, length = found.state, config.data.seq_len
    if "order" in state:  # an imported model has none
        length = OrderLog.from_dict(state["order"]).longest(state["sequences"])
    return Trained(model, tokenizer, file, int(data["tokenizer"]["eos"]), length)


def say(
    trained: Trained,
    ids: Sequence[int],
    tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator,
    stop: Callable[[list[int]], bool] | None = None,
) -> list[int]:
    """Up to `tokens` tokens after `ids`; ended by EOS, which is left out, or when `stop` says so of what was said."""
    model, window = trained.model, trained.sequence
    device = model.embedding.weight.device
    so_far, said = list(ids), list[int]()
    cache: Cache = []
    fresh = so_far
    for _ in range(tokens):
        if not cache or cache[0][0].shape[2] + len(fresh) > window:
            # Longer than any window it was trained on: go on from the latest half of one.
            cache, fresh = [], so_far[-max(1, window // 2) :] if len(so_far) > window else so_far
        logits = model.next_logits(torch.tensor([fresh], device=device), cache)[0]
        chosen = choose(logits.cpu(), temperature, top_k, top_p, generator)
        if chosen == trained.eos:
            break
        said.append(chosen)
        so_far = [*so_far, chosen]
        fresh = [chosen]
        if stop is not None and stop(said):
            break
    return said


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> int:
    """Draws one token from logits [vocabulary]; ties in the order are broken by the lower id."""
    if temperature == 0:
        return int(logits.argmax())
    probability, token = torch.sort(torch.softmax(logits / temperature, dim=-1), descending=True, stable=True)
    keep = len(token) if top_k is None else min(top_k, len(token))
    if top_p is not None:
        keep = min(keep, int((probability.cumsum(0) < top_p).sum()) + 1)
    return int(token[torch.multinomial(probability[:keep], 1, generator=generator)])


def open_tokenizer(path: Path, kind: str) -> Any:
    """A run's tokenizer, which takes special tokens spelled out in text for text. Raises UserError."""
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{path}: not a tokenizer.json (it is of the kind {kind}): {error}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer
