"""Runs a training on Ray Train (V2) workers, which Ray places, watches and restarts; elastic by option.

Ray starts the processes and forms their group; each then calls `train`, as under torchrun. The state of a run is in its
own directory, on a file system that all nodes share: a restarted group, of the same size or another, resumes from the
last checkpoint there, and Ray's own Result is not used. Only this file imports Ray.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curation.core.errors import UserError
from curation.core.local_ray import start_local_ray
from curation.core.packages import require
from curation.shards import read_manifest
from training.checkpoint.run_directory import refuse_foreign_files
from training.checkpoint.tensor_files import CheckpointError
from training.config import TrainConfig
from training.train import TrainResult, finished_result, train


def train_on_ray(
    config: TrainConfig,
    data_dir: str | Sequence[str],
    run_dir: str,
    *,
    workers: int | tuple[int, int],
    failures: int = 3,
    address: str | None = None,
    cpus: float = 1,
) -> TrainResult:
    """Trains on `workers` Ray workers (with a GPU each if config.device is cuda), or on as many of (min, max) as fit.

    `failures`: how often the group is restarted after losing a worker. Raises what `train` raises, and RuntimeError if
    workers died more often than that.
    """
    require("training on Ray workers", ["ray", "pandas"])
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    run = Path(run_dir).resolve()
    if not ray.is_initialized():
        if address is None and "RAY_ADDRESS" not in os.environ:
            start_local_ray(ray)
        else:
            ray.init(address=address, log_to_driver=False)
    gpu = config.device == "cuda"
    places = [data_dir] if isinstance(data_dir, str) else data_dir
    data = [p if "://" in p else str(Path(p).resolve()) for p in places]
    refuse_foreign_files(run, read_manifest(data).tokenizer.file)
    run.mkdir(parents=True, exist_ok=True)
    # An error for the user: raised in a worker, Ray would retry and wrap it. A name of its own, so no file is replaced
    failed = run / f".failed-{uuid.uuid4().hex}.json"
    here = {"init_from": config.init_from, "branch_from": config.branch_from}  # paths of this process's directory
    config = config.model_copy(update={k: p and str(Path(p).resolve()) for k, p in here.items()})
    scaling: dict[str, Any] = {"num_workers": workers, "use_gpu": gpu, "resources_per_worker": {"CPU": cpus}}
    if gpu:
        scaling["resources_per_worker"]["GPU"] = 1
    trainer = TorchTrainer(
        _worker,
        # the object itself: workers need not have the variables of the file, and write them as it does
        train_loop_config={"config": config, "data": data, "run": str(run), "failed": str(failed)},
        scaling_config=ScalingConfig(**scaling),
        run_config=RunConfig(
            name="gristmill", storage_path=str(run / "ray"), failure_config=FailureConfig(max_failures=failures)
        ),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo"),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise RuntimeError(f"{run}: the workers failed more than {failures} times: {error}") from error
    if failed.exists():
        failure = json.loads(failed.read_text())
        failed.unlink()
        raise {"UserError": UserError, "CheckpointError": CheckpointError}.get(failure["kind"], RuntimeError)(
            failure["text"]
        )
    return finished_result(run)


def _worker(task: dict[str, Any]) -> None:
    """Runs on each worker. An error that the user has to fix is written to a file: Ray must not retry it."""
    from ray.train import get_context
    from ray.train.torch import get_device

    from curation.shards import ShardError

    device = get_device()
    context = get_context()
    os.environ["LOCAL_RANK"] = str(getattr(device, "index", None) or 0)
    try:
        train(task["config"], task["data"], task["run"])
    except (UserError, CheckpointError, ShardError) as error:
        if context.get_world_rank() == 0:
            failure = {"kind": type(error).__name__, "text": str(error)}
            Path(task["failed"]).write_text(json.dumps(failure))
