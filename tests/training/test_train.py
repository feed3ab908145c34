"""The loop: it learns, it is a function of its inputs, and a killed run ends where an uninterrupted one ends.

Covers: checkpoint/resume.py, distributed/watchdog.py
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from curation import shards
from curation.core.errors import UserError
from pipelines.lookup.training_data import TrainingData, trace_token
from tests.conftest import HANG
from training.checkpoint import save_load
from training.config import PRESETS, TrainConfig, parse
from training.data import data_schedule
from training.data.data_schedule import new_data_order
from training.data.dataset import TokenDataset
from training.metrics.metrics_log import last_scores
from training.model.transformer import Model, ModelConfig
from training.optim import optimizers
from training.train import train

CONFIG = """
steps: 24
model: {preset: toy}
data: {seq_len: 64, shuffle_block: 128}
batch: {global_size: 8, micro_size: 4}
optimizer: {lr: 3e-3}
evaluate: {every: 8, sequences: 8}
checkpoint: {every: 5, keep: 2}
precision: fp32
threads: 1
log_every: 1
"""


def config(**changes: Any) -> TrainConfig:
    return parse(CONFIG, "test.yaml", changes)


def contents(path: Path) -> dict[str, torch.Tensor]:
    """Weights and moments of a checkpoint, by name."""
    model = Model(ModelConfig(**save_load.verify(path)["model_config"]))
    optimizer = optimizers.build_optimizers(model, config().optimizer)
    save_load.restore(path, model, optimizer)
    state = save_load.tensors(model, optimizer)
    flat = {f"model.{n}": t for n, t in state["model"].items()}
    return flat | {f"{n}.{k}": t for n, moments in state["optimizer"].items() for k, t in moments.items()}


def assert_equal_runs(a: Path, b: Path) -> None:
    """Equal to the bit: weights, moments, loss log, configuration, and the state beside the tensors."""
    assert (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()
    assert (a / "train.yaml").read_bytes() == (b / "train.yaml").read_bytes()
    ours, theirs = save_load.checkpoints(a / "checkpoints"), save_load.checkpoints(b / "checkpoints")
    assert [p.name for p in ours] == [p.name for p in theirs]
    assert save_load.verify(ours[-1]) == save_load.verify(theirs[-1])
    first, second = contents(ours[-1]), contents(theirs[-1])
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture(scope="module")
def uninterrupted(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("train") / "whole"
    train(config(), str(corpus), str(run))
    return run


def test_what_a_run_leaves(uninterrupted: Path) -> None:
    entries = [json.loads(line) for line in (uninterrupted / "metrics.jsonl").read_text().splitlines()]
    steps = [e for e in entries if e["kind"] == "train"]
    scores = [e for e in entries if e["kind"] == "validation"]
    assert [e["step"] for e in steps] == list(range(1, 25))
    assert [e["step"] for e in scores] == [0, 8, 16, 24]
    assert [(e["sequences"], e["tokens"]) for e in steps[:2]] == [(8, 512), (16, 1024)]
    assert all(set(e["domains"]) == {"code", "docs"} for e in steps + scores)
    for domain in ("code", "docs"):
        losses = [e["domains"][domain]["loss"] for e in scores]
        assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.8
        assert 0 < scores[-1]["domains"][domain]["bits_per_byte"] < 5
    # The last two, the good one (20 accepted steps behind it) and the next that may become good
    names = [p.name for p in save_load.checkpoints(uninterrupted / "checkpoints")]
    assert names == ["00000000", "00000005", "00000020", "00000024"]
    speed = [json.loads(line) for line in (uninterrupted / "speed.jsonl").read_text().splitlines()]
    assert [e["step"] for e in speed] == list(range(1, 25)) and all(e["tokens_per_s"] > 0 for e in speed)


def test_a_finished_run_does_no_work(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "copy"
    shutil.copytree(uninterrupted, run)
    seen: list[Any] = []
    result = train(config(), str(corpus), str(run), report=seen.append)
    assert not seen and result.loss is None and result.resumed_from == 24
    assert result.validation == last_scores(uninterrupted)
    assert_equal_runs(run, uninterrupted)


SCRIPT = """
import sys
from training.config import load
from training.train import train
from training.distributed.watchdog import EXIT_RESUMABLE, Preempted
def report(entry):
    if entry["kind"] == "train":
        print(entry["step"], flush=True)
try:
    train(load(sys.argv[1]), sys.argv[2], sys.argv[3], report=report)
except Preempted:
    sys.exit(EXIT_RESUMABLE)
"""
ROOT = Path(__file__).parents[2]


def start(corpus: Path, where: Path) -> subprocess.Popen[str]:
    """The run as a process of its own, which says its steps."""
    file = where / "train.yaml"
    file.write_text(CONFIG)
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(file), str(corpus), str(where / "run")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def until(child: subprocess.Popen[str], step: int) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= step:
            return


def ended(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, errors = child.communicate(timeout=HANG)
    return child.returncode, out, errors


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.nightly)])
def test_killed_at_random_moments(corpus: Path, uninterrupted: Path, tmp_path: Path, kills: int) -> None:
    """SIGKILL a few milliseconds after a random step; every time no more than one interval is lost."""
    rng = random.Random(int(os.environ.get("GRISTMILL_TEST_SEED", "20")))
    saved = 0
    for stop in sorted(rng.sample(range(1, 22), kills)):
        child = start(corpus, tmp_path)
        until(child, stop)
        time.sleep(rng.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        code, _, errors = ended(child)
        assert code == -signal.SIGKILL, f"killed, and not ended by itself: {errors[-2000:]}"
        found = save_load.newest(tmp_path / "run" / "checkpoints")
        now = found.state["step"] if found else 0
        assert now >= max(saved, stop // 5 * 5 - 5), "the one being written, and none but it, may be lost"
        saved = now
    code, out, errors = ended(start(corpus, tmp_path))
    assert code == 0, errors[-2000:]
    assert int(out.split()[0]) == saved + 1, "the last part went on from the checkpoint"
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_sigterm_saves_and_asks_to_be_resumed(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    child = start(corpus, tmp_path)
    until(child, 7)
    child.send_signal(signal.SIGTERM)
    code, _, errors = ended(child)
    assert code == 75, errors[-2000:]
    found = save_load.newest(tmp_path / "run" / "checkpoints")
    assert found is not None and found.state["step"] >= 7
    sessions = [json.loads(line) for line in (tmp_path / "run" / "sessions.jsonl").read_text().splitlines()]
    assert [s["event"] for s in sessions] == ["start", "preempted"]
    result = train(config(), str(corpus), str(tmp_path / "run"))
    assert result.resumed_from == found.state["step"] and result.goodput is not None and 0 < result.goodput <= 1
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()


def test_a_hang_ends_with_a_report(corpus: Path, tmp_path: Path) -> None:
    script = (
        "import time\nfrom training.distributed.watchdog import start_watchdog\n"
        "with start_watchdog(0.4) as w:\n    w.heartbeat()\n    time.sleep(60)\n"
    )
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=HANG)
    assert child.returncode == 75
    assert "no progress for" in child.stderr and "<string>" in child.stderr, "where it stood"


def test_from_the_weights_of_another_run(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """Weights only: the schedule, the moments and the data begin anew."""
    end = [json.loads(line) for line in (uninterrupted / "metrics.jsonl").read_text().splitlines()][-1]
    for name, place in (("run", uninterrupted), ("checkpoint", uninterrupted / "checkpoints" / "00000024")):
        result = train(config(steps=1, init_from=str(place)), str(corpus), str(tmp_path / name))
        first, step = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()][:2]
        assert first["step"] == 0 and first["domains"] == end["domains"]
        assert result.resumed_from == 0 and step["sequences"] == 8
    with pytest.raises(save_load.CheckpointError, match="no checkpoint here"):
        train(config(init_from=str(tmp_path)), str(corpus), str(tmp_path / "none"))


def test_what_may_change_on_resume(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    base = {"steps": 4, "schedule.kind": "constant", "schedule.warmup_steps": 2}
    train(config(**base), str(corpus), str(run))
    free = {
        "evaluate.sequences": 4,
        "checkpoint.keep": 3,
        "guard.z_threshold": 9.0,
        "log_every": 2,
        "batch.micro_size": 8,
        "threads": 1,
    }
    result = train(config(**{**base, **free, "steps": 6}), str(corpus), str(run))
    assert result.resumed_from == 4 and result.steps == 6
    assert parse((run / "train.yaml").read_text(), "train.yaml").guard.z_threshold == 9.0
    for key, value in {
        "model.preset": "10m", "optimizer.lr": 1e-3, "z_loss": 1e-4, "precision": "bf16", "schedule.warmup_steps": 3,
        "steps": 5, "schedule.kind": "cosine",
    }.items():  # fmt: skip
        with pytest.raises(
            UserError, match=rf"another configuration: .*{key.split('.')[-1] if key != 'model.preset' else 'model'}"
        ):
            train(config(**{**base, **free, "steps": 6, key: value}), str(corpus), str(run))


class Crash(BaseException):
    pass


def test_interrupted_anywhere(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """An exception out of every third entry of the log; each time the next call goes on."""
    run = tmp_path / "run"

    def report(entry: dict[str, Any]) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Crash

    for entries in range(7, 200, 9):
        left = entries
        try:
            train(config(), str(corpus), str(run), report=report)
            break
        except Crash:
            continue
    assert_equal_runs(run, uninterrupted)


def test_falls_back_past_a_damaged_checkpoint_and_says_so(corpus: Path, uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    file = next((run / "checkpoints" / "00000024").glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    result = train(config(), str(corpus), str(run))
    assert result.resumed_from == 20
    assert any(
        "00000024" in n and "checksum differs" in n and "trying the checkpoint before it" in n for n in result.notes
    )
    assert_equal_runs(run, uninterrupted)


def test_one_step_equals_a_hand_written_one_in_float64(corpus: Path, tmp_path: Path) -> None:
    """Loss, clipping, decay on matrices only, bias correction, learning rate: against AdamW written out."""
    first = config(steps=1, **{"schedule.warmup_steps": 4, "optimizer.max_grad_norm": 0.5})
    train(first, str(corpus), str(tmp_path / "run"))
    manifest = shards.read_manifest(str(corpus))
    data, log, _ = new_data_order(manifest, first.data, first.seed, 8, 1)
    batch = data.batch(log, 0, 8)
    model = Model(ModelConfig(vocab_size=1024, **PRESETS["toy"]))
    model.init_weights(first.seed)
    model.double()
    loss, count, _ = model(batch.tokens, batch.targets, batch.documents)
    (loss / count).backward()
    norm = torch.stack([p.grad.square().sum() for p in model.parameters()]).sum().sqrt()
    assert norm > 0.5
    lr, (b1, b2), eps = 3e-3 / 4, (0.9, 0.95), 1e-8
    found = contents(save_load.checkpoints(tmp_path / "run" / "checkpoints")[-1])
    for name, p in model.named_parameters():
        grad = p.grad * 0.5 / norm
        m, v = (1 - b1) * grad / (1 - b1), (1 - b2) * grad**2 / (1 - b2)
        decay = 0.1 if p.dim() >= 2 else 0.0
        expected = p.detach() * (1 - lr * decay) - lr * m / (v.sqrt() + eps)
        # Adam's first step is a sign: where a gradient is nearly zero fp32 cannot know it
        clear = grad.abs() > 1e-6
        assert torch.allclose(found[f"model.{name}"].double()[clear], expected[clear], atol=2e-6), name
        assert torch.allclose(found[f"{name}.exp_avg"].double(), (1 - b1) * grad, atol=1e-7), name
    entry = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[1])
    assert entry["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert entry["loss"] == pytest.approx((loss / count).item(), rel=1e-5)


def test_accumulation_changes_nothing_but_rounding(corpus: Path, tmp_path: Path, uninterrupted: Path) -> None:
    train(config(steps=3, **{"batch.micro_size": 8}), str(corpus), str(tmp_path / "one"))
    train(config(steps=3, **{"batch.micro_size": 1}), str(corpus), str(tmp_path / "eight"))
    a, b = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "eight")
    )
    for x, y in zip(a, b, strict=True):
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_learns_and_resumes(corpus: Path, tmp_path: Path, precision: str) -> None:
    settings = config(steps=12, precision=precision)
    whole = train(settings, str(corpus), str(tmp_path / "whole"))

    def report(entry: dict[str, Any]) -> None:
        if entry["kind"] == "train" and entry["step"] == 7:
            raise Crash

    with pytest.raises(Crash):
        train(settings, str(corpus), str(tmp_path / "part"), report=report)
    train(settings, str(corpus), str(tmp_path / "part"))
    assert_equal_runs(tmp_path / "whole", tmp_path / "part")
    first = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[0])
    assert whole.validation["code"].loss < first["domains"]["code"]["loss"] - 0.3


def test_a_run_directory_belongs_to_one_configuration(
    corpus: Path, uninterrupted: Path, tmp_path: Path, build: Any
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted, run)
    changed = config(seed=18, **{"optimizer.lr": 1e-3})
    with pytest.raises(UserError, match=r"another configuration: optimizer.lr was 0.003, is 0.001; seed was 17, is 18"):
        train(changed, str(corpus), str(run))
    other = build(tmp_path / "other", {"train/code": [[torch.arange(1, 900).numpy()]]}, weights={"code": 1.0})
    with pytest.raises(UserError, match="was trained on other shards"):
        train(config(), other.root, str(run))
    for name in ("00000000", "00000005", "00000020"):
        shutil.rmtree(run / "checkpoints" / name)
    (run / "checkpoints" / "00000024" / "state.json").write_text("{}")
    with pytest.raises(save_load.CheckpointError, match="no checkpoint can be read"):
        train(config(), str(corpus), str(run))


def test_what_was_refused_can_be_put_right(corpus: Path, tmp_path: Path) -> None:
    """A run directory without a checkpoint belongs to nobody yet."""
    with pytest.raises(UserError, match="no domain web"):
        train(config(**{"data.weights": {"web": 1.0}}), str(corpus), str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"the loss is .* in step \d+ and .*, the second spike .* a lower optimizer.lr"):
        train(config(**{"optimizer.lr": 1e30, "schedule.kind": "constant"}), str(corpus), str(tmp_path / "run"))
    result = train(config(steps=2), str(corpus), str(tmp_path / "run"))
    assert result.resumed_from == 0 and result.steps == 2
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in entries] == [0, 1, 2, 2]
    assert sum("tokens per epoch are not trained on" in n for n in result.notes) == 2


@pytest.mark.slow
def test_two_threads_give_the_same_bits_twice(corpus: Path, tmp_path: Path) -> None:
    """Large enough (the demo preset) for torch to split the work."""
    wide = config(steps=2, threads=2, precision="bf16", **{"model.preset": "demo", "evaluate.sequences": 1})
    for name in ("a", "b"):
        train(wide, str(corpus), str(tmp_path / name))
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


def test_another_mix_from_here_on(corpus: Path, tmp_path: Path) -> None:
    """A change of mix and batch on resume appends to the order log; what was read stays as it was read."""
    base = {"steps": 4, "schedule.kind": "constant", "schedule.warmup_steps": 2}
    train(config(**base), str(corpus), str(tmp_path))
    changed = {**base, "steps": 6, "data.weights": {"code": 0.25, "docs": 0.75}, "batch.global_size": 4}
    result = train(config(**changed), str(corpus), str(tmp_path))
    segments = save_load.verify(result.checkpoint)["order"]["segments"]
    assert [(s["start"], s["mix"], s["global_size"]) for s in segments] == [
        (0, {"code": 3, "docs": 2}, 8),
        (32, {"code": 1, "docs": 3}, 4),
    ]
    assert result.sequences == 40 and result.tokens == 40 * 64


CHANGES = [
    {"at": 4, "weights": {"code": 0.25, "docs": 0.75}},
    {"at": 7, "seq_len": 128, "global_size": 4},
    {"at": 11, "seq_len": 32, "global_size": 16, "weights": {"docs": 1}},
]


def test_changes_on_the_way_are_what_the_loop_reads(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mix, sequence length and batch from a step on: the batches that the loop gets, interrupted or not."""
    settings = config(steps=14, log_every=10, **{"data.changes": CHANGES})
    manifest = shards.read_manifest(str(corpus))
    data, log, _ = new_data_order(manifest, settings.data, settings.seed, 8, 14)
    assert len(log.segments) == 4
    given: list[tuple[int, int, tuple[int, ...], tuple[str, ...]]] = []
    batch = TokenDataset.batch

    def noted(self: TokenDataset, order: Any, first: int, last: int) -> Any:
        made = batch(self, order, first, last)
        given.append((first, last, tuple(made.tokens.shape), made.domains))
        assert made.tokens.equal(batch(data, log, first, last).tokens)
        return made

    monkeypatch.setattr(TokenDataset, "batch", noted)
    whole = train(settings, str(corpus), str(tmp_path / "whole"))
    shapes = [(8, 64)] * 7 + [(4, 128)] * 4 + [(16, 32)] * 3
    assert [g[2] for g in given] == shapes and [g[:2] for g in given] == [log.step_range(i) for i in range(14)]
    assert [sum(d == "docs" for d in g[3]) for g in given[4:7]] == [6, 6, 6] and set(given[11][3]) == {"docs"}
    entries = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    tokens = [e["tokens"] for e in entries if e["kind"] == "train"]
    assert tokens == [sum(a * b for a, b in shapes[: i + 1]) for i in range(14)] and whole.tokens == tokens[-1]
    speed = [json.loads(line) for line in (tmp_path / "whole" / "speed.jsonl").read_text().splitlines()]
    for entry, (a, b) in zip(speed, shapes, strict=True):
        assert entry["tokens_per_s"] * entry["seconds"] == pytest.approx(a * b, rel=0.05)

    def report(entry: dict[str, Any]) -> None:
        if entry["kind"] == "train" and entry["step"] == 9:
            raise Crash

    with pytest.raises(Crash):
        train(settings, str(corpus), str(tmp_path / "part"), report=report)
    train(settings, str(corpus), str(tmp_path / "part"))
    assert_equal_runs(tmp_path / "whole", tmp_path / "part")
    assert TrainingData(str(tmp_path / "part")).verify()["segments"] == 4


def test_several_runs_train_together(corpus: Path, tmp_path: Path, build: Any) -> None:
    content = {"train/docs": [[torch.arange(1, 900).numpy()]], "train/new": [[torch.arange(1, 700).numpy()] * 3]}
    other = build(tmp_path / "other", content)
    both = [str(corpus), str(tmp_path / "other")]
    settings = config(steps=6, **{"data.weights": {"code": 0.4, "docs": 0.2, "new": 0.4}})
    whole = train(settings, both, str(tmp_path / "whole"))
    assert json.loads((tmp_path / "whole" / "data.json").read_text())["roots"] == [
        str(corpus / "result/shards"), other.root,
    ]  # fmt: skip
    data = TrainingData(str(tmp_path / "whole"))
    read = data.step(2)
    assert {w["domain"] for w in read} == {"code", "docs", "new"}
    new = next(w for w in read if w["domain"] == "new")
    assert new["shard"] == "@1/train/new/00000.arrow"
    found = data.document_reads(new["documents"][0]["doc_id"])
    # `build` numbers documents from 1 in each run: this one is in both, and all reads of it are listed
    assert found["shard"] == "@0/train/code/00000.arrow"
    assert {"step": 2, "sequence": new["sequence"], "epoch": new["epoch"]} in found["reads"]
    sequences = data.data.sequences(data.log, 0, 48)
    wanted = [w.index for w in sequences if found["doc_id"] in data.data.doc_ids(w)]
    assert [r["sequence"] for r in found["reads"]] == wanted
    assert data.verify()["sequences"] == whole.sequences == 48
    token = trace_token(str(tmp_path / "whole"), new["shard"], new["token"] + 1)
    assert token["doc_id"] == new["documents"][0]["doc_id"] and token["url"].startswith("https://example.org/")
    assert train(settings, both, str(tmp_path / "whole")).resumed_from == 6
    with pytest.raises(UserError, match="was trained on other shards"):
        train(settings, both[:1], str(tmp_path / "whole"))
    strange = tmp_path / "strange"
    shutil.copytree(tmp_path / "other", strange)
    manifest = strange / "result" / "shards" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(other.tokenizer.sha256, "f" * 64))
    with pytest.raises(shards.ShardTokenizer, match="shards train together only with one tokenizer"):
        train(settings, [str(corpus), str(strange)], str(tmp_path / "none"))


def test_what_the_data_has_to_say_is_said_at_the_start(corpus: Path, tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").put(str(corpus / "result"), "/noted-run/result", recursive=True)
    said: list[dict[str, Any]] = []
    settings = config(steps=1, **{"data.cache": 1, "evaluate.sequences": 1})
    result = train(settings, "memory://noted-run", str(tmp_path / "run"), report=said.append)
    assert said[0]["kind"] == "note" and "sequences are fetched one by one" in said[0]["note"]
    assert said[0]["note"] in result.notes


def test_a_batch_that_the_ranks_cannot_share_is_refused_before_it_comes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import training.train as module

    asked: list[int] = []

    def share(batch: int, world: int, accumulation: int, rank: int) -> list[tuple[int, int]]:
        asked.append(batch)
        return data_schedule.rank_slices(batch, 4, accumulation, rank)

    monkeypatch.setattr(module, "rank_slices", share)
    with pytest.raises(UserError, match=r"a global batch of 3 cannot be divided over 4 ranks .*, which need 4"):
        train(config(**{"data.changes": [{"at": 20, "global_size": 3}]}), str(corpus), str(tmp_path / "run"))
    assert asked == [8, 3]
