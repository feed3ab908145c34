"""Which parameters decay, and the learning rate at every iteration."""

from __future__ import annotations

import math

import pytest

from training.config import OptimizerConfig, ScheduleConfig
from training.model import Model, Shape
from training.optim import adamw, learning_rate


def test_matrices_decay_and_norms_do_not() -> None:
    model = Model(Shape(vocab=10, layers=2, width=8, heads=2, kv_heads=1, ffn=8, tied=True))
    decayed, free = adamw(model, OptimizerConfig()).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1 and free["weight_decay"] == 0
    assert sorted(names[id(p)] for p in free["params"]) == sorted(n for n in names.values() if "norm" in n)
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def rates(iterations: int, **config: object) -> list[float]:
    return [learning_rate(i, iterations, 1.0, ScheduleConfig(**config)) for i in range(iterations)]


def test_cosine() -> None:
    found = rates(100, warmup=10)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[9] == max(found) == 1.0 and found[9:] == sorted(found[9:], reverse=True)
    assert found[54] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert found[99] == pytest.approx(0.1)


def test_constant_and_wsd() -> None:
    assert rates(50, kind="constant", warmup=0) == [1.0] * 50
    found = rates(100, kind="wsd", warmup=5, decay=0.2, final=0.0)
    assert found[4:80] == [1.0] * 76
    assert found[80:] == pytest.approx([1 - (i + 1) / 20 for i in range(20)])


def test_short_runs() -> None:
    assert rates(1) == [1.0]
    assert rates(2, warmup=5) == [0.2, 0.4]
    assert rates(100)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0]), "by default a twentieth warms up"
