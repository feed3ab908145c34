"""Stages of a training: where the training file changes mix, batch, length or schedule, and that no update is lost."""

from __future__ import annotations

import json
from pathlib import Path

from training.config import parse
from training.data.data_order import OrderLog
from training.stability.stages import stage_of, stage_starts
from training.train import train


def test_every_planned_change_begins_a_stage_and_a_masked_document_none() -> None:
    order = OrderLog.new({"code": 1, "web": 9}, 16, 8, 4)
    order = order.with_change(40, mix={"code": 9, "web": 1})  # step 10
    order = order.with_change(60, masked=("aa",))  # step 15
    order = order.with_change(80, global_size=8)  # step 20
    order = order.with_change(160, seq_len=16)  # step 30
    assert stage_starts(parse("steps: 100"), order) == [0, 10, 20, 30]
    decays = parse("{steps: 100, schedule: {kind: wsd, decay_fraction: 0.3}}")
    assert stage_starts(decays, order) == [0, 10, 20, 30, 70]
    assert [stage_of(step, [0, 10, 20]) for step in (0, 9, 10, 19, 20, 99)] == [0, 0, 10, 10, 20, 20]


def test_a_change_of_the_mix_loses_no_update(corpus: Path, tmp_path: Path) -> None:
    """From manuals that are known by then to programs that were never seen: the loss is far above what was usual."""
    changes = [{"at": 60, "weights": {"code": 0.95, "docs": 0.05}}]
    settings = {
        "steps": 90, "model": {"preset": "toy"}, "batch": {"global_size": 4}, "precision": "fp32", "threads": 1,
        "optimizer": {"lr": 2e-3}, "evaluate": {"every": 1000, "sequences": 2}, "guard": {"action": "skip"},
        "data": {"seq_len": 64, "weights": {"docs": 1.0}, "changes": changes, "max_epochs": 100},
    }  # fmt: skip
    train(parse(json.dumps(settings)), str(corpus), str(tmp_path / "run"))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [e["loss"] for e in lines if e["kind"] == "train"]
    assert min(losses[60:64]) > 1.05 * max(losses[50:60]), "the change is one that the guard would notice"
    assert not [e for e in lines if e["kind"] == "event" and e["step"] > 60] and len(losses) == 90
