"""The training file: defaults, presets, overrides, and what a person reads when it is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curation.core.errors import UserError
from training.config import PRESETS, TrainConfig, load, parse


def test_defaults_and_round_trip() -> None:
    config = parse("steps: 10")
    assert config.model.preset == "demo" and config.model.hidden_size == PRESETS["demo"]["hidden_size"]
    assert config.optimizer.betas == (0.9, 0.95) and config.optimizer.weight_decay == 0.1
    assert parse(config.dump()) == config


def test_presets_can_be_changed_or_left() -> None:
    config = parse("steps: 1\nmodel: {preset: 8b, num_layers: 2, tie_embeddings: true}")
    assert (config.model.num_layers, config.model.tie_embeddings, config.model.intermediate_size) == (2, True, 14336)
    own = parse(
        "steps: 1\nmodel: {preset: null, num_layers: 1, hidden_size: 8, num_heads: 2, num_kv_heads: 1, "
        "intermediate_size: 9, tie_embeddings: true}"
    )
    assert own.model.hidden_size == 8
    assert parse(own.dump()) == own


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("steps: 5\noptimizer: {lr: 3e-4}\n")
    assert load(str(path)).optimizer.lr == 3e-4
    config = load(str(path), ["optimizer.lr=1e-2", "data.weights={web: 1}", "model.preset=toy"])
    assert (config.optimizer.lr, config.data.weights, config.model.num_layers) == (1e-2, {"web": 1.0}, 2)
    assert load(str(path), {"optimizer.lr": 1e-2, "data.weights": {"web": 1}, "model.preset": "toy"}) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "steps: 1\noptimizer:\n  lr: 1\n  beta: 2\n",
            "f.yaml:4: unknown key optimizer.beta; here are known: kind, lr,",
        ),
        ("steps: 1\ndate: {}\n", "f.yaml:2: unknown key date; here are known: steps, seed,"),
        ("steps: many\n", "f.yaml:1: steps: Input should be a valid integer"),
        ("steps: 0\n", "f.yaml:1: steps: Input should be greater than or equal to 1 (got 0)"),
        ("seed: 1\n", "f.yaml: steps is missing"),
        ("steps: 1\nmodel: {preset: huge}\n", "f.yaml:2: model: no preset 'huge'; the presets are toy, demo,"),
        (
            "steps: 1\nmodel:\n  hidden_size: 100\n",
            "f.yaml:2: model: hidden_size 100 divided by num_heads 8 must be an even whole number",
        ),
        ("steps: 1\nmodel: {num_kv_heads: 3}\n", "f.yaml:2: model: num_kv_heads 3 does not divide num_heads 8"),
        (
            "steps: 1\nbatch: {global_size: 10, micro_size: 4}\n",
            "f.yaml:2: batch: micro_size 4 does not divide global_size 10; global_size 8 or 12",
        ),
        (
            "steps: 1\ndata: {seq_len: 100, shuffle_block: 250}\n",
            "f.yaml:2: data: seq_len 100 does not divide shuffle_block 250",
        ),
        (
            "steps: 1\nprecision: fp8\n",
            "f.yaml:2: precision: Input should be 'auto', 'fp32', 'bf16' or 'fp16' (got 'fp8')",
        ),
        ("steps: 1\nseed: 1\nseed: 2\n", "f.yaml:3: seed stands here a second time (first on line 2)"),
        ("steps: 1\n\n  x: [", "f.yaml: not YAML"),
        ("- 1\n", "f.yaml: a training file is a mapping of keys, this is a list"),
        ("", "f.yaml: steps is missing"),
        (
            "steps: 1\ndata: {weights: {web: -1}}",
            "f.yaml:2: data.weights.web: Input should be greater than or equal to 0",
        ),
        ("steps: 1\nmodel: 3\n", "f.yaml:2: model: Input should be"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text, "f.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value) or "not YAML" in message


def test_wrong_overrides_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set lr: expected key=value"):
        parse("steps: 1", "f.yaml", ["lr"])
    with pytest.raises(UserError, match=r"f.yaml: --set: unknown key optimizer.rate"):
        parse("steps: 1", "f.yaml", ["optimizer.rate=1"])
    with pytest.raises(UserError, match=r"cannot read this training file"):
        load(str(tmp_path / "absent.yaml"))


def test_checking_a_file_imports_nothing_heavy() -> None:
    script = "import sys, training.config; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert out.stdout.split() == ["False", "False"]


def test_every_preset_is_a_model() -> None:
    for name in PRESETS:
        assert isinstance(parse(f"steps: 1\nmodel: {{preset: {name}}}"), TrainConfig)
