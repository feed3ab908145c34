"""The training loop: batch, forward, loss, backward, clip, guard, step, log, evaluate, checkpoint.

A run directory holds train.yaml (the resolved configuration), the tokenizer, metrics.jsonl (losses and interventions: a
function of configuration and data, equal to the bit after any interruption), speed.jsonl and sessions.jsonl (what the
clock said), incidents/ and checkpoints/. Running the same command again goes on from the last checkpoint and ends where
an uninterrupted run ends; with more ranks or fewer, it reads the same windows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from curation.core.errors import UserError
from curation.shards import Manifest, read_manifest
from training.checkpoint import save_load as checkpoint
from training.checkpoint.resume import chosen_device, settle, write_head
from training.checkpoint.save_load import Retention, Saver
from training.config import TrainConfig
from training.cost import device_specs
from training.cost.cost_model import LiveStats
from training.data.batch import Batch
from training.data.data_order import OrderLog
from training.data.data_schedule import new_data_order, rank_slices, resume_data_order
from training.data.dataset import TokenDataset
from training.data.token_streams import validation_streams
from training.distributed.parallel import Ranks, autocast, build, eager, gather, join, release, whole
from training.distributed.watchdog import Preempted, Watch, watch
from training.evaluation.tasks import read_tasks, score_tasks
from training.evaluation.validation_loss import ValidationScore, bytes_per_token, evaluate_domains, mean_loss
from training.metrics.experiment_loggers import Logs
from training.metrics.metrics_log import METRICS, Journal, Report, goodput, last_scores, read
from training.metrics.step_metrics import Meter
from training.model.transformer import ModelConfig
from training.optim import optimizers as optim
from training.optim.loss_scale import LossScaler
from training.optim.lr_schedule import learning_rate
from training.stability import find_spike_documents, rollback
from training.stability.spike_detection import Guard


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: figures of its last step and evaluation, and what it has to say."""

    steps: int
    sequences: int
    tokens: int
    loss: float | None  # of the last step; None where nothing was left to do
    validation: dict[str, ValidationScore]
    checkpoint: Path
    resumed_from: int  # the step at which this call began
    notes: tuple[str, ...]  # rounding of the mix, damaged checkpoints, remainders
    masked: tuple[str, ...] = ()  # doc_ids of the documents that the guard masked
    goodput: float | None = None  # share of the time since the first start that went into steps that stand


def train(
    config: TrainConfig, data_dir: str | Sequence[str], run_dir: str, *, report: Report | None = None
) -> TrainResult:
    """Trains a model on the shards of a curation run, or of several, or goes on where an earlier call was interrupted.

    `report` is called with every entry of the log, on the first rank. Raises UserError for what the user has to change,
    ShardError for shards that cannot be read, CheckpointError where every checkpoint is damaged, and Preempted when a
    SIGTERM came and a checkpoint is saved. Under torchrun and Ray Train every rank calls it.
    """
    run = Path(run_dir)
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(join(chosen_device(config), config.parallel.dp_shard))
        manifest = read_manifest(data_dir)
        config = ranks.agree(lambda: settle(config, run, manifest))
        watcher = stack.enter_context(watch(config.hang_after))
        stack.enter_context(_arithmetic(config))
        if ranks.first:
            report = stack.enter_context(Logs(run, config.log_to, report, config.model_dump(mode="json")))
        return _loop(config, manifest, run, report, ranks, watcher)


def _loop(
    config: TrainConfig, manifest: Manifest, run: Path, report: Report | None, ranks: Ranks, watcher: Watch
) -> TrainResult:
    saved = ranks.agree(lambda: rollback.latest(run))
    data, order, rounding = _order(config, manifest, saved)
    evaluated = validation_streams(manifest, config.data.validation)
    asked = ranks.agree(lambda: read_tasks(config))
    notes = [f"the mix was rounded to {order.segments[0].mix}, off by at most {rounding:.2g}"] if rounding else []
    notes += [
        f"{n}: {o.remainder:,} of {o.tokens.sum():,} tokens are no target in an epoch" for n, o in data.orders.items()
    ]
    notes += data.notes
    for segment in order.segments:
        rank_slices(segment.global_size, ranks.world, 1, ranks.rank)  # now, and not where it begins
    if ranks.first:
        for note in data.notes:
            if report is not None:
                report({"kind": "note", "note": note})
        write_head(run, config, manifest)
    model = build(shape(config, manifest.tokenizer.vocab), config, ranks)
    if config.init_from is not None:
        checkpoint.restore(checkpoint.locate(config.init_from), model, None, ranks)
    model.norm.register_forward_hook(lambda *_: watcher.alive())  # evaluating and blaming are no hang either
    optimizers = optim.build_optimizers(model, config.optimizer, exact=config.precision == "fp32")
    scaler = LossScaler(ranks.device, config.precision == "fp16")
    guard = Guard(config.guard, ranks.device, overflow=scaler.enabled)
    meter = Meter(ranks, {name: bytes_per_token(domain) for name, domain in data.domains.items()})
    live = LiveStats(config, model.config, device_specs.current_device(ranks.device.type), ranks.world)
    micro, every = config.batch.micro_size or config.batch.global_size, config.checkpoint.every
    goes_back = config.guard.action == "rollback"
    at = _At(0, 0, 0, order)

    with contextlib.ExitStack() as stack:
        saver = stack.enter_context(Saver(run / "checkpoints", ranks, background=config.checkpoint.background))
        begin = saved.state["step"] if saved else -1
        seen = saved.state["guard"]["incidents"] if saved else 0
        journal = stack.enter_context(
            Journal(run if ranks.first else None, begin, report, incidents=seen, ranks=ranks.world)
        )

        def load(found: checkpoint.Loaded) -> _At:
            checkpoint.restore(found.path, model, optimizers, ranks)
            state = found.state
            scaler.load_state_dict(state["scaler"])
            known = ranks.agree(lambda: find_spike_documents.incidents(run / "incidents"))
            log, new = rollback.adopt(found, guard, _order(config, manifest, found)[1], known)
            rollback.tell(journal, new, config.exclude_list, ranks)
            if known and goes_back:
                documents = sum(s.documents for s in manifest.splits["train"].values())
                find_spike_documents.refuse(
                    known, len(known[-1].masked) / documents, config.guard.max_masked_fraction, run
                )
            return _At(state["step"], state["sequences"], state["tokens"], log)

        def save() -> None:
            journal.sync()
            state = {
                "step": at.step,
                "sequences": at.sequences,
                "tokens": at.tokens,
                "order": at.order.as_dict(),
                "scaler": scaler.state_dict(),
                "guard": guard.state_dict(),
                "model_config": asdict(model.config),
            }
            stays = Retention(config.checkpoint.keep, config.checkpoint.keep_every, guard.good if goes_back else None)
            saver.save(at.step, model, optimizers, state, stays)

        def score() -> dict[str, ValidationScore]:
            model.eval()
            tasks = {}
            with eager(config):
                found = evaluate_domains(
                    model,
                    evaluated,
                    length=config.data.seq_len,
                    micro=micro,
                    limit=config.evaluate.sequences,
                    device=ranks.device,
                    autocast=autocast(config, ranks),
                )
                if asked:
                    gather(model)
                    with autocast(config, ranks):
                        tasks = score_tasks(asked, manifest, run, model, at.order.max_seq_len(at.sequences))
            release(model)
            domains = {name: asdict(s) for name, s in found.items()}
            journal.write(kind="validation", step=at.step, loss=mean_loss(found), domains=domains, **tasks)
            return found

        scores: dict[str, ValidationScore] = {}
        loss: float | None = None
        if saved is not None:
            at = load(saved)
            notes += saved.notes
        else:
            scores = score()
            if goes_back:
                save()
        while at.step < config.steps:
            first, last = at.order.step_range(at.step)
            rate = learning_rate(at.step, config.steps, config.optimizer.lr, config.schedule)
            optimizers.set_lr(rate)
            ((mine, end_of_mine),) = rank_slices(last - first, ranks.world, 1, ranks.rank)
            batch = data.batch(at.order, first + mine, first + end_of_mine)
            targets = meter.targets(batch)
            count = targets.sum().clamp(min=1).float()

            model.train()
            losses = []
            for part in _micro_batches(batch, micro):
                part = part.to(ranks.device)
                with autocast(config, ranks):
                    loss_sum, _, nll = model(part.tokens, part.targets, part.documents, config.z_loss)
                scaler.scaled(loss_sum / count).backward()  # type: ignore[no-untyped-call]
                losses.append(nll.double().sum(dim=1))
            scaler.unscale(model.parameters())
            norm = whole(torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)).float()
            sums = meter.losses(batch, torch.cat(losses), watcher.stop)
            mean, norm = ranks.same(sums[:-1].sum() / count, norm)
            skip, anomaly, z = guard.judge(at.step + 1, mean, norm)
            measures = (at.step + 1) % config.log_every == 0
            update = optimizers.step(skip, measure=measures)
            optimizers.zero_grad()
            scaler.update(norm)

            at = at.after(first, last)
            meter.add(
                at.step, (first, last), at.tokens, rate,
                targets=targets, losses=sums, loss=mean, norm=norm, skip=skip, anomaly=anomaly, z=z, update=update,
            )  # fmt: skip
            watcher.alive()
            end, evaluates = at.step == config.steps, at.step % config.evaluate.every == 0
            if not (end or evaluates or at.step % every == 0 or at.step % config.log_every == 0):
                continue

            readings, stop = meter.read()
            held = device_specs.peak_memory(ranks.device.type)
            for reading in readings:
                loss = reading.loss
                if event := reading.event():
                    journal.write(**event)
                journal.write(**reading.entry(), domain_tokens=at.order.inputs_read(reading.span[1]))
                sequence, read = at.order.segment_at(reading.span[0]).seq_len, at.tokens_of(*reading.span)
                journal.clock(reading.step, reading.seconds, live.stats(read, reading.seconds, sequence, held))
            if config.guard.action == "off" and loss is not None and not torch.isfinite(torch.tensor(loss)):
                raise UserError(
                    f"the loss is {loss} in step {at.step} of {run}; lower optimizer.lr "
                    f"(now {config.optimizer.lr:g}), lengthen schedule.warmup_steps or train in bf16 instead of fp16"
                )
            if guard.look(at.step, every):
                saver.wait()
                with eager(config):
                    rollback.investigate(config, run, ranks, guard, data, at.order, model)
                good = ranks.agree(lambda: rollback.latest(run))
                assert good is not None
                journal.cut(good.state["step"], good.state["guard"]["incidents"])
                at = load(good)
                meter.forget()
                continue
            if end or evaluates:
                scores = score()
            if end or stop or at.step % every == 0:
                save()
            meter.restart()
            if stop and not end:
                saver.wait()
                journal.end("preempted", at.step)
                raise Preempted(f"{run}: stopped by SIGTERM after step {at.step}; the same command goes on")
        saver.wait()
        journal.end("done", at.step)
        if not scores:  # nothing was left to do
            scores = ranks.agree(lambda: last_scores(run))
    final = checkpoint.checkpoints(run / "checkpoints")[-1]
    masked = tuple(sorted({d for s in at.order.segments for d in s.masked}))
    useful = goodput(run).get("goodput") if ranks.first else None
    return TrainResult(
        at.step, at.sequences, at.tokens, loss, scores, final, max(begin, 0), tuple(notes), masked, useful
    )


def finished(run: Path) -> TrainResult:
    """How a finished run ended, from its files."""
    last = checkpoint.newest(run / "checkpoints")
    if last is None:
        raise checkpoint.CheckpointError(f"{run}: no checkpoint here")
    state, order = last.state, OrderLog.from_dict(last.state["order"])
    losses = [e["loss"] for e in read(run / METRICS) if e["kind"] == "train"]
    masked = tuple(sorted({d for s in order.segments for d in s.masked}))
    return TrainResult(
        state["step"], state["sequences"], state["tokens"], losses[-1] if losses else None, last_scores(run),
        last.path, 0, last.notes, masked, goodput(run).get("goodput"),
    )  # fmt: skip


@dataclass(frozen=True)
class _At:
    """Where training is: steps done, windows and tokens read, and the order log, from which the rest follows."""

    step: int
    sequences: int
    tokens: int
    order: OrderLog

    def tokens_of(self, first: int, last: int) -> int:
        """Inputs in the windows of a step."""
        return (last - first) * self.order.segment_at(first).seq_len

    def after(self, first: int, last: int) -> _At:
        return _At(self.step + 1, last, self.tokens + self.tokens_of(first, last), self.order)


def _order(
    config: TrainConfig, manifest: Manifest, saved: checkpoint.Loaded | None
) -> tuple[TokenDataset, OrderLog, float]:
    """What is read when: by the configuration, behind what the log of a checkpoint says was read."""
    about = (manifest, config.data, config.seed, config.batch.global_size, config.steps)
    if saved is None:
        return new_data_order(*about)
    return resume_data_order(*about, OrderLog.from_dict(saved.state["order"]), saved.state["sequences"])


def shape(config: TrainConfig, vocab: int) -> ModelConfig:
    """The model's sizes, as the configuration and the tokenizer have it."""
    return ModelConfig(vocab_size=vocab, **config.model.model_dump(exclude={"preset"}))


def _micro_batches(batch: Batch, micro: int) -> Iterator[Batch]:
    for i in range(0, len(batch.domains), micro):
        part = slice(i, i + micro)
        yield Batch(batch.tokens[part], batch.targets[part], batch.documents[part], batch.domains[part])


@contextlib.contextmanager
def _arithmetic(config: TrainConfig) -> Iterator[None]:
    """Threads and determinism for the time of a run; only equal numbers of threads give results equal to the bit."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads or threads)
    torch.use_deterministic_algorithms(config.deterministic or deterministic)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
