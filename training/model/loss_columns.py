"""The loss by columns of the vocabulary: for 16 bits on a CPU, where what costs is passes over the logits.

The logits of all rows for some words at a time fit in the second-level cache: max, exp and sum take 0.8 ns an element
there (one thread, 2,048 x 512), where logsumexp over rows of 50,304 takes 5 ns. Forward keeps a running maximum and sum
of every row (Milakov & Gimelshein 2018, arXiv 1805.02867). Backward computes the logits again, a fourth product, and in
exchange has for every word all rows at once: its gradient is one product, rounded once, with no fp32 copy of the
weight's gradient beside it, and the slopes are scaled before they are rounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from training.model.loss_passes import Settings, compiled, raised, slopes_of_columns

# 2^20 logits are 4 MiB in fp32; below 256 columns products lose speed; and each piece adds once to the gradient of all
# rows, which at width 2,048 cost more than the cache gained (2.69 s in pieces of 1,024 columns, 3.00 s in 512).
COLUMNS, PIECE = 256, 1 << 20


def default_columns(rows: int, vocab: int, width: int) -> int:
    """Columns at a time."""
    return min(vocab, max(COLUMNS, width // 2, PIECE // max(1, rows) // 64 * 64))


def columns_forward(
    rows: Tensor, weight: Tensor, labels: Tensor, given: Settings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss_sum, nll, lse and the label's logit of each row; labels -1: counts for nothing."""
    count, z_loss = len(rows), given.z_loss
    peak = torch.full((count, 1), -math.inf)
    total, picked = torch.zeros(count, 1), torch.zeros(count)
    for part, at, column in _pieces(labels, rows, weight, given.chunk):
        z = rows @ weight[part].to(rows.dtype).T
        picked[at] = z[at, column].float()
        if given.fused:
            peak, total = compiled(raised)(z, peak, total)
            continue
        z = z.float()
        higher = torch.maximum(peak, z.amax(dim=1, keepdim=True))
        total.mul_(peak.sub_(higher).exp_()).add_(z.sub_(higher).exp_().sum(dim=1, keepdim=True))
        peak = higher
        del z  # before the next piece is made
    lse = (peak + total.log_())[:, 0]
    nll = torch.where(labels >= 0, lse - picked, 0.0)
    loss_sum = nll.sum()
    if z_loss:
        loss_sum += z_loss * torch.where(labels >= 0, lse.square(), 0.0).sum()
    return loss_sum, nll, lse, picked


def columns_backward(
    rows: Tensor,
    weight: Tensor,
    labels: Tensor,
    lse: Tensor,
    picked: Tensor,
    scale: Tensor,
    given: Settings,
) -> tuple[Tensor, Tensor]:
    """The gradients of scale * loss_sum by rows and weight, in their types; empty where not needed."""
    z_loss, _, fused, need_rows, need_weight = given
    counted = labels >= 0
    factor = torch.where(counted, scale * (1 + 2 * z_loss * lse), 0.0)
    at_label = torch.where(counted, (picked - lse).exp() * factor - scale, 0.0)
    total = torch.zeros(rows.shape if need_rows else 0)
    grad_weight = torch.empty_like(weight) if need_weight else weight.new_empty(0)
    if need_rows:
        # The label's part, often nearly the whole, goes in exactly; the rest is a sum of pieces rounded to 16 bits.
        for begin in range(0, len(rows), 256):
            cut = slice(begin, begin + 256)
            own = weight[labels[cut].clamp_min(0)].to(rows.dtype).float()
            total[cut] = own.mul_(at_label[cut, None])
    for part, at, column in _pieces(labels, rows, weight, given.chunk):
        w = weight[part].to(rows.dtype)
        z = rows @ w.T
        if fused:
            slope = compiled(slopes_of_columns)(z, lse, factor)
        else:
            z = z.float()
            slope = z.sub_(lse[:, None]).exp_().mul_(factor[:, None]).to(rows.dtype)
        slope[at, column] = 0.0
        if need_rows:
            total += slope @ w
        if need_weight:
            slope[at, column] = at_label[at].to(slope.dtype)
            grad_weight[part] = slope.T @ rows
        del slope, z
    return total.to(rows.dtype), grad_weight


def _pieces(labels: Tensor, rows: Tensor, weight: Tensor, chunk: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Columns of the logits, and in each piece the places (row, column) of the labels that fall into it."""
    vocab = len(weight)
    chunk = chunk or default_columns(len(rows), *weight.shape)
    order = labels.argsort()
    edges = torch.searchsorted(labels[order], torch.arange(0, vocab + chunk, chunk)).tolist()
    for i, begin in enumerate(range(0, vocab, chunk)):
        at = order[edges[i] : edges[i + 1]]
        yield slice(begin, min(begin + chunk, vocab)), at, labels[at] - begin
