"""Scores by domain against the plain computation over the whole stream."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from curation import shards
from training.config import PRESETS
from training.data.token_streams import DomainStream
from training.evaluation.validation_loss import evaluate_domains, mean_loss
from training.model.attention import document_mask
from training.model.transformer import Model, ModelConfig


def test_scores_are_those_of_the_plain_computation(corpus: Path) -> None:
    manifest = shards.read_manifest(str(corpus))
    domains = {n: DomainStream(n, manifest, s) for n, s in manifest.splits["validation"].items()}
    model = Model(ModelConfig(vocab_size=1024, **PRESETS["toy"]))
    model.init_weights(1)

    def scores(limit: int | None, micro: int) -> dict:
        return evaluate_domains(
            model,
            domains,
            length=250,
            micro=micro,
            limit=limit,
            device=torch.device("cpu"),
            autocast=contextlib.nullcontext(),
        )

    found = scores(4, 4)
    again = scores(4, 3)
    for name, domain in domains.items():
        stream = torch.from_numpy(domain.shard(0).tokens.astype("int64"))
        total = 0.0
        for start in range(0, 1000, 250):
            tokens, targets = stream[start : start + 250][None], stream[start + 1 : start + 251][None]
            documents = (tokens == 0).long().cumsum(1)
            logits = F.linear(model.hidden_states(tokens, document_mask(documents)), model.head.weight)
            total += F.cross_entropy(logits[0], targets[0], reduction="sum").item()
        score = found[name]
        entry = manifest.splits["validation"][name]
        assert (score.tokens, score.sequences) == (1000, 4)
        assert score.loss == pytest.approx(total / 1000, rel=1e-5)
        assert score.perplexity == pytest.approx(math.exp(total / 1000), rel=1e-4)
        assert score.bits_per_byte == pytest.approx(
            total / math.log(2) / (entry.text_bytes * 1000 / entry.tokens), rel=1e-5
        )
        assert again[name].loss == pytest.approx(score.loss, rel=1e-6)
    whole = scores(None, 8)
    assert {n: s.tokens for n, s in whole.items()} == {
        n: d.tokens - 1 for n, d in manifest.splits["validation"].items()
    }
    assert mean_loss(whole) == pytest.approx(
        sum(s.loss * s.tokens for s in whole.values()) / sum(s.tokens for s in whole.values())
    )
    assert mean_loss({}) is None
