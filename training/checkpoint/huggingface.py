"""Checkpoints in Hugging Face's Llama format, and back: what transformers, vLLM and lm-eval load.

The architecture is Llama's, parameter for parameter, so export is a change of names: `config.json`, `model.safetensors`
(sharded with an index above 5 GB) and the tokenizer as it is. With QK-norm the same layout is Qwen3's, and exported as
that. Nothing is transposed: both store a linear layer as [out, in], and both rotate the pairs (i, i + d/2).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from curation.core import atomic_files
from curation.core.errors import UserError
from training.checkpoint import run_directory, save_load
from training.checkpoint.load_model import LoadedModel, load_or_use, parse_tokenizer
from training.config import DataConfig, ModelSection, TrainConfig
from training.model.transformer import Model, ModelConfig
from training.optim import optimizers

SHARD = 5 * 10**9  # bytes a file, Hugging Face's own habit
_LAYER = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.q.weight": "self_attn.q_proj.weight",
    "attention.k.weight": "self_attn.k_proj.weight",
    "attention.v.weight": "self_attn.v_proj.weight",
    "attention.out.weight": "self_attn.o_proj.weight",
    "attention.q_norm.weight": "self_attn.q_norm.weight",
    "attention.k_norm.weight": "self_attn.k_norm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn.gate.weight": "mlp.gate_proj.weight",
    "ffn.up.weight": "mlp.up_proj.weight",
    "ffn.down.weight": "mlp.down_proj.weight",
}
_ENDS = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}


def theirs(name: str) -> str:
    """Hugging Face's name of one of our parameters."""
    if name.startswith("blocks."):
        _, layer, rest = name.split(".", 2)
        return f"model.layers.{layer}.{_LAYER[rest]}"
    return _ENDS.get(name, "lm_head.weight")


def hf_config(config: ModelConfig, *, eos: int, positions: int, dtype: torch.dtype) -> dict[str, Any]:
    """The config.json of a model. `positions`: the longest sequence length that it was trained on."""
    kind = "qwen3" if config.qk_norm else "llama"
    return {
        "architectures": ["Qwen3ForCausalLM" if config.qk_norm else "LlamaForCausalLM"],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.hidden_size // config.num_heads,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": eos,  # every document is opened by it
        "eos_token_id": eos,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def export(model: str | LoadedModel, out_dir: str, *, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Writes a model, or the newest undamaged checkpoint of a run, as a Hugging Face model.

    `out_dir` must not exist or be empty. Raises UserError where it is taken, CheckpointError where there is no
    checkpoint, or only damaged ones.
    """
    out = Path(out_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out_dir} is not empty; name another folder")
    loaded = load_or_use(model)
    temporary = out.with_name(f"{out.name}.{uuid.uuid4().hex[:12]}.tmp")  # a name that nobody has
    temporary.mkdir(parents=True)
    try:
        _export_into(temporary, loaded, dtype)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _export_into(folder: Path, loaded: LoadedModel, dtype: torch.dtype) -> None:
    write(loaded.model, folder, eos=loaded.eos, positions=loaded.max_seq_len, dtype=dtype)
    shutil.copyfile(loaded.tokenizer_file, folder / "tokenizer.json")  # without its mode, as all files here
    said = loaded.tokenizer.id_to_token(loaded.eos)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": said,
        "bos_token": said,
        "model_max_length": loaded.max_seq_len,
        "clean_up_tokenization_spaces": False,
    }
    _json(folder / "tokenizer_config.json", settings)


def write(model: Model, folder: Path, *, eos: int, positions: int, dtype: torch.dtype, shard: int = SHARD) -> None:
    """config.json and the weights, in files of at most `shard` bytes."""
    from safetensors.torch import save_file

    _json(folder / "config.json", hf_config(model.config, eos=eos, positions=positions, dtype=dtype))
    _json(folder / "generation_config.json", {"bos_token_id": eos, "eos_token_id": eos})
    files: list[dict[str, Tensor]] = [{}]
    held = 0
    for name, parameter in model.named_parameters():  # a tied head appears once, as the embedding
        tensor = parameter.detach().to("cpu", dtype).contiguous()
        if files[-1] and held + tensor.nbytes > shard:
            files.append({})
            held = 0
        files[-1][theirs(name)] = tensor
        held += tensor.nbytes
    names = ["model.safetensors"]
    if len(files) > 1:
        names = [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))]
        where = {key: name for name, tensors in zip(names, files, strict=True) for key in tensors}
        total = sum(t.nbytes for tensors in files for t in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        _json(folder / "model.safetensors.index.json", index)
    for name, tensors in zip(names, files, strict=True):
        save_file(tensors, folder / name, metadata={"format": "pt"})
        shutil.copymode(folder / "config.json", folder / name)  # safetensors' own is 0600, whatever the umask


def load_hf(folder: str) -> Model:
    """A model from a folder in Hugging Face's Llama or Qwen3 format, weights in fp32.

    Raises UserError for what our decoder is not: biases, scaled rotary positions, other activations, missing weights.
    """
    root = Path(folder)
    config = read_hf_config(root)
    model = Model(config)
    ours = {theirs(name): parameter for name, parameter in model.named_parameters()}
    seen = set()
    with torch.no_grad():
        for name, tensor in _weights(root):
            if name == "lm_head.weight" and config.tie_embeddings:
                continue
            if name not in ours:
                raise UserError(f"{folder}: {name} is no part of a Llama decoder without biases")
            if tensor.shape != ours[name].shape:
                raise UserError(f"{folder}: {name} is {list(tensor.shape)}, config.json says {list(ours[name].shape)}")
            ours[name].copy_(tensor)
            seen.add(name)
    missing = sorted(set(ours) - seen)
    if missing:
        raise UserError(f"{folder}: {len(missing)} weights are missing, {missing[0]} first")
    return model


def read_hf_config(root: Path) -> ModelConfig:
    """The sizes in a Hugging Face config.json. Raises UserError for a decoder that is not ours."""
    try:
        told = json.loads((root / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{root}: no config.json of a Hugging Face model: {error}") from error
    kind = told.get("model_type")
    if kind not in ("llama", "qwen3"):
        raise UserError(f"{root}: model_type {kind!r}; llama and qwen3 are what can be imported")
    rope = told.get("rope_parameters") or told.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise UserError(f"{root}: scaled rotary positions ({rope}) are not supported")
    wrong = [k for k in ("attention_bias", "mlp_bias") if told.get(k)]
    wrong += ["hidden_act"] if told.get("hidden_act", "silu") != "silu" else []
    width, heads = told["hidden_size"], told["num_attention_heads"]
    wrong += ["head_dim"] if (told.get("head_dim") or width // heads) * heads != width else []
    if wrong:
        raise UserError(f"{root}: {', '.join(f'{k}={told[k]}' for k in wrong)} is not supported")
    return ModelConfig(
        vocab_size=told["vocab_size"],
        num_layers=told["num_hidden_layers"],
        hidden_size=width,
        num_heads=heads,
        num_kv_heads=told.get("num_key_value_heads") or heads,
        intermediate_size=told["intermediate_size"],
        tie_embeddings=bool(told.get("tie_word_embeddings", False)),
        rope_theta=float(rope.get("rope_theta") or told.get("rope_theta") or 10_000.0),
        norm_eps=float(told.get("rms_norm_eps", 1e-6)),
        qk_norm=kind == "qwen3",
    )


def import_hf(folder: str, run_dir: str) -> Path:
    """Writes a Hugging Face model as a run's checkpoint of step 0, which `init_from` and `export` read.

    Raises UserError as `load_hf` does, and where the run exists.
    """
    run, root = Path(run_dir), Path(folder)
    record = run_directory.read_data_record(run)
    if save_load.checkpoints(run / "checkpoints") or (record is not None and record["manifest"] is not None):
        raise UserError(f"{run_dir} has checkpoints already, or is a training run; name another directory")
    run_directory.refuse_foreign_files(run, "tokenizer.json")
    model = load_hf(folder)
    told = json.loads((root / "config.json").read_text())
    eos = told.get("eos_token_id")
    eos = int(eos[0] if isinstance(eos, list) else eos or 0)
    rows, vocab, sha = model.config.vocab_size, model.config.vocab_size, None
    if (root / "tokenizer.json").exists():  # perhaps a link, to anything: only a tokenizer is copied
        content = (root / "tokenizer.json").read_bytes()
        ids = parse_tokenizer(content, root / "tokenizer.json", "imported").get_vocab().values()
        vocab, sha = max(ids) + 1, hashlib.sha256(content).hexdigest()
    sizes = {k: v for k, v in vars(model.config).items() if k != "vocab_size"}
    config = TrainConfig(
        steps=1,
        model=ModelSection(preset=None, pad_vocab=rows if rows > vocab else None, **sizes),
        data=DataConfig(seq_len=min(told.get("max_position_embeddings", 2048), 8192)),
    )
    run.mkdir(parents=True, exist_ok=True)
    tokenizer = {"file": "tokenizer.json", "kind": "imported", "eos": eos, "vocab": min(vocab, rows), "sha256": sha}
    _json(run / run_directory.DATA, {"manifest": None, "root": folder, "tokenizer": tokenizer})  # first: now it is ours
    if sha is not None:
        atomic_files.write(run / "tokenizer.json", content)
    (run / run_directory.CONFIG).write_text(config.dump())
    state = {"step": 0, "model_config": vars(model.config)}
    with save_load.CheckpointSaver(run / "checkpoints", background=False) as saver:
        saver.save(
            0, model, optimizers.build_optimizers(model, config.optimizer), state, save_load.Retention(1, None, None)
        )
    return run / "checkpoints" / f"{0:08d}"


def _weights(root: Path) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    files = sorted(root.glob("*.safetensors"))
    if not files:
        raise UserError(f"{root}: no .safetensors here")
    for file in files:
        with safe_open(file, framework="pt") as f:
            for name in f.keys():  # noqa: SIM118 - not a dict
                yield name, f.get_tensor(name)


def _json(path: Path, value: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as f:
        f.write(json.dumps(value, indent=2) + "\n")
        f.flush()
        os.fsync(f.fileno())
