"""The training file: defaults, presets, overrides, and what a person reads when it is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from curation.core.errors import UserError
from curation.core.renamed_keys import TRAINING_KEYS
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
            "f.yaml:4: optimizer.beta: unknown key 'beta'\n  did you mean betas",
        ),
        ("steps: 1\ndate: {}\n", "f.yaml:2: date: unknown key 'date'\n  did you mean data or"),
        ("steps: many\n", "f.yaml:1: steps: is 'many'\n  expected an integer"),
        ("steps: 0\n", "f.yaml:1: steps: is 0\n  expected at least 1"),
        ("seed: 1\n", "f.yaml:1: the required key 'steps' is missing"),
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
            "f.yaml:2: precision: is 'fp8'\n  expected 'auto', 'fp32', 'bf16' or 'fp16'",
        ),
        ("steps: 1\nseed: 1\nseed: 2\n", "f.yaml:3: has the key 'seed' a second time\n  the first is at f.yaml:2"),
        ("steps: 1\n\n  x: [", "f.yaml:3:4: is not YAML"),
        ("- 1\n", "f.yaml: is a list\n  expected the keys of a training file"),
        ("", "f.yaml: the required key 'steps' is missing"),
        (
            "steps: 1\ndata: {weights: {web: -1}}",
            "f.yaml:2: data.weights.web: is -1\n  expected at least 0",
        ),
        ("steps: 1\nmodel: 3\n", "f.yaml:2: model: is 3\n  expected a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(text, "f.yaml")
    assert message in str(error.value)


def test_wrong_overrides_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--set lr: has no value"):
        parse("steps: 1", "f.yaml", ["lr"])
    with pytest.raises(UserError, match=r"--set optimizer.rate=1: optimizer.rate: unknown key"):
        parse("steps: 1", "f.yaml", ["optimizer.rate=1"])
    with pytest.raises(UserError, match=r"absent.yaml: no such file"):
        load(str(tmp_path / "absent.yaml"))


def test_yaml_1_2_variables_and_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML 1.1, which PyYAML reads by itself, has `no` as false and 1e5 as a string."""
    monkeypatch.setenv("GRISTMILL_LR", "1e-2")
    text = "steps: 1e5\ndata: {weights: {no: 1, on: 0.5}}\noptimizer: {lr: ${GRISTMILL_LR}}\ninit_from: $${here}/1e5\n"
    config = parse(text.replace("{lr: ${GRISTMILL_LR}}", '{lr: "${GRISTMILL_LR}"}'))
    assert config.steps == 100_000 and config.data.weights == {"no": 1.0, "on": 0.5}
    assert config.optimizer.lr == 0.01 and config.init_from == "${here}/1e5"
    assert parse(config.dump()) == config  # what is stored means the same when it is read again
    odd = parse("steps: 1", overrides={"init_from": "1e5", "exclude_list": "null", "log_every": 3})
    assert (odd.init_from, odd.exclude_list) == ("1e5", "null") and parse(odd.dump()) == odd
    for wrong in ("steps: '10'", "steps: true", "steps: 1.5"):
        with pytest.raises(UserError, match="expected an integer"):
            parse(wrong)
    with pytest.raises(UserError, match=r"f\.yaml:1: the variable GRISTMILL_UNSET"):
        parse("steps: ${GRISTMILL_UNSET}", "f.yaml")


def test_checking_a_file_imports_nothing_heavy() -> None:
    script = "import sys, training.config; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert out.stdout.split() == ["False", "False"]


def test_every_preset_is_a_model() -> None:
    for name in PRESETS:
        assert isinstance(parse(f"steps: 1\nmodel: {{preset: {name}}}"), TrainConfig)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iterations: 5", "f.yaml:2: iterations: `iterations` was renamed to `steps`"),
        ("model:\n  width: 64", "f.yaml:3: model.width: `width` was renamed to `hidden_size`"),
        ("batch: {windows: 8}", "f.yaml:2: batch.windows: `windows` was renamed to `global_size`"),
        ("recompute: true", "f.yaml:2: recompute: `recompute` was renamed to `activation_checkpointing`"),
    ],
)
def test_an_old_key_says_its_new_name(text: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        parse(f"steps: 1\n{text}\n", "f.yaml")
    assert expected in str(error.value)
    assert not set(TRAINING_KEYS) & set(TrainConfig.model_fields)
