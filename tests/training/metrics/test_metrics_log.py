"""The logs of a run: cut back to a checkpoint, whole after a crash, refused when another version wrote them.

Covers: log_format.py, step_metrics.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from curation.core import jsonl_log
from curation.core.errors import UserError
from training.data.batch import IGNORE_INDEX, Batch
from training.distributed.parallel import Ranks
from training.metrics.log_format import FORMAT, METRICS, SESSIONS, SPEED, check_format
from training.metrics.metrics_log import MetricsLog, goodput
from training.metrics.step_metrics import MetricsBuffer, StepTensors


def test_cut_back_to_a_checkpoint(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    with MetricsLog(tmp_path, -1, seen.append) as log:
        for step in (1, 2, 3):
            log.write(kind="train", step=step)
            log.write_speed(step, 2.0, {})
        log.write(kind="event", step=1, incident=1)
        log.truncate(2, incidents=0)
        assert log.lost == 2.0
        log.end_session("done", 2)
    assert (
        [e["step"] for e in jsonl_log.read(tmp_path / METRICS)]
        == [e["step"] for e in jsonl_log.read(tmp_path / SPEED)]
        == [1, 2]
    )
    assert [e["event"] for e in jsonl_log.read(tmp_path / SESSIONS)] == ["start", "lost", "done"]
    assert goodput(tmp_path)["lost_seconds"] == 2.0 and len(seen) == 7


def test_an_incomplete_last_line_is_left_out_and_replaced(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, -1) as log:
        log.write(kind="train", step=1)
    for name in (METRICS, SESSIONS):
        with open(tmp_path / name, "a") as f:
            f.write('{"kind": "train", "st')
    assert [e["step"] for e in jsonl_log.read(tmp_path / METRICS)] == [1]
    with MetricsLog(tmp_path, 1) as log:
        log.write(kind="train", step=2)
    assert [e["step"] for e in jsonl_log.read(tmp_path / METRICS)] == [1, 2]
    assert [e["event"] for e in jsonl_log.read(tmp_path / SESSIONS)] == ["start", "start"]


def test_logs_of_another_version_are_refused(tmp_path: Path) -> None:
    check_format(tmp_path)
    (tmp_path / SESSIONS).write_text(json.dumps({"event": "start", "time": 0.0}) + "\n")
    with pytest.raises(UserError, match=rf"its logs have format 1, this version reads format {FORMAT}; train it again"):
        MetricsLog(tmp_path, -1)


def test_steps_are_read_from_the_device_together() -> None:
    """Losses by domain, bits per byte, and the ratio of an update to the weights."""
    buffer = MetricsBuffer(Ranks(0, 1, torch.device("cpu")), {"code": 4.0, "docs": None})
    targets = torch.tensor([[1, 2], [3, IGNORE_INDEX]])
    batch = Batch(targets, targets, torch.zeros_like(targets), ("code", "docs"))
    for step in (1, 2):
        nll = buffer.sum_losses(batch, torch.tensor([6.0, 5.0], dtype=torch.float64))
        update = torch.tensor([1.0, 4.0], dtype=torch.float64) if step == 2 else None
        number = torch.tensor(2.0)
        buffer.add(
            StepTensors(
                step, (step - 1, step), 2 * step, 0.1, number, number, buffer.count_targets(batch), nll,
                torch.tensor(0.0), torch.tensor(False), torch.tensor([0.5, math.nan], dtype=torch.float64), update,
            )
        )  # fmt: skip
    first, second = buffer.read()
    assert first.domains == second.domains == {"code": 3.0, "docs": 5.0}
    assert first.bits_per_byte == {"code": pytest.approx(3 / math.log(2) / 4)}
    assert math.isnan(first.update_ratio) and second.update_ratio == 0.5
    assert "update_ratio" not in first.entry() and second.entry()["update_ratio"] == 0.5
    assert second.entry()["sequences"] == 2 and second.event() is None
    assert buffer.read() == []
