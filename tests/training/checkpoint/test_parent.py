"""Where a run begins: weights of another run, or a branch of it, known by content and compared in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from curation.core.errors import UserError
from tests.training.test_train import contents
from training.checkpoint import save_load
from training.checkpoint.huggingface import hf_config, import_hf, write
from training.checkpoint.load_model import load_model
from training.checkpoint.run_directory import read_data_record
from training.config import parse
from training.evaluation.generate import generate_tokens
from training.model.transformer import Model, ModelConfig
from training.train import train

CONFIG = """
steps: 12
model: {preset: toy, num_layers: 1}
data: {seq_len: 64, shuffle_block: 128}
batch: {global_size: 4}
optimizer: {lr: 3e-3}
schedule: {kind: constant, warmup_steps: 2}
evaluate: {every: 6, sequences: 2}
checkpoint: {every: 3, keep: 9, background: false}
precision: fp32
threads: 1
log_every: 1
"""


def settings(**changes: Any) -> Any:
    return parse(CONFIG, "test.yaml", changes)


def steps(run: Path) -> dict[int, dict[str, Any]]:
    """The entries of training steps."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return {e["step"]: e for e in map(json.loads, lines) if e["kind"] == "train"}


@pytest.fixture(scope="module")
def parent(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("parent") / "stable"
    train(settings(), str(corpus), str(run))
    return run


def stop_after(step: int) -> Callable[[dict[str, Any]], None]:
    def report(entry: dict[str, Any]) -> None:
        if entry["kind"] == "train" and entry["step"] == step:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("key", ["init_from", "branch_from"])
@pytest.mark.parametrize("at", [1, 4])
def test_the_parent_may_be_gone_once_the_run_has_a_checkpoint(
    corpus: Path, parent: Path, tmp_path: Path, key: str, at: int
) -> None:
    """Moved, or trained further: the same command resumes, before and after the first regular checkpoint."""
    place = tmp_path / "moving"
    shutil.copytree(parent, place)
    asked = settings(steps=15 if key == "branch_from" else 6, **{key: str(place)})
    begin = 12 if key == "branch_from" else 0
    whole = train(asked, str(corpus), str(tmp_path / "whole"))
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(asked, str(corpus), str(run), report=stop_after(begin + min(at, 2 if begin else 4)))
    place.rename(tmp_path / "moved")
    result = train(asked, str(corpus), str(run))
    assert result.steps == whole.steps
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    record = read_data_record(run)
    assert record is not None and record["parent"]["step"] == 12 and record["parent"]["path"].startswith(str(place))
    ours, theirs = contents(result.checkpoint), contents(whole.checkpoint)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    moved = asked.model_copy(update={key: str(tmp_path / "moved")})
    assert train(moved, str(corpus), str(run)).steps == whole.steps, "the same checkpoint at another place"
    other = asked.model_copy(update={key: str(tmp_path / "moved" / "checkpoints" / "00000009")})
    with pytest.raises(UserError, match=rf"{key} was .*began from step 12 of .*which is not read again"):
        train(other, str(corpus), str(run))


def test_two_branches_go_on_as_the_parent_did(corpus: Path, parent: Path, tmp_path: Path) -> None:
    """To the bit, with the same schedule: losses, norms, weights and moments. And two anneals from one checkpoint."""
    place = parent / "checkpoints" / "00000006"
    for name in ("one", "two"):
        result = train(settings(branch_from=str(place)), str(corpus), str(tmp_path / name))
        assert result.resumed_from == 6 and any(
            "branch_from: checkpoint" in n and "(step 6," in n for n in result.notes
        )
        found, expected = steps(tmp_path / name), steps(parent)
        assert list(found) == list(range(7, 13)) and all(found[i] == expected[i] for i in found)
        ours, theirs = contents(result.checkpoint), contents(parent / "checkpoints" / "00000012")
        assert ours.keys() == theirs.keys() and all(torch.equal(t, theirs[n]) for n, t in ours.items())
        assert save_load.checkpoints(tmp_path / name / "checkpoints")[0].name == "00000006"
    for name, form in (("linear", "linear"), ("sqrt", "sqrt")):
        anneal = {"schedule.kind": "wsd", "schedule.decay_fraction": 0.3, "schedule.decay_type": form, "steps": 10}
        train(settings(branch_from=str(place), **anneal), str(corpus), str(tmp_path / name))
        found = steps(tmp_path / name)
        assert found[7] == steps(parent)[7] and found[10]["lr"] < found[8]["lr"]
        assert [found[i]["sequences"] for i in found] == [steps(parent)[i]["sequences"] for i in found]
    assert steps(tmp_path / "linear")[9]["lr"] != steps(tmp_path / "sqrt")[9]["lr"]
    mixed = settings(branch_from=str(place), **{"data.weights": {"code": 1.0}})
    train(mixed, str(corpus), str(tmp_path / "mixed"))
    assert set(steps(tmp_path / "mixed")[7]["domains"]) == {"code"}, "another mix from the branch on"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 18}, "seed is 17 there and 18 here"),
        ({"optimizer.kind": "muon"}, "optimizer.kind is adamw there and muon here"),
        ({"precision": "bf16"}, "precision is fp32 there and bf16 here"),
        ({"steps": 12}, "is at step 12, and steps is 12"),
        ({"model.hidden_size": 128}, "hidden_size is 64 there and 128 here"),
        ({"init_from": "elsewhere"}, "give one of them"),
    ],
)
def test_what_a_branch_cannot_be(
    corpus: Path, parent: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        train(settings(branch_from=str(parent), **{"steps": 15, **changes}), str(corpus), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "train.yaml").exists()


def test_a_branch_needs_the_shards_of_its_parent(corpus: Path, parent: Path, tmp_path: Path, build: Any) -> None:
    numbers = torch.arange(1, 900).numpy()
    other = build(tmp_path / "other", {"train/code": [[numbers] * 9]}, weights={"code": 1.0}, max_epochs=99)
    with pytest.raises(UserError, match=r"was trained on other shards.*Use init_from"):
        train(settings(branch_from=str(parent), steps=15), other.root, str(tmp_path / "run"))
    assert train(settings(init_from=str(parent), steps=1), other.root, str(tmp_path / "run")).steps == 1


def test_sizes_are_compared_in_words(corpus: Path, parent: Path, tmp_path: Path) -> None:
    wide = settings(init_from=str(parent), **{"model.num_heads": 2, "model.intermediate_size": 100})
    with pytest.raises(
        UserError, match=r"num_heads is 4 there and 2 here; intermediate_size is 192 there and 100 here"
    ):
        train(wide, str(corpus), str(tmp_path / "run"))
    longer = settings(init_from=str(parent), steps=1, **{"model.rope_theta": 5e5})
    result = train(longer, str(corpus), str(tmp_path / "longer"))
    assert any("rope_theta is 10000 there and 500000 here" in n for n in result.notes)


def test_another_tokenizer_of_the_same_size(corpus: Path, parent: Path, tmp_path: Path) -> None:
    place = tmp_path / "parent"
    shutil.copytree(parent, place)
    told = json.loads((place / "tokenizer.json").read_text())
    (place / "tokenizer.json").write_text(json.dumps(told, indent=3))
    train(settings(init_from=str(place), steps=1), str(corpus), str(tmp_path / "layout"))  # only its layout differs
    vocab = told["model"]["vocab"]
    a, b = list(vocab)[500:502]
    vocab[a], vocab[b] = vocab[b], vocab[a]
    (place / "tokenizer.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"another tokenizer than the shards in .*the same ids mean other text"):
        train(settings(init_from=str(place), steps=1), str(corpus), str(tmp_path / "run"))
    shutil.copytree(parent / "checkpoints" / "00000012", tmp_path / "alone" / "00000012")
    bare = settings(init_from=str(tmp_path / "alone" / "00000012"), steps=1)
    result = train(bare, str(corpus), str(tmp_path / "bare"))
    assert any("which tokenizer it was trained with is unknown" in n for n in result.notes)


def test_a_model_whose_embedding_is_longer_than_its_tokenizer(corpus: Path, tmp_path: Path) -> None:
    """As published models are: import, go on training with `pad_vocab`, generate, which never draws a padding row."""
    padded = ModelConfig(1100, 1, 64, 4, 2, 192, False)
    model = Model(padded)
    model.init_weights(3)
    with torch.no_grad():
        model.head.weight[1024:] = 9.0
        model.norm.weight.fill_(1.0)
    hf = tmp_path / "hf"
    hf.mkdir()
    write(model, hf, eos=0, positions=64, dtype=torch.float32)
    (hf / "config.json").write_text(json.dumps(hf_config(padded, eos=0, positions=64, dtype=torch.float32)))
    shutil.copy(corpus / "result" / "shards" / "tokenizer.json", hf / "tokenizer.json")
    import_hf(str(hf), str(tmp_path / "base"))
    sizes = {f"model.{k}": v for k, v in vars(padded).items() if k != "vocab_size"}
    asked = {"init_from": str(tmp_path / "base"), "steps": 2, **sizes}
    with pytest.raises(
        UserError, match=r"its embedding has 1,100 rows .*vocabulary is 1,024 \(set model.pad_vocab: 1100\)"
    ):
        train(settings(**asked), str(corpus), str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"model.pad_vocab: 1000 is less than the tokenizer's vocabulary, 1024"):
        train(settings(**asked, **{"model.pad_vocab": 1000}), str(corpus), str(tmp_path / "run"))
    train(settings(**asked, **{"model.pad_vocab": 1100}), str(corpus), str(tmp_path / "run"))
    loaded = load_model(str(tmp_path / "run"))
    assert loaded.model.embedding.weight.shape[0] == 1100 and loaded.vocab == 1024
    assert parse((tmp_path / "base" / "train.yaml").read_text()).model.pad_vocab == 1100
    base = load_model(str(tmp_path / "base"))
    drawn = generate_tokens(base, [0, 5], 40, 2.0, None, None, torch.Generator().manual_seed(1))
    assert drawn and max(drawn) < 1024
