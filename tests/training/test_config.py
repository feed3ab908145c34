"""The training file: defaults, presets, overrides, and what a person reads when it is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curation.core.errors import UserError
from training.config import PRESETS, TrainConfig, load, parse


def test_defaults_and_round_trip() -> None:
    config = parse("iterations: 10")
    assert config.model.preset == "demo" and config.model.width == PRESETS["demo"]["width"]
    assert config.optimizer.betas == (0.9, 0.95) and config.optimizer.weight_decay == 0.1
    assert parse(config.dump()) == config


def test_presets_can_be_changed_or_left() -> None:
    config = parse("iterations: 1\nmodel: {preset: 8b, layers: 2, tied: true}")
    assert (config.model.layers, config.model.tied, config.model.ffn) == (2, True, 14336)
    own = parse("iterations: 1\nmodel: {preset: null, layers: 1, width: 8, heads: 2, kv_heads: 1, ffn: 9, tied: true}")
    assert own.model.width == 8
    assert parse(own.dump()) == own


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("iterations: 5\noptimizer: {lr: 3e-4}\n")
    assert load(str(path)).optimizer.lr == 3e-4
    config = load(str(path), ["optimizer.lr=1e-2", "data.weights={web: 1}", "model.preset=toy"])
    assert (config.optimizer.lr, config.data.weights, config.model.layers) == (1e-2, {"web": 1.0}, 2)
    assert load(str(path), {"optimizer.lr": 1e-2, "data.weights": {"web": 1}, "model.preset": "toy"}) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "iterations: 1\noptimizer:\n  lr: 1\n  beta: 2\n",
            "f.yaml:4: unknown key optimizer.beta; here are known: kind, lr,",
        ),
        ("iterations: 1\ndate: {}\n", "f.yaml:2: unknown key date; here are known: iterations, seed,"),
        ("iterations: many\n", "f.yaml:1: iterations: Input should be a valid integer"),
        ("iterations: 0\n", "f.yaml:1: iterations: Input should be greater than or equal to 1 (got 0)"),
        ("seed: 1\n", "f.yaml: iterations is missing"),
        ("iterations: 1\nmodel: {preset: huge}\n", "f.yaml:2: model: no preset 'huge'; there are toy, demo,"),
        (
            "iterations: 1\nmodel:\n  width: 100\n",
            "f.yaml:2: model: width 100 over 8 heads must be a whole, even head width",
        ),
        ("iterations: 1\nmodel: {kv_heads: 3}\n", "f.yaml:2: model: kv_heads 3 does not divide heads 8"),
        (
            "iterations: 1\nbatch: {windows: 10, micro: 4}\n",
            "f.yaml:2: batch: micro 4 does not divide windows 10; windows 8 or 12",
        ),
        (
            "iterations: 1\ndata: {sequence: 100, block: 250}\n",
            "f.yaml:2: data: sequence 100 does not divide block 250",
        ),
        (
            "iterations: 1\nprecision: fp8\n",
            "f.yaml:2: precision: Input should be 'auto', 'fp32', 'bf16' or 'fp16' (got 'fp8')",
        ),
        ("iterations: 1\nseed: 1\nseed: 2\n", "f.yaml:3: seed stands here a second time (first on line 2)"),
        ("iterations: 1\n\n  x: [", "f.yaml: not YAML"),
        ("- 1\n", "f.yaml: a training file is a mapping of keys, this is a list"),
        ("", "f.yaml: iterations is missing"),
        (
            "iterations: 1\ndata: {weights: {web: -1}}",
            "f.yaml:2: data.weights.web: Input should be greater than or equal to 0",
        ),
        ("iterations: 1\nmodel: 3\n", "f.yaml:2: model: Input should be"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text, "f.yaml")
    assert message in str(error.value)
    assert "\n" not in str(error.value) or "not YAML" in message


def test_wrong_overrides_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set lr: expected key=value"):
        parse("iterations: 1", "f.yaml", ["lr"])
    with pytest.raises(UserError, match=r"f.yaml: --set: unknown key optimizer.rate"):
        parse("iterations: 1", "f.yaml", ["optimizer.rate=1"])
    with pytest.raises(UserError, match=r"cannot read this training file"):
        load(str(tmp_path / "absent.yaml"))


def test_checking_a_file_imports_nothing_heavy() -> None:
    script = "import sys, training.config; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert out.stdout.split() == ["False", "False"]


def test_every_preset_is_a_model() -> None:
    for name in PRESETS:
        assert isinstance(parse(f"iterations: 1\nmodel: {{preset: {name}}}"), TrainConfig)
