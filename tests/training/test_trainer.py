"""The training loop's hooks: their order in a new, a resumed and a rolled-back run, and what a user's callback can do.

Covers: callbacks.py, train_state.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from training.checkpoint import save_load
from training.checkpoint.save_load import Checkpoint
from training.config import TrainConfig, parse
from training.distributed.watchdog import Preempted
from training.evaluation.validation_loss import ValidationScore
from training.metrics.step_metrics import StepMetrics, StepTensors
from training.train import train
from training.trainer import Callback, Trainer

CONFIG = """
steps: 4
model: {preset: toy}
data: {seq_len: 64}
batch: {global_size: 8}
evaluate: {every: 4, sequences: 2}
checkpoint: {every: 2}
precision: fp32
threads: 1
log_every: 2
"""


def config(**changes: Any) -> TrainConfig:
    return parse(CONFIG, "test.yaml", changes)


class Recorder(Callback):
    """Writes down every hook with the step at which it was called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.loaded: Any = None
        self.roll_back_at: int | None = None

    def on_train_start(self, trainer: Trainer) -> None:
        self.calls.append(f"train_start {trainer.state.step}")

    def on_gradients(self, trainer: Trainer, step: StepTensors) -> None:
        self.calls.append(f"gradients {step.step}")

    def on_step_end(self, trainer: Trainer) -> None:
        self.calls.append(f"step_end {trainer.state.step}")

    def on_log(self, trainer: Trainer, metrics: Sequence[StepMetrics]) -> None:
        self.calls.append(f"log {','.join(str(m.step) for m in metrics)}")

    def should_roll_back(self, trainer: Trainer) -> bool:
        wanted = trainer.state.step == self.roll_back_at
        self.roll_back_at = None if wanted else self.roll_back_at
        return wanted

    def on_rollback(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        self.calls.append(f"rollback {trainer.state.step} to {checkpoint.state['step']}")

    def on_load(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        self.calls.append(f"load {trainer.state.step}")
        self.loaded = checkpoint.state["recorder"]

    def on_evaluate(self, trainer: Trainer, scores: dict[str, ValidationScore], tasks: dict[str, float] | None) -> None:
        assert set(scores) == {"code", "docs"} and tasks is None
        self.calls.append(f"evaluate {trainer.state.step}")

    def on_save(self, trainer: Trainer, state: dict[str, Any]) -> None:
        state["recorder"] = len(self.calls)
        self.calls.append(f"save {trainer.state.step}")

    def on_train_end(self, trainer: Trainer, status: str) -> None:
        self.calls.append(f"train_end {trainer.state.step} {status}")


def steps(first: int, last: int) -> list[str]:
    return [call for i in range(first, last + 1) for call in (f"gradients {i}", f"step_end {i}")]


def test_order_of_hooks(corpus: Path, tmp_path: Path) -> None:
    new = Recorder()
    train(config(), str(corpus), str(tmp_path / "run"), callbacks=[new])
    assert new.calls == [
        "train_start 0", "evaluate 0", "save 0", *steps(1, 2), "log 1,2", "save 2", *steps(3, 4), "log 3,4",
        "evaluate 4", "save 4", "train_end 4 done",
    ]  # fmt: skip
    resumed = Recorder()
    train(config(**{"schedule.kind": "cosine"}), str(corpus), str(tmp_path / "run"), callbacks=[resumed])
    assert resumed.calls == ["train_start 0", "load 4", "train_end 4 done"]
    assert resumed.loaded == new.calls.index("save 4"), "what on_save put into the checkpoint"


def test_a_callback_rolls_back(corpus: Path, tmp_path: Path) -> None:
    """To the newest checkpoint; what follows is written to the log once."""
    recorder = Recorder()
    recorder.roll_back_at = 4
    train(config(), str(corpus), str(tmp_path / "run"), callbacks=[recorder])
    middle = recorder.calls.index("rollback 4 to 2")
    assert recorder.calls[middle - 1 : middle + 3] == ["log 3,4", "rollback 4 to 2", "load 2", "gradients 3"]
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in entries if e["kind"] == "train"] == [1, 2, 3, 4]


class SkipAll(Callback):
    def on_gradients(self, trainer: Trainer, step: StepTensors) -> None:
        step.skip = torch.ones_like(step.skip)


def test_a_callback_leaves_updates_out(corpus: Path, tmp_path: Path) -> None:
    result = train(config(), str(corpus), str(tmp_path / "run"), callbacks=[SkipAll()])
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    first = next(e for e in entries if e["kind"] == "validation")
    assert result.validation["code"].loss == first["domains"]["code"]["loss"], "the weights did not move"
    assert [e["event"] for e in entries if e["kind"] == "event"] == ["skip"] * 4


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer) -> None:
        self.stop = trainer.state.step >= self.step


def test_a_callback_stops_the_run_with_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(Preempted, match="stopped after step 1 and saved a checkpoint; run the same command to resume"):
        train(config(log_every=1, **{"checkpoint.every": 4}), str(corpus), str(run), callbacks=[StopAt(1)])
    found = save_load.newest(run / "checkpoints")
    assert found is not None and found.state["step"] == 1
    assert train(config(log_every=1, **{"checkpoint.every": 4}), str(corpus), str(run)).resumed_from == 1
