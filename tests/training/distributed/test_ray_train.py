"""Ray Train: a group that loses a worker goes on by itself and ends where an undisturbed one ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from curation.core.errors import UserError
from tests.ray_cluster import start_cluster
from training.checkpoint import save_load
from training.config import parse
from training.distributed.ray_train import train_on_ray
from training.model.transformer import Model, ModelConfig

CONFIG = {
    "steps": 24,
    "model": {"preset": "toy"},
    "data": {"seq_len": 64, "shuffle_block": 128},
    "batch": {"global_size": 8, "micro_size": 2},
    "optimizer": {"lr": 3e-3},
    "evaluate": {"every": 12, "sequences": 4},
    "checkpoint": {"every": 4},
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "log_every": 1,
    "hang_after": 120,
}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU for workers each; the first has one more for Ray's controller."""
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    import ray

    node = {"num_cpus": 1, "object_store_memory": 10**8}
    made, (second,) = start_cluster(node, node, connect=True)
    yield made, second
    ray.shutdown()
    made.shutdown()


def entries(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def when(run: Path, step: int, act: Any) -> threading.Thread:
    """Acts, in a thread, as soon as the log has that step."""

    def wait() -> None:
        while not any(e["step"] >= step for e in entries(run)):
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def kill_a_worker() -> None:
    ours = [p for p in psutil.Process().children(recursive=True) if any("RayTrainWorker" in a for a in p.cmdline())]
    ours[-1].send_signal(signal.SIGKILL)


def weights(run: Path) -> str:
    """SHA-256 over the final weights, by name."""
    path = save_load.checkpoints(run / "checkpoints")[-1]
    model = Model(ModelConfig(**save_load.verify(path)["model_config"]))
    save_load.restore(path, model, None)
    digest = hashlib.sha256()
    for name, p in sorted(model.named_parameters()):
        digest.update(name.encode() + p.detach().to(torch.float32).numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.slow
def test_a_killed_worker_and_a_lost_node(corpus: Path, tmp_path: Path, cluster: Any) -> None:
    config = parse(json.dumps(CONFIG))
    whole, killed, shrunk = (tmp_path / name for name in ("whole", "killed", "shrunk"))
    train_on_ray(config, str(corpus), str(whole), workers=2)
    when(killed, 9, kill_a_worker)
    result = train_on_ray(config, str(corpus), str(killed), workers=2)
    starts = [json.loads(line) for line in (killed / "sessions.jsonl").read_text().splitlines()]
    assert [s["event"] for s in starts].count("start") == 2 and starts[-1]["event"] == "done"
    assert result.steps == 24 and weights(whole) == weights(killed)
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    assert result.goodput is not None and 0 < result.goodput < 1

    nodes, second = cluster
    when(shrunk, 9, lambda: nodes.remove_node(second))
    train_on_ray(config, str(corpus), str(shrunk), workers=(1, 2))
    ranks = [e["ranks"] for e in map(json.loads, (shrunk / "sessions.jsonl").open()) if e["event"] == "start"]
    assert ranks == [2, 1]
    ours, theirs = ([e for e in entries(run) if e["kind"] == "train"] for run in (whole, shrunk))
    assert [(e["step"], e["sequences"], e["tokens"]) for e in ours] == [
        (e["step"], e["sequences"], e["tokens"]) for e in theirs
    ]
    assert [e["loss"] for e in theirs] == pytest.approx([e["loss"] for e in ours], rel=1e-5)


@pytest.mark.slow
def test_what_the_user_has_to_mend_is_said_once(corpus: Path, tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(UserError, match="no domain web"):
        train_on_ray(
            parse(json.dumps({**CONFIG, "data": {"weights": {"web": 1.0}}})), str(corpus), str(tmp_path), workers=1
        )
