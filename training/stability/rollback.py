"""Rolls a training run back to a good checkpoint after a loss spike, and finds the checkpoint to resume from.

A checkpoint knows how many of the run's incidents it has seen; later ones are applied to its data order and its guard,
so it does not matter where between writing an incident and the next checkpoint a run died.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from curation.core import jsonl_log
from training.checkpoint import save_load
from training.checkpoint.save_load import Checkpoint
from training.checkpoint.tensor_files import CheckpointError
from training.config import TrainConfig
from training.data.data_order import OrderLog
from training.data.dataset import TokenDataset
from training.distributed.parallel import Ranks, autocast, full_tensor
from training.metrics.log_format import METRICS
from training.metrics.metrics_log import MetricsLog
from training.model.transformer import Model
from training.stability import find_spike_documents
from training.stability.find_spike_documents import Incident, ScoreDocument
from training.stability.spike_detection import SpikeGuard
from training.stability.stages import stage_of, stage_starts

REFERENCE = 512  # sequences before the first anomaly whose documents are compared with


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest undamaged checkpoint, after removing those that the last rollback made invalid. First rank only."""
    incidents = find_spike_documents.read_incidents(run / "incidents")
    if incidents:
        for path in save_load.checkpoints(run / "checkpoints"):
            if int(path.name) > incidents[-1].good and _incidents_seen(path) < len(incidents):
                save_load.remove(path)
    return save_load.newest(run / "checkpoints")


def _incidents_seen(path: Path) -> int:
    """How many incidents a checkpoint has seen; a damaged one counts as having seen all: loading will pass over it."""
    try:
        return int(save_load.verify(path)["guard"]["incidents"])
    except (CheckpointError, KeyError, TypeError):
        return 1 << 60


def apply_incidents(
    checkpoint: Checkpoint, guard: SpikeGuard, log: OrderLog, incidents: list[Incident]
) -> tuple[OrderLog, list[Incident]]:
    """Loads the guard's state and applies to guard and data order the incidents that the checkpoint has not seen.

    Returns the order with their documents masked, and those incidents.
    """
    guard.load_state_dict(checkpoint.state["guard"])
    new = incidents[guard.incidents :]
    for incident in new:
        log = find_spike_documents.mask_documents(log, incident)
        # Where nobody is to blame the level may be new: time to accept it before the next rollback. What is not finite
        # is no level.
        finite = all(a["loss"] is not None and a["grad_norm"] is not None for a in incident.anomalies)
        patience = guard.config.max_skips if finite and not incident.blamed else 0
        guard.cleared = max(guard.cleared, incident.confirmed + patience)
    guard.incidents = len(incidents)
    return log, new


def record_incidents(log: MetricsLog, new: list[Incident], exclude_list: str | None, ranks: Ranks) -> None:
    """Writes the rollback events of incidents, and their documents to the exclude list. Collective.

    Done when a checkpoint is loaded and not when the incident is written: a run killed in between comes here again.
    """

    def append() -> None:
        for incident in new:
            if exclude_list and incident.blamed:
                find_spike_documents.append_to_exclude_list(Path(exclude_list), incident)

    ranks.broadcast_from_rank0(append)
    for incident in new:
        log.write(
            kind="event",
            event="rollback",
            step=incident.good,
            incident=incident.number,
            confirmed=incident.confirmed,
            blamed=[d["doc_id"] for d in incident.blamed],
        )


def find_cause(
    config: TrainConfig, run: Path, ranks: Ranks, guard: SpikeGuard, data: TokenDataset, log: OrderLog, model: Model
) -> Incident:
    """Finds the documents that caused the confirmed spike and writes the incident. Collective.

    Loads the weights of a checkpoint into the model.
    """
    folder = run / "incidents"
    confirmed, flagged = guard.anomalous_steps()
    good = ranks.broadcast_from_rank0(lambda: save_load.newest(run / "checkpoints", guard.good))
    assert good is not None
    scorer = ranks.broadcast_from_rank0(lambda: _scoring_checkpoint(config, run, good))
    save_load.restore(scorer.path, model, None, ranks)
    earlier = ranks.broadcast_from_rank0(lambda: find_spike_documents.read_incidents(folder))
    first = flagged[0] - 1  # spans count steps from 0
    stage = stage_of(first, stage_starts(config, log))  # documents of another mix are no measure, and not to blame
    near = list(range(max(stage, first - config.guard.spike_window), first))
    far = [i for i in range(stage, first) if i + 1 not in flagged][-max(1, -(-REFERENCE // config.batch.global_size)) :]
    backend = model.attention_backend
    model.attention_backend = "sdpa"  # flex would be compiled for every length of a document
    blamed, suspects, witnesses = find_spike_documents.find_documents(
        data, log, [log.step_range(i - 1) for i in flagged], [log.step_range(i) for i in near],
        [log.step_range(i) for i in far],
        _score_function(model, config, ranks), config.guard.blame_z,
    )  # fmt: skip
    model.attention_backend = backend
    events = ranks.broadcast_from_rank0(lambda: _skip_events(run, flagged))
    masked = sorted({d for s in log.segments for d in s.masked} | {b.doc_id for b in blamed})
    incident = Incident(
        len(earlier) + 1, good.state["step"], confirmed, good.state["sequences"], events, suspects, witnesses,
        [asdict(b) for b in blamed], masked,
    )  # fmt: skip
    ranks.broadcast_from_rank0(lambda: incident.write(folder))
    return incident


def _scoring_checkpoint(config: TrainConfig, run: Path, good: Checkpoint) -> Checkpoint:
    """The checkpoint that scores documents: the good one, unless that is the random start of the run.

    Random weights find all documents alike. The newest checkpoint has only updates that the guard let in, and is taken
    once it has learnt something: its losses are below those of a guess among the whole vocabulary.
    """
    if good.state["step"] or config.init_from:
        return good
    newest = save_load.newest(run / "checkpoints")
    assert newest is not None
    losses = [loss for loss in newest.state["guard"]["history"][0] if loss is not None]
    learnt = losses and statistics.median(losses) < math.log(newest.state["model_config"]["vocab_size"])
    return newest if learnt else good


def _skip_events(run: Path, steps: list[int]) -> list[dict[str, Any]]:
    """The anomalies as the log has them."""
    keys = ("step", "loss", "grad_norm", "z_loss", "z_gradient", "usual_loss", "usual_grad_norm")
    entries = [e for e in jsonl_log.read(run / METRICS) if e.get("event") == "skip" and e["step"] in steps]
    return [{k: e[k] for k in keys} for e in entries]


def _score_function(model: Model, config: TrainConfig, ranks: Ranks) -> ScoreDocument:
    """Loss sum and gradient norm of one sequence; in the types of a training step, equal on every rank."""

    def score(tokens: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
        tokens, targets = tokens.to(ranks.device), targets.to(ranks.device)
        with autocast(config, ranks):
            loss, _, nll = model(tokens, targets, torch.zeros_like(tokens))
        (loss / ranks.world).backward()  # gradients are summed over ranks, which all do the same here
        norm = full_tensor(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
        model.zero_grad(set_to_none=True)
        return nll.double().sum().item(), norm.item()

    return score
