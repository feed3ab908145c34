"""Updates the weights: AdamW, or Muon for the matrices of the blocks and AdamW for the rest.

AdamW is that of Loshchilov & Hutter 2019; `optimizer.no_decay` lists what it does not decay. Muon (Jordan et al. 2024)
makes the momentum orthogonal by five Newton-Schulz iterations and scales it by 0.2 sqrt(max(rows, columns)), so that
one learning rate and one decay fit both (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).

An update can be skipped by a flag on the device (`step(skip)`), so that no step waits for the host to read the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.config import OptimizerConfig

# The quintic a x + b x^3 + c x^5, steep at zero: singular values end between 0.7 and 1.2 (Jordan et al. 2024)
NEWTON_SCHULZ, ROUNDS = (3.4445, -4.7750, 2.0315), 5


def orthogonalize(matrix: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The matrix [m, n] with its singular values moved close to one, computed in `dtype`."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.to(dtype)
    wide = x.T if len(x) > x.shape[1] else x
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if len(x) > x.shape[1] else wide


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon's update (adjust_lr_fn "match_rms_adamw", Nesterov) on whole matrices whatever their sharding.

    torch's own would multiply shards, and sums of partial bf16 products depend on the number of ranks. Here each rank
    gathers one matrix at a time and runs all Newton-Schulz iterations, so that any number of ranks takes the same step.
    They run in bf16 as usual, but in fp32 if training does: in bf16, differences in the loss's last bits grew to 4e-5
    within four steps.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, weight_decay: float, momentum: float,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype
        self.found_inf: Tensor | None = None
        self.measured: list[Tensor] | None = (
            None  # if not None, collects the norm of each update (of this rank's shard)
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group["lr"], group["weight_decay"], group["momentum"])

    def _update(self, p: Tensor, lr: float, weight_decay: float, momentum: float) -> None:
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer, gradient = state["momentum_buffer"], p.grad
        assert gradient is not None
        moved = buffer.lerp(gradient, 1 - momentum)
        look = gradient.lerp(moved, momentum)
        whole = look.full_tensor() if isinstance(look, DTensor) else look
        change = orthogonalize(whole, self.dtype).to(p.dtype)
        if isinstance(p, DTensor):
            change = _shard_like(change, p)
        new = (p * (1 - lr * weight_decay)).sub_(change, alpha=lr * 0.2 * math.sqrt(max(p.shape)))
        if self.found_inf is not None:
            skip = (self.found_inf > 0).to(p.device)
            moved, new = _either(skip, buffer, moved), _either(skip, p, new)
        if self.measured is not None:
            self.measured.append(_norm(new - p))
        buffer.copy_(moved)
        p.copy_(new)


def _shard_like(whole: Tensor, p: DTensor) -> DTensor:
    """This rank's part of a tensor that every rank has, without communication."""
    from torch.distributed.tensor import Replicate

    replicated = DTensor.from_local(whole, p.device_mesh, [Replicate()] * p.device_mesh.ndim, run_check=False)
    return replicated.redistribute(p.device_mesh, p.placements)


def _norm(x: Tensor) -> Tensor:
    """The norm of this rank's shard, in float64."""
    norm: Tensor = torch.linalg.vector_norm(x.to_local() if isinstance(x, DTensor) else x, dtype=torch.float64)
    return norm


def _adamw_norm(p: Tensor, state: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    """The norm of the update that AdamW has just made, recovered from the new weights and the optimizer's state.

    w' = (1 - lr decay) w - lr u with u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps), where w' and u are known.
    """
    w, m, v = (t.to_local() if isinstance(t, DTensor) else t for t in (p, state["exp_avg"], state["exp_avg_sq"]))
    (b1, b2), lr, step = group["betas"], group["lr"], state["step"]
    update = m / (v / (1 - b2**step)).sqrt_().add_(group["eps"]).mul_(1 - b1**step)
    kept = 1 - lr * group["weight_decay"]
    return _norm(update.mul_(-lr).add_(w, alpha=kept - 1).div_(kept))


def _either(flag: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a if the flag is set, else b; shard by shard."""
    if isinstance(a, DTensor) and isinstance(b, DTensor):
        local = torch.where(flag, a.to_local(), b.to_local())
        return DTensor.from_local(local, a.device_mesh, a.placements, shape=a.shape, stride=a.stride(), run_check=False)
    return torch.where(flag, a, b)


class Optimizers:
    """One or two optimizers over disjoint parameters that step together, or not at all."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)

    def set_lr(self, rate: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def step(self, skip: Tensor | None = None, *, measure: bool = False) -> Tensor | None:
        """Updates the parameters unless `skip`, a scalar on their device, is above zero.

        The flag is passed as torch's GradScaler passes found_inf: fused AdamW's kernel reads it and counts no step.
        With `measure`, returns the squared norms of the update and of the weights, of this rank's shards: float64 [2].
        That is two more passes over the parameters: meant for every `log_every` steps.
        """
        for part in self.parts:
            if isinstance(part, Muon):
                part.measured = [] if measure else None
            part.grad_scale, part.found_inf = None, skip  # type: ignore[attr-defined]
            part.step()
        return self._measure(skip) if measure else None

    @torch.no_grad()
    def _measure(self, skip: Tensor | None) -> Tensor:
        changes, weights = [], []
        for part in self.parts:
            if isinstance(part, Muon):
                changes += part.measured or []
            for group in part.param_groups:
                for p in group["params"]:
                    weights.append(_norm(p))
                    if not isinstance(part, Muon) and part.state[p]:
                        changes.append(_adamw_norm(p, part.state[p], group))
        changed, held = (torch.stack(norms).square().sum() for norms in (changes, weights))
        return torch.stack((changed if skip is None else torch.where(skip > 0, 0.0, changed), held))

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_tensors(self, p: nn.Parameter) -> dict[str, Tensor]:
        """The optimizer state of a parameter, as tensors; before its first step the zeros that it starts from."""
        owner = next(o for o in self.parts if any(p is q for g in o.param_groups for q in g["params"]))
        if not owner.state[p]:
            if isinstance(owner, Muon):
                owner.state[p] = {"momentum_buffer": torch.zeros_like(p)}
            else:
                owner.state[p] = {
                    "step": torch.zeros((), dtype=torch.float32, device=p.device),
                    "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
                }
        return dict(owner.state[p])


def build_optimizers(model: nn.Module, config: OptimizerConfig, *, exact: bool = False) -> Optimizers:
    """The optimizers of a model's parameters, in the order of their definition. `exact`: Muon computes in fp32."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}  # a tied head is one of them
    named = dict(model.named_parameters())
    head = {id(p) for n, p in named.items() if n.startswith("head.")}
    muon = [
        p
        for p in named.values()
        if config.kind == "muon" and p.dim() == 2 and id(p) not in embeddings and id(p) not in head
    ]
    ours = {id(p) for p in muon}
    kept: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, p in named.items():
        if id(p) in ours:
            continue
        kind = "embeddings" if id(p) in embeddings else "biases" if name.endswith("bias") else "norms"
        plain = id(p) not in embeddings and p.dim() >= 2
        (decayed if plain or kind not in config.no_decay else kept).append(p)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    groups = [g for g in groups if g["params"]]
    parts: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    ]
    if muon:
        dtype = torch.float32 if exact else torch.bfloat16
        parts.append(Muon(muon, config.lr, config.weight_decay, config.momentum, dtype))
    return Optimizers(parts)
