"""The examples of training.dataset in other training loops run, learn, and go on where they stopped."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import training
from tests.conftest import HANG

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def example(name: str, *needs: str) -> Any:
    for package in needs:
        pytest.importorskip(package)
    return importlib.import_module(name)


def test_a_loop_in_the_manner_of_nanogpt(corpus: Path) -> None:
    losses = example("nanogpt_loop").main(str(corpus))
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.3


def test_torchtitan(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("torchtitan_dataloader").main(str(corpus))
    assert "three ranks resume where one stopped" in capsys.readouterr().out


def test_torchdata_saves_and_loads_it(corpus: Path) -> None:
    """torchdata's StatefulDataLoader around the loader, without workers and with two."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def wrapped(workers: int) -> Any:
        inner = training.dataset(str(corpus), seq_len=64, global_batch=8, steps=9, accumulation=2)
        return stateful(inner, batch_size=None, num_workers=workers)

    expected = [b.tokens for b in training.dataset(str(corpus), seq_len=64, global_batch=8, steps=9, accumulation=2)]
    for workers in (0, 2):
        loader = wrapped(workers)
        iterator = iter(loader)
        read = [next(iterator).tokens for _ in range(7)]
        again = wrapped(workers)
        again.load_state_dict(loader.state_dict())
        read += [b.tokens for b in again]
        assert len(read) == 18 and all(map(torch.equal, read, expected))


@pytest.mark.slow
def test_ddp_on_two_ranks_is_one_process(corpus: Path) -> None:
    printed = []
    for ranks in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", ranks,
             str(EXAMPLES / "ddp.py"), str(corpus)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{EXAMPLES.parent}:{EXAMPLES}"},
            capture_output=True, text=True, timeout=HANG,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr[-3000:]
        printed.append([float(word) for word in ran.stdout.split() if word[0].isdigit()])
    assert printed[0] == pytest.approx(printed[1], abs=2e-4) and printed[0][1] < printed[0][0] - 0.3


@pytest.mark.slow
def test_the_hugging_face_trainer(corpus: Path, tmp_path: Path) -> None:
    module = example("hf_trainer", "transformers", "accelerate")
    whole = module.main(str(corpus), str(tmp_path / "whole"))
    module.main(str(corpus), str(tmp_path / "parts"), steps=2)
    parts = module.main(str(corpus), str(tmp_path / "parts"), resume=True)
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (whole, parts)]
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_lightning(corpus: Path, tmp_path: Path) -> None:
    module = example("lightning_trainer", "lightning.pytorch")
    whole = module.main(str(corpus), str(tmp_path))
    module.main(str(corpus), str(tmp_path), steps=2)
    rest = module.main(str(corpus), str(tmp_path), resume=str(tmp_path / "last.ckpt"))
    assert whole.read == [0, 1, 2, 3] and rest.read == [2, 3]
    assert rest.losses == pytest.approx(whole.losses[2:], rel=1e-4)
