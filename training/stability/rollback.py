"""Going back: to the last good checkpoint after a spike, and to the last one of all after an interruption.

Both end in `load`. A checkpoint knows how many of the run's incidents it has seen; what it has not seen is applied to
its order log and guard, so it does not matter where between writing an incident and the next checkpoint a run died.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from training.checkpoint import save_load
from training.checkpoint.save_load import Loaded
from training.config import TrainConfig
from training.data.data_order import OrderLog
from training.data.dataset import TokenDataset
from training.distributed.parallel import Ranks, whole
from training.metrics.metrics_log import METRICS, Journal, read
from training.model.transformer import Model
from training.stability import find_spike_documents
from training.stability.find_spike_documents import Incident
from training.stability.spike_detection import Guard

QUIET = 512  # windows before the first anomaly whose documents are the measure


def latest(run: Path) -> Loaded | None:
    """The newest undamaged checkpoint, after removing those that a rollback left behind. First rank only."""
    known = find_spike_documents.incidents(run / "incidents")
    if known:
        for path in save_load.checkpoints(run / "checkpoints"):
            if int(path.name) > known[-1].good and _seen(path) < len(known):
                save_load.remove(path)
    return save_load.newest(run / "checkpoints")


def _seen(path: Path) -> int:
    """How many incidents a checkpoint knows of; a damaged one counts as knowing all, and loading goes back past it."""
    try:
        return int(save_load.verify(path)["guard"]["incidents"])
    except (save_load.CheckpointError, KeyError, TypeError):
        return 1 << 60


def adopt(saved: Loaded, guard: Guard, log: OrderLog, known: list[Incident]) -> tuple[OrderLog, list[Incident]]:
    """Guard and order log of a checkpoint with what happened since; also returns the incidents that are new to it."""
    guard.load_state_dict(saved.state["guard"])
    new = known[guard.incidents :]
    for one in new:
        log = find_spike_documents.apply(log, one)
        guard.cleared = max(guard.cleared, one.confirmed)
    guard.incidents = len(known)
    return log, new


def tell(journal: Journal, new: list[Incident], quarantine: str | None, ranks: Ranks) -> None:
    """The events of incidents that a checkpoint did not know of; their documents for the quarantine list. Collective.

    Here and not where the incident is written: a run that is killed between the two comes here again.
    """

    def remember() -> None:
        for one in new:
            if quarantine and one.blamed:
                find_spike_documents.quarantine(Path(quarantine), one)

    ranks.agree(remember)
    for one in new:
        blamed = [d["doc_id"] for d in one.blamed]
        journal.write(
            kind="event",
            event="rollback",
            step=one.good,
            incident=one.number,
            confirmed=one.confirmed,
            blamed=blamed,
        )


def investigate(
    config: TrainConfig, run: Path, ranks: Ranks, guard: Guard, data: TokenDataset, log: OrderLog, model: Model
) -> Incident:
    """Puts a checkpoint's weights into the model, finds who did it, and writes the incident down. Collective.

    Raises UserError where too much is masked or nobody can be blamed for the second time (`incident.refuse`).
    """
    folder = run / "incidents"
    confirmed, flagged = guard.culprits()
    good = ranks.agree(lambda: save_load.newest(run / "checkpoints", guard.good))
    assert good is not None
    scorer = ranks.agree(lambda: _scorer(config, run, good))
    save_load.restore(scorer.path, model, None, ranks)
    known = ranks.agree(lambda: find_spike_documents.incidents(folder))
    first = flagged[0] - 1  # as steps are counted from 0 here
    near = list(range(max(0, first - config.guard.spike_window), first))
    far = [i for i in range(first) if i + 1 not in flagged][-max(1, -(-QUIET // config.batch.global_size)) :]
    backend = model.attention_backend
    model.attention_backend = "sdpa"  # flex would be compiled for every length of a document
    blamed, suspects, witnesses = find_spike_documents.blame(
        data, log, [log.step_range(i - 1) for i in flagged], [log.step_range(i) for i in near],
        [log.step_range(i) for i in far],
        _measure(model, ranks), config.guard.blame_z,
    )  # fmt: skip
    model.attention_backend = backend
    events = ranks.agree(lambda: _events(run, flagged))
    masked = sorted({d for s in log.segments for d in s.masked} | {b.doc_id for b in blamed})
    found = Incident(
        len(known) + 1, good.state["step"], confirmed, good.state["sequences"], events, suspects, witnesses,
        [asdict(b) for b in blamed], masked,
    )  # fmt: skip
    ranks.agree(lambda: found.write(folder))
    return found


def _scorer(config: TrainConfig, run: Path, good: save_load.Loaded) -> save_load.Loaded:
    """The checkpoint that scores documents: the good one, unless that is the random start of the run.

    Random weights find all documents alike. The newest checkpoint has only updates that the guard let in, and is taken
    once it has learnt something: its losses are below those of a guess among all words.
    """
    if good.state["step"] or config.init_from:
        return good
    newest = save_load.newest(run / "checkpoints")
    assert newest is not None
    losses = [loss for loss in newest.state["guard"]["history"][0] if loss is not None]
    learnt = losses and statistics.median(losses) < math.log(newest.state["model_config"]["vocab_size"])
    return newest if learnt else good


def _events(run: Path, flagged: list[int]) -> list[dict[str, Any]]:
    """The anomalies as the log has them."""
    keep = ("step", "loss", "grad_norm", "z_loss", "z_gradient")
    entries = [e for e in read(run / METRICS) if e.get("event") == "skip" and e["step"] in flagged]
    return [{k: e[k] for k in keep} for e in entries]


def _measure(model: Model, ranks: Ranks) -> find_spike_documents.Score:
    """Loss sum and gradient norm of one sequence; in the weights' own type, on every rank alike."""

    def measure(tokens: torch.Tensor, targets: torch.Tensor) -> tuple[float, float]:
        tokens, targets = tokens.to(ranks.device), targets.to(ranks.device)
        loss, _, nll = model(tokens, targets, torch.zeros_like(tokens))
        (loss / ranks.world).backward()  # gradients are summed over ranks, which all do the same here
        norm = whole(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
        model.zero_grad(set_to_none=True)
        return nll.double().sum().item(), norm.item()

    return measure
