"""Scales the loss for fp16 training (Micikevicius et al. 2018, section 3.2), without waiting for the device.

fp16 cannot represent values below 6e-8, so the loss is multiplied by a power of two before backward and the gradients
are divided by it after. If they overflow, the update is skipped and the scale halved; after 2,000 steps without
overflow it is doubled. Other types need no scale. (torch's GradScaler waits for the host each step, and checks one
rank's gradients only.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

FIRST, DOUBLE_AFTER = 65536.0, 2000


class LossScaler:
    """The scale of the loss and how it changes; does nothing unless `enabled`."""

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self.enabled = enabled
        self.scale = torch.tensor(FIRST if enabled else 1.0, dtype=torch.float32, device=device)
        self.clean_steps = torch.zeros((), dtype=torch.int64, device=device)  # steps without an overflow

    def scaled(self, loss: Tensor) -> Tensor:
        return loss * self.scale if self.enabled else loss

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divides the gradients by the scale, in place."""
        if self.enabled:
            for p in parameters:
                if p.grad is not None:
                    (p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad).mul_(1 / self.scale)

    def update(self, norm: Tensor) -> None:
        """Halves or doubles the scale, given the norm of all gradients, which must be the same on every rank."""
        if self.enabled:
            bad = ~torch.isfinite(norm)
            clean_steps = torch.where(bad, 0, self.clean_steps + 1)
            double = clean_steps >= DOUBLE_AFTER
            self.scale = self.scale * torch.where(bad, 0.5, torch.where(double, 2.0, 1.0)).to(self.scale.dtype)
            self.clean_steps = torch.where(double, 0, clean_steps)

    def state_dict(self) -> dict[str, Any]:
        return {"scale": float(self.scale), "clean_steps": int(self.clean_steps)} if self.enabled else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.enabled:
            self.scale.fill_(state["scale"])
            self.clean_steps.fill_(state["clean_steps"])
