"""Trains a model on the shards of curation runs: sets up the run and its parts, and starts the training loop.

A run directory holds train.yaml (the resolved configuration), the tokenizer, metrics.jsonl (losses and interventions: a
function of configuration and data, equal to the bit after any interruption), speed.jsonl and sessions.jsonl (times),
incidents/ and checkpoints/. Running the same command again resumes from the last checkpoint and ends where an
uninterrupted run ends; with more ranks or fewer, it reads the same sequences. The loop itself is in trainer.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from curation.core import jsonl_log
from curation.shards import Manifest, read_manifest
from training.callbacks import LogCallback, SpikeGuardCallback, WatchdogCallback
from training.checkpoint import save_load
from training.checkpoint.disk_space import full_disk_in_words
from training.checkpoint.parent import Parent, find_parent
from training.checkpoint.resume import resolve_config, resolve_device, write_run_files
from training.checkpoint.run_directory import hold_run_directory, refuse_foreign_files
from training.checkpoint.save_load import Checkpoint, CheckpointSaver
from training.checkpoint.tensor_files import CheckpointError
from training.config import TrainConfig
from training.cost import device_specs
from training.cost.cost_model import LiveStats
from training.data.data_order import OrderLog
from training.data.data_schedule import rank_slices
from training.data.dataset import TokenDataset, manifest_digest
from training.data.token_streams import validation_streams
from training.distributed.parallel import Ranks, build_model, init_ranks
from training.distributed.watchdog import MARKER, start_watchdog
from training.evaluation.tasks import read_tasks
from training.evaluation.validation_loss import ValidationScore
from training.metrics.experiment_loggers import ExperimentLoggers
from training.metrics.log_format import METRICS, SESSIONS
from training.metrics.metrics_log import MetricsLog, Report, goodput, last_scores
from training.model.transformer import ModelConfig
from training.preflight import preflight_notes
from training.stability import rollback
from training.stability.spike_detection import SpikeGuard
from training.train_state import data_order
from training.trainer import Callback, Trainer


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: the numbers of its last step and evaluation, and notes for the user."""

    steps: int
    sequences: int
    tokens: int
    loss: float | None  # of the last step; None if all steps were already done
    validation: dict[str, ValidationScore]
    checkpoint: Path
    resumed_from: int  # the step at which this call began
    notes: tuple[str, ...]  # rounding of the mix, damaged checkpoints, tokens not trained on
    masked: tuple[str, ...] = ()  # doc_ids of the documents that the guard masked
    goodput: float | None = None  # share of the time since the first start that went into steps that were kept


def train(
    config: TrainConfig,
    data_dir: str | Sequence[str],
    run_dir: str,
    *,
    callbacks: Sequence[Callback] = (),
    report: Report | None = None,
) -> TrainResult:
    """Trains a model on the shards of one or more curation runs, or resumes where an earlier call was interrupted.

    callbacks: hooks of the loop, called after the built-in ones; see `trainer.Callback`.
    report: called with every entry of the logs, on the first rank.

    Raises UserError for what the user has to change, ShardError for shards that cannot be read, CheckpointError if
    every checkpoint is damaged, and Preempted when SIGTERM came and a checkpoint is saved. Under torchrun and Ray Train
    every rank calls it.
    """
    run = Path(run_dir)
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(init_ranks(resolve_device(config), config.parallel.dp_shard))
        manifest = read_manifest(data_dir)
        ranks.broadcast_from_rank0(lambda: refuse_foreign_files(run, manifest.tokenizer.file))
        still_held = stack.enter_context(hold_run_directory(run, ranks))
        if ranks.first:
            (run / MARKER).unlink(missing_ok=True)  # of the session before this one
        resolved = ranks.broadcast_from_rank0(lambda: resolve_config(config, run, manifest))
        watchdog = stack.enter_context(start_watchdog(resolved.hang_after, run))
        stack.enter_context(_torch_settings(resolved))
        if ranks.first:
            settings = resolved.written()
            report = stack.enter_context(ExperimentLoggers(run, resolved.log_to, report, settings))

        checkpoint = ranks.broadcast_from_rank0(lambda: rollback.latest_checkpoint(run))
        parent = None
        if checkpoint is None:
            digest = manifest_digest(manifest)
            parent = ranks.broadcast_from_rank0(lambda: find_parent(resolved, run, manifest, digest))
        start = parent.checkpoint if parent is not None and parent.branch else checkpoint
        data, order, notes = _open_data(resolved, manifest, start, ranks)
        origin = _origin_notes(checkpoint, parent, resolved.steps)  # now: at the end there are newer checkpoints
        validation = validation_streams(manifest, resolved.data.validation)
        sizes = model_config(resolved, manifest.tokenizer.vocab)
        notes += preflight_notes(resolved, manifest, order, sizes, run, validation)
        tasks = ranks.broadcast_from_rank0(lambda: read_tasks(resolved))
        if ranks.first:
            unfinished = checkpoint is None or checkpoint.state["step"] < resolved.steps
            for note in [*origin, *(notes if unfinished else ())]:  # first of all where the run goes on
                if report is not None:
                    report({"kind": "note", "note": note})
            write_run_files(run, resolved, manifest, parent.record if parent else None, resumes=checkpoint is not None)
        model = build_model(model_config(resolved, manifest.tokenizer.vocab), resolved, ranks)
        if parent is not None:
            save_load.restore(parent.checkpoint.path, model, None, ranks)

        background = resolved.checkpoint.background
        saver = stack.enter_context(
            CheckpointSaver(run / "checkpoints", ranks, background=background, before_commit=still_held)
        )
        log = stack.enter_context(_open_log(run, start, report, ranks, notes))
        live = LiveStats(resolved, model.config, device_specs.current_device(ranks.device.type), ranks.world)
        guard = SpikeGuard(resolved.guard, ranks.device, overflow=resolved.precision == "fp16")
        built_in = (WatchdogCallback(watchdog), LogCallback(log, live), SpikeGuardCallback(guard, log))
        trainer = Trainer(
            resolved, run, manifest, ranks, data, order, model, saver, (*built_in, *callbacks),
            validation=validation, tasks=tasks,
        )  # fmt: skip
        with full_disk_in_words(run):
            trainer.fit(start, begins=checkpoint is None)
        return _result(trainer, start, [*notes, *origin])


def finished_result(run: Path) -> TrainResult:
    """The result of a finished run, from its files."""
    checkpoint = save_load.newest(run / "checkpoints")
    if checkpoint is None:
        raise CheckpointError(f"{run}: no checkpoint here")
    state, order = checkpoint.state, OrderLog.from_dict(checkpoint.state["order"])
    starts = [e.get("notes", ()) for e in jsonl_log.read(run / SESSIONS) if e["event"] == "start"]
    losses = [e["loss"] for e in jsonl_log.read(run / METRICS) if e["kind"] == "train"]
    return TrainResult(
        state["step"], state["sequences"], state["tokens"], losses[-1] if losses else None, last_scores(run),
        checkpoint.path, 0, (*(starts[-1] if starts else ()), *checkpoint.notes), _masked(order),
        goodput(run).get("goodput"),
    )  # fmt: skip


def model_config(config: TrainConfig, vocab: int) -> ModelConfig:
    """The sizes of the model, from the configuration and the tokenizer's vocabulary."""
    return ModelConfig(**config.model.sizes(vocab))


def _open_data(
    config: TrainConfig, manifest: Manifest, checkpoint: Checkpoint | None, ranks: Ranks
) -> tuple[TokenDataset, OrderLog, list[str]]:
    """The data, its order, and notes about both. Raises UserError for a global batch that the ranks cannot share."""
    data, order, rounding = data_order(config, manifest, checkpoint)
    notes = list(data.notes)
    notes += [f"the mix was rounded to {order.segments[0].mix}, off by at most {rounding:.2g}"] if rounding else []
    notes += [
        f"{name}: {d.remainder:,} of {d.tokens.sum():,} tokens per epoch are not trained on (shard remainders)"
        for name, d in data.orders.items()
    ]
    for segment in order.segments:  # refused now, and not at the step where the segment begins
        rank_slices(segment.global_size, ranks.world, 1, ranks.rank)
    return data, order, notes


def _origin_notes(checkpoint: Checkpoint | None, parent: Parent | None, steps: int) -> list[str]:
    """What the run goes on from, and which newer checkpoints are damaged."""
    if checkpoint is not None:
        left = checkpoint.state["step"] < steps
        return [*checkpoint.notes, *([f"resuming from {checkpoint.description}"] if left else [])]
    return list(parent.notes) if parent is not None else []


def _open_log(
    run: Path, checkpoint: Checkpoint | None, report: Report | None, ranks: Ranks, notes: Sequence[str]
) -> MetricsLog:
    """The run's logs, cut back to the checkpoint; only the first rank writes."""
    step = checkpoint.state["step"] if checkpoint else -1
    incidents = checkpoint.state["guard"]["incidents"] if checkpoint else 0
    folder = run if ranks.first else None
    return MetricsLog(folder, step, report, incidents=incidents, ranks=ranks.world, notes=notes)


def _result(trainer: Trainer, checkpoint: Checkpoint | None, notes: list[str]) -> TrainResult:
    """The result of a training that has reached its last step; `checkpoint`: what it resumed from."""
    run, ranks, state = trainer.run, trainer.ranks, trainer.state
    scores = trainer.scores or ranks.broadcast_from_rank0(lambda: last_scores(run))  # {}: no step was left to do
    useful = goodput(run).get("goodput") if ranks.first else None
    resumed_from = checkpoint.state["step"] if checkpoint else 0
    return TrainResult(
        state.step, state.sequences, state.tokens, trainer.loss, scores,
        save_load.checkpoints(run / "checkpoints")[-1], resumed_from, tuple(notes), _masked(state.order), useful,
    )  # fmt: skip


def _masked(order: OrderLog) -> tuple[str, ...]:
    return tuple(sorted({doc_id for segment in order.segments for doc_id in segment.masked}))


@contextlib.contextmanager
def _torch_settings(config: TrainConfig) -> Iterator[None]:
    """Threads and determinism during a run; only equal numbers of threads give results equal to the bit."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads or threads)
    torch.use_deterministic_algorithms(config.deterministic or deterministic)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
