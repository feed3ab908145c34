"""Sampling: settings do what they say, and a trained run generates text.

Covers: training/checkpoint/load_model.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curation.core.errors import UserError
from training.checkpoint.load_model import load_model
from training.config import parse
from training.evaluation.generate import describe_expectation, generate, sample_token
from training.train import train


def draw(logits: list[float], seed: int = 0, **settings: object) -> int:
    options = {"temperature": 1.0, "top_k": None, "top_p": None, **settings}
    return sample_token(torch.tensor(logits), generator=torch.Generator().manual_seed(seed), **options)


@given(st.integers(0, 500))
def test_cuts(seed: int) -> None:
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().tolist()
    assert draw(logits, seed, top_k=2) in (0, 1)
    assert draw(logits, seed, top_p=0.65) in (0, 1)
    assert draw(logits, seed, top_p=0.71) in (0, 1, 2)
    assert draw(logits, seed, top_p=0.01) == 0
    assert draw(logits, seed, temperature=0) == 0
    assert draw([0.0, 5.0, 5.0], seed, top_k=1) == 1


def test_frequencies_are_the_probabilities() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    drawn = torch.tensor([sample_token(logits, 1.0, None, None, generator) for _ in range(4000)])
    assert torch.allclose(drawn.bincount() / 4000, logits.exp(), atol=0.03)
    hot = torch.tensor([sample_token(logits, 0.5, None, None, generator) for _ in range(4000)])
    assert torch.allclose(hot.bincount() / 4000, torch.softmax(logits * 2, 0), atol=0.03)


def test_a_trained_run_speaks(corpus: Path, tmp_path: Path) -> None:
    text = (
        "steps: 10\nmodel: {preset: toy}\ndata: {seq_len: 32}\nbatch: {global_size: 8}\nprecision: fp32\nthreads: 1\n"
    )
    with pytest.raises(UserError, match="no checkpoint here"):
        generate(str(tmp_path / "run"), "x")
    train(parse(text), str(corpus), str(tmp_path / "run"))
    run, prompt = str(tmp_path / "run"), "def réad(<|endoftext|>"
    assert (describe_expectation(load_model(run)) or "").endswith(" steps: expect word-like noise")
    said = generate(run, prompt, tokens=80, seed=1)
    assert said.startswith(prompt) and len(said) > len(prompt) + 20, "longer than its sequences of 32"
    assert generate(run, prompt, tokens=80, seed=1) == said
    assert generate(run, prompt, tokens=80, seed=2) != said
    assert generate(run, prompt, tokens=5, temperature=0) == generate(run, prompt, tokens=5, temperature=0, seed=9)
    assert generate(run, "", tokens=3)
    for bad in ({"temperature": -1}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(UserError, match="temperature"):
            generate(run, prompt, **bad)
