"""The spike guard flags anomalous steps before the optimizer applies them.

A step is an anomaly where its loss or gradient norm is not a number, or is more than `z_threshold` robust standard
deviations above the median of the last `window` *accepted* steps: z = (x - median) / (1.4826 MAD), of the loss, and of
the log of the gradient norm, whose tail is heavy. Median and MAD do not move for a few outliers, and outliers are left
out anyway, so a second spike is judged by the same measure as the first, and a slow drift is followed. It must also be
larger than usual by a ratio: small batches have heavy tails, where many deviations are a small step.

What is usual changes with the mix, the batch and the sequence length, so a new baseline begins there (stages.py); and a
level that lasts `max_skips` steps in a row is accepted as the new one: with every update left out the weights are those
of before, so the data has changed and not the model.

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

NORMAL = 1.4826  # standard deviation of a normal distribution divided by its MAD
# The smallest spread that is assumed, so that a loss near zero or a toy's gradient, which hardly move, make no spike of
# a rounding error: 0.1 % of a loss, 1 % of a norm.
MIN_LOSS_SPREAD, MIN_NORM_SPREAD = 1e-3, 1e-2
# What an anomaly exceeds besides: 1.05 times the usual loss, or 2.5 times the usual gradient norm
MIN_LOSS_RATIO, MIN_NORM_RATIO = 1.05, 2.5
MIN_HISTORY = 16  # steps that are compared with, however old they are


class SpikeGuard:
    """Judges steps in their order; `judge` runs on the device, `spike_confirmed` on the host."""

    def __init__(self, config: GuardConfig, device: torch.device, *, overflow: bool = False) -> None:
        """`overflow`: under fp16 a gradient that is not finite is left to the loss scale and is no anomaly."""
        self.config, self.device, self.overflow = config, device, overflow
        self.good = 0  # step of the last good checkpoint
        self.cleared = 0  # anomalies up to this step were dealt with: they cause no further rollback
        self.incidents = 0  # how many of the run's incidents this state has seen
        none = [0] * config.spike_window
        self._set_state(torch.full((2, config.window), math.nan, dtype=torch.float64), 0, 0, none, -1, none, 0)

    def _set_state(
        self,
        history: Tensor,
        accepted: int,
        streak: int,
        recent: list[int],
        spike: int,
        flagged: list[int],
        in_a_row: int,
    ) -> None:
        def on_device(value: int | list[int]) -> Tensor:
            return torch.tensor(value, dtype=torch.int64, device=self.device)

        self.history = history.to(self.device)  # [loss, log norm] x window, a ring buffer; NaN where empty
        self.accepted = on_device(accepted)  # steps accepted since the baseline began
        self.streak = on_device(streak)  # accepted steps since the last anomaly
        self.recent = on_device(recent)  # the last `spike_window`: 1 for an anomaly, newest first
        self.spike = on_device(spike)  # the step in which a spike was confirmed; -1: no spike
        self.flagged = on_device(flagged)  # `recent` as it was then
        self.in_a_row = on_device(in_a_row)  # finite anomalies since the last accepted step

    def start_baseline(self) -> None:
        """Forgets what is usual, where a planned change makes it another: the next steps say it anew.

        Anomalies from before the change count for no spike after it. A spike confirmed but not yet handled stays.
        """
        self.history = torch.full_like(self.history, math.nan)
        self.recent = torch.zeros_like(self.recent)
        self.accepted, self.in_a_row = torch.zeros_like(self.accepted), torch.zeros_like(self.in_a_row)

    def judge(self, step: int, loss: Tensor, norm: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Judges a step (from 1) by its loss and gradient norm: scalars on the device, the same on every rank.

        Returns skip (float32 scalar, 1 where the optimizer must leave the update out), anomaly (bool scalar), z and
        the usual values (float64 [2] each, of loss and norm, NaN before there is enough to compare with).
        """
        loss, norm = loss.detach().double(), norm.detach().double()
        if self.config.action == "off":
            overflow = (~torch.isfinite(norm)) if self.overflow else torch.zeros_like(norm)
            nothing = torch.full_like(self.history[:, 0], math.nan)
            return overflow.float(), torch.zeros_like(overflow), nothing, nothing
        values = torch.stack((loss, norm.clamp(min=1e-30).log()))
        finite = torch.isfinite(values)
        z, center = self._z(values)
        enough = self.accepted >= self.config.warmup_steps
        # The norm's value is its logarithm, where a ratio is a difference
        limit = torch.stack((center[0] * MIN_LOSS_RATIO, center[1] + math.log(MIN_NORM_RATIO)))
        high = (enough & (z > self.config.z_threshold) & (values > limit)).any()
        lasts = high & finite.all() & (self.in_a_row >= self.config.max_skips)
        self.in_a_row = torch.where(high & finite.all() & ~lasts, self.in_a_row + 1, 0)
        self.history = torch.where(lasts, math.nan, self.history)
        self.accepted = torch.where(lasts, 0, self.accepted)
        skip = (high & ~lasts) | ~finite.all()
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
        usual = torch.stack((center[0], center[1].exp()))
        return skip.float(), anomaly, torch.where(enough & finite, z, math.nan), torch.where(enough, usual, math.nan)

    def _z(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Robust standard deviations of [loss, log norm] above the history's median, and that median."""
        # Of a short history only the newer half: the first losses fall so fast that their spread would hide a spike.
        window = self.config.window
        count = (self.accepted // 2).clamp(min=MIN_HISTORY, max=window).clamp(max=self.accepted)
        age = (self.accepted - 1 - torch.arange(window, device=self.device)) % window
        history = torch.where(age < count, self.history, math.nan)
        middle = ((count - 1).clamp(min=0) // 2).expand(2, 1)

        def median(x: Tensor) -> Tensor:  # the lower one; NaN sorts last
            return x.sort(dim=1).values.gather(1, middle)[:, 0]

        center = median(history)
        spread = NORMAL * median((history - center[:, None]).abs())
        least = torch.stack((MIN_LOSS_SPREAD * center[0].abs(), torch.full_like(center[1], MIN_NORM_SPREAD)))
        return (values - center) / torch.maximum(spread, least), center

    def spike_confirmed(self, step: int, every: int) -> bool:
        """Whether a spike is confirmed; also updates which checkpoint is good. Waits for the device.

        `every`: steps between checkpoints. One is good once `good_after` accepted steps in a row followed it.
        """
        if self.config.action != "rollback":
            return False
        spike, streak = torch.stack((self.spike, self.streak)).tolist()
        latest = (step - self.config.good_after) // every * every
        if latest >= max(step - streak, self.good):
            self.good = latest
        return bool(spike >= 0)

    def anomalous_steps(self) -> tuple[int, list[int]]:
        """The step in which the spike was confirmed, and its anomalies, oldest first."""
        spike = int(self.spike)
        return spike, [spike - back for back, flag in reversed(list(enumerate(self.flagged.tolist()))) if flag]

    def state_dict(self) -> dict[str, Any]:
        """JSON values from which `load_state_dict` restores the state to the bit."""
        return {
            "history": [[None if math.isnan(x) else x for x in row] for row in self.history.tolist()],
            "accepted": int(self.accepted),
            "streak": int(self.streak),
            "recent": self.recent.tolist(),
            "spike": int(self.spike),
            "flagged": self.flagged.tolist(),
            "in_a_row": int(self.in_a_row),
            "good": self.good,
            "cleared": self.cleared,
            "incidents": self.incidents,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state; where `window` or `spike_window` has changed, the newest entries that fit are kept."""
        config, accepted = self.config, state["accepted"]
        rows = [[math.nan if x is None else x for x in row] for row in state["history"]]
        old = len(rows[0])
        newest = [[row[i % old] for i in range(max(0, accepted - old), accepted)][-config.window :] for row in rows]
        history = torch.full((2, config.window), math.nan, dtype=torch.float64)
        for k, row in enumerate(newest):
            for i, value in enumerate(row, accepted - len(row)):
                history[k, i % config.window] = value
        recent, flagged = ((state[k] + [0] * config.spike_window)[: config.spike_window] for k in ("recent", "flagged"))
        self._set_state(history, accepted, state["streak"], recent, state["spike"], flagged, state.get("in_a_row", 0))
        self.good, self.cleared, self.incidents = state["good"], state["cleared"], state["incidents"]
