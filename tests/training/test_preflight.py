"""Slips that nobody mentions: each one is a note before the first step, with what to do, and a plain run has none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from curation.core.errors import UserError
from training import preflight
from training.checkpoint.load_model import load_model
from training.config import TrainConfig, parse
from training.cost import device_specs
from training.train import finished_result, train

CONFIG = """
steps: 2
model: {preset: toy}
data: {seq_len: 64}
batch: {global_size: 4}
evaluate: {every: 2, sequences: 2}
checkpoint: {every: 2}
precision: fp32
device: cpu
threads: 1
"""


def config(**changes: Any) -> TrainConfig:
    return parse(CONFIG, "test.yaml", changes)


def notes_before_the_first_step(settings: TrainConfig, data: Path, run: Path) -> list[str]:
    """What a training reports before anything else, but for the remainder of the shards, which every run has."""
    said: list[dict[str, Any]] = []
    train(settings, str(data), str(run), report=said.append)
    kinds = [e["kind"] for e in said]
    notes = [e["note"] for e in said[: next(i for i, k in enumerate(kinds) if k != "note")]]
    assert kinds.count("note") == len(notes), "all of them come first"
    return [n for n in notes if "are not trained on" not in n]


SLIPS: dict[str, tuple[dict[str, Any], str]] = {
    "warm-up": ({"schedule.warmup_steps": 9}, r"schedule\.warmup_steps is 9 and the run has 2 steps: .* lower it"),
    "emulated": ({"precision": "bf16"}, r"precision: bf16 is emulated on this processor.*; set precision: fp32"),
    "change": ({"data.changes": [{"at": 5, "seq_len": 32}]}, r"data\.changes at step 5 never happens: .*remove it"),
    "unread": ({"data.weights": {"code": 1}}, r"docs: its [\d,]+ tokens are not read: .* add it to data\.weights"),
    "keep": ({"checkpoint.keep_every": 3}, r"only every 6 steps a checkpoint is kept; make it a multiple"),
    "decay": ({"schedule.decay_fraction": 0.3}, r"decay_fraction: 0\.3 has no effect: only with schedule\.kind: wsd"),
    "momentum": ({"optimizer.momentum": 0.9}, r"optimizer\.momentum: 0\.9 has no effect: only with optimizer\.kind"),
    "guard": ({"guard.action": "off", "guard.window": 64}, r"guard\.window: 64 has no effect: only with guard\.action"),
    "list": ({"guard.action": "skip", "exclude_list": "bad.jsonl"}, r"exclude_list: bad\.jsonl has no effect"),
    "limit": ({"evaluate.task_limit": 5}, r"evaluate\.task_limit: 5 has no effect: only with evaluate\.tasks"),
}  # fmt: skip


def test_each_slip_is_a_note_and_all_come_before_the_first_step(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)  # a processor without bf16, wherever this runs
    assert notes_before_the_first_step(config(), corpus, tmp_path / "plain") == []
    assert finished_result(tmp_path / "plain").notes == train(config(), str(corpus), str(tmp_path / "plain")).notes
    import re

    for name, (changes, words) in SLIPS.items():
        found = notes_before_the_first_step(config(**changes), corpus, tmp_path / name)
        assert len(found) == 1 and re.search(words, found[0]), (name, found)
    sessions = [json.loads(line) for line in (tmp_path / "warm-up" / "sessions.jsonl").read_text().splitlines()]
    assert any("schedule.warmup_steps" in note for note in sessions[0]["notes"]), "kept with the run, for Ray's workers"


def test_no_validation_set(tmp_path: Path, build: Callable[..., Any], corpus: Path) -> None:
    from curation.shards import open_shard, read_manifest

    manifest = read_manifest(str(corpus))
    entry = manifest.splits["train"]["code"][0]
    shard = open_shard(manifest.path(entry), entry=entry)
    documents = [shard.tokens[a + 1 : b] for a, b in zip(shard.offsets[:-1], shard.offsets[1:], strict=True)]
    build(tmp_path / "data", {"train/code": [documents]})
    (note,) = notes_before_the_first_step(config(), tmp_path / "data", tmp_path / "run")
    assert "no validation set" in note and "curate with validation: 0.01" in note


def test_a_disk_that_will_be_full(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.checkpoint.disk_space.free_bytes", lambda run: 1_000_000)
    (note,) = notes_before_the_first_step(config(), corpus, tmp_path / "run")
    assert "checkpoints need up to" in note and "lower checkpoint.keep" in note


def test_cores_that_torchrun_leaves_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("OMP_NUM_THREADS", "1"), ("LOCAL_WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    (note,) = preflight._device(config())
    assert note == "4 of 64 cores are used: torchrun sets OMP_NUM_THREADS=1; set threads: 16"


def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "version").touch()
    monkeypatch.setattr(preflight, "NVIDIA", tmp_path / "version")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (note,) = preflight._device(config())
    assert "finds no GPU: training runs on the CPU; install torch for CUDA" in note


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_refused_in_words(corpus: Path, trained: Path, tmp_path: Path) -> None:
    for act in (
        lambda: train(config(device="cuda"), str(corpus), str(tmp_path / "run")),
        lambda: load_model(str(trained), "cuda"),
    ):
        with pytest.raises(UserError, match=r"torch finds no CUDA device here; use cpu, or run `gristmill doctor`"):
            act()
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="device 'gpu': expected cpu or cuda"):
        load_model(str(trained), "gpu")


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "5")
    with pytest.raises(UserError, match="local rank 5 has no GPU: torch finds 4 here"):
        device_specs.check_device("cuda")
