"""Linear layer and cross-entropy in one pass over chunks of rows, so that tokens x vocabulary never exists at once.

With z = W h the loss of a row is L = lse(z) - z_y + zeta * lse(z)^2, and its gradient by z is
softmax(z) * (1 + 2 * zeta * lse(z)) - onehot(y). Both need one chunk of logits only, so the gradients by h and W are
made in the forward pass while the chunk is there, and backward merely scales them. (The idea is Liger Kernel's fused
linear cross-entropy, Hsu et al. 2024, arXiv 2410.10989; the z-loss is PaLM's, Chowdhery et al. 2022, section 5.)
The softmax is taken in fp32 whatever the compute type, and the weight's gradient accumulates in fp32.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Logits held at once: 8 MiB in fp32, and at least 128 rows. Fewer rows are slower, because the weight's gradient is
# added to once a chunk: 2,048 rows x 50,304 x 512 in bf16 took 4.1 s in chunks of 32, 1.3 s in chunks of 128 to 256.
CHUNK_ELEMENTS, CHUNK_ROWS = 1 << 21, 128


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of `hidden @ weight.T` against `targets`, without the logits.

    hidden [..., width] in any floating type (under autocast it and the weight are used in the autocast type), weight
    [vocabulary, width], targets int [...]; rows whose target is `ignore_index` count for nothing. `chunk`: rows at a
    time, by default what fits 8 MiB of logits, at least 128.

    Returns loss_sum (fp32 scalar, differentiable, z-loss included), count (int64 scalar: rows that count) and nll
    (fp32 [...], negative log-likelihood in nats without z-loss, 0 for ignored rows, no gradient). Divide the sum by the
    count of the *whole* batch, over all micro-batches and ranks.
    """
    shape = targets.shape
    rows = hidden.reshape(-1, hidden.shape[-1])
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        rows = rows.to(torch.get_autocast_dtype(device))
    if chunk is None:
        chunk = max(CHUNK_ROWS, CHUNK_ELEMENTS // weight.shape[0])
    apply: Any = _LinearCrossEntropy.apply
    loss_sum, nll = apply(rows, weight, targets.reshape(-1), ignore_index, z_loss, chunk)
    return loss_sum, (targets != ignore_index).sum(), nll.view(shape)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, targets: Tensor, ignore_index: int, z_loss: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        need_rows, need_weight = ctx.needs_input_grad[:2]
        with torch.autocast(rows.device.type, enabled=False):
            compute = weight.detach().to(rows.dtype)
            grad_rows = torch.empty_like(rows) if need_rows else None
            grad_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if need_weight else None
            nll = torch.zeros(len(rows), dtype=torch.float32, device=rows.device)
            loss_sum = torch.zeros((), dtype=torch.float32, device=rows.device)
            for begin in range(0, len(rows), chunk):
                part = slice(begin, begin + chunk)
                h, y = rows[part], targets[part]
                counted = y != ignore_index
                label = torch.where(counted, y, 0)[:, None]
                logits = (h @ compute.T).float()
                lse = torch.logsumexp(logits, dim=-1)
                nll[part] = torch.where(counted, lse - logits.gather(1, label)[:, 0], 0.0)
                loss_sum += nll[part].sum()
                if z_loss:
                    loss_sum += z_loss * torch.where(counted, lse.square(), 0.0).sum()
                if not (need_rows or need_weight):
                    continue
                # exp(z - inf) is 0: rows that do not count get no slope, without another pass over the chunk
                slope = logits.sub_(torch.where(counted, lse, math.inf)[:, None]).exp_()
                if z_loss:
                    slope.mul_((1 + 2 * z_loss * lse)[:, None])
                slope.scatter_add_(1, label, -counted[:, None].float())
                slope = slope.to(rows.dtype)
                if grad_rows is not None:
                    torch.mm(slope, compute, out=grad_rows[part])
                if grad_weight is not None:
                    # A product in bf16 rounds once more a chunk. Under fp32 master weights that is the rounding which
                    # the plain loss has too; for weights in bf16 it would be one more (error 1.33 times the plain one).
                    if rows.dtype == weight.dtype:
                        grad_weight.addmm_(slope.T.float(), h.float())
                    else:
                        grad_weight += slope.T @ h
        ctx.save_for_backward(grad_rows, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(nll)
        return loss_sum, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        scale, (grad_rows, grad_weight) = grads[0], ctx.saved_tensors
        assert scale is not None
        if grad_rows is not None:  # scaled in fp32: under fp16 the scale is large and the slopes small
            grad_rows = (grad_rows.float() * scale).to(grad_rows.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * scale).to(ctx.weight_dtype)
        return grad_rows, grad_weight, None, None, None, None
