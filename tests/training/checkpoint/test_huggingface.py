"""Hugging Face's format: transformers gives the same logits, and what was exported comes back as it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from curation.core.errors import UserError
from training.checkpoint.huggingface import export, hf_config, import_hf, load_hf, write
from training.checkpoint.load_model import load_model
from training.evaluation.generate import generate
from training.model.transformer import Model, ModelConfig

pytest.importorskip("safetensors")
PLAIN = ModelConfig(
    vocab_size=300,
    num_layers=3,
    hidden_size=64,
    num_heads=4,
    num_kv_heads=2,
    intermediate_size=160,
    tie_embeddings=False,
    rope_theta=5e5,
)
CONFIGS = [
    PLAIN,
    ModelConfig(**{**vars(PLAIN), "tie_embeddings": True, "num_kv_heads": 4}),
    ModelConfig(**{**vars(PLAIN), "qk_norm": True}),
]


def made(config: ModelConfig) -> Model:
    model = Model(config)
    model.init_weights(5)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.mul_(1 + torch.linspace(-0.3, 0.3, p.shape[-1])) if "norm" in name else p.mul_(3)
    return model


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shard", [10**9, 100_000])
def test_what_is_written_comes_back(tmp_path: Path, config: ModelConfig, shard: int) -> None:
    model = made(config)
    write(model, tmp_path, eos=0, positions=128, dtype=torch.float32, shard=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard < 10**9)
    back = load_hf(str(tmp_path))
    assert back.config == config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), back.parameters(), strict=True))


@pytest.mark.parametrize("config", CONFIGS)
def test_logits_are_those_of_transformers(tmp_path: Path, config: ModelConfig) -> None:
    import transformers

    model = made(config)
    write(model, tmp_path, eos=0, positions=128, dtype=torch.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(theirs).__name__ == ("Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM")
    tokens = torch.randint(0, 300, (2, 100), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = F.linear(model.hidden_states(tokens, None), model.head.weight)
        assert (ours - theirs(tokens).logits).abs().max() <= 1e-5 * max(1.0, float(ours.abs().max()))
        theirs.save_pretrained(tmp_path / "again")
        again = load_hf(str(tmp_path / "again"))
    assert again.config == config
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_run_there_and_back(trained: Path, tmp_path: Path) -> None:
    out = export(str(trained), str(tmp_path / "hf"), dtype=torch.float32)
    assert json.loads((out / "config.json").read_text())["max_position_embeddings"] == 64
    with pytest.raises(UserError, match="is not empty"):
        export(str(trained), str(out))
    import_hf(str(out), str(tmp_path / "back"))
    here, there = load_model(str(trained)), load_model(str(tmp_path / "back"))
    assert all(torch.equal(a, b) for a, b in zip(here.model.parameters(), there.model.parameters(), strict=True))
    said = [generate(str(run), "def ", tokens=12, seed=3) for run in (trained, tmp_path / "back")]
    assert said[0] == said[1]
    with pytest.raises(UserError, match="has checkpoints already"):
        import_hf(str(out), str(trained))
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    text = "def réad(self):\n    return 1"
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == here.encode(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "scaled rotary"),
        ({"num_hidden_layers": 4}, "9 weights are missing"),
        ({"num_hidden_layers": 2}, "is no part of"),
        ({"intermediate_size": 96}, "config.json says"),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    write(made(PLAIN), tmp_path, eos=0, positions=128, dtype=torch.float32)
    config = hf_config(PLAIN, eos=0, positions=128, dtype=torch.float32) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=said):
        load_hf(str(tmp_path))


def test_every_file_has_the_mode_that_the_umask_gives(trained: Path, tmp_path: Path) -> None:
    """What a library writes through a private temporary file too: others of the group must be able to read a model."""
    tokenizer = next(trained.glob("tokenizer.json"))
    private = tmp_path / "run"
    shutil.copytree(trained, private)
    (private / tokenizer.name).chmod(0o600)
    before = os.umask(0o027)
    try:
        export(str(private), str(tmp_path / "hf"))
        import_hf(str(tmp_path / "hf"), str(tmp_path / "back"))
        write(load_model(str(trained)).model, _made(tmp_path / "parts"), eos=0, positions=64, dtype=torch.float32,
              shard=100_000)  # fmt: skip
    finally:
        os.umask(before)
    files = [p for name in ("hf", "back", "parts") for p in (tmp_path / name).rglob("*") if p.is_file()]
    assert len([p for p in files if p.suffix == ".safetensors"]) > 2
    assert {str(p.relative_to(tmp_path)): oct(p.stat().st_mode & 0o777) for p in files} == {
        str(p.relative_to(tmp_path)): oct(0o640) for p in files
    }


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
