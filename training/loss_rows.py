"""The loss by rows: all logits of some rows at once, and the gradients by hidden and weight while they are there.

Three products a chunk and no second pass: for GPUs, and for fp32, where products are what costs. The gradients wait in
fp32 for the scale that backward brings, so that a 16-bit gradient is rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

# A sixteenth of the rows at a time keeps what is held below a fifteenth of what the plain loss holds (three fp32 copies
# of all logits against two of the chunk's); below 128 rows the products lose speed, because the weight's gradient is
# read and written once a chunk.
ROWS_SHARE, ROWS = 16, 128


def default_rows(rows: int) -> int:
    """Rows at a time."""
    return max(1, min(rows, max(ROWS, -(-rows // ROWS_SHARE))))


def rows_forward(
    rows: Tensor, weight: Tensor, labels: Tensor, z_loss: float, chunk: int, need_rows: bool, need_weight: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss_sum, nll and the gradients of loss_sum by rows and weight, in fp32 or wider; labels -1 count for nothing."""
    exact = torch.promote_types(rows.dtype, torch.float32)
    compute = weight.to(rows.dtype)
    grad_rows = torch.empty_like(rows, dtype=exact) if need_rows else rows.new_empty(0, dtype=exact)
    grad_weight = torch.zeros_like(weight, dtype=exact) if need_weight else weight.new_empty(0, dtype=exact)
    nll, lse = (torch.empty(len(rows), dtype=torch.float32, device=rows.device) for _ in range(2))
    counted = labels >= 0
    minus = torch.full((1, 1), -1.0, dtype=exact, device=rows.device)
    for begin in range(0, len(rows), chunk):
        part = slice(begin, begin + chunk)
        h, label = rows[part], labels[part, None].clamp_min(0)
        logits = (h @ compute.T).to(exact)
        lse[part] = logits.gather(1, label)[:, 0]
        slope = torch.log_softmax(logits, dim=-1)  # one fused pass; logsumexp takes four
        del logits
        nll[part] = -slope.gather(1, label)[:, 0]
        lse[part] += nll[part]
        if not (need_rows or need_weight):
            continue
        slope.exp_()
        if z_loss:
            slope.mul_((1 + 2 * z_loss * lse[part])[:, None])
        slope.scatter_add_(1, label, minus.expand(len(h), 1))
        slope.masked_fill_(~counted[part, None], 0.0)
        slope = slope.to(rows.dtype)
        if need_rows:
            grad_rows[part] = slope @ compute
        if need_weight:
            _accumulate(grad_weight, slope.T, h, rounded=weight.dtype != rows.dtype)
        del slope  # before the next chunk's logits are made
    nll.mul_(counted)
    loss_sum = nll.sum()
    if z_loss:
        loss_sum += z_loss * (lse.square() * counted).sum()
    return loss_sum, nll, grad_rows, grad_weight


def _accumulate(total: Tensor, a: Tensor, b: Tensor, rounded: bool) -> None:
    """total (fp32) += a @ b. `rounded`: the product may be rounded to the type of a and b before.

    Under fp32 master weights that rounding is one which the plain loss has too; for weights in bf16 it would be one
    more (an error 1.33 times the plain one).
    """
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif rounded:
        total += a @ b
    elif a.is_cuda:
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype))
