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
from training.config import PRESETS
from training.cost.model_stats import estimate_memory
from training.model.transformer import ModelConfig

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
from torch.distributed.tensor import DTensor
from training.config import UserError, parse
from training.train import train
from training.trainer import Callback
torch.set_num_threads(1)

class Types(Callback):
    # What goes in and out of each module, as a forward pass sees it, and how many bytes of weights are gathered there
    def on_train_start(self, trainer):
        self.types, self.gathered = {}, 0
        for name, module in trainer.model.named_modules():
            module.register_forward_hook(lambda module, given, out, name=name: self.note(trainer, name, given, out))

    def note(self, trainer, name, given, out):
        out = out if isinstance(out, tuple) else (out,)
        self.types[name] = [[str(t.dtype)[6:] for t in ts if isinstance(t, torch.Tensor) and t.is_floating_point()]
                            for ts in (given, out)]
        self.gathered = max(self.gathered, sum(
            p.numel() * p.element_size() for p in trainer.model.parameters() if not isinstance(p, DTensor)))

    def on_gradients(self, trainer, step):
        states = [s for p in trainer.model.parameters() for s in trainer.optimizers.state_tensors(p).values()]
        self.types["weights"] = sorted({str(p.dtype)[6:] for p in trainer.model.parameters()})
        self.types["gradients"] = sorted({str(p.grad.dtype)[6:] for p in trainer.model.parameters()})
        self.types["moments"] = sorted({str(s.dtype)[6:] for s in states})

    def on_train_end(self, trainer, status):
        if trainer.ranks.first:
            (trainer.run / "types.json").write_text(json.dumps([self.types, self.gathered]))

torch.distributed.init_process_group("cpu:gloo")
for job in json.loads(sys.argv[1]):
    try:
        train(parse(json.dumps(job["config"])), job["data"], job["run"], callbacks=[Types()])
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
        assert "FSDP" not in errors, errors[-3000:]
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
    mixed = {"steps": 2, "precision": "bf16", "model.qk_norm": True, "model.tie_embeddings": False}
    for ranks in (1, 2):
        launch(ranks, [job(corpus, tmp_path / f"{k}{ranks}", **c, **long) for k, c in kinds.items()]
               + [job(corpus, tmp_path / f"from{ranks}", **short), job(corpus, tmp_path / f"mixed{ranks}", **mixed)]
               )  # fmt: skip
    for ranks in (1, 2):
        launch(3 - ranks, [job(corpus, tmp_path / f"from{ranks}", **long)])
    for kind in kinds:
        assert_close(tmp_path / f"{kind}1", tmp_path / f"{kind}2")
    for ranks in (1, 2):
        assert_close(tmp_path / "adamw1", tmp_path / f"from{ranks}")
        files = sorted(p.name for p in (tmp_path / f"adamw{ranks}" / "checkpoints" / "00000008").glob("*.safetensors"))
        assert files == [f"rank-{rank:05d}.safetensors" for rank in range(ranks)]
    assert_one_arithmetic(tmp_path / "mixed1", tmp_path / "mixed2")


# docs/training.md has this table: a module's floating-point inputs, and its outputs
FP32, BF16 = ["float32"], ["bfloat16"]
BLOCK = {
    "": [FP32 * 3, FP32],  # the residual stream, cosines and sines of the rotation; the residual stream
    "attention_norm": [FP32, FP32],
    "attention": [FP32 * 3, BF16],
    **{f"attention.{name}": [BF16, BF16] for name in ("q", "k", "v", "q_norm", "k_norm", "out")},
    "ffn_norm": [FP32, FP32],
    "ffn": [FP32, BF16],
    **{f"ffn.{name}": [BF16, BF16] for name in ("gate", "up", "down")},
}
TYPES = {
    "embedding": [[], FP32],
    **{f"blocks.{i}.{name}".rstrip("."): types for i in range(2) for name, types in BLOCK.items()},
    "norm": [FP32, FP32],
    "": [[], FP32 * 2],  # loss and NLL of each token; the head's product is in the loss (test_linear_cross_entropy)
    **dict.fromkeys(("weights", "gradients", "moments"), FP32),
}


def assert_one_arithmetic(one: Path, many: Path) -> None:
    """The same types everywhere; the first step differs by the order of sums alone, not by types."""
    types, gathered = zip(*(json.loads((run / "types.json").read_text()) for run in (one, many)), strict=True)
    assert types == (TYPES, TYPES)
    config = ModelConfig(vocab_size=1024, **{**PRESETS["toy"], "qk_norm": True, "tie_embeddings": False})
    plan = estimate_memory(config, 2, 64, shards=2, device="cpu")
    assert 0.8 * plan.casts < gathered[1] <= plan.casts, "one block of two, as a CPU gathers none ahead"
    first = [
        [e for e in map(json.loads, (run / "metrics.jsonl").open()) if e["kind"] == "train"] for run in (one, many)
    ]
    assert first[0][0]["loss"] == pytest.approx(first[1][0]["loss"], rel=1e-6)
    assert first[0][0]["grad_norm"] == pytest.approx(first[1][0]["grad_norm"], rel=1e-5)
    assert first[0][1]["loss"] == pytest.approx(first[1][1]["loss"], rel=2e-4)


@pytest.mark.slow
def test_a_hundred_steps_over_one_two_and_four_ranks(corpus: Path, tmp_path: Path) -> None:
    """The promise of the design: losses within 1e-5 over 100 steps in fp32, whoever goes on for whom.

    In bf16 a sum in another order is rounded to another neighbour 2^-8 away, and training carries that on: within 2e-3.
    """
    base = {"schedule.kind": "constant", "schedule.warmup_steps": 4, "checkpoint.every": 20, "evaluate.every": 50}
    mixed = {**base, "precision": "bf16", "steps": 100}
    launch(1, [job(corpus, tmp_path / "one", **base, steps=100), job(corpus, tmp_path / "mixed1", **mixed)])
    for end, ranks in ((30, 1), (60, 4), (100, 2)):
        jobs = [job(corpus, tmp_path / f"mixed{ranks}", **mixed)] if ranks > 1 else []
        launch(ranks, [job(corpus, tmp_path / "many", **base, steps=end), *jobs])
    steps = {
        run: {
            e["step"]: e["loss"]
            for e in map(json.loads, (tmp_path / run / "metrics.jsonl").open())
            if e["kind"] == "train"
        }
        for run in ("one", "many", "mixed1", "mixed2", "mixed4")
    }
    assert all(list(found) == list(range(1, 101)) for found in steps.values())
    for run, other, within in (("one", "many", 1e-5), ("mixed1", "mixed2", 2e-3), ("mixed1", "mixed4", 2e-3)):
        assert list(steps[run].values()) == pytest.approx(list(steps[other].values()), rel=within)


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
