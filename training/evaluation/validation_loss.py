"""Computes loss, perplexity and bits per byte on the validation split, by domain.

The loss is the mean negative log-likelihood per token, in nats; perplexity is its exponential. Bits per byte is the
summed negative log-likelihood in bits over the UTF-8 bytes of the text, so it compares models with different
tokenizers. The bytes are the domain's bytes per token times the tokens predicted: exact if the whole domain is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch

from curation.core.errors import UserError
from curation.shards import read_manifest
from training.checkpoint.load_model import LoadedModel
from training.data.batch import IGNORE_INDEX, collate
from training.data.token_streams import DomainStream, iter_validation_sequences
from training.model.transformer import Model


@dataclass(frozen=True)
class ValidationScore:
    """A model's scores on one domain; bits_per_byte is None if the manifest has no byte counts."""

    loss: float
    perplexity: float
    bits_per_byte: float | None
    tokens: int
    sequences: int


@torch.no_grad()
def evaluate_domains(
    model: Model,
    domains: Mapping[str, DomainStream],
    *,
    length: int,
    micro: int,
    limit: int | None,
    device: torch.device,
    autocast: AbstractContextManager[Any],
) -> dict[str, ValidationScore]:
    """Scores the first `limit` sequences (None: all) of each domain; a domain without a single target is left out."""
    scores = {}
    for name, domain in domains.items():
        total, tokens, sequences = 0.0, 0, 0
        stream = iter_validation_sequences(domain, length, limit)
        while group := list(islice(stream, micro)):
            batch = collate(group, length).to(device)
            with autocast:
                _, _, nll = model(batch.tokens, batch.targets, batch.documents)
            total += nll.double().sum().item()
            tokens += int((batch.targets != IGNORE_INDEX).sum())
            sequences += len(group)
        if not tokens:
            continue
        loss = total / tokens
        size = bytes_per_token(domain)
        bits = total / math.log(2) / (size * tokens) if size else None
        scores[name] = ValidationScore(loss, math.exp(min(loss, 700.0)), bits, tokens, sequences)
    return scores


def bytes_per_token(domain: DomainStream) -> float | None:
    """The mean bytes of text per token of a domain; None if the manifest has no byte counts."""
    return sum(e.text_bytes for e in domain.entries) / sum(e.tokens for e in domain.entries) or None


def mean_loss(scores: Mapping[str, ValidationScore]) -> float | None:
    """The mean loss over all domains' tokens."""
    tokens = sum(s.tokens for s in scores.values())
    return sum(s.loss * s.tokens for s in scores.values()) / tokens if tokens else None


def score_run(trained: LoadedModel, data_dir: str, limit: int | None) -> dict[str, dict[str, Any]]:
    """A trained model's scores on the validation split of a run, by domain, as plain values.

    Raises UserError if the run was tokenized with another tokenizer or has no validation split.
    """
    manifest = read_manifest(data_dir)
    held_out = {
        n: DomainStream(n, manifest, s) for n, s in manifest.splits.get("validation", {}).items() if s.tokens > 1
    }
    if not held_out:
        raise UserError(f"{data_dir} has no validation split")
    told = manifest.tokenizer
    if hashlib.sha256(trained.tokenizer_file.read_bytes()).hexdigest() != told.sha256:
        raise UserError(f"{data_dir} was tokenized with another tokenizer than {trained.tokenizer_file}")
    scores = evaluate_domains(
        trained.model,
        held_out,
        length=trained.max_seq_len,
        micro=8,
        limit=limit,
        device=trained.model.embedding.weight.device,
        autocast=contextlib.nullcontext(),
    )
    return {name: asdict(s) for name, s in scores.items()}
