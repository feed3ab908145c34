"""What services are told: numbers by name, and that steps went back."""

from __future__ import annotations

import functools
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


class Service(types.ModuleType):
    """A client that stands in for wandb and mlflow, which need an account or a server; it fails where it is told to."""

    def __init__(self, failing: str = "", error: BaseException | None = None) -> None:
        super().__init__("service")
        self.failing, self.error = failing, error or RuntimeError("not logged in")
        self.ids: list[str | None] = []
        self.info = types.SimpleNamespace(run_id="made-by-mlflow")
        for name in ("define_metric", "log", "finish", "log_metrics", "log_dict", "end_run"):
            setattr(self, name, functools.partial(self.act, name))

    def act(self, name: str, *_: object, **__: object) -> None:
        if name == self.failing:
            raise self.error

    def init(self, id: str, **_: object) -> Service:
        self.act("init")
        self.ids.append(id)
        return self

    def start_run(self, run_id: str | None, **_: object) -> Service:
        self.act("start_run")
        self.ids.append(run_id)
        return self


@pytest.mark.parametrize("error", [RuntimeError("not logged in"), ValueError("invalid id `a:b#c`"), SystemExit(1)])
def test_whatever_a_service_raises_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    calls = {"wandb": ("init", "define_metric", "log", "finish"),
             "mlflow": ("start_run", "log_dict", "log_metrics", "end_run")}  # fmt: skip
    for name, failing in ((n, c) for n, all_calls in calls.items() for c in all_calls):
        monkeypatch.setitem(sys.modules, name, Service(failing, error))
        said: list[dict] = []
        with ExperimentLoggers(tmp_path / failing, [name], said.append) as logs:
            logs(TRAIN)
            logs(TRAIN)
        notes = [e["note"] for e in said if e["kind"] == "note"]
        assert len(notes) == 1 and "training continues without it" in notes[0] and str(error) in notes[0], (
            failing,
            notes,
        )
        assert [e["kind"] for e in said if e["kind"] != "note"] == ["train", "train"]


def test_two_runs_of_one_name_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders are those of two people; a colon or a hash in a name is no part of an id."""
    client = Service()
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, client)
    runs = [tmp_path / who / "web" / "train" / "small:#1" for who in ("ada", "bob", "ada")]
    for run in runs:
        with ExperimentLoggers(run, ["wandb"], settings={}):
            pass
    first, second, again = client.ids
    assert first == again != second and str(first).isalnum() and (runs[0] / "wandb.id").read_text() == first
    client.ids.clear()
    for run in (runs[0], runs[0]):
        with ExperimentLoggers(run, ["mlflow"], settings={}):
            pass
    assert client.ids == [None, "made-by-mlflow"]
