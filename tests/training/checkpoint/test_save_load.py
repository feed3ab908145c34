"""Checkpoints: a crash at any write, flush or rename and any flipped byte leave a run that loads."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from training.checkpoint import save_load
from training.checkpoint.save_load import CheckpointError, CheckpointSaver, Retention, newest, restore, verify
from training.config import OptimizerConfig, parse
from training.model.transformer import Model, ModelConfig
from training.optim.optimizers import Optimizers, build_optimizers
from training.train import train


def made(seed: int) -> tuple[nn.Module, Optimizers]:
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizers = build_optimizers(model, OptimizerConfig())
    model(torch.randn(4, 3)).sum().backward()
    optimizers.step()
    return model, optimizers


def put(folder: Path, step: int, *, keep: int = 3, **options: Any) -> None:
    with CheckpointSaver(folder, **options) as saver:
        saver.save(step, *made(step), {"step": step}, Retention(keep))


def assert_holds(path: Path, step: int) -> None:
    expected, theirs = made(step)
    model, optimizers = made(0)
    restore(path, model, optimizers)
    wanted, found = save_load.tensors(expected, theirs), save_load.tensors(model, optimizers)
    for name, tensor in wanted["model"].items():
        assert torch.equal(tensor, found["model"][name])
        for key, moment in wanted["optimizer"][name].items():
            assert torch.equal(moment, found["optimizer"][name][key])


@pytest.mark.parametrize("background", [True, False])
def test_round_trip_and_what_stays(tmp_path: Path, background: bool) -> None:
    assert newest(tmp_path / "absent") is None
    for step in (5, 10, 100_000_000, 20):
        put(tmp_path, step, background=background)
    assert [p.name for p in save_load.checkpoints(tmp_path)] == ["00000010", "00000020", "100000000"]
    found = newest(tmp_path)
    assert found is not None and found.state == {"step": 100_000_000} and not found.notes
    assert_holds(found.path, 100_000_000)
    fresh = nn.Linear(3, 2)
    restore(found.path, fresh, None)
    assert torch.equal(fresh.weight, made(100_000_000)[0].weight)


def test_the_good_one_and_its_successor_stay() -> None:
    all_of_them = [0, 50, 100, 150, 200, 250, 300]
    assert Retention(2).select(all_of_them) == {250, 300}
    assert Retention(1, every=100).select(all_of_them) == {0, 100, 200, 300}
    assert Retention(1, good=100).select(all_of_them) == {100, 150, 300}
    assert Retention(1, good=120).select(all_of_them) == {100, 150, 300}, "120 was damaged: what is left before it"
    assert Retention(1, good=300).select(all_of_them) == {300}


def test_training_goes_on_while_it_is_written(tmp_path: Path) -> None:
    """What is written is what the tensors were when `save` was called."""
    model, optimizers = made(7)
    with CheckpointSaver(tmp_path) as saver:
        saver.save(7, model, optimizers, {"step": 7}, Retention(2))
        with torch.no_grad():
            for p in model.parameters():
                p.fill_(9.0)
                for moment in optimizers.state_tensors(p).values():
                    moment.fill_(9.0)
    assert_holds(tmp_path / "00000007", 7)


def test_what_goes_wrong_in_the_background_is_said(tmp_path: Path) -> None:
    def full(name: str) -> None:
        if name == "rename":
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        put(tmp_path, 1, failpoint=full)
    assert not save_load.checkpoints(tmp_path)


class Crash(BaseException):
    pass


def dies_at(boundary: int) -> Callable[[str], None]:
    """A fail-point that raises at the n-th boundary it is called for."""
    left = iter(range(boundary + 1))

    def crash(_: str) -> None:
        if next(left) == boundary:
            raise Crash

    return crash


def assert_loads_one_of(folder: Path, expected: int, name: str) -> None:
    found = newest(folder)
    assert found is not None and not found.notes, name
    assert found.state == {"step": expected}, name
    assert_holds(found.path, expected)
    put(folder, 2, keep=1)
    assert [p.name for p in folder.iterdir()] == ["00000002"], "nothing half written stays behind"


def test_a_crash_at_every_boundary(tmp_path: Path) -> None:
    seen: list[str] = []
    put(tmp_path / "count", 1, keep=1)
    put(tmp_path / "count", 2, keep=1, failpoint=seen.append)
    assert seen == [
        "write tensors", "fsync rank-00000.safetensors", "write state.json", "fsync state.json", "write manifest.json",
        "fsync manifest.json", "fsync tensors.json", "fsync 00000002.tmp", "rename", "fsync folder", "remove 00000001",
    ]  # fmt: skip
    for at, name in enumerate(seen):
        folder = tmp_path / str(at)
        put(folder, 1, keep=1)
        with pytest.raises(Crash):
            put(folder, 2, keep=1, failpoint=dies_at(at))
        assert_loads_one_of(folder, 2 if at > seen.index("rename") else 1, name)


class Machine:
    """Counts the calls by which a save reaches the disk, torch's own included, and loses power at one of them.

    Power lost at a flush: of what was written since the last one half never got there, or all of it did.
    """

    def __init__(self, patch: pytest.MonkeyPatch, below: Path | None = None) -> None:
        """`below`: only calls for files in this folder count, and not TensorBoard's."""
        self.calls: list[str] = []
        self.fatal, self.torn = -1, False
        self.renamed: list[str] = []
        safe: dict[int, int] = {}  # bytes of a file, by its inode, that an earlier flush brought to the disk
        real = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}
        opened = io.open

        def call(name: str, path: str) -> None:
            if below is not None and (not path.startswith(str(below)) or "tensorboard" in path):
                return
            self.calls.append(f"{name} {os.path.basename(path)}")
            if 0 <= self.fatal < len(self.calls):  # and nothing of what other threads do after it
                if name == "fsync" and self.torn and os.path.isfile(path):
                    about = os.stat(path)
                    held = min(safe.get(about.st_ino, 0), about.st_size)
                    os.truncate(path, held + (about.st_size - held) // 2)
                raise Crash(name)

        def fsync(fd: int) -> None:
            call("fsync", os.readlink(f"/proc/self/fd/{fd}"))
            real["fsync"](fd)
            about = os.fstat(fd)
            safe[about.st_ino] = about.st_size

        def rename(source: Any, target: Any, **k: Any) -> None:
            call("rename", os.fspath(target))
            real["rename"](source, target, **k)
            self.renamed.append(os.path.basename(os.fspath(target)))

        def openw(path: Any, mode: str = "r", *a: Any, **k: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and set(mode) & set("wax+"):
                call("write", os.fspath(path))
            file = opened(path, mode, *a, **k)
            if "w" in mode:
                safe.pop(os.fstat(file.fileno()).st_ino, None)  # emptied, or the number of a file that is gone
            return file

        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "rename", rename)
        patch.setattr(os, "replace", rename)
        patch.setattr(io, "open", openw)
        patch.setattr("builtins.open", openw)


def test_power_lost_at_every_write_flush_and_rename(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        put(tmp_path / "count", 1, keep=1)
        counting = Machine(patch)
        put(tmp_path / "count", 2, keep=1)
    assert len(counting.calls) >= 12 and any("safetensors" in c for c in counting.calls), counting.calls
    assert sum(c.startswith("write") for c in counting.calls) >= 4
    for at, name in enumerate(counting.calls):
        for torn in (False, True):
            if torn and not name.startswith("fsync"):
                continue
            folder = tmp_path / f"{at}{torn}"
            put(folder, 1, keep=1)
            with pytest.MonkeyPatch.context() as patch:
                machine = Machine(patch)
                machine.fatal, machine.torn = at, torn
                with pytest.raises(BaseException):  # noqa: B017 - torch wraps what its writer threads raise
                    put(folder, 2, keep=1)
            assert_loads_one_of(folder, 2 if "00000002" in machine.renamed else 1, f"{name} torn={torn}")


def test_any_damage_is_found(tmp_path: Path) -> None:
    put(tmp_path, 1)
    put(tmp_path, 2)
    path = tmp_path / "00000002"
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for at in {0, len(good) // 3, len(good) - 1}:
            flipped = bytearray(good)
            flipped[at] ^= 4
            file.write_bytes(flipped)
            with pytest.raises(CheckpointError):
                verify(path)
        file.write_bytes(good[:-1])
        with pytest.raises(CheckpointError):
            verify(path)
        file.unlink()
        found = newest(tmp_path)
        assert found is not None and found.path.name == "00000001" and "00000002" in found.notes[0]
        file.write_bytes(good)
    verify(path)
    put(tmp_path, 2)
    assert_holds(path, 2)


def test_all_damaged_is_for_a_person_to_decide(tmp_path: Path) -> None:
    put(tmp_path, 1)
    (tmp_path / "00000001" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint can be read \(1 tried; .*\); remove them to start"):
        newest(tmp_path)


RUN = """
steps: 5
model: {preset: toy, num_layers: 1}
data: {seq_len: 32}
batch: {global_size: 4}
evaluate: {every: 4, sequences: 2}
checkpoint: {every: 2, keep: 1}
guard: {action: skip}
precision: fp32
threads: 1
log_every: 1
"""


@pytest.mark.parametrize(
    "every", [pytest.param(11, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.nightly)]
)
def test_power_lost_anywhere_in_a_run(corpus: Path, tmp_path: Path, every: int) -> None:
    """At every write, flush and rename of a training, its logs and its head included; the same call again ends it."""
    config = parse(RUN)
    with pytest.MonkeyPatch.context() as patch:
        counting = Machine(patch, tmp_path)
        train(config, str(corpus), str(tmp_path / "whole"))
    wanted = verify(tmp_path / "whole" / "checkpoints" / "00000005")
    log = (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert len(counting.calls) > 50 and counting.renamed.count("train.yaml") == 1
    for at, name in list(enumerate(counting.calls))[::every]:
        run = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as patch:
            machine = Machine(patch, run)
            machine.fatal, machine.torn = at, True
            with pytest.raises(BaseException):  # noqa: B017
                train(config, str(corpus), str(run))
        done = [n for n in machine.renamed if n.isdigit()]
        found = newest(run / "checkpoints")
        assert (found.path.name if found else None) == (done[-1] if done else None), name
        result = train(config, str(corpus), str(run))
        assert result.resumed_from == (int(done[-1]) if done else 0), name
        assert (run / "metrics.jsonl").read_bytes() == log, name
        assert verify(result.checkpoint) == wanted, name
        assert_same_tensors(result.checkpoint, tmp_path / "whole" / "checkpoints" / "00000005")


def assert_same_tensors(a: Path, b: Path) -> None:
    found = []
    for path in (a, b):
        model = Model(ModelConfig(**verify(path)["model_config"]))
        optimizers = build_optimizers(model, OptimizerConfig())
        restore(path, model, optimizers)
        found.append(save_load.tensors(model, optimizers))
    for name, tensor in found[0]["model"].items():
        assert torch.equal(tensor, found[1]["model"][name])
        for key, moment in found[0]["optimizer"][name].items():
            assert torch.equal(moment, found[1]["optimizer"][name][key])
