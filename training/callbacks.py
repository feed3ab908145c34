"""The built-in callbacks of the training loop: logs, spike guard and watchdog."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from curation.core.errors import UserError
from training.checkpoint.save_load import Checkpoint
from training.cost import device_specs
from training.cost.cost_model import LiveStats
from training.data.data_order import OrderLog
from training.distributed.parallel import eager
from training.distributed.watchdog import Watchdog
from training.evaluation.validation_loss import ValidationScore, mean_loss
from training.metrics.metrics_log import MetricsLog
from training.metrics.step_metrics import StepMetrics, StepTensors
from training.stability import find_spike_documents, rollback
from training.stability.spike_detection import SpikeGuard
from training.stability.stages import stage_starts
from training.trainer import Callback, Trainer


class WatchdogCallback(Callback):
    """Reports progress to the watchdog, and stops the training on SIGTERM."""

    def __init__(self, watchdog: Watchdog) -> None:
        self.watchdog = watchdog

    @property
    def stop(self) -> bool:  # type: ignore[override]
        return self.watchdog.stop

    def on_train_start(self, trainer: Trainer) -> None:
        # Evaluating and finding a spike's cause take long and are progress too
        trainer.model.norm.register_forward_hook(lambda *_: self.watchdog.heartbeat())

    def on_step_end(self, trainer: Trainer) -> None:
        self.watchdog.heartbeat()

    def on_train_end(self, trainer: Trainer, status: str) -> None:
        if status == "preempted" and trainer.ranks.first:
            self.watchdog.mark_preempted(f"stopped after step {trainer.state.step}")


class LogCallback(Callback):
    """Writes metrics.jsonl, speed.jsonl and sessions.jsonl."""

    def __init__(self, log: MetricsLog, live: LiveStats) -> None:
        self.log, self.live = log, live

    def on_log(self, trainer: Trainer, metrics: Sequence[StepMetrics]) -> None:
        order = trainer.state.order
        memory = device_specs.peak_memory(trainer.ranks.device.type)
        for step in metrics:
            if event := step.event():
                self.log.write(**event)
            first, last = step.span
            self.log.write(**step.entry(), domain_tokens=order.inputs_read(last))
            length = order.segment_at(first).seq_len
            figures = self.live.stats((last - first) * length, step.seconds, length, memory)
            self.log.write_speed(step.step, step.seconds, figures)

    def on_evaluate(self, trainer: Trainer, scores: dict[str, ValidationScore], tasks: dict[str, float] | None) -> None:
        domains = {name: asdict(score) for name, score in scores.items()}
        entry: dict[str, Any] = {"step": trainer.state.step, "loss": mean_loss(scores), "domains": domains}
        self.log.write(kind="validation", **entry, **({} if tasks is None else {"tasks": tasks}))

    def on_save(self, trainer: Trainer, state: dict[str, Any]) -> None:
        self.log.flush()

    def on_rollback(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        self.log.truncate(checkpoint.state["step"], checkpoint.state["guard"]["incidents"])

    def on_train_end(self, trainer: Trainer, status: str) -> None:
        self.log.end_session(status, trainer.state.step)


class SpikeGuardCallback(Callback):
    """Skips anomalous steps, and rolls back when they become a loss spike; see the modules of training/stability."""

    def __init__(self, guard: SpikeGuard, log: MetricsLog) -> None:
        self.guard, self.log = guard, log
        self._stages: tuple[OrderLog, list[int]] | None = None  # an order, and the steps that begin its stages

    def on_gradients(self, trainer: Trainer, step: StepTensors) -> None:
        if self._stages is None or self._stages[0] is not trainer.state.order:
            self._stages = trainer.state.order, stage_starts(trainer.config, trainer.state.order)
        if step.step - 1 in self._stages[1]:
            self.guard.start_baseline()
        step.skip, step.anomaly, step.z, step.usual = self.guard.judge(step.step, step.loss, step.grad_norm)

    def on_log(self, trainer: Trainer, metrics: Sequence[StepMetrics]) -> None:
        if trainer.config.guard.action == "off" and metrics and not math.isfinite(metrics[-1].loss):
            raise UserError(
                f"the loss is {metrics[-1].loss} in step {metrics[-1].step} of {trainer.run}; "
                f"lower optimizer.lr (now {trainer.config.optimizer.lr:g}), increase schedule.warmup_steps "
                "or train in bf16 instead of fp16"
            )

    def should_roll_back(self, trainer: Trainer) -> bool:
        config = trainer.config
        if not self.guard.spike_confirmed(trainer.state.step, config.checkpoint.every):
            return False
        trainer.saver.wait()
        with eager(config):
            rollback.find_cause(
                config, trainer.run, trainer.ranks, self.guard, trainer.data, trainer.state.order, trainer.model
            )
        return True

    def on_load(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        config, run, ranks = trainer.config, trainer.run, trainer.ranks
        incidents = ranks.broadcast_from_rank0(lambda: find_spike_documents.read_incidents(run / "incidents"))
        order, new = rollback.apply_incidents(checkpoint, self.guard, trainer.state.order, incidents)
        trainer.state = replace(trainer.state, order=order)
        rollback.record_incidents(self.log, new, config.exclude_list, ranks)
        if incidents and config.guard.action == "rollback":
            documents = sum(s.documents for s in trainer.manifest.splits["train"].values())
            fraction = len(incidents[-1].masked) / documents
            find_spike_documents.check_limits(incidents, fraction, config.guard.max_masked_fraction, run)

    def on_save(self, trainer: Trainer, state: dict[str, Any]) -> None:
        state["guard"] = self.guard.state_dict()
