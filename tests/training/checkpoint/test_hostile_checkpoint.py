"""Somebody's checkpoint runs no code: whatever is planted in it, it is refused by name before it is opened.

Covers: training/checkpoint/tensor_files.py.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from curation.core.errors import UserError
from training.checkpoint import save_load
from training.checkpoint.huggingface import export, load_hf
from training.checkpoint.load_model import load_model
from training.checkpoint.save_load import CheckpointError, CheckpointSaver, Retention, newest, restore, verify
from training.checkpoint.tensor_files import INDEX, entry_name
from training.config import OptimizerConfig, parse
from training.evaluation.generate import generate
from training.optim.optimizers import build_optimizers
from training.train import train


class Payload:
    """What unpickles to a call: the file at `marker` shows that it ran."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.marker),)


def bare_pickle(marker: Path) -> bytes:
    return pickle.dumps(Payload(marker))


def torch_file(marker: Path) -> bytes:
    """As torch.save writes it, and as a .distcp holds it: a zip with a pickle."""
    out = io.BytesIO()
    torch.save({"model": Payload(marker)}, out)
    assert zipfile.is_zipfile(out)
    return out.getvalue()


def plant(checkpoint: Path, name: str, data: bytes, *, listed: bool) -> None:
    """Puts a file into a checkpoint and, with `listed`, into its manifest, with the checksum that it has."""
    (checkpoint / name).write_bytes(data)
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text())
    if listed:
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path.write_text(json.dumps(manifest))


def users(run: Path, corpus: Path, out: Path) -> dict[str, Callable[[], object]]:
    """Everything that opens a checkpoint: of a run, or named as the start of another."""
    config = (
        "steps: 30\nmodel: {preset: toy}\ndata: {seq_len: 64}\nbatch: {global_size: 8}\nprecision: fp32\nthreads: 1\n"
    )
    checkpoint = save_load.checkpoints(run / "checkpoints")[-1]
    return {
        "verify": lambda: verify(checkpoint),
        "generate": lambda: generate(str(run), "def ", tokens=2),
        "load": lambda: load_model(str(run)),
        "export": lambda: export(str(run), str(out / "hf")),
        "resume": lambda: train(parse(config), str(corpus), str(run)),
        "init_from": lambda: train(parse(f"{config}init_from: {run}\n"), str(corpus), str(out / "child")),
    }


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "weights.pt", "rank-00000.safetensors"])
@pytest.mark.parametrize("content", [bare_pickle, torch_file])
def test_a_planted_pickle_is_refused_by_name(
    trained: Path, corpus: Path, tmp_path: Path, name: str, content: Callable[[Path], bytes], listed: bool
) -> None:
    run, marker = tmp_path / "run", tmp_path / "ran"
    shutil.copytree(trained, run)
    for path in save_load.checkpoints(run / "checkpoints")[:-1]:
        shutil.rmtree(path)  # no older one to fall back to
    (checkpoint,) = save_load.checkpoints(run / "checkpoints")
    plant(checkpoint, name, content(marker), listed=listed)
    for what, use in users(run, corpus, tmp_path).items():
        with pytest.raises((CheckpointError, UserError)) as caught:
            use()
        assert name in str(caught.value), what
        assert not marker.exists(), f"{what} ran code out of {name}"


def test_a_model_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    """pytorch_model.bin beside a config.json, as older models on the Hub have it."""
    (tmp_path / "pytorch_model.bin").write_bytes(torch_file(tmp_path / "ran"))
    sizes = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "vocab_size": 8,
    }
    code = {"auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **sizes, **code}))
    (tmp_path / "evil.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    with pytest.raises(UserError, match=r"no \.safetensors here"):
        load_hf(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def saved(folder: Path) -> tuple[Path, nn.Module]:
    torch.manual_seed(3)
    model = nn.Linear(3, 2)
    with CheckpointSaver(folder, background=False) as saver:
        saver.save(1, model, build_optimizers(model, OptimizerConfig()), {"step": 1}, Retention(1))
    return folder / "00000001", model


def rewrite(checkpoint: Path, name: str, change: Callable[[dict], object]) -> None:
    value = json.loads((checkpoint / name).read_text())
    change(value)
    if name == "manifest.json":
        (checkpoint / name).write_text(json.dumps(value))
    else:
        plant(checkpoint, name, json.dumps(value).encode(), listed=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["model.weight"]["chunks"][0].update(file="../../secret.safetensors"), "no file of tensors"),
        (lambda t: t["model.weight"]["chunks"][0].update(file="/etc/passwd"), "no file of tensors"),
        (lambda t: t["model.weight"]["chunks"][0].update(file=7), "damaged"),
        (lambda t: t["model.weight"]["chunks"][0].update(file="rank-00009.safetensors"), "does not list"),
        (lambda t: t["model.weight"]["chunks"][0].update(sizes=[1, 3]), "do not make up its shape"),
        (lambda t: t["model.weight"]["chunks"][0].update(offsets=[1, 0]), "outside its shape"),
        (lambda t: t["model.weight"].update(dtype="load"), "damaged"),
        (lambda t: t.update(other=t["model.weight"]), "has no tensor other"),
    ],
)  # fmt: skip
def test_an_index_that_names_other_files_or_parts_is_refused(tmp_path: Path, change: Callable, said: str) -> None:
    checkpoint, _ = saved(tmp_path)
    rewrite(checkpoint, INDEX, change)
    with pytest.raises(CheckpointError, match=said):
        verify(checkpoint)


def test_a_manifest_that_lists_files_elsewhere_is_refused(tmp_path: Path) -> None:
    checkpoint, _ = saved(tmp_path)
    for name in ("../outside", "/etc/passwd", "notes.txt"):
        rewrite(checkpoint, "manifest.json", lambda m, name=name: m["files"].update({name: {"bytes": 1}}))
        with pytest.raises(CheckpointError, match=name):
            verify(checkpoint)
        rewrite(checkpoint, "manifest.json", lambda m, name=name: m["files"].pop(name))
    (checkpoint / "notes.txt").write_text("a note of one's own does no harm")
    (checkpoint / ".nfs0001").write_text("nor does what a file system leaves")
    assert verify(checkpoint) == {"step": 1}


def test_checkpoints_of_the_format_with_pickles_are_refused(tmp_path: Path) -> None:
    checkpoint, _ = saved(tmp_path)
    rewrite(checkpoint, "manifest.json", lambda m: m.update(format=3))
    (checkpoint / ".metadata").write_bytes(bare_pickle(tmp_path / "ran"))
    with pytest.raises(CheckpointError, match=r"format 3.*reads format 4.*use the version that wrote it"):
        verify(checkpoint)
    with pytest.raises(CheckpointError, match="format 3"):
        newest(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_the_files_are_what_safetensors_reads(tmp_path: Path) -> None:
    """A checkpoint of one rank is a plain safetensors file under the names of the parameters."""
    from safetensors.torch import load_file

    checkpoint, model = saved(tmp_path)
    assert sorted(p.name for p in checkpoint.iterdir()) == [
        "manifest.json", "rank-00000.safetensors", "state.json", INDEX,
    ]  # fmt: skip
    found = load_file(checkpoint / "rank-00000.safetensors")
    assert torch.equal(found["model.weight"], model.weight)
    assert found["optimizer.bias.step"].shape == ()
    assert entry_name("w", (0, 0)) == "w" and entry_name("w", (4, 0)) == "w[4,0]" and entry_name("step", ()) == "step"


def test_types_of_every_width_come_back(tmp_path: Path) -> None:
    """Whatever the order of their sizes, every tensor is aligned, empty and scalar ones included."""

    class Odd(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            for i, dtype in enumerate((torch.bfloat16, torch.float64, torch.float16, torch.float32)):
                for shape in ((3,), (), (0, 2), (5, 1)):
                    self.register_parameter(
                        f"p{i}_{len(shape)}_{sum(shape)}", nn.Parameter(torch.randn(shape).to(dtype))
                    )

    one, other = Odd(1), Odd(2)
    with CheckpointSaver(tmp_path, background=False) as saver:
        saver.save(1, one, build_optimizers(one, OptimizerConfig()), {}, Retention(1))
    restore(tmp_path / "00000001", other, build_optimizers(other, OptimizerConfig()))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
