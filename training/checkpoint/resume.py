"""Decides whether a run may resume with a configuration, and writes the files that a run is resumed from.

train.yaml and data.json say what a run was made with. Keys that affect neither the weights nor the order of the data
may change freely (FREE); those that change rounding only, too (ROUNDING); the learning-rate schedule may change as long
as the steps already done would have had the same rates. Anything else is another run; docs/training.md has the table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from curation.core import atomic_files
from curation.core.errors import UserError
from curation.shards import Manifest, read_tokenizer
from training.checkpoint import run_directory, save_load
from training.checkpoint.parent import is_same_parent
from training.checkpoint.run_directory import CONFIG, DATA
from training.checkpoint.tensor_files import CheckpointError
from training.config import TrainConfig, load
from training.cost.device_specs import check_device, has_native
from training.data.dataset import manifest_digest
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
    record = run_directory.read_data_record(run)
    if record is not None and record["manifest"] is None:
        raise UserError(
            f"{run} holds an imported model, which training would overwrite. Start from its weights in a directory of "
            f"the training's own: gristmill train CONFIG --data RUN --run DIR --init-from {run}"
        )
    done = max([int(p.name) for p in save_load.checkpoints(run / "checkpoints")], default=0)
    earlier = load(str(run / CONFIG)) if record is not None and (run / CONFIG).exists() else None
    if not done:  # nothing was trained yet
        if earlier is not None and _same_start(config, earlier, run, manifest):
            return earlier
        run_directory.remove_earlier_start(run)
        return resolve_auto(config, None)
    if earlier is None or record is None:
        raise UserError(f"{run} has checkpoints but no {CONFIG} or no {DATA}; choose another run directory")
    resolved = resolve_auto(config, earlier)
    before, now = _flat(earlier.model_dump(mode="json")), _flat(resolved.model_dump(mode="json"))
    keys = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
    parent = record.get("parent")
    refused = [
        k
        for k in keys
        if not (k in ("init_from", "branch_from") and now.get(k) and is_same_parent(now[k], parent))
        and not _matches(k, FREE + ROUNDING + ORDER)
        and not (_matches(k, RATES) and _same_rates(earlier, resolved, done))
    ]
    if refused:
        changes = "; ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in refused)
        if parent is not None and {"init_from", "branch_from"} & set(refused):
            changes += f" (it began from step {parent['step']} of {parent['path']}, which is not read again)"
        raise UserError(
            f"{run} was started with another configuration: {changes}. Change it back or choose another run directory "
            "(docs/training.md says what may change)"
        )
    if record["manifest"] != manifest_digest(manifest):
        raise UserError(
            f"{run} was trained on other shards than {manifest.root} has now; choose another run directory, or give "
            "the shards that it read: a run from which documents were deleted keeps them "
            f"(--data RUN/generations/N --run {run})"
        )
    return resolved


def _same_start(config: TrainConfig, earlier: TrainConfig, run: Path, manifest: Manifest) -> bool:
    """Whether an earlier start left a checkpoint of step 0 that this configuration goes on from, to the same end."""
    record = run_directory.read_data_record(run)
    if record is None or record["manifest"] != manifest_digest(manifest) or resolve_auto(config, earlier) != earlier:
        return False
    try:
        return save_load.newest(run / "checkpoints") is not None
    except CheckpointError:
        return False


def _matches(key: str, allowed: tuple[str, ...]) -> bool:
    return any(key.startswith(a) if a.endswith(".") else key == a or key.startswith(a + ".") for a in allowed)


def _same_rates(earlier: TrainConfig, now: TrainConfig, done: int) -> bool:
    """Whether the steps already done had the learning rates that this configuration would give them."""
    if now.steps < done:
        return False

    def rates(c: TrainConfig) -> list[float]:
        return [learning_rate(i, c.steps, c.optimizer.lr, c.schedule) for i in range(done)]

    return rates(earlier) == rates(now)


def write_run_files(
    run: Path, config: TrainConfig, manifest: Manifest, parent: dict[str, Any] | None, *, resumes: bool
) -> None:
    """Writes data.json (which shards, and which parent), the tokenizer and train.yaml: all that a checkpoint needs.

    data.json comes first: with it the directory belongs to this run. A run that `resumes` keeps the parent it has.
    """
    if resumes:
        parent = (run_directory.read_data_record(run) or {}).get("parent")
    data = {
        "manifest": manifest_digest(manifest),
        "root": manifest.root,
        "roots": manifest.roots,
        "tokenizer": vars(manifest.tokenizer),
        **({} if parent is None else {"parent": parent}),
    }
    atomic_files.write(run / DATA, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
    atomic_files.write(run / manifest.tokenizer.file, read_tokenizer(manifest))
    atomic_files.write(run / CONFIG, config.dump().encode())


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
