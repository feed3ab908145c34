"""What services are told: numbers by name, and that steps went back."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path

import pytest

from curation.core.errors import UserError
from training.metrics.experiment_loggers import ExperimentLoggers, numbers

TRAIN = {
    "kind": "train",
    "step": 3,
    "loss": 2.5,
    "lr": 1e-3,
    "grad_norm": None,
    "domains": {"web": 2.0, "code": None},
}
SCORES = {"kind": "validation", "step": 3, "loss": 2.0, "domains": {"web": {"loss": 2.0, "bits_per_byte": None}}}


def test_numbers() -> None:
    found = {"train/loss": 2.5, "train/perplexity": math.exp(2.5), "train/lr": 1e-3}
    assert dict(numbers(TRAIN)) == {**found, "train/web/loss": 2.0, "train/web/perplexity": math.exp(2.0)}
    more = {"bits_per_byte": {"web": 0.8}, "domain_tokens": {"web": 64}, "update_ratio": 1e-3}
    assert {k: v for k, v in dict(numbers({**TRAIN, **more})).items() if k not in dict(numbers(TRAIN))} == {
        "train/update_ratio": 1e-3, "train/web/bits_per_byte": 0.8, "train/web/tokens": 64.0,
    }  # fmt: skip
    found = {"validation/loss": 2.0, "validation/perplexity": math.exp(2.0), "validation/web/loss": 2.0}
    assert dict(numbers(SCORES)) == found
    assert dict(numbers({**TRAIN, "loss": 1e9}))["train/perplexity"] == math.exp(700)
    event = {"kind": "event", "event": "skip", "step": 1, "loss": float("nan")}
    assert dict(numbers(event)) == {"event/skip": 1.0}


def test_tensorboard_forgets_what_was_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.summary.writer import event_file_writer

    # Files are read in the order of their names: the second, then a counter, of which 10 comes before 9
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    seen: list[dict] = []
    with ExperimentLoggers(tmp_path, then=seen.append) as logs:
        for i in (1, 2, 3, 4, 2, 3):  # back to 2
            logs({**TRAIN, "step": i, "loss": float(i + 10 * (len(seen) > 3))})
    with ExperimentLoggers(tmp_path) as logs:  # a new process goes on at 3
        logs({**TRAIN, "step": 3, "loss": 33.0})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True)
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1.0), (2, 12.0), (3, 33.0)]
    assert len(seen) == 6


def test_services_by_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, object]] = []
    run = types.SimpleNamespace(
        define_metric=lambda name, step_metric: told.append((name, step_metric)),
        log=lambda n: told.append((json.dumps(n), n["step"])),
        finish=lambda: told.append(("end", 0)),
    )
    monkeypatch.setitem(
        sys.modules, "wandb", types.SimpleNamespace(init=lambda **k: told.append((k["resume"], 0)) or run)
    )
    with ExperimentLoggers(tmp_path, ["wandb"]) as logs:
        logs(TRAIN)
        logs({**TRAIN, "step": 2})  # back
    assert [t[1] for t in told] == [0, "step", 3, 2, 0] and told[0][0] == "allow" and told[1][0] == "*"
    assert '"train/loss": 2.5' in told[2][0]
    run.log = lambda *_, **__: 1 / 0
    with ExperimentLoggers(tmp_path, ["wandb"]) as logs, pytest.warns(UserWarning, match="continues without it"):
        logs(TRAIN)
        logs(TRAIN)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match=r'mlflow is not installed\n  install with: pip install "gristmill\[logs\]"'):
        ExperimentLoggers(tmp_path, ["mlflow"])
    with pytest.raises(UserError, match="unknown service 'neptune'"):
        ExperimentLoggers(tmp_path, ["neptune"])
