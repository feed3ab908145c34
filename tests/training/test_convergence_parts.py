"""Options that reach far, each through `train` from end to end: tasks, recomputing, compiling, what is logged."""

from __future__ import annotations

import json
import math
import shutil
import time
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing import event_accumulator

from curation.core.errors import UserError
from curation.shards import read_manifest
from training.checkpoint.load_model import load_model
from training.config import TrainConfig, parse
from training.evaluation import validation_loss
from training.evaluation.task_files import read_task
from training.evaluation.tasks import evaluate_task
from training.model.transformer import Model
from training.train import train

CONFIG = """
steps: 12
model: {preset: toy}
data: {seq_len: 64, shuffle_block: 128}
batch: {global_size: 8, micro_size: 4}
optimizer: {lr: 3e-3}
evaluate: {every: 6, sequences: 6}
checkpoint: {every: 6}
precision: fp32
threads: 1
log_every: 3
"""


def config(**changes: Any) -> TrainConfig:
    return parse(CONFIG, "test.yaml", changes)


def entries(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "plain"
    train(config(), str(corpus), str(run))
    return run


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tasks")
    arc = [
        {"question": f"import {n}", "choices": {"text": ["os", "x y z " * 5], "label": ["A", "B"]}, "answerKey": "A"}
        for n in ("a", "b", "c")
    ]
    gsm = [{"question": "1 + 1?", "answer": "#### 2"}, {"question": "2 + " * 90, "answer": "#### 3"}]
    for name, rows in (("arc", arc), ("gsm", gsm)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return [str(folder / "arc.jsonl"), str(folder / "gsm.jsonl")]


NAMES = {"arc.accuracy", "arc.accuracy_norm", "arc.bits_per_byte", "gsm.exact_match"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tasks_in_the_loop(corpus: Path, plain: Path, tasks: list[str], tmp_path: Path, precision: str) -> None:
    """They are scored with every evaluation and change nothing else."""
    train(config(precision=precision, **{"evaluate.tasks": tasks}), str(corpus), str(tmp_path / "run"))
    scored = [e for e in entries(tmp_path / "run") if e["kind"] == "validation"]
    assert [e["step"] for e in scored] == [0, 6, 12]
    assert all(set(e["tasks"]) == NAMES for e in scored)
    after = load_model(str(tmp_path / "run"))
    found = {
        f"{r.task}.{k}": v for r in (evaluate_task(after, read_task(t)) for t in tasks) for k, v in r.figures.items()
    }
    assert scored[-1]["tasks"] == pytest.approx(found, rel=1e-6 if precision == "fp32" else 0.05)
    if precision == "fp32":
        without = [{k: v for k, v in e.items() if k != "tasks"} for e in entries(tmp_path / "run")]
        assert without == entries(plain)


def test_recomputing_gives_the_same_bits(corpus: Path, plain: Path, tmp_path: Path) -> None:
    train(config(activation_checkpointing="full"), str(corpus), str(tmp_path / "run"))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (plain / "metrics.jsonl").read_bytes()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """Blocks compiled to graphs that are run as they are: all of torch.compile but the machine code."""
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    real = Model.compile_blocks
    monkeypatch.setattr(Model, "compile_blocks", lambda self: real(self, backend=keep))
    return graphs


CHANGES = [{"at": 3, "seq_len": 128, "global_size": 6}, {"at": 6, "seq_len": 32}, {"at": 9, "global_size": 12}]


def test_compiled(
    corpus: Path, plain: Path, tasks: list[str], tmp_path: Path, traced: list[torch.fx.GraphModule]
) -> None:
    """A graph break and a shape too many are errors of torch's: there are none, with tasks and a rollback either."""
    train(config(compile=True, **{"evaluate.tasks": tasks}), str(corpus), str(tmp_path / "run"))
    ours, theirs = ([e["loss"] for e in entries(r) if "loss" in e] for r in (tmp_path / "run", plain))
    assert ours == pytest.approx(theirs, rel=1e-6) and len(traced) == 1  # whatever documents are in the sequences
    train(
        config(compile=True, activation_checkpointing="full", **{"data.changes": CHANGES}),
        str(corpus),
        str(tmp_path / "changes"),
    )
    assert len(traced) <= 6, "lengths and batches share a graph"
    wild = config(compile=True, **{"optimizer.lr": 1e30, "schedule.kind": "constant"})
    with pytest.raises(UserError, match="the second spike"):  # documents of any length were scored by themselves
        train(wild, str(corpus), str(tmp_path / "wild"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_to_machine_code(corpus: Path, plain: Path, tmp_path: Path) -> None:
    train(config(compile=True), str(corpus), str(tmp_path / "run"))
    ours, theirs = ([e["loss"] for e in entries(r) if "loss" in e] for r in (tmp_path / "run", plain))
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_a_longer_context_is_what_the_model_has(corpus: Path, tmp_path: Path) -> None:
    """Generation, tasks and export use the longest sequence length so far, not one of a later stage."""
    for end, length in ((3, 64), (4, 128), (8, 128)):
        train(config(steps=end, **{"data.changes": CHANGES, "schedule.kind": "constant", "schedule.warmup_steps": 2}),
              str(corpus), str(tmp_path / "run"))  # fmt: skip
        assert load_model(str(tmp_path / "run")).max_seq_len == length


def test_a_long_evaluation_is_no_hang(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: list[str]
) -> None:
    """It may take many times `hang_after`. By a clock of our own, so that a busy machine does not matter."""
    ended: list[int] = []
    clock = [0.0]
    monkeypatch.setattr("training.distributed.watchdog.time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("training.distributed.watchdog.os._exit", ended.append)
    real = validation_loss.collate

    def slow(*a: Any) -> Any:
        clock[0] += 0.08
        time.sleep(0.06)  # longer than the watch's look, every quarter of `hang_after`
        return real(*a)

    monkeypatch.setattr(validation_loss, "collate", slow)
    settings = {"hang_after": 0.1, "steps": 1, "evaluate.sequences": 12}
    train(config(**settings, **{"evaluate.tasks": tasks}), str(corpus), str(tmp_path / "run"))
    assert clock[0] > 0.8 and not ended

    def stuck(*a: Any) -> Any:
        clock[0] += 0.2
        while not ended:
            time.sleep(0.01)
        return real(*a)

    monkeypatch.setattr(validation_loss, "collate", stuck)
    train(config(**settings), str(corpus), str(tmp_path / "stuck"))
    assert set(ended) == {75}


def test_what_is_logged(corpus: Path, plain: Path) -> None:
    """Live figures beside the clock and not among the metrics; TensorBoard has both."""
    speed = entries(plain, "speed.jsonl")
    assert [e["step"] for e in speed] == list(range(1, 13))
    for e in speed:
        assert e.keys() == {"step", "seconds", "tokens_per_s", "memory"}, "a CPU has no data sheet, so no MFU"
        assert e["seconds"] > 0 and e["tokens_per_s"] > 0
    steps = [e for e in entries(plain) if e["kind"] == "train"]
    assert [e["step"] for e in steps if "update_ratio" in e] == [3, 6, 9, 12], "every `log_every`"
    assert not any({"mfu", "seconds", "memory"} & e.keys() for e in steps)
    for e in steps:
        assert sum(e["domain_tokens"].values()) == e["tokens"] == 512 * e["step"]
    manifest = read_manifest(str(corpus))
    for domain, shards in manifest.splits["train"].items():
        nats = steps[-1]["domains"][domain]
        bits = nats / math.log(2) * shards.tokens / shards.text_bytes
        assert steps[-1]["bits_per_byte"][domain] == pytest.approx(bits)
    told = event_accumulator.EventAccumulator(str(plain / "tensorboard"))
    told.Reload()
    names = set(told.Tags()["scalars"])
    assert {
        "train/loss", "train/perplexity", "train/code/loss", "train/code/perplexity", "train/code/bits_per_byte",
        "train/code/tokens", "train/update_ratio", "train/grad_norm", "train/lr", "speed/mfu", "speed/memory",
        "validation/perplexity", "validation/code/bits_per_byte",
    } <= names  # fmt: skip
