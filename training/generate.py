"""What a model says: sampling from the newest checkpoint of a run.

The prompt is encoded as text (no special token can be written in it) behind the EOS that opens every document. Tokens
are drawn from softmax(logits / temperature), cut to the `top_k` likeliest and to the fewest that hold `top_p` of the
probability (Holtzman et al. 2020). The same seed says the same on the same machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import checkpoint
from .config import UserError, parse
from .model import Cache, Model, Shape


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
    run = Path(run_dir)
    found = checkpoint.newest(run / "checkpoints")
    if found is None:
        raise UserError(f"{run_dir}: no checkpoint here; `gristmill train` writes them")
    data = json.loads((run / "data.json").read_text())
    config = parse((run / "train.yaml").read_text(), str(run / "train.yaml"))
    tokenizer = _tokenizer(run / data["tokenizer"]["file"], data["tokenizer"]["kind"])
    model = Model(Shape(**found.state["shape"]))
    checkpoint.restore(found.path, model, None)
    model.eval()

    eos = int(data["tokenizer"]["eos"])
    ids = [eos, *tokenizer.encode(prompt, add_special_tokens=False).ids]
    generator = torch.Generator().manual_seed(seed)
    cache: Cache = []
    fresh = ids
    for _ in range(tokens):
        if not cache or cache[0][0].shape[2] + len(fresh) > config.data.sequence:
            # Longer than any window it was trained on: go on from the latest half of one.
            cache, fresh = [], ids[-max(1, config.data.sequence // 2) :] if len(ids) > config.data.sequence else ids
        logits = model.next_logits(torch.tensor([fresh]), cache)[0]
        chosen = choose(logits, temperature, top_k, top_p, generator)
        if chosen == eos:
            break
        ids.append(chosen)
        fresh = [chosen]
    said: str = tokenizer.decode(ids[1:], skip_special_tokens=False)
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


def _tokenizer(path: Path, kind: str) -> Any:
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise UserError(f"{path}: not a tokenizer.json (it is of the kind {kind}): {error}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer
