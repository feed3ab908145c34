"""The training loop: batch, forward, loss, backward, clip, step, log, evaluate, checkpoint.

A run directory holds train.yaml (the resolved configuration), the tokenizer, metrics.jsonl (losses: a function of
configuration and data, equal to the bit after any interruption), speed.jsonl (what the clock said) and checkpoints/.
Running the same command again goes on from the last checkpoint, and ends where an uninterrupted run ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from curation.shards import Manifest, read_file, read_manifest

from . import checkpoint, optim
from .config import TrainConfig, UserError, parse
from .data import IGNORE, Batch, held_out, plan
from .evaluate import Score, evaluate, mean_loss
from .journal import Journal, Report, last_scores
from .model import Model, Shape
from .order import OrderLog


@dataclass(frozen=True)
class TrainResult:
    """How a run ended: figures of its last iteration and evaluation, and what it has to say."""

    iterations: int
    windows: int
    tokens: int
    loss: float | None  # of the last iteration; None where nothing was left to do
    validation: dict[str, Score]
    checkpoint: Path
    resumed_from: int  # the iteration at which this call began
    notes: tuple[str, ...]  # rounding of the mix, damaged checkpoints, remainders


def train(config: TrainConfig, data_dir: str, run_dir: str, *, report: Report | None = None) -> TrainResult:
    """Trains a model on the shards of a curation run, or goes on where an earlier call was interrupted.

    `report` is called with every entry of the log. Raises UserError for what the user has to change, ShardError for
    shards that cannot be read, CheckpointError where every checkpoint is damaged.
    """
    run = Path(run_dir)
    manifest = read_manifest(data_dir)
    config = _settle(config, run, manifest)
    windows, length, micro = config.batch.windows, config.data.sequence, config.batch.micro or config.batch.windows
    data, log, rounding = plan(manifest, config.data, config.seed, windows, config.iterations)
    evaluated = held_out(manifest, config.data.validation)
    notes = [f"the mix was rounded to {log.segments[0].mix}, off by at most {rounding:.2g}"] if rounding else []
    notes += [
        f"{n}: {o.remainder} of {o.tokens.sum()} tokens are no target in an epoch" for n, o in data.orders.items()
    ]
    _write_head(run, config, manifest)
    device = torch.device(config.device)

    with contextlib.ExitStack() as stack:
        stack.enter_context(_arithmetic(config))
        model = Model(shape(config, manifest.tokenizer.vocab))
        model.initialise(config.seed)
        model.to(device)
        optimizer = optim.adamw(model, config.optimizer)
        scaler = torch.GradScaler(config.device, enabled=config.precision == "fp16")
        saved = checkpoint.newest(run / "checkpoints")
        begin = 0
        if saved is not None:
            checkpoint.restore(saved.path, model, optimizer)
            begin, log = saved.state["iteration"], OrderLog.from_dict(saved.state["order"])
            scaler.load_state_dict(saved.state["scaler"])
            notes += saved.notes
        journal = stack.enter_context(Journal(run, begin if saved else -1, report))

        def score(iteration: int) -> dict[str, Score]:
            model.eval()
            scores = evaluate(
                model,
                evaluated,
                length=length,
                micro=micro,
                limit=config.evaluate.windows,
                device=device,
                autocast=_autocast(config),
            )
            domains = {name: asdict(s) for name, s in scores.items()}
            journal.write(kind="validation", iteration=iteration, loss=mean_loss(scores), domains=domains)
            return scores

        scores: dict[str, Score] = {}
        loss: float | None = None
        if saved is None:
            scores = score(0)
        for iteration in range(begin, config.iterations):
            started = time.perf_counter()
            batch = data.batch(log, iteration * windows, (iteration + 1) * windows)
            count = int((batch.targets != IGNORE).sum())
            rate = optim.learning_rate(iteration, config.iterations, config.optimizer.lr, config.schedule)
            for group in optimizer.param_groups:
                group["lr"] = rate

            model.train()
            losses = []
            for part in _micro_batches(batch, micro):
                part = part.to(device)
                with _autocast(config):
                    loss_sum, _, nll = model(part.tokens, part.targets, part.documents, config.z_loss)
                scaler.scale(loss_sum / max(1, count)).backward()
                losses.append(nll.double().sum(dim=1).cpu())
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip).item()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

            done = iteration + 1
            loss, by_domain = _losses(batch, torch.cat(losses), count)
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss is {loss} in iteration {done} of {run}; lower optimizer.lr "
                    f"(now {config.optimizer.lr:g}), lengthen schedule.warmup or train in bf16 instead of fp16"
                )
            journal.write(
                kind="train",
                iteration=done,
                windows=done * windows,
                tokens=done * windows * length,
                loss=loss,
                lr=rate,
                grad_norm=norm if math.isfinite(norm) else None,
                domains=by_domain,
            )
            journal.clock(done, windows * length, time.perf_counter() - started)
            last = done == config.iterations
            if last or done % config.evaluate.every == 0:
                scores = score(done)
            if last or done % config.checkpoint.every == 0:
                journal.sync()
                state = {
                    "iteration": done,
                    "windows": done * windows,
                    "order": log.as_dict(),
                    "scaler": scaler.state_dict(),
                    "shape": asdict(model.shape),
                }
                checkpoint.save(run / "checkpoints", done, model, optimizer, state, keep=config.checkpoint.keep)
        if not scores:  # nothing was left to do
            scores = last_scores(run)
    final = checkpoint.checkpoints(run / "checkpoints")[-1]
    total = config.iterations * windows
    return TrainResult(config.iterations, total, total * length, loss, scores, final, begin, tuple(notes))


def shape(config: TrainConfig, vocab: int) -> Shape:
    """The model's sizes, as the configuration and the tokenizer have it."""
    return Shape(vocab=vocab, **config.model.model_dump(exclude={"preset"}))


def _micro_batches(batch: Batch, micro: int) -> Iterator[Batch]:
    for i in range(0, len(batch.domains), micro):
        part = slice(i, i + micro)
        yield Batch(batch.tokens[part], batch.targets[part], batch.documents[part], batch.domains[part])


def _losses(batch: Batch, nll: torch.Tensor, count: int) -> tuple[float, dict[str, float]]:
    """Mean loss over all targets and over those of each domain, from the summed NLL of each window."""
    counts = (batch.targets != IGNORE).sum(dim=1)
    by_domain = {}
    for name in sorted(set(batch.domains)):
        rows = torch.tensor([d == name for d in batch.domains])
        if targets := int(counts[rows].sum()):
            by_domain[name] = nll[rows].sum().item() / targets
    return nll.sum().item() / max(1, count), by_domain


def _autocast(config: TrainConfig) -> AbstractContextManager[Any]:
    if config.precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(config.device, torch.bfloat16 if config.precision == "bf16" else torch.float16)


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


def _settle(config: TrainConfig, run: Path, manifest: Manifest) -> TrainConfig:
    """Decides what was left to the machine, and holds a run with checkpoints to one configuration and set of shards.

    On resume the decisions of the first start stand (precision, device, threads). Raises UserError where configuration
    or shards differ from those that the run began with.
    """
    if not checkpoint.checkpoints(run / "checkpoints"):
        return _decide(config, None)
    if not ((run / "train.yaml").exists() and (run / "data.json").exists()):
        raise UserError(f"{run} has checkpoints and no train.yaml or data.json to go with them; name another run")
    earlier = parse((run / "train.yaml").read_text(), str(run / "train.yaml"))
    settled = _decide(config, earlier)
    if settled != earlier:
        before, now = _flat(earlier.model_dump(mode="json")), _flat(settled.model_dump(mode="json"))
        keys = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        changes = "; ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in keys)
        raise UserError(f"{run} was made by another configuration: {changes}. Change it back or name another run")
    if json.loads((run / "data.json").read_text())["manifest"] != _digest(manifest):
        raise UserError(f"{run} was trained on other shards than {manifest.root} has now; name another run")
    return settled


def _write_head(run: Path, config: TrainConfig, manifest: Manifest) -> None:
    """train.yaml, the tokenizer and data.json (which shards): with the checkpoints, all that using the model needs."""
    run.mkdir(parents=True, exist_ok=True)
    data = {
        "manifest": _digest(manifest),
        "root": manifest.root,
        "roots": manifest.roots,
        "tokenizer": vars(manifest.tokenizer),
    }
    _write(run / manifest.tokenizer.file, read_file(manifest.path(manifest.tokenizer.file)))
    _write(run / "data.json", (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
    _write(run / "train.yaml", config.dump().encode())


def _digest(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.dumps()).hexdigest()


def _decide(config: TrainConfig, earlier: TrainConfig | None) -> TrainConfig:
    device, precision, threads = config.device, config.precision, config.threads
    if device == "auto":
        device = earlier.device if earlier else "cuda" if torch.cuda.is_available() else "cpu"
    if precision == "auto":
        precision = earlier.precision if earlier else "bf16" if _native_bf16(device) else "fp32"
    if threads is None:
        threads = earlier.threads if earlier else torch.get_num_threads()
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda, and torch sees no CUDA device here; set device: cpu, or see `gristmill doctor`")
    return config.model_copy(update={"device": device, "precision": precision, "threads": threads})


def _native_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def _flat(value: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(_flat(inner, f"{above}{key}.") if isinstance(inner, dict) else {above + key: inner})
    return flat


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    temporary.rename(path)
