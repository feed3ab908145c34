"""Which parameters decay, what an update does, and the learning rate at every step.

Covers: lr_schedule.py, loss_scale.py
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from training.config import OptimizerConfig, ScheduleConfig
from training.model.transformer import Model, ModelConfig
from training.optim.lr_schedule import learning_rate
from training.optim.optimizers import Muon, build_optimizers

SHAPE = {"vocab_size": 10, "num_layers": 2, "hidden_size": 8, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 8}


def groups(tied: bool, **config: Any) -> list[dict[str, set[str]]]:
    """Of each optimizer: the names that decay and those that don't."""
    model = Model(ModelConfig(**SHAPE, tie_embeddings=tied))
    names = {id(p): n for n, p in model.named_parameters()}
    found = []
    for part in build_optimizers(model, OptimizerConfig(**config)).parts:
        sets: dict[str, set[str]] = {"decays": set(), "stays": set()}
        for group in part.param_groups:
            sets["decays" if group["weight_decay"] else "stays"] |= {names[id(p)] for p in group["params"]}
        found.append(sets)
    assert sum(len(s) for part in found for s in part.values()) == len(names)
    return found


def test_what_decays() -> None:
    (adamw,) = groups(True)
    assert (
        all("norm" in n for n in adamw["stays"]) and len(adamw["stays"]) == 5 and "embedding.weight" in adamw["decays"]
    )
    (adamw,) = groups(False, no_decay=["norms", "embeddings"])
    assert "embedding.weight" in adamw["stays"] and "head.weight" in adamw["decays"]
    (adamw,) = groups(True, no_decay=["norms", "embeddings"])
    assert "embedding.weight" in adamw["stays"], "also where it is the head as well"
    (adamw,) = groups(True, no_decay=[])
    assert not adamw["stays"]


def test_muon_takes_the_matrices_of_the_blocks() -> None:
    adamw, muon = groups(False, kind="muon")
    assert all(n.startswith("blocks.") and "norm" not in n for n in muon["decays"]) and len(muon["decays"]) == 14
    assert {"embedding.weight", "head.weight"} <= adamw["decays"] and not muon["stays"]
    adamw, muon = groups(True, kind="muon")
    assert adamw["decays"] == {"embedding.weight"} and len(muon["decays"]) == 14


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_muon_is_torchs(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mine = Muon([ours], lr=0.02, weight_decay=0.1, momentum=0.95)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        mine.step()
        reference.step()
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_skipped_step_leaves_everything_as_it_was(kind: str) -> None:
    """Whatever the gradient is: also one that is no number."""
    model = Model(ModelConfig(**SHAPE, tie_embeddings=True))
    model.init_weights(1)
    optimizers = build_optimizers(model, OptimizerConfig(kind=kind))

    def step(value: float, skip: float) -> None:
        for p in model.parameters():
            p.grad = torch.full_like(p, value)
        optimizers.step(torch.tensor(skip))

    def state() -> list[torch.Tensor]:
        return [t.clone() for p in model.parameters() for t in (p.detach(), *optimizers.state_tensors(p).values())]

    step(0.1, 0.0)
    before = state()
    for value in (0.2, math.nan, math.inf):
        step(value, 1.0)
        assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))
    step(0.2, 0.0)
    assert not any(torch.equal(a, b) for a, b in zip(before, state(), strict=True))


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_the_update_is_measured(kind: str) -> None:
    """Against the difference of the weights before and after; a skipped one is none."""
    model = Model(ModelConfig(**SHAPE, tie_embeddings=False))
    model.init_weights(1)
    optimizers = build_optimizers(model, OptimizerConfig(kind=kind, lr=0.02, weight_decay=0.5))
    generator = torch.Generator().manual_seed(2)
    for skip in (0.0, 0.0, 1.0, 0.0):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        before = [p.detach().double() for p in model.parameters()]
        found = optimizers.step(torch.tensor(skip), measure=True)
        assert found is not None
        moved = sum((p.double() - b).square().sum().item() for p, b in zip(model.parameters(), before, strict=True))
        held = sum(p.double().square().sum().item() for p in model.parameters())
        assert found.tolist() == pytest.approx([moved, held], rel=1e-4) and (moved > 0) == (skip == 0)
    assert optimizers.step(torch.tensor(0.0)) is None


def rates(steps: int, **config: object) -> list[float]:
    return [learning_rate(i, steps, 1.0, ScheduleConfig(**config)) for i in range(steps)]


def test_cosine() -> None:
    found = rates(100, warmup_steps=10)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[9] == max(found) == 1.0 and found[9:] == sorted(found[9:], reverse=True)
    assert found[54] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert found[99] == pytest.approx(0.1)


def test_constant_and_wsd() -> None:
    assert rates(50, kind="constant", warmup_steps=0) == [1.0] * 50
    found = rates(100, kind="wsd", warmup_steps=5, decay_fraction=0.2, min_lr_ratio=0.0)
    assert found[4:80] == [1.0] * 76
    assert found[80:] == pytest.approx([1 - (i + 1) / 20 for i in range(20)])
    found = rates(100, kind="wsd", warmup_steps=5, decay_fraction=0.2, min_lr_ratio=0.0, decay_type="sqrt")
    assert found[4:80] == [1.0] * 76 and found[80:] == pytest.approx([1 - math.sqrt((i + 1) / 20) for i in range(20)])
    found = rates(100, kind="wsd", warmup_steps=5, decay_fraction=0.2, min_lr_ratio=0.1, decay_type="cosine")
    assert found[79:] == pytest.approx([0.1 + 0.45 * (1 + math.cos(math.pi * i / 20)) for i in range(21)])


def test_short_runs() -> None:
    assert rates(1) == [1.0]
    assert rates(2, warmup_steps=5) == [0.2, 0.4]
    assert rates(100)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]), "by default a twentieth warms up"
