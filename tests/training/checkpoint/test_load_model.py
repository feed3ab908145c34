"""Every command that loads a checkpoint says which, says why it is not the newest, and takes a checkpoint's path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from curation.core.errors import UserError
from pipelines.cli.main import app
from pipelines.lookup.training_data import TrainingData
from training.checkpoint import save_load
from training.checkpoint.load_model import load_model
from training.checkpoint.save_load import CheckpointError
from training.config import parse
from training.evaluation.generate import generate
from training.train import train

CONFIG = """
steps: 4
model: {preset: toy, num_layers: 1}
data: {seq_len: 64}
batch: {global_size: 4}
schedule: {kind: constant, warmup_steps: 2}
checkpoint: {every: 2, keep: 9}
precision: fp32
threads: 1
log_every: 1
"""


@pytest.fixture(scope="module")
def run(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers") / "20260131"  # eight digits, as a checkpoint's name
    train(parse(CONFIG), str(corpus), str(folder))
    return folder


@pytest.fixture
def damaged(run: Path, tmp_path: Path) -> Path:
    """A copy whose newest checkpoint is damaged, its tensors and its state."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    newest = copy / "checkpoints" / "00000004"
    for path in (newest / "rank-00000.safetensors", newest / "state.json"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    return copy


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def commands(place: Path, corpus: Path, out: Path) -> dict[str, list[object]]:
    return {
        "export": ["export", place, out],
        "generate": ["generate", place, "def", "--tokens", "3"],
        "evaluate": ["evaluate", place, "--data", corpus, "--limit", "1"],
        "verify-order": ["data", "verify-order", place],
        "inspect-step": ["data", "inspect-step", place, "--step", "1"],
        "find-document": ["data", "find-document", place, "0" * 31 + "1"],
    }


NAMES = list(commands(Path(), Path(), Path()))


@pytest.mark.parametrize("name", NAMES)
def test_every_reader_says_which_checkpoint_and_why_not_the_newest(
    run: Path, damaged: Path, corpus: Path, tmp_path: Path, name: str
) -> None:
    whole = call(*commands(run, corpus, tmp_path / "a")[name])
    assert whole.exit_code == 0, whole.output
    assert f"checkpoint {run}/checkpoints/00000004 (step 4)" in whole.stderr and "newest" not in whole.stderr
    older = call(*commands(damaged, corpus, tmp_path / "b")[name])
    assert older.exit_code == 0, older.output
    assert "00000002 (step 2, not the newest, which is 00000004)" in older.stderr
    assert (
        "is damaged (its size or checksum differs from the manifest); trying the checkpoint before it" in older.stderr
    )
    named = call(*commands(run / "checkpoints" / "00000002", corpus, tmp_path / "c")[name])
    assert named.exit_code == 0, named.output
    assert "00000002 (step 2, not the newest, which is 00000004)" in named.stderr
    if name != "export":
        assert "checkpoints/0000" not in named.stdout, "the answer stays as it was"
        assert named.stdout == older.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_that_is_asked_for_is_not_replaced_by_another(
    damaged: Path, corpus: Path, tmp_path: Path, name: str
) -> None:
    asked = call(*commands(damaged / "checkpoints" / "00000004", corpus, tmp_path / "out")[name])
    assert isinstance(asked.exception, CheckpointError) and "00000004" in str(asked.exception)
    missing = call(*commands(damaged / "checkpoints" / "00000003", corpus, tmp_path / "out")[name])
    assert isinstance(missing.exception, CheckpointError)
    assert "the checkpoints in" in str(missing.exception) and "00000002, 00000004" in str(missing.exception)
    assert not (tmp_path / "out").exists()


def test_verify_takes_one_checkpoint(damaged: Path) -> None:
    assert call("checkpoint", "verify", damaged).exit_code == 1
    one = call("checkpoint", "verify", damaged / "checkpoints" / "00000002")
    assert one.exit_code == 0 and one.stdout == "00000002: intact\n"
    assert call("checkpoint", "verify", damaged / "checkpoints" / "00000004").exit_code == 1


def test_scripts_learn_it_too(damaged: Path, corpus: Path) -> None:
    asked = call("evaluate", damaged, "--data", corpus, "--limit", "1", "--json")
    answer = json.loads(asked.stdout)
    assert answer["checkpoint"] == str(damaged / "checkpoints" / "00000002") and answer["step"] == 2
    assert len(answer["notes"]) == 1 and "00000004" in answer["notes"][0]
    with pytest.warns(UserWarning, match=r"00000004.* is damaged"):
        generate(str(damaged), "def", tokens=1)
    assert TrainingData(str(damaged)).sequences_read == 8


def test_training_says_what_it_goes_on_from(damaged: Path, corpus: Path, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    train(parse(CONFIG, "test.yaml", {"steps": 5}), str(corpus), str(damaged), report=seen.append)
    notes = [e["note"] for e in seen if e["kind"] == "note"]
    at = next(i for i, e in enumerate(seen) if e["kind"] == "train")
    assert all(e["kind"] != "note" for e in seen[at:]), "before the first step"
    assert any("00000004" in n and "is damaged" in n for n in notes)
    assert any("resuming from checkpoint" in n and "(step 2, not the newest, which is 00000004)" in n for n in notes)


def test_a_checkpoint_alone_is_no_run(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "checkpoints" / "00000004", tmp_path / "alone" / "00000004")
    with pytest.raises(UserError, match=r"is not a training run: it lacks train.yaml or data.json"):
        load_model(str(tmp_path / "alone" / "00000004"))
    assert save_load.find_checkpoint(tmp_path / "alone" / "00000004").state["step"] == 4
