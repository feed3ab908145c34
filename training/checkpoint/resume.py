"""What a run directory is held to, and what may be another when training goes on in it.

train.yaml and data.json say what a run was made by. Keys that touch neither the weights nor the order of the data may
change freely (FREE); those that change the rounding only, too (ROUNDING); the learning rate's shape may change as long
as those already done would have had the same rates. Anything else is another run; docs/training.md has the table.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from curation.core import atomic_files
from curation.core.errors import UserError
from curation.shards import Manifest, read_file
from training.checkpoint import save_load
from training.config import TrainConfig, parse
from training.cost.device_specs import has_native_bf16
from training.optim.lr_schedule import learning_rate

FREE = (
    "evaluate.", "checkpoint.", "guard.", "log_every", "log_to", "hang_after", "exclude_list", "data.cache",
    "data.max_epochs",
)  # fmt: skip
# and the number of ranks
ROUNDING = (
    "batch.micro_size",
    "activation_checkpointing",
    "compile",
    "parallel.",
    "threads",
    "device",
    "deterministic",
)
ORDER = ("data.weights", "data.seq_len", "data.changes", "batch.global_size")  # new segments of the order log
RATES = ("steps", "schedule.")  # where what is done keeps its rates


def settle(config: TrainConfig, run: Path, manifest: Manifest) -> TrainConfig:
    """Decides what was left to the machine, and holds a run with checkpoints to its configuration and shards.

    On resume the decisions of the first start stand (precision, device, threads). Raises UserError where configuration
    or shards differ from those that the run began with in what may not.
    """
    done = max([int(p.name) for p in save_load.checkpoints(run / "checkpoints")], default=0)
    if not done:  # nothing was trained: the directory belongs to nobody yet
        for leftover in ("checkpoints", "incidents"):
            shutil.rmtree(run / leftover, ignore_errors=True)
        return decide(config, None)
    if not ((run / "train.yaml").exists() and (run / "data.json").exists()):
        raise UserError(f"{run} has checkpoints and no train.yaml or data.json to go with them; name another run")
    earlier = parse((run / "train.yaml").read_text(), str(run / "train.yaml"))
    settled = decide(config, earlier)
    before, now = _flat(earlier.model_dump(mode="json")), _flat(settled.model_dump(mode="json"))
    keys = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
    refused = [
        k
        for k in keys
        if not _may(k, FREE + ROUNDING + ORDER) and not (_may(k, RATES) and _same_rates(earlier, settled, done))
    ]
    if refused:
        changes = "; ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in refused)
        raise UserError(
            f"{run} was made by another configuration: {changes}. Change it back or name another run "
            "(docs/training.md says what may change)"
        )
    if json.loads((run / "data.json").read_text())["manifest"] != digest(manifest):
        raise UserError(
            f"{run} was trained on other shards than {manifest.root} has now; name another run, or the shards that it "
            f"read: a run that has forgotten documents keeps them (--data RUN/generations/N --run {run})"
        )
    return settled


def _may(key: str, allowed: tuple[str, ...]) -> bool:
    return any(key.startswith(a) if a.endswith(".") else key == a or key.startswith(a + ".") for a in allowed)


def _same_rates(earlier: TrainConfig, now: TrainConfig, done: int) -> bool:
    """Whether the steps already done had the learning rates that this configuration would give them."""
    if now.steps < done:
        return False

    def rates(c: TrainConfig) -> list[float]:
        return [learning_rate(i, c.steps, c.optimizer.lr, c.schedule) for i in range(done)]

    return rates(earlier) == rates(now)


def write_head(run: Path, config: TrainConfig, manifest: Manifest) -> None:
    """train.yaml, the tokenizer and data.json (which shards): with the checkpoints, all that using the model needs."""
    run.mkdir(parents=True, exist_ok=True)
    data = {
        "manifest": digest(manifest),
        "root": manifest.root,
        "roots": manifest.roots,
        "tokenizer": vars(manifest.tokenizer),
    }
    atomic_files.write(run / manifest.tokenizer.file, read_file(manifest.path(manifest.tokenizer.file)))
    atomic_files.write(run / "data.json", (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
    atomic_files.write(run / "train.yaml", config.dump().encode())


def digest(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.dumps()).hexdigest()


def decide(config: TrainConfig, earlier: TrainConfig | None) -> TrainConfig:
    """The configuration with device, precision and threads as this machine, or the run's first start, has them."""
    device, precision, threads = config.device, config.precision, config.threads
    if device == "auto":
        device = earlier.device if earlier else "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = earlier.precision if earlier else "bf16" if has_native_bf16(device) else "fp32"
    if threads is None:
        threads = earlier.threads if earlier else torch.get_num_threads()
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda, and torch sees no CUDA device here; set device: cpu, or see `gristmill doctor`")
    return config.model_copy(update={"device": device, "precision": precision, "threads": threads})


def chosen_device(config: TrainConfig) -> str:
    """The kind of device that `auto` stands for here."""
    return config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"


def _flat(value: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{above}{key}.") if isinstance(inner, dict) else {above + key: inner})
    return flat
