"""Several ranks on gloo: the same sequences, the same losses, and checkpoints that any number of ranks reads."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HANG

ROOT = Path(__file__).parents[3]
CONFIG = {
    "steps": 8,
    "model": {"preset": "toy"},
    "data": {"seq_len": 64, "shuffle_block": 128},
    "batch": {"global_size": 8, "micro_size": 2},
    "optimizer": {"lr": 3e-3},
    "evaluate": {"every": 4, "sequences": 4},
    "checkpoint": {"every": 4, "keep": 9},
    "precision": "fp32",
    "threads": 1,
    "log_every": 1,
    "hang_after": 60,
}

# Does one training after the other in one process group: starting Python and torch is most of a small test's time.
SCRIPT = """
import json, sys, torch
from training.config import UserError, parse
from training.train import train
torch.set_num_threads(1)
torch.distributed.init_process_group("cpu:gloo")
for job in json.loads(sys.argv[1]):
    try:
        train(parse(json.dumps(job["config"])), job["data"], job["run"])
    except UserError as error:
        print(error)
"""


def launch(ranks: int, jobs: list[dict[str, Any]], script: str = SCRIPT) -> str:
    """Runs the jobs on so many ranks, as torchrun would; what the first one printed."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, json.dumps(jobs)],
            env={**os.environ, **address, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        said = [child.communicate(timeout=HANG) for child in children]
    finally:
        for child in children:
            child.kill()
    for child, (_, errors) in zip(children, said, strict=True):
        assert child.returncode == 0, errors[-3000:]
    return said[0][0]


def job(corpus: Path, run: Path, **changes: Any) -> dict[str, Any]:
    settings = json.loads(json.dumps(CONFIG))
    for key, value in changes.items():
        place = settings
        *above, last = key.split(".")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return {"config": settings, "data": str(corpus), "run": str(run)}


def losses(run: Path) -> list[float]:
    """Training and validation losses, gradient norms and update ratios, in their order."""
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [e[k] for e in entries for k in ("loss", "grad_norm", "update_ratio") if e.get(k) is not None]


def assert_close(a: Path, b: Path) -> None:
    assert len(losses(a)) == len(losses(b)) >= 10
    assert losses(a) == pytest.approx(losses(b), rel=1e-5)


def test_two_ranks_are_one(corpus: Path, tmp_path: Path) -> None:
    """AdamW and Muon, tied and not; and going on with one rank where two stopped, and the other way round."""
    kinds = {"adamw": {}, "muon": {"optimizer.kind": "muon", "model.tie_embeddings": False}}
    short = {"steps": 4, "schedule.kind": "constant", "schedule.warmup_steps": 2}
    long = {**short, "steps": 8}
    for ranks in (1, 2):
        launch(ranks, [job(corpus, tmp_path / f"{k}{ranks}", **c, **long) for k, c in kinds.items()]
               + [job(corpus, tmp_path / f"from{ranks}", **short)])  # fmt: skip
    for ranks in (1, 2):
        launch(3 - ranks, [job(corpus, tmp_path / f"from{ranks}", **long)])
    for kind in kinds:
        assert_close(tmp_path / f"{kind}1", tmp_path / f"{kind}2")
    for ranks in (1, 2):
        assert_close(tmp_path / "adamw1", tmp_path / f"from{ranks}")
        files = sorted(p.name for p in (tmp_path / f"adamw{ranks}" / "checkpoints" / "00000008").glob("*.safetensors"))
        assert files == [f"rank-{rank:05d}.safetensors" for rank in range(ranks)]


@pytest.mark.slow
def test_a_hundred_steps_over_one_two_and_four_ranks(corpus: Path, tmp_path: Path) -> None:
    """The promise of the design: losses within 1e-5 over 100 steps in fp32, whoever goes on for whom."""
    base = {"schedule.kind": "constant", "schedule.warmup_steps": 4, "checkpoint.every": 20, "evaluate.every": 50}
    launch(1, [job(corpus, tmp_path / "one", **base, steps=100)])
    for end, ranks in ((30, 1), (60, 4), (100, 2)):
        launch(ranks, [job(corpus, tmp_path / "many", **base, steps=end)])
    steps = [
        {
            e["step"]: e["loss"]
            for e in map(json.loads, (tmp_path / run / "metrics.jsonl").open())
            if e["kind"] == "train"
        }
        for run in ("one", "many")
    ]
    assert list(steps[0]) == list(steps[1]) == list(range(1, 101))
    assert list(steps[0].values()) == pytest.approx(list(steps[1].values()), rel=1e-5)


def test_a_mesh_of_two_dimensions_and_tasks(corpus: Path, tmp_path: Path) -> None:
    """Two ranks, each with a whole copy (HSDP with shards of one): what is summed is the same.

    Tasks read the model layer by layer; without a validation split nothing has gathered embedding and head for them.
    """
    bare = tmp_path / "bare"
    shutil.copytree(corpus, bare)
    manifest = bare / "result" / "shards" / "manifest.json"
    manifest.write_text(
        json.dumps({**(told := json.loads(manifest.read_text())), "splits": {**told["splits"], "validation": {}}})
    )
    rows = [{"question": "import", "choices": ["os", "x y z " * n], "answer": 0} for n in range(1, 4)]
    (tmp_path / "choice.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "math.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": "#### 2"}) + "\n")
    asked = {"steps": 4, "evaluate.tasks": [str(tmp_path / f"{n}.jsonl") for n in ("choice", "math")]}
    said = launch(2, [
        job(corpus, tmp_path / "replicas", **{"parallel.dp_shard": 1}, steps=4),
        job(corpus, tmp_path / "odd2", **{"batch.global_size": 9, "batch.micro_size": 3}, steps=4),
        job(corpus, tmp_path / "few", **{"batch.global_size": 1, "batch.micro_size": 1}, steps=4),
        job(bare, tmp_path / "tasks2", **asked),
    ])  # fmt: skip
    odd = {"batch.global_size": 9, "batch.micro_size": 3, "steps": 4}  # ranks of five sequences and of four
    launch(1, [
        job(corpus, tmp_path / "one", steps=4),
        job(corpus, tmp_path / "odd1", **odd),
        job(bare, tmp_path / "tasks1", **asked),
    ])  # fmt: skip
    assert_close(tmp_path / "one", tmp_path / "replicas")
    assert_close(tmp_path / "odd1", tmp_path / "odd2")
    assert "a global batch of 1 cannot be divided over 2 ranks" in said
    figures = [[e["tasks"] for e in map(json.loads, (tmp_path / run / "metrics.jsonl").open()) if "tasks" in e]
               for run in ("tasks1", "tasks2")]  # fmt: skip
    assert len(figures[0]) == len(figures[1]) == 2
    for a, b in zip(*figures, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
