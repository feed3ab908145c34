"""The decoder: packed documents equal lone ones, the cache equals no cache, the sizes are as published."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from training.config import PRESETS
from training.model.attention import attend, document_mask
from training.model.transformer import Model, ModelConfig, apply_rotary, rope_angles, rope_tables


def tiny(**changes: object) -> Model:
    sizes = {
        "vocab_size": 50,
        "num_layers": 2,
        "hidden_size": 32,
        "num_heads": 4,
        "num_kv_heads": 2,
        "intermediate_size": 48,
        "tie_embeddings": True,
        **changes,
    }
    model = Model(ModelConfig(**sizes))
    model.init_weights(3)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.mul_(1 + torch.linspace(-0.3, 0.3, len(p)))
            else:
                p.mul_(4)  # far from the uniform output of a fresh model, so that a wrong mask shows
    return model


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 1000))
def test_packed_documents_equal_lone_ones(lengths: list[int], seed: int) -> None:
    """Loss and gradients of a packed sequence are those of each document run by itself."""
    model = tiny()
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 50, (1, sum(lengths) + 1), generator=g)
    documents = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    loss, count, nll = model(tokens[:, :-1], tokens[:, 1:], documents)
    loss.backward()
    packed = {n: p.grad.clone() for n, p in model.named_parameters()}
    assert count == sum(lengths)
    model.zero_grad()
    at, alone = 0, []
    for n in lengths:
        part = slice(at, at + n)
        one, _, each = model(tokens[:, part], tokens[:, at + 1 : at + n + 1], torch.zeros(1, n, dtype=torch.int64))
        one.backward()
        alone.append(each)
        at += n
    assert torch.allclose(nll, torch.cat(alone, dim=1), atol=1e-5)
    for name, p in model.named_parameters():
        assert (packed[name] - p.grad).norm() <= 1e-4 * p.grad.norm() + 1e-4, name


def test_mask_is_the_definition() -> None:
    documents = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0]])
    mask = document_mask(documents)
    assert mask is not None and mask.shape == (2, 1, 6, 6)
    for b in range(2):
        for i in range(6):
            for j in range(6):
                assert mask[b, 0, i, j] == (j <= i and documents[b, i] == documents[b, j])
    assert document_mask(torch.zeros(3, 8, dtype=torch.int64)) is None


def test_attention_is_the_formula() -> None:
    g = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, heads, 7, 8, generator=g) for heads in (4, 2, 2))
    k2, v2 = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    scores = q @ k2.mT / 8**0.5
    causal = torch.ones(7, 7).tril().bool()
    expected = scores.masked_fill(~causal, float("-inf")).softmax(-1) @ v2
    assert torch.allclose(attend(q, k, v, None), expected, atol=1e-5)
    assert torch.allclose(attend(q[:, :, 4:], k, v, None), expected[:, :, 4:], atol=1e-5)
    assert torch.allclose(attend(q[:, :, 6:], k, v, None), expected[:, :, 6:], atol=1e-5)


def test_rotation_depends_on_distance_alone() -> None:
    g = torch.Generator().manual_seed(1)
    q, k = torch.randn(16, generator=g), torch.randn(16, generator=g)
    angle = rope_angles(50, 16, 10_000.0)
    cos, sin = rope_tables(angle)
    turn = [(apply_rotary(q, cos[i], sin[i]), apply_rotary(k, cos[i], sin[i])) for i in range(50)]
    a, b = q.chunk(2)
    by_hand = torch.cat((a * angle[9].cos() - b * angle[9].sin(), b * angle[9].cos() + a * angle[9].sin()))
    assert torch.allclose(turn[9][0], by_hand, atol=1e-6)
    assert torch.allclose(turn[9][0] @ turn[4][1], turn[45][0] @ turn[40][1], atol=1e-4)
    assert torch.equal(rope_angles(5, 16, 10_000.0, start=7), angle[7:12])


def test_cache_equals_no_cache() -> None:
    model = tiny(tie_embeddings=False)
    tokens = torch.randint(0, 50, (1, 12), generator=torch.Generator().manual_seed(0))
    whole = F.linear(model.hidden_states(tokens, None), model.head.weight)
    cache: list = []
    steps = [model.next_logits(part, cache) for part in (tokens[:, :5], tokens[:, 5:8], tokens[:, 8:9], tokens[:, 9:])]
    for logits, at in zip(steps, (4, 7, 8, 11), strict=True):
        assert torch.allclose(logits, whole[:, at], atol=1e-4)


def test_initialisation_is_a_function_of_seed_and_name() -> None:
    config = ModelConfig(
        vocab_size=500,
        num_layers=3,
        hidden_size=64,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=128,
        tie_embeddings=False,
    )
    first, second, third = Model(config), Model(config), Model(config)
    first.init_weights(1), second.init_weights(1), third.init_weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.head.weight, third.head.weight)
    assert first.embedding.weight.std().item() == pytest.approx((2 / 5 / 64) ** 0.5, rel=0.05)
    assert first.blocks[0].ffn.down.weight.std().item() == pytest.approx((2 / 5 / 64 / 6) ** 0.5, rel=0.05)
    assert first.norm.weight.tolist() == [1.0] * 64
    hidden = first.hidden_states(torch.arange(100)[None], None)
    assert F.linear(hidden, first.head.weight).std().item() < 1.5, "a fresh model is near uniform"


def test_llama_3_8b_has_its_parameters() -> None:
    sizes = PRESETS["8b"]
    with torch.device("meta"):
        assert Model(ModelConfig(vocab_size=128256, **sizes)).num_parameters() == 8_030_261_248
        assert Model(ModelConfig(vocab_size=128256, **PRESETS["1b"])).num_parameters() == 1_235_814_400
        assert Model(ModelConfig(vocab_size=128256, **PRESETS["3b"])).num_parameters() == 3_212_749_824
