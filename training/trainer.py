"""The training loop and its hooks: `Trainer.fit` runs steps, evaluates, saves, rolls back and resumes.

What surrounds the loop comes in as callbacks: the logs, the spike guard and the watchdog (callbacks.py), and a user's
own. The order of a run:

    on_train_start, then on_load (a resumed run) or on_evaluate and on_save (a new one); all three for a branch
    each step: on_gradients, on_step_end
    every `log_every` steps, and before an evaluation or checkpoint: on_log, should_roll_back
    where any callback rolls back: on_rollback, on_load; else on_evaluate and on_save when they are due
    on_train_end

A request to stop (`Callback.stop` on any rank) ends a step, an evaluation or the search for a spike's cause at once:
torchrun and Slurm give a process half a minute. A checkpoint is saved, and a resumed run first does the evaluation
that was due there.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curation.shards import Manifest
from training.checkpoint import save_load
from training.checkpoint.save_load import Checkpoint, CheckpointSaver, Retention
from training.config import TrainConfig
from training.data.batch import Batch
from training.data.data_order import OrderLog
from training.data.dataset import TokenDataset
from training.data.loader import TokenLoader
from training.data.token_streams import DomainStream
from training.distributed.parallel import Ranks, autocast, eager, full_tensor, gather_weights, reshard_weights
from training.distributed.watchdog import Preempted
from training.evaluation.task_files import Task
from training.evaluation.tasks import score_tasks
from training.evaluation.validation_loss import ValidationScore, bytes_per_token, evaluate_domains
from training.metrics.metrics_log import is_evaluated
from training.metrics.step_metrics import MetricsBuffer, StepMetrics, StepTensors
from training.model.transformer import Model
from training.optim.loss_scale import LossScaler
from training.optim.lr_schedule import learning_rate
from training.optim.optimizers import build_optimizers
from training.stability.rollback import latest_checkpoint
from training.train_state import TrainState, data_order

READ_AHEAD = 2  # global batches of a rank: the one that a step needs next, and one for a slow disk


class Callback:
    """Hooks of the training loop; override those you need and pass an instance to `train(..., callbacks=[...])`.

    Every rank calls every hook, in the order of the callbacks, the built-in ones first. Only `on_log`, `on_evaluate`
    and what follows them may read from the device without slowing training down.
    """

    stop = False  # True ends training after the step, with a checkpoint, as SIGTERM does; one rank is enough

    def on_train_start(self, trainer: Trainer) -> None:
        """Before the first step of this session, and before a checkpoint is loaded."""

    def on_gradients(self, trainer: Trainer, step: StepTensors) -> None:
        """Gradients are clipped, the optimizer has not run. `step.skip` above zero leaves its update out."""

    def on_step_end(self, trainer: Trainer) -> None:
        """After a step; its numbers are still on the device."""

    def on_log(self, trainer: Trainer, metrics: Sequence[StepMetrics]) -> None:
        """The numbers of all steps since the last log, on the host."""

    def should_roll_back(self, trainer: Trainer) -> bool:
        """Asked after `on_log`: whether to return to the newest checkpoint. All ranks must answer the same."""
        return False

    def on_rollback(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """Before a rollback loads this checkpoint."""

    def on_load(self, trainer: Trainer, checkpoint: Checkpoint) -> None:
        """A checkpoint was loaded, at a resume or a rollback; `checkpoint.state` holds what `on_save` put there."""

    def on_evaluate(self, trainer: Trainer, scores: dict[str, ValidationScore], tasks: dict[str, float] | None) -> None:
        """Validation scores by domain, and task scores where the configuration has tasks."""

    def on_save(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Before a checkpoint is written; JSON values put into `state` are part of it."""

    def on_train_end(self, trainer: Trainer, status: str) -> None:
        """After the last step (`done`) or a request to stop (`preempted`); the last checkpoint is on disk."""


class _StopRequested(Exception):
    """Raised on every rank before the next batch of what takes longer than a step."""


class Trainer:
    """Trains one model; holds everything that the loop and its callbacks share."""

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        manifest: Manifest,
        ranks: Ranks,
        data: TokenDataset,
        order: OrderLog,
        model: Model,
        saver: CheckpointSaver,
        callbacks: Sequence[Callback],
        *,
        validation: dict[str, DomainStream],
        tasks: Sequence[Task] = (),
    ) -> None:
        self.config, self.run, self.manifest, self.ranks = config, run, manifest, ranks
        self.data, self.model, self.saver, self.callbacks = data, model, saver, tuple(callbacks)
        self.validation, self.tasks = validation, tasks
        self.optimizers = build_optimizers(model, config.optimizer, exact=config.precision == "fp32")
        self.scaler = LossScaler(ranks.device, config.precision == "fp16")
        self.metrics = MetricsBuffer(ranks, {name: bytes_per_token(domain) for name, domain in data.domains.items()})
        self.state = TrainState(0, 0, 0, order)
        self.loader = TokenLoader(
            data, order, rank=ranks.rank, world=ranks.world, steps=config.steps, prefetch=READ_AHEAD,
            pin_memory=ranks.device.type == "cuda",
        )  # fmt: skip
        self.loss: float | None = None  # of the last step that was logged in this session
        self.scores: dict[str, ValidationScore] = {}  # of the last evaluation in this session
        self._saved: int | None = None  # the step of the last checkpoint that was written or loaded
        self._zero = torch.zeros((), device=ranks.device)
        self._no_z = torch.full((2,), torch.nan, dtype=torch.float64, device=ranks.device)

    def fit(self, checkpoint: Checkpoint | None = None, *, begins: bool = False) -> None:
        """Trains from a checkpoint, or from the start, to the last step.

        begins: the checkpoint is that of another run, from which this one branches off.

        Raises Preempted where a callback asked to stop before the end; a checkpoint is saved then.
        """
        config = self.config
        self._call("on_train_start")
        if checkpoint is not None:
            self.resume(checkpoint)
        if begins:
            self._saved = None  # the checkpoint is another run's
        try:
            if (begins or self._lacks_evaluation()) and not self.evaluate():
                raise _StopRequested
            if begins and (checkpoint is not None or config.guard.action == "rollback"):
                self.save()  # a spike early in the run rolls back to it, and a branch needs its parent no longer
            while self.state.step < config.steps:
                stop = self.ranks.any_rank(self._is_asked_to_stop)
                self.train_step()
                self._call("on_step_end")
                stopped, done = stop(), self.state.step == config.steps
                evaluates, saves = self._is_due(config.evaluate.every), self._is_due(config.checkpoint.every)
                if not (stopped or done or evaluates or saves or self._is_due(config.log_every)):
                    continue
                self.log()
                with self._ends_when_asked():  # finding a spike's cause takes as long as many steps
                    answers = [c.should_roll_back(self) for c in self.callbacks]  # all: they may be collective
                if any(answers):
                    self.roll_back()
                    continue
                if (done or evaluates) and not stopped:
                    stopped = not self.evaluate()
                if done or saves or stopped:
                    self.save()
                self.metrics.restart_clock()
                if stopped:
                    raise _StopRequested
        except _StopRequested:
            self._end("preempted")
            at = f"after step {self.state.step}" if self.state.step else "before the first step"
            at += " and saved a checkpoint" if self.state.step == self._saved else ""
            raise Preempted(f"{self.run}: stopped {at}; run the same command to resume") from None
        self._end("done")

    def train_step(self) -> None:
        """One optimizer step on the next global batch. Leaves its numbers on the device; the host does not wait."""
        config, state = self.config, self.state
        first, last = state.order.step_range(state.step)
        lr = learning_rate(state.step, config.steps, config.optimizer.lr, config.schedule)
        self.optimizers.set_lr(lr)
        self.loader.follow(state.order, state.step)  # another place or order after a resume and a rollback
        # every rank has as many rows, so that all run the same micro-batches: their collectives wait for each other
        batch = next(self.loader).padded(-(-(last - first) // self.ranks.world))
        targets = self.metrics.count_targets(batch)
        count = targets.sum().clamp(min=1).float()

        nll = self.forward_backward(batch, count)
        self.scaler.unscale(self.model.parameters())
        norm = full_tensor(torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.max_grad_norm))
        sums = self.metrics.sum_losses(batch, nll)
        loss, norm = self.ranks.all_reduce_max(sums.sum() / count, norm.float())

        self.state = state.after(first, last)
        step = StepTensors(
            self.state.step, (first, last), self.state.tokens, lr, loss, norm, targets, sums,
            skip=self._zero, anomaly=self._zero, z=self._no_z,
        )  # fmt: skip
        self._call("on_gradients", step)
        step.update = self.optimizers.step(step.skip, measure=self._is_due(config.log_every))
        self.optimizers.zero_grad()
        self.scaler.update(norm)
        self.metrics.add(step)

    def forward_backward(self, batch: Batch, count: Tensor) -> Tensor:
        """Accumulates the gradients of the loss over micro-batches.

        count: targets of the global batch, by which the loss is divided. Returns the summed NLL of each sequence of
        this rank, float64 [sequences].
        """
        self.model.train()
        losses = []
        for part in self._micro_batches(batch):
            part = part.to(self.ranks.device)
            with autocast(self.config, self.ranks):
                loss_sum, _, nll = self.model(part.tokens, part.targets, part.documents, self.config.z_loss)
            self.scaler.scaled(loss_sum / count).backward()  # type: ignore[no-untyped-call]
            losses.append(nll.double().sum(dim=1))
        return torch.cat(losses)

    def log(self) -> None:
        """Reads the steps since the last log from the device."""
        metrics = self.metrics.read()
        if metrics:
            self.loss = metrics[-1].loss
        self._call("on_log", metrics)

    def evaluate(self) -> bool:
        """Scores the validation sets, and the tasks if there are any; False where a request to stop ended it."""
        config, model = self.config, self.model
        model.eval()
        tasks: dict[str, float] | None = None
        try:
            with eager(config), self._ends_when_asked():
                scores = evaluate_domains(
                    model,
                    self.validation,
                    length=config.data.seq_len,
                    micro=self._micro_size,
                    limit=config.evaluate.sequences,
                    device=self.ranks.device,
                    autocast=autocast(config, self.ranks),
                )
                if self.tasks:
                    longest = self.state.order.max_seq_len(self.state.sequences)
                    with autocast(config, self.ranks):
                        gather_weights(model)
                        tasks = score_tasks(self.tasks, self.manifest, self.run, model, longest)["tasks"]
        except _StopRequested:
            return False
        finally:
            reshard_weights(model)
        self.scores = scores
        self._call("on_evaluate", scores, tasks)
        return True

    def save(self) -> None:
        """Writes a checkpoint; with `checkpoint.background` training continues meanwhile."""
        config, at = self.config, self.state
        state: dict[str, Any] = {
            "step": at.step,
            "sequences": at.sequences,
            "tokens": at.tokens,
            "order": at.order.as_dict(),
            "scaler": self.scaler.state_dict(),
            "model_config": asdict(self.model.config),
        }
        self._call("on_save", state)
        good = state["guard"]["good"] if config.guard.action == "rollback" else None
        retention = Retention(config.checkpoint.keep, config.checkpoint.keep_every, good)
        self.saver.save(at.step, self.model, self.optimizers, state, retention)
        self._saved = at.step

    def resume(self, checkpoint: Checkpoint) -> None:
        """Loads a checkpoint: weights, moments, and where training was."""
        save_load.restore(checkpoint.path, self.model, self.optimizers, self.ranks)
        state = checkpoint.state
        self.scaler.load_state_dict(state["scaler"])
        _, order, _ = data_order(self.config, self.manifest, checkpoint)
        self.state = TrainState(state["step"], state["sequences"], state["tokens"], order)
        self._saved = self.state.step
        self._call("on_load", checkpoint)

    def roll_back(self) -> None:
        """Returns to the newest checkpoint that the run's incidents leave valid."""
        checkpoint = self.ranks.broadcast_from_rank0(lambda: latest_checkpoint(self.run))
        assert checkpoint is not None
        for note in checkpoint.notes if self.ranks.first else ():  # a damaged one was passed over
            warnings.warn(note, stacklevel=2)
        self._call("on_rollback", checkpoint)
        self.resume(checkpoint)
        self.metrics.clear()

    def _is_asked_to_stop(self) -> bool:
        return any(c.stop for c in self.callbacks)

    @contextlib.contextmanager
    def _ends_when_asked(self) -> Iterator[None]:
        """Raises _StopRequested before the next batch, on every rank, once any of them is asked to stop."""

        model, asked = self.model, False

        def check(module: nn.Module, _: Any) -> None:
            nonlocal asked  # a batch begins in the model's forward, or in the embedding where that is not called
            if not asked and self.ranks.any_rank(self._is_asked_to_stop)():
                raise _StopRequested
            asked = module is model

        # First of all hooks: FSDP's gathers weights, and could not go back from within a forward pass
        hooks = [module.register_forward_pre_hook(check, prepend=True) for module in (model, model.embedding)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _lacks_evaluation(self) -> bool:
        """Whether an evaluation was due where the run resumes, and a request to stop came before its end."""
        due = self.state.step == self.config.steps or self._is_due(self.config.evaluate.every)
        return due and not self.ranks.broadcast_from_rank0(lambda: is_evaluated(self.run, self.state.step))

    def _call(self, hook: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, *args)

    def _is_due(self, every: int) -> bool:
        return self.state.step % every == 0

    def _end(self, status: str) -> None:
        self.saver.wait()
        self._call("on_train_end", status)

    @property
    def _micro_size(self) -> int:
        return self.config.batch.micro_size or self.config.batch.global_size

    def _micro_batches(self, batch: Batch) -> Iterator[Batch]:
        for i in range(0, len(batch.domains), self._micro_size):
            yield batch.rows(slice(i, i + self._micro_size))
