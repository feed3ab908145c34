"""A run directory: nothing foreign in it is touched, one training works in it, and all ranks see the same one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curation.core import directory_lock
from curation.core.errors import UserError
from tests.training.distributed.test_parallel import job
from training.checkpoint import run_directory, save_load
from training.checkpoint.huggingface import export, import_hf
from training.checkpoint.run_directory import NAMES, read_data_record
from training.checkpoint.save_load import CheckpointError, CheckpointSaver, Retention
from training.config import parse
from training.model.transformer import Model, ModelConfig
from training.optim.optimizers import build_optimizers
from training.train import train

ROOT = Path(__file__).parents[3]
CONFIG = """
steps: 6
model: {preset: toy, num_layers: 1}
data: {seq_len: 64}
batch: {global_size: 4}
evaluate: {every: 6, sequences: 2}
checkpoint: {every: 3, keep: 1}
precision: fp32
threads: 1
log_every: 1
"""


def settings(**changes: Any) -> Any:
    return parse(CONFIG, "test.yaml", changes)


def fill(path: Path) -> None:
    """Somebody's file, or folder with a file."""
    if "." in path.name:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine\n")
    else:
        (path / "step_5000").mkdir(parents=True)
        (path / "step_5000" / "model.pt").write_text("mine\n")
        (path / "notes.json").write_text("mine\n")


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its content."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("name", [*NAMES, "tokenizer.json"])
def test_no_file_of_somebody_else_is_touched(corpus: Path, tmp_path: Path, name: str) -> None:
    """Under each name that a training writes over, cuts back or removes; an import writes some of them too."""
    run = tmp_path / "run"
    fill(run / name)
    before = tree(run)
    with pytest.raises(UserError, match=rf"holds {name}, and no training run wrote it.*give another directory"):
        train(settings(), str(corpus), str(run))
    assert tree(run) == before
    with pytest.raises(UserError, match=f"holds {name}, and no training run wrote it"):
        import_hf(str(tmp_path / "hf"), str(run))
    assert tree(run) == before


def test_names_that_are_not_ours_stay_in_a_run_of_ours(corpus: Path, tmp_path: Path) -> None:
    """A start that trained nothing is begun anew, and a run removes old checkpoints: both by name."""
    run = tmp_path / "run"

    def stop(entry: dict[str, Any]) -> None:
        if entry["kind"] == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings(), str(corpus), str(run), report=stop)
    foreign = ["step_5000", "00000000.bak", "keep.old", "best.tmp"]
    for name in foreign:
        fill(run / "checkpoints" / name / "weights.pt")
    fill(run / "incidents" / "summary.json")
    fill(run / "incidents" / "0001.json")
    (run / "checkpoints" / "00000003.tmp").mkdir()
    before = tree(run)
    result = train(settings(**{"optimizer.lr": 1e-4}), str(corpus), str(run))
    assert result.resumed_from == 0
    after = tree(run)
    kept = [p for p in before if p.split("/")[1:2] in [[name] for name in foreign]] + ["incidents/summary.json"]
    assert len(kept) == 5 and all(after[p] == before[p] for p in kept)
    assert "incidents/0001.json" not in after, "written by a start that came to nothing"
    assert [p.name for p in save_load.checkpoints(run / "checkpoints")] == ["00000000", "00000003", "00000006"]
    assert not (run / "checkpoints" / "00000003.tmp").exists()


def test_a_checkpoint_moved_to_another_disk(tmp_path: Path) -> None:
    """The link is in the run, what it points to is not."""
    elsewhere = tmp_path / "big"
    fill(elsewhere / "00000001")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "00000001").symlink_to(elsewhere / "00000001")
    before = tree(elsewhere)
    save_load.remove(tmp_path / "checkpoints" / "00000001")
    assert not list((tmp_path / "checkpoints").iterdir()) and tree(elsewhere) == before


def test_an_imported_model_is_not_trained_over(corpus: Path, trained: Path, tmp_path: Path) -> None:
    hf = export(str(trained), str(tmp_path / "hf"))
    import_hf(str(hf), str(tmp_path / "base"))
    before = tree(tmp_path / "base")
    with pytest.raises(UserError, match=rf"holds an imported model.*--init-from {tmp_path}/base"):
        train(settings(**{"model.num_layers": 2}), str(corpus), str(tmp_path / "base"))
    assert {k: v for k, v in tree(tmp_path / "base").items() if k != ".lock"} == before


def test_a_run_that_is_given_an_import_or_a_folder_taken_for_an_export(trained: Path, tmp_path: Path) -> None:
    """What lies beside the output under the name of a temporary is somebody's as well."""
    fill(tmp_path / "hf.tmp" / "weights.pt")
    before = tree(tmp_path / "hf.tmp")
    hf = export(str(trained), str(tmp_path / "hf"))
    assert tree(tmp_path / "hf.tmp") == before and sorted(p.name for p in tmp_path.iterdir()) == ["hf", "hf.tmp"]
    before = tree(trained)
    with pytest.raises(UserError, match="or is a training run"):
        import_hf(str(hf), str(trained))
    assert tree(trained) == before


def test_a_start_without_a_step_goes_on_from_its_first_checkpoint(corpus: Path, tmp_path: Path) -> None:
    """The same command again; its log comes out equal."""
    train(settings(), str(corpus), str(tmp_path / "whole"))

    def stop(entry: dict[str, Any]) -> None:
        if entry["kind"] == "train" and entry["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings(), str(corpus), str(tmp_path / "run"), report=stop)
    first = (tmp_path / "run" / "checkpoints" / "00000000").stat().st_ino
    result = train(settings(), str(corpus), str(tmp_path / "run"))
    assert any("resuming from checkpoint" in n and "(step 0)" in n for n in result.notes)
    assert (tmp_path / "run" / "checkpoints" / "00000000").stat().st_ino == first
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


HOLDER = """
import sys
from training.config import parse
from training.train import train
def report(entry):
    if entry["kind"] == "train" and entry["step"] == 2:
        print("started", flush=True)
        sys.stdin.read()
train(parse(sys.argv[1]), sys.argv[2], sys.argv[3], report=report)
"""


def test_two_trainings_in_one_directory(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused, names the first and changes nothing; once the first is killed, it goes on from there."""
    run = tmp_path / "run"
    command = [sys.executable, "-W", "ignore", "-c", HOLDER, CONFIG, str(corpus), str(run)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert child.stdout is not None and child.stdout.readline() == "started\n"
        before = tree(run)
        monkeypatch.setattr(run_directory, "ENDING", 0.0)
        with pytest.raises(UserError, match=rf"another training is at work in .*process {child.pid}.*--run"):
            train(settings(**{"optimizer.lr": 1e-4}), str(corpus), str(run))
        assert tree(run) == before
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    monkeypatch.setattr(run_directory, "ENDING", 60.0)
    assert train(settings(), str(corpus), str(run)).steps == 6


def test_no_checkpoint_gets_its_name_once_the_directory_is_another_ones(corpus: Path, tmp_path: Path) -> None:
    """As when a node was cut off for so long that the run was started elsewhere."""

    def taken(entry: dict[str, Any]) -> None:
        if entry["kind"] == "train" and entry["step"] == 2:
            (tmp_path / ".lock").write_text("mill-7, process 4711\nanother boot\nanother token\n")

    with pytest.raises(UserError, match=r"another training is at work in .*mill-7, process 4711"):
        train(settings(**{"checkpoint.background": False}), str(corpus), str(tmp_path), report=taken)
    assert [p.name for p in save_load.checkpoints(tmp_path / "checkpoints")] == ["00000000"]


# Each rank has a folder of its own under the same relative name, as two nodes that do not share a disk
UNSHARED = """
import json, os, sys, torch
from training.checkpoint import run_directory
from training.config import UserError, parse
from training.train import train
run_directory.VISIBLE = 0.5
os.makedirs(f"node{os.environ['RANK']}")
os.chdir(f"node{os.environ['RANK']}")
torch.set_num_threads(1)
job = json.loads(sys.argv[1])
try:
    train(parse(json.dumps(job["config"])), job["data"], "run")
except UserError as error:
    print(error)
"""


def test_nodes_that_do_not_share_the_directory(corpus: Path, tmp_path: Path) -> None:
    """Said before the first step, on every rank, with their names."""
    asked = json.dumps(job(corpus, tmp_path / "run"))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", UNSHARED, asked],
            env={**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": "0", "OMP_NUM_THREADS": "1"},
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [child.communicate(timeout=240) for child in children]
    for out, errors in said:
        assert "is not the same directory on all nodes: rank 0 on" in out and "rank 1 on" in out, errors[-2000:]
        assert "on a file system that all nodes share" in out
    assert not list(tmp_path.glob("node*/run/metrics.jsonl")) and not list(tmp_path.glob("node*/run/checkpoints/*"))


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_file_that_another_rank_wrote_elsewhere(tmp_path: Path, damage: str) -> None:
    """All files are looked at before the checkpoint gets its name."""
    model = Model(ModelConfig(64, 1, 16, 2, 2, 32, True))
    model.init_weights(1)
    optimizers = build_optimizers(model, settings().optimizer)
    CheckpointSaver(tmp_path, background=False).save(1, model, optimizers, {"step": 1}, Retention(3))

    def lose(boundary: str) -> None:
        if boundary == "write state.json":  # every rank has sent its checksums by then
            (file,) = (tmp_path / "00000002.tmp").glob("rank-00000.safetensors")
            file.unlink() if damage == "missing" else os.truncate(file, 100)

    saver = CheckpointSaver(tmp_path, background=False, failpoint=lose)
    with pytest.raises(CheckpointError, match=r"rank-00000.* was written with [\d,]+ bytes and .*that all nodes share"):
        saver.save(2, model, optimizers, {"step": 2}, Retention(3))
    found = save_load.newest(tmp_path)
    assert found is not None and found.path.name == "00000001" and not found.notes


@pytest.mark.parametrize(("world", "refused"), [(None, True), ("1", False)])
def test_tasks_of_slurm_that_do_not_know_of_each_other(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: str | None, refused: bool
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    if refused:
        with pytest.raises(UserError, match=r"Slurm runs 2 tasks here.*each would be a training of its own.*torchrun"):
            train(settings(), str(corpus), str(tmp_path / "run"))
        assert not (tmp_path / "run").exists()
    else:
        assert train(settings(), str(corpus), str(tmp_path / "run")).steps == 6


def test_the_record_names_the_shards(corpus: Path, tmp_path: Path) -> None:
    assert read_data_record(tmp_path) is None
    train(settings(steps=1), str(corpus), str(tmp_path / "run"))
    record = read_data_record(tmp_path / "run")
    assert record is not None and record["root"].startswith(str(corpus)) and "parent" not in record
    (tmp_path / "run" / "data.json").write_text('{"data": [1, 2]}')
    assert read_data_record(tmp_path / "run") is None, "a data.json of somebody else"


def test_the_lock_is_let_go_of(corpus: Path, tmp_path: Path) -> None:
    train(settings(steps=1), str(corpus), str(tmp_path))
    assert (tmp_path / directory_lock.FILE).exists() and directory_lock.read_token(tmp_path) is None
