"""Decides whether a run may resume with a configuration, and writes the files that a run is resumed from.

train.yaml and data.json say what a run was made with. Keys that affect neither the weights nor the order of the data
may change freely (FREE); those that change rounding only, too (ROUNDING); the learning-rate schedule may change as long
as the steps already done would have had the same rates. Anything else is another run; docs/training.md has the table.
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
from training.config import TrainConfig, load
from training.cost.device_specs import check_device, has_native
from training.optim.lr_schedule import learning_rate

# No effect on weights or data order
FREE = (
    "evaluate.", "checkpoint.", "guard.", "log_every", "log_to", "hang_after", "exclude_list", "data.cache",
    "data.max_epochs",
)  # fmt: skip
# Change rounding only, as the number of ranks does
ROUNDING = (
    "batch.micro_size",
    "activation_checkpointing",
    "compile",
    "parallel.",
    "threads",
    "device",
    "deterministic",
)
ORDER = ("data.weights", "data.seq_len", "data.changes", "batch.global_size")  # start a new segment of the order log
RATES = ("steps", "schedule.")  # where the steps done keep their rates


def resolve_config(config: TrainConfig, run: Path, manifest: Manifest) -> TrainConfig:
    """Resolves what is `auto`, and checks that a run with checkpoints may resume with this configuration and data.

    On resume the first start's values are kept (precision, device, threads). Raises UserError where the configuration
    or the shards differ from those that the run began with in a way that is not allowed.
    """
    done = max([int(p.name) for p in save_load.checkpoints(run / "checkpoints")], default=0)
    if not done:  # nothing was trained yet: start afresh
        for leftover in ("checkpoints", "incidents"):
            shutil.rmtree(run / leftover, ignore_errors=True)
        return resolve_auto(config, None)
    if not ((run / "train.yaml").exists() and (run / "data.json").exists()):
        raise UserError(f"{run} has checkpoints but no train.yaml or no data.json; choose another run directory")
    earlier = load(str(run / "train.yaml"))
    resolved = resolve_auto(config, earlier)
    before, now = _flat(earlier.model_dump(mode="json")), _flat(resolved.model_dump(mode="json"))
    keys = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
    refused = [
        k
        for k in keys
        if not _matches(k, FREE + ROUNDING + ORDER)
        and not (_matches(k, RATES) and _same_rates(earlier, resolved, done))
    ]
    if refused:
        changes = "; ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in refused)
        raise UserError(
            f"{run} was started with another configuration: {changes}. Change it back or choose another run directory "
            "(docs/training.md says what may change)"
        )
    if json.loads((run / "data.json").read_text())["manifest"] != manifest_digest(manifest):
        raise UserError(
            f"{run} was trained on other shards than {manifest.root} has now; choose another run directory, or give "
            "the shards that it read: a run from which documents were deleted keeps them "
            f"(--data RUN/generations/N --run {run})"
        )
    return resolved


def _matches(key: str, allowed: tuple[str, ...]) -> bool:
    return any(key.startswith(a) if a.endswith(".") else key == a or key.startswith(a + ".") for a in allowed)


def _same_rates(earlier: TrainConfig, now: TrainConfig, done: int) -> bool:
    """Whether the steps already done had the learning rates that this configuration would give them."""
    if now.steps < done:
        return False

    def rates(c: TrainConfig) -> list[float]:
        return [learning_rate(i, c.steps, c.optimizer.lr, c.schedule) for i in range(done)]

    return rates(earlier) == rates(now)


def write_run_files(run: Path, config: TrainConfig, manifest: Manifest) -> None:
    """Writes train.yaml, the tokenizer and data.json (which shards): all that using a checkpoint needs."""
    run.mkdir(parents=True, exist_ok=True)
    data = {
        "manifest": manifest_digest(manifest),
        "root": manifest.root,
        "roots": manifest.roots,
        "tokenizer": vars(manifest.tokenizer),
    }
    atomic_files.write(run / manifest.tokenizer.file, read_file(manifest.path(manifest.tokenizer.file)))
    atomic_files.write(run / "data.json", (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
    atomic_files.write(run / "train.yaml", config.dump().encode())


def manifest_digest(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.dumps()).hexdigest()


def resolve_auto(config: TrainConfig, earlier: TrainConfig | None) -> TrainConfig:
    """The configuration with device, precision and threads of this machine, or of the run's first start."""
    device, precision, threads = config.device, config.precision, config.threads
    if device == "auto":
        device = earlier.device if earlier else "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = earlier.precision if earlier else "bf16" if has_native("bf16", device) else "fp32"
    check_device(device)
    if threads is None:
        threads = earlier.threads if earlier else torch.get_num_threads()
    return config.model_copy(update={"device": device, "precision": precision, "threads": threads})


def resolve_device(config: TrainConfig) -> str:
    """The kind of device, cpu or cuda, with `auto` resolved for this machine."""
    return check_device(config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")


def _flat(value: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{above}{key}.") if isinstance(inner, dict) else {above + key: inner})
    return flat
