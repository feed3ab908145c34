"""Generates text with a model, or with the newest checkpoint of a run.

The prompt is encoded as text (special tokens in it are ordinary text) after the EOS that begins every document. Tokens
are sampled from softmax(logits / temperature), limited to the `top_k` most likely and to the fewest that have `top_p`
of the probability (Holtzman et al. 2020). The same seed gives the same text on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from curation.core.errors import UserError
from training.checkpoint.load_model import LoadedModel, load_or_use
from training.model.transformer import KVCache

SMALL = 50_000_000  # parameters below which nobody should expect sense: GPT-2's smallest has 124 M


def generate(
    model: str | LoadedModel,
    prompt: str,
    *,
    tokens: int = 128,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = 0.95,
    seed: int = 17,
) -> str:
    """The prompt and up to `tokens` tokens after it, ended early where the model ends the document.

    model: a loaded model, a run (its newest checkpoint) or a checkpoint. Temperature 0 takes the most likely token each
    time. Raises UserError for a directory without a trained model and
    for settings out of range, CheckpointError if every checkpoint is damaged.
    """
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise UserError(
            f"temperature {temperature} must be at least 0, top_k {top_k} at least 1, "
            f"and top_p {top_p} above 0 and at most 1"
        )
    loaded = load_or_use(model)
    ids = [loaded.eos, *loaded.encode(prompt)]
    ids += generate_tokens(loaded, ids, tokens, temperature, top_k, top_p, torch.Generator().manual_seed(seed))
    return loaded.decode(ids[1:])


def describe_expectation(model: LoadedModel) -> str | None:
    """What to expect of a small model's text, by its size and training; None for one of SMALL parameters or more."""
    size = sum(p.numel() for p in model.model.parameters())
    if size >= SMALL or model.checkpoint is None:
        return None
    step = model.checkpoint.state["step"]
    return f"a model of {size / 1e6:.1f} M parameters after {step:,} steps: expect word-like noise"


def generate_tokens(
    trained: LoadedModel,
    ids: Sequence[int],
    tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator,
    stop: Callable[[list[int]], bool] | None = None,
) -> list[int]:
    """Up to `tokens` tokens after `ids`; ended by EOS, which is left out, or when `stop` of the new tokens is true."""
    model, max_seq_len = trained.model, trained.max_seq_len
    device = model.embedding.weight.device
    so_far, said = list(ids), list[int]()
    cache: KVCache = []
    fresh = so_far
    for _ in range(tokens):
        if not cache or cache[0][0].shape[2] + len(fresh) > max_seq_len:
            # Longer than any training sequence: continue from the last max_seq_len / 2 tokens.
            cache, fresh = [], so_far[-max(1, max_seq_len // 2) :] if len(so_far) > max_seq_len else so_far
        logits = model.next_logits(torch.tensor([fresh], device=device), cache)[0]
        logits = logits[: trained.vocab]  # rows that pad the vocabulary are no tokens
        chosen = sample_token(logits.cpu(), temperature, top_k, top_p, generator)
        if chosen == trained.eos:
            break
        said.append(chosen)
        so_far = [*so_far, chosen]
        fresh = [chosen]
        if stop is not None and stop(said):
            break
    return said


def sample_token(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> int:
    """Samples one token from logits [vocabulary]; equal logits are ordered by id."""
    if temperature == 0:
        return int(logits.argmax())
    probability, token = torch.sort(torch.softmax(logits / temperature, dim=-1), descending=True, stable=True)
    keep = len(token) if top_k is None else min(top_k, len(token))
    if top_p is not None:
        keep = min(keep, int((probability.cumsum(0) < top_p).sum()) + 1)
    return int(token[torch.multinomial(probability[:keep], 1, generator=generator)])
