"""A disk that fills up while a checkpoint is written: the error says so, what was saved is whole, the run resumes."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.checkpoint import save_load
from training.checkpoint.disk_space import is_disk_full
from training.config import parse
from training.train import train

CONFIG = """
steps: 6
model: {preset: toy}
data: {seq_len: 64}
batch: {global_size: 4}
evaluate: {every: 6, sequences: 2}
checkpoint: {every: 2, keep: 9}
schedule: {kind: constant, warmup_steps: 1}
precision: fp32
threads: 1
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB: two checkpoints of a toy model fit."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_is_said_in_words(corpus: Path, disk: Path, background: bool) -> None:
    run = disk / "run"
    settings = parse(CONFIG, "test.yaml", {"checkpoint.background": background})
    with pytest.raises(save_load.CheckpointError, match=r"no space is left on the disk \([\d.]+ MB free\); .*\n  free"):
        train(settings, str(corpus), str(run))
    found = save_load.newest(run / "checkpoints")
    assert found is not None and not found.notes
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    result = train(settings, str(corpus), str(run))
    assert result.resumed_from == found.state["step"] and result.steps == 6


def test_other_errors_are_not_a_full_disk() -> None:
    assert is_disk_full(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    try:
        raise ValueError("later") from OSError(errno.EDQUOT, "quota")
    except ValueError as error:
        assert is_disk_full(error)
    assert not is_disk_full(OSError(errno.EACCES, "denied"))
    assert not is_disk_full(RuntimeError("PytorchStreamReader failed reading zip archive"))
