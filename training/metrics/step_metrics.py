"""Collects the metrics of training steps on the device and reads many steps at once.

Reading a number from a GPU makes the host wait for it, and the GPU then waits for the host. So each step leaves one
small tensor on the device, the same on every rank, and every `log_every` steps all of them are copied together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.data.batch import IGNORE_INDEX, Batch
from training.distributed.parallel import Ranks


@dataclass
class StepTensors:
    """One step's numbers while they are on the device, equal on every rank.

    A callback may raise `skip` in `on_gradients`: where it is above zero the optimizer leaves the update out.
    """

    step: int  # from 1, as in metrics.jsonl
    span: tuple[int, int]  # its sequences: the first, and the one after the last
    tokens: int  # read by all steps so far, this one included
    lr: float
    loss: Tensor
    grad_norm: Tensor  # before clipping
    targets: Tensor  # by domain, float64 [domains]
    nll: Tensor  # summed by domain, float64 [domains]
    skip: Tensor  # float32 scalar
    anomaly: Tensor  # bool scalar
    z: Tensor  # robust z of loss and gradient norm, float64 [2]; NaN: nothing to compare with yet
    update: Tensor | None = None  # what `Optimizers.step` measured
    usual: Tensor | None = None  # median loss and gradient norm of the steps before, float64 [2]; NaN likewise


@dataclass(frozen=True)
class StepMetrics:
    """One step's numbers on the host; loss and grad_norm may be infinite or NaN."""

    step: int
    span: tuple[int, int]
    tokens: int
    loss: float
    grad_norm: float
    skipped: bool
    anomaly: bool
    z: tuple[float, float]
    usual: tuple[float, float]
    lr: float
    domains: dict[str, float]  # loss
    bits_per_byte: dict[str, float]
    update_ratio: float  # norm of the update divided by that of the weights; NaN where it was not measured
    seconds: float

    def entry(self) -> dict[str, Any]:
        """As metrics.jsonl has it; None where a number is not finite."""
        entry: dict[str, Any] = {"kind": "train", "step": self.step, "sequences": self.span[1]}
        entry |= {"tokens": self.tokens, "loss": finite(self.loss), "lr": self.lr, "grad_norm": finite(self.grad_norm)}
        if math.isfinite(self.update_ratio):
            entry["update_ratio"] = self.update_ratio
        entry["domains"] = {name: finite(loss) for name, loss in self.domains.items()}
        entry["bits_per_byte"] = {name: finite(bits) for name, bits in self.bits_per_byte.items()}
        return entry

    def event(self) -> dict[str, Any] | None:
        """The entry of metrics.jsonl for a skipped or anomalous step; None for any other."""
        if not (self.skipped or self.anomaly):
            return None
        overflow = not self.anomaly and not math.isfinite(self.grad_norm)  # of fp16: the loss scale's business
        event = "anomaly" if not self.skipped else "overflow" if overflow else "skip"
        entry = {"kind": "event", "event": event, "step": self.step, "loss": finite(self.loss)}
        return entry | {
            "grad_norm": finite(self.grad_norm),
            "z_loss": finite(self.z[0]),
            "z_gradient": finite(self.z[1]),
            "usual_loss": finite(self.usual[0]),
            "usual_grad_norm": finite(self.usual[1]),
        }


def finite(value: float) -> float | None:
    """None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


class MetricsBuffer:
    """Holds the tensors of steps that the device may still be working on."""

    def __init__(self, ranks: Ranks, bytes_per_token: Mapping[str, float | None]) -> None:
        """`bytes_per_token`: bytes of text by domain; None where that is not known."""
        self.ranks, self.domains, self._bytes = ranks, tuple(bytes_per_token), dict(bytes_per_token)
        self._rows: list[Tensor] = []
        self._steps: list[StepTensors] = []
        self._since = time.perf_counter()

    def count_targets(self, batch: Batch) -> Tensor:
        """Targets by domain, of all ranks: float64 [domains]."""
        return self.ranks.all_reduce_sum(self._by_domain(batch, (batch.targets != IGNORE_INDEX).sum(dim=1).double()))

    def sum_losses(self, batch: Batch, nll: Tensor) -> Tensor:
        """Summed NLL by domain over all ranks, float64 [domains]; nll: float64 [sequences of this rank]."""
        return self.ranks.all_reduce_sum(self._by_domain(batch, nll))

    def _by_domain(self, batch: Batch, values: Tensor) -> Tensor:
        # A product with a matrix of ones and zeros: sums in a fixed order, which index_add does not promise on a GPU.
        table = torch.tensor([[name == d for d in batch.domains] for name in self.domains], dtype=torch.float64)
        return table.to(self.ranks.device, non_blocking=True) @ values.to(self.ranks.device)

    def add(self, step: StepTensors) -> None:
        """Keeps the numbers of a step, on the device."""
        loss, update = step.loss, step.update
        squares = (
            loss.new_full((2,), math.nan, dtype=torch.float64) if update is None else self.ranks.all_reduce_sum(update)
        )
        ratio = (squares[0] / squares[1]).sqrt()
        usual = torch.full_like(step.z, math.nan) if step.usual is None else step.usual
        head = torch.stack((loss.double(), step.grad_norm.double(), step.skip.double(), step.anomaly.double(), ratio))
        self._rows.append(torch.cat((head, step.z.double(), usual.double(), step.nll, step.targets)))
        self._steps.append(step)

    def read(self) -> list[StepMetrics]:
        """All steps since the last call; waits for the device."""
        if not self._rows:
            return []
        rows, steps = torch.stack(self._rows).tolist(), self._steps
        now = time.perf_counter()
        seconds, self._since = (now - self._since) / len(rows), now
        self._rows, self._steps = [], []
        return [self._metrics(step, row, seconds) for step, row in zip(steps, rows, strict=True)]

    def _metrics(self, step: StepTensors, row: list[float], seconds: float) -> StepMetrics:
        (loss, norm, skipped, anomaly, ratio, z_loss, z_norm, *usual), n = row[:9], len(self.domains)
        sums, counts = row[9 : 9 + n], row[9 + n :]
        domains = {d: s / c for d, s, c in zip(self.domains, sums, counts, strict=True) if c}
        bits = {d: x / math.log(2) / size for d, x in domains.items() if (size := self._bytes[d])}
        return StepMetrics(
            step.step, step.span, step.tokens, loss, norm, skipped > 0, anomaly > 0, (z_loss, z_norm),
            (usual[0], usual[1]), step.lr,
            domains, bits, ratio, seconds,
        )  # fmt: skip

    def restart_clock(self) -> None:
        """Called after work other than steps, so that its time is not counted as theirs."""
        self._since = time.perf_counter()

    def clear(self) -> None:
        """Drops the steps not yet read: a rollback undid them."""
        self._rows, self._steps = [], []
        self.restart_clock()
