"""The loss by rows: all logits of some rows at once, and the gradients by hidden and weight while they are there.

Three products a chunk and no second pass: for GPUs, and for fp32, where products are what costs. The gradients wait in
fp32 for the scale that backward brings, so that a 16-bit gradient is rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.model.loss_passes import Settings, compiled, slopes_of_rows

# What is held must stay below a fifteenth of what the plain loss holds. In fp32 on a CPU the plain loss holds three
# copies of the logits when the weight's gradient is not there yet, (3 rows - width) x vocabulary numbers beyond it, and
# ours one copy of a chunk, made once (fresh memory costs 1.4 ns an element there, a pass over it 0.6): a 17th of those
# rows leaves room for the rest. Elsewhere it is two or three copies of a sixteenth. Below 128 rows the products lose
# speed, as the weight's gradient is read and written once a chunk; below 2^20 logits there is nothing to save.
SHARE, SHARE_IN_PLACE, ROWS, LOGITS = 16, 17, 128, 1 << 20


def default_rows(rows: int, vocab: int, width: int, in_place: bool) -> int:
    """Rows at a time, so that all chunks are of about one size: the cost of the last is that of any."""
    share = (3 * rows - width) // SHARE_IN_PLACE if in_place else -(-rows // SHARE)
    chunks = -(-rows // max(ROWS, share, LOGITS // vocab))
    return -(-rows // max(1, chunks)) or 1


def in_place(rows: Tensor) -> bool:
    """Whether a chunk's logits become its gradient in the memory they were made in."""
    return rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64)


def rows_forward(
    rows: Tensor, weight: Tensor, labels: Tensor, given: Settings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss_sum, nll and the gradients of loss_sum by rows and weight, in fp32 or wider; labels -1 count for nothing."""
    z_loss, chunk, fused, need_rows, need_weight = given
    chunk = chunk or default_rows(len(rows), len(weight), weight.shape[1], in_place(rows))
    exact = torch.promote_types(rows.dtype, torch.float32)
    compute = weight.to(rows.dtype)
    grad_rows = torch.empty_like(rows, dtype=exact) if need_rows else rows.new_empty(0, dtype=exact)
    grad_weight = torch.empty_like(weight, dtype=exact) if need_weight else weight.new_empty(0, dtype=exact)
    nll, lse = (torch.empty(len(rows), dtype=torch.float32, device=rows.device) for _ in range(2))
    counted = labels >= 0
    held = rows.new_empty(min(chunk, len(rows)), len(weight)) if in_place(rows) else None
    need = need_rows or need_weight
    for begin in range(0, len(rows), chunk):
        part = slice(begin, begin + chunk)
        h, label, ignored = rows[part], labels[part, None].clamp_min(0), ~counted[part, None]
        out = None if held is None else held[: len(h)]
        nll[part, None], lse[part, None], slope = _slopes(h, compute, label, z_loss, out, fused, need)
        # What ignored rows would add is taken out of what is as wide as the model, not of what is as wide as the words.
        if need_rows:
            grad_rows[part] = (slope @ compute).masked_fill_(ignored, 0.0)
        if need_weight:
            _accumulate(grad_weight, slope.T, h.masked_fill(ignored, 0.0), begin > 0, weight.dtype != rows.dtype)
        del slope  # before the next chunk's logits are made
    if not len(rows):
        grad_weight.zero_()
    nll.mul_(counted)
    loss_sum = nll.sum()
    if z_loss:
        loss_sum += z_loss * (lse.square() * counted).sum()
    return loss_sum, nll, grad_rows, grad_weight


def _slopes(
    h: Tensor, compute: Tensor, label: Tensor, z_loss: float, out: Tensor | None, fused: bool, need: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """nll and lse [n, 1] of rows and, where there is need, slopes [n, vocabulary] in the type of h; label: [n, 1]."""
    logits = torch.mm(h, compute.T, out=out)
    if fused:
        nll, lse = compiled(slopes_of_rows)(logits, label, z_loss)
        return nll, lse, logits
    logits = logits.to(torch.promote_types(h.dtype, torch.float32))
    picked = logits.gather(1, label)
    slope = torch.log_softmax(logits, dim=-1, out=out)  # one fused pass; logsumexp takes four
    del logits
    nll = -slope.gather(1, label)
    lse = picked + nll
    if not need:
        return nll, lse, slope
    slope.exp_()
    if z_loss:
        slope.mul_(1 + 2 * z_loss * lse)
    slope.scatter_add_(1, label, slope.new_full((1, 1), -1.0).expand(len(h), 1))
    return nll, lse, slope.to(h.dtype)


def _accumulate(total: Tensor, a: Tensor, b: Tensor, more: bool, rounded: bool) -> None:
    """total (fp32) += a @ b, and = where there is nothing in it yet (not `more`).

    `rounded`: the product may be rounded to the type of a and b before. Under fp32 master weights that rounding is one
    which the plain loss has too; for weights in bf16 it would be one more (an error 1.33 times the plain one).
    """
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=int(more))
    elif rounded:
        torch.add(total, a @ b, out=total) if more else total.copy_(a @ b)
    elif a.is_cuda:
        torch.addmm(total, a, b, beta=int(more), out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype), beta=int(more))
