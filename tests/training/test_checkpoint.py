"""Checkpoints: a crash at any boundary and any flipped byte leave a run that loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from training import checkpoint
from training.checkpoint import CheckpointError, newest, restore, save, verify


def made(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def put(folder: Path, iteration: int, **options: object) -> None:
    save(folder, iteration, *made(iteration), {"iteration": iteration}, **{"keep": 3, **options})


def assert_holds(path: Path, iteration: int) -> None:
    expected, theirs = made(iteration)
    model, optimizer = made(0)
    restore(path, model, optimizer)
    wanted, found = checkpoint.tensors(expected, theirs), checkpoint.tensors(model, optimizer)
    for name, tensor in wanted["model"].items():
        assert torch.equal(tensor, found["model"][name])
        for key, moment in wanted["optimizer"][name].items():
            assert torch.equal(moment, found["optimizer"][name][key])


def test_round_trip_and_retention(tmp_path: Path) -> None:
    assert newest(tmp_path / "absent") is None
    for iteration in (5, 10, 100_000_000, 20):
        put(tmp_path, iteration)
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == ["00000010", "00000020", "100000000"]
    found = newest(tmp_path)
    assert found is not None and found.state == {"iteration": 100_000_000} and not found.notes
    assert_holds(found.path, 100_000_000)
    fresh = nn.Linear(3, 2)
    restore(found.path, fresh, None)
    assert torch.equal(fresh.weight, made(100_000_000)[0].weight)


class Crash(BaseException):
    pass


def dies_at(boundary: int) -> Callable[[str], None]:
    """A fail-point that raises at the n-th boundary it is called for."""
    left = iter(range(boundary + 1))

    def crash(_: str) -> None:
        if next(left) == boundary:
            raise Crash

    return crash


def test_a_crash_at_every_boundary(tmp_path: Path) -> None:
    seen: list[str] = []
    put(tmp_path / "count", 1, keep=1)
    put(tmp_path / "count", 2, keep=1, failpoint=seen.append)
    assert len(seen) >= 10 and len(set(seen)) == len(seen)
    for at, name in enumerate(seen):
        folder = tmp_path / str(at)
        put(folder, 1, keep=1)
        with pytest.raises(Crash):
            put(folder, 2, keep=1, failpoint=dies_at(at))
        found = newest(folder)
        expected = 2 if seen.index("remove old") <= at else 1
        assert found is not None and not found.notes, name
        assert found.state == {"iteration": expected}, name
        assert_holds(found.path, expected)
        put(folder, 2, keep=1)
        assert [p.name for p in folder.iterdir()] == ["00000002"], "nothing half written stays behind"


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
    with pytest.raises(CheckpointError, match=r"no checkpoint is undamaged \(1 tried\); remove them to start"):
        newest(tmp_path)
