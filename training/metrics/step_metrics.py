"""What the device found out about the last steps, looked at together.

Reading a figure from a GPU makes the host wait for it, and the GPU then waits for the host. So each step leaves
one small tensor on the device, the same on every rank, and every `log_every` steps all are fetched at once.
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


@dataclass(frozen=True)
class Reading:
    """The figures of a step; loss and grad_norm may be anything that floats can be."""

    step: int
    span: tuple[int, int]  # its windows
    tokens: int  # read by all steps so far
    loss: float
    grad_norm: float
    skipped: bool
    anomaly: bool
    z: tuple[float, float]  # of loss and gradient norm; NaN: nothing to compare with yet
    lr: float
    domains: dict[str, float]
    bits_per_byte: dict[str, float]
    update_ratio: float  # norm of the update over that of the weights; NaN where it was not measured
    seconds: float

    def entry(self) -> dict[str, Any]:
        """As metrics.jsonl has it: None stands for what is not finite."""
        entry: dict[str, Any] = {"kind": "train", "step": self.step, "sequences": self.span[1]}
        entry |= {"tokens": self.tokens, "loss": finite(self.loss), "lr": self.lr, "grad_norm": finite(self.grad_norm)}
        if math.isfinite(self.update_ratio):
            entry["update_ratio"] = self.update_ratio
        entry["domains"] = {name: finite(loss) for name, loss in self.domains.items()}
        entry["bits_per_byte"] = {name: finite(bits) for name, bits in self.bits_per_byte.items()}
        return entry

    def event(self) -> dict[str, Any] | None:
        """What the guard did about it, if anything."""
        if not (self.skipped or self.anomaly):
            return None
        what = ("skip" if self.skipped else "anomaly") if self.anomaly else "overflow"
        entry = {"kind": "event", "event": what, "step": self.step, "loss": finite(self.loss)}
        return entry | {
            "grad_norm": finite(self.grad_norm),
            "z_loss": finite(self.z[0]),
            "z_gradient": finite(self.z[1]),
        }


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Meter:
    """Figures of steps that the device may still be working on."""

    def __init__(self, ranks: Ranks, domains: Mapping[str, float | None]) -> None:
        """`domains`: each with the bytes of text that one of its tokens stands for, None where that is not known."""
        self.ranks, self.domains, self._bytes = ranks, tuple(domains), dict(domains)
        self._rows: list[Tensor] = []
        self._known: list[tuple[int, tuple[int, int], int, float]] = []
        self._since = time.perf_counter()

    def targets(self, batch: Batch) -> Tensor:
        """Targets by domain, of all ranks: float64 [domains]."""
        return self.ranks.sum(self._by_domain(batch, (batch.targets != IGNORE_INDEX).sum(dim=1).double()))

    def losses(self, batch: Batch, nll: Tensor, stop: bool) -> Tensor:
        """Summed NLL by domain [domains], and how many ranks wish to stop: float64 [domains + 1] over all ranks.

        nll: float64 [windows of this rank].
        """
        wish = torch.full((1,), float(stop), dtype=torch.float64, device=nll.device)
        return self.ranks.sum(torch.cat((self._by_domain(batch, nll), wish)))

    def _by_domain(self, batch: Batch, values: Tensor) -> Tensor:
        # A product with a matrix of ones and zeros: sums in a fixed order, which index_add does not promise on a GPU.
        table = torch.tensor([[name == d for d in batch.domains] for name in self.domains], dtype=torch.float64)
        return table.to(self.ranks.device, non_blocking=True) @ values.to(self.ranks.device)

    def add(
        self,
        step: int,
        span: tuple[int, int],
        tokens: int,
        lr: float,
        *,
        targets: Tensor,
        losses: Tensor,
        loss: Tensor,
        norm: Tensor,
        skip: Tensor,
        anomaly: Tensor,
        z: Tensor,
        update: Tensor | None,
    ) -> None:
        """Keeps the figures of a step, on the device; `update`: what `Optimizers.step` measured."""
        squares = loss.new_full((2,), math.nan, dtype=torch.float64) if update is None else self.ranks.sum(update)
        ratio = (squares[0] / squares[1]).sqrt()
        head = torch.stack((loss.double(), norm.double(), skip.double(), anomaly.double(), ratio))
        self._rows.append(torch.cat((head, z.double(), losses, targets)))
        self._known.append((step, span, tokens, lr))

    def read(self) -> tuple[list[Reading], bool]:
        """Everything since the last call, and whether any rank wishes to stop; waits for the device."""
        if not self._rows:
            return [], False
        rows, known = torch.stack(self._rows).tolist(), self._known
        now = time.perf_counter()
        seconds, self._since = (now - self._since) / len(rows), now
        self._rows, self._known = [], []
        readings, n = [], len(self.domains)
        for row, (step, span, tokens, lr) in zip(rows, known, strict=True):
            (loss, norm, skipped, anomaly, ratio, *z), figures = row[:7], row[7:]
            sums, counts = figures[:n], figures[n + 1 :]
            domains = {d: s / c for d, s, c in zip(self.domains, sums, counts, strict=True) if c}
            bits = {d: x / math.log(2) / size for d, x in domains.items() if (size := self._bytes[d])}
            readings.append(
                Reading(
                    step,
                    span,
                    tokens,
                    loss,
                    norm,
                    skipped > 0,
                    anomaly > 0,
                    (z[0], z[1]),
                    lr,
                    domains,
                    bits,
                    ratio,
                    seconds,
                )
            )
        return readings, any(row[7 + n] > 0 for row in rows)

    def restart(self) -> None:
        """What happened since the last reading was something else than steps: its time is not theirs."""
        self._since = time.perf_counter()

    def forget(self) -> None:
        """Steps that are gone back behind."""
        self._rows, self._known = [], []
        self.restart()
