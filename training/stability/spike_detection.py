"""The spike guard flags anomalous steps before the optimizer applies them.

A step is an anomaly where its loss or gradient norm is not a number, or is more than `z_threshold` robust standard
deviations above the median of the last `window` *accepted* steps: z = (x - median) / (1.4826 MAD), of the loss, and of
the log of the gradient norm, whose tail is heavy. Median and MAD do not move for a few outliers, and outliers are left
out anyway, so a second spike is judged by the same measure as the first, and a slow drift is followed.

The verdict is a flag on the device that the optimizer's kernels read; nothing waits for the host. Every few steps the
host reads it: `spike_count` anomalies within `spike_window` steps are a spike, and training rolls back to the last
*good* checkpoint, one that was followed by `good_after` accepted steps (find_spike_documents.py finds the cause).
All state is in the checkpoint, so that a restarted run judges as if it had never stopped.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from training.config import GuardConfig

# The scale of a normal sample over its MAD; and the least spread that is believed, so that figures that hardly move
# (a loss fallen to nothing, a toy's gradient) make no spike of a rounding: 0.1 % of a loss, 1 % of a norm.
NORMAL, LEAST_LOSS, LEAST_NORM = 1.4826, 1e-3, 1e-2
FEWEST = 16  # of the history, whatever its age


class Guard:
    """Judges steps in their order; `judge` runs on the device, `look` on the host."""

    def __init__(self, config: GuardConfig, device: torch.device, *, overflow: bool = False) -> None:
        """`overflow`: under fp16 a gradient that is not finite is the loss scale's business and no anomaly."""
        self.config, self.device, self.overflow = config, device, overflow
        self.good = 0  # step of the last good checkpoint
        self.cleared = 0  # anomalies up to this step have been looked into: no cause to go back again
        self.incidents = 0  # how many of the run's incidents this state has seen
        nobody = [0] * config.spike_window
        self._set(torch.full((2, config.window), math.nan, dtype=torch.float64), 0, 0, nobody, -1, nobody)

    def _set(
        self, history: Tensor, accepted: int, streak: int, recent: list[int], spike: int, flagged: list[int]
    ) -> None:
        def on(value: int | list[int]) -> Tensor:
            return torch.tensor(value, dtype=torch.int64, device=self.device)

        self.history = history.to(self.device)  # [loss, log norm] x window, a ring; NaN where nothing is yet
        self.accepted = on(accepted)  # ever
        self.streak = on(streak)  # accepted steps since the last anomaly
        self.recent = on(recent)  # the last `spike_window`: 1 for an anomaly, newest first
        self.spike = on(spike)  # the step in which a spike was confirmed, -1: none
        self.flagged = on(flagged)  # `recent` as it was then

    def judge(self, step: int, loss: Tensor, norm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Takes loss and gradient norm of a step (from 1), the same on every rank, scalars on the device.

        Returns skip (float32 scalar, 1 where the update is to be left out), anomaly (bool scalar) and z (float64 [2],
        of loss and norm, NaN before there is enough to compare with).
        """
        loss, norm = loss.detach().double(), norm.detach().double()
        if self.config.action == "off":
            overflow = (~torch.isfinite(norm)) if self.overflow else torch.zeros_like(norm)
            return overflow.float(), torch.zeros_like(overflow), torch.full_like(self.history[:, 0], math.nan)
        values = torch.stack((loss, norm.clamp(min=1e-30).log()))
        finite = torch.isfinite(values)
        z = self._z(values)
        enough = self.accepted >= self.config.warmup_steps
        out = (enough & (z > self.config.z_threshold)) | ~finite
        skip = out.any()
        anomaly = skip & (finite[1] | ~finite[0]) if self.overflow else skip

        slot = torch.arange(self.config.window, device=self.device) == self.accepted % self.config.window
        self.history = torch.where(slot & ~skip, values[:, None], self.history)
        self.accepted = self.accepted + (~skip).long()
        self.streak = torch.where(anomaly, 0, self.streak + (~skip).long())
        counts = anomaly.long() if step > self.cleared else torch.zeros_like(self.accepted)
        self.recent = torch.cat((counts[None], self.recent[:-1]))
        confirmed = (self.spike < 0) & (self.recent.sum() >= self.config.spike_count)
        self.spike = torch.where(confirmed, step, self.spike)
        self.flagged = torch.where(confirmed, self.recent, self.flagged)
        if self.config.action == "watch":
            skip = ~finite.all()
        return skip.float(), anomaly, torch.where(enough & finite, z, math.nan)

    def _z(self, values: Tensor) -> Tensor:
        """Robust standard deviations of [loss, log norm] above the history's median."""
        # Of a short history the newer half: the first losses fall so fast that their spread would hide anything.
        window = self.config.window
        count = (self.accepted // 2).clamp(min=FEWEST, max=window).clamp(max=self.accepted)
        age = (self.accepted - 1 - torch.arange(window, device=self.device)) % window
        history = torch.where(age < count, self.history, math.nan)
        middle = ((count - 1).clamp(min=0) // 2).expand(2, 1)

        def median(x: Tensor) -> Tensor:  # the lower one; NaN sorts last, behind what there is
            return x.sort(dim=1).values.gather(1, middle)[:, 0]

        center = median(history)
        spread = NORMAL * median((history - center[:, None]).abs())
        least = torch.stack((LEAST_LOSS * center[0].abs(), torch.full_like(center[1], LEAST_NORM)))
        return (values - center) / torch.maximum(spread, least)

    def look(self, step: int, every: int) -> bool:
        """On the host, between steps: which checkpoint is good by now, and whether there is a confirmed spike.

        `every`: steps between checkpoints. One is good once a row of `good_after` accepted steps followed.
        """
        if self.config.action != "rollback":
            return False
        spike, streak = torch.stack((self.spike, self.streak)).tolist()
        latest = (step - self.config.good_after) // every * every
        if latest >= max(step - streak, self.good):
            self.good = latest
        return bool(spike >= 0)

    def culprits(self) -> tuple[int, list[int]]:
        """The step in which the spike was confirmed, and the anomalies that made it one, oldest first."""
        spike = int(self.spike)
        return spike, [spike - back for back, flag in reversed(list(enumerate(self.flagged.tolist()))) if flag]

    def state_dict(self) -> dict[str, Any]:
        """As JSON; floats come back to the bit."""
        return {
            "history": [[None if math.isnan(x) else x for x in row] for row in self.history.tolist()],
            "accepted": int(self.accepted),
            "streak": int(self.streak),
            "recent": self.recent.tolist(),
            "spike": int(self.spike),
            "flagged": self.flagged.tolist(),
            "good": self.good,
            "cleared": self.cleared,
            "incidents": self.incidents,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As it was; a window or a span that has another size now keeps the newest that fit."""
        config, accepted = self.config, state["accepted"]
        rows = [[math.nan if x is None else x for x in row] for row in state["history"]]
        old = len(rows[0])
        newest = [[row[i % old] for i in range(max(0, accepted - old), accepted)][-config.window :] for row in rows]
        history = torch.full((2, config.window), math.nan, dtype=torch.float64)
        for k, row in enumerate(newest):
            for i, value in enumerate(row, accepted - len(row)):
                history[k, i % config.window] = value
        recent, flagged = ((state[k] + [0] * config.spike_window)[: config.spike_window] for k in ("recent", "flagged"))
        self._set(history, accepted, state["streak"], recent, state["spike"], flagged)
        self.good, self.cleared, self.incidents = state["good"], state["cleared"], state["incidents"]
