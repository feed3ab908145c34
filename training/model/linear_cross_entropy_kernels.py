"""Computes the loss of a linear layer with cross-entropy, and its gradients, over chunks of the logits.

With logits z = W h, the loss of a row is lse(z) - z_y + zeta * lse(z)^2 (lse: log of the sum of exponentials), and its
gradient with respect to z is softmax(z) * (1 + 2 * zeta * lse(z)) - onehot(y).

*Row chunks*: all logits of some rows. The gradients of hidden states and weight are computed while the logits exist:
three matrix products and one pass. Used on GPUs and for fp32, where the products dominate the time. The gradients are
kept in fp32 until backward brings their scale, so that a 16-bit gradient is rounded once.

*Column chunks*: the logits of all rows for some of the vocabulary. Used for 16 bits on a CPU, where a product is about
four times as fast as in fp32 and passes over logits outside the cache dominate the time. A chunk fits in the L2 cache:
max, exp and sum take 0.8 ns per element there (one thread, 2,048 x 512), while logsumexp over rows of 50,304 takes
5 ns. Forward keeps a running maximum and sum of every row (Milakov & Gimelshein 2018, arXiv 1805.02867). Backward
computes the logits again, a fourth product; in exchange the weight's gradient is one product per chunk, rounded once,
without an fp32 copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Options(NamedTuple):
    """The arguments of the loss's operators besides tensors; SCHEMA is the same in torch's operator syntax."""

    z_loss: float
    chunk: int  # rows or columns at a time; 0: default_rows or default_columns
    compiled: bool  # run the passes over the logits through torch.compile
    need_rows: bool  # compute the gradient of the rows
    need_weight: bool


SCHEMA = "float z_loss, int chunk, bool compiled, bool need_rows, bool need_weight"

# Rows: memory must stay below a fifteenth of the plain loss's. In fp32 on a CPU the plain loss holds three copies of
# the logits before the weight's gradient exists, that is (3 rows - hidden size) x vocabulary numbers more than the
# gradient; this one holds a single copy of a chunk, allocated once (fresh memory costs 1.4 ns per element there, a pass
# over it 0.6): a 17th of those rows leaves room for the rest. Elsewhere it holds two or three copies of a sixteenth.
# Below 128 rows the products lose speed, as the weight's gradient is read and written once per chunk; below 2^20 logits
# there is nothing to save.
SHARE, SHARE_IN_PLACE, MIN_ROWS, MIN_LOGITS = 16, 17, 128, 1 << 20

# Columns: 2^20 logits are 4 MiB in fp32; below 256 columns products lose speed; and each chunk is added to the
# gradient of all rows, which at hidden size 2,048 cost more than the cache gained (2.69 s in chunks of 1,024 columns,
# 3.00 s in 512).
MIN_COLUMNS, CACHED_LOGITS = 256, 1 << 20


def default_rows(rows: int, vocab: int, hidden_size: int, in_place: bool) -> int:
    """Rows per chunk, such that all chunks have about the same size (a small last chunk would cost as much as any)."""
    share = (3 * rows - hidden_size) // SHARE_IN_PLACE if in_place else -(-rows // SHARE)
    chunks = -(-rows // max(MIN_ROWS, share, MIN_LOGITS // vocab))
    return -(-rows // max(1, chunks)) or 1


def default_columns(rows: int, vocab: int, hidden_size: int) -> int:
    """Columns per chunk."""
    return min(vocab, max(MIN_COLUMNS, hidden_size // 2, CACHED_LOGITS // max(1, rows) // 64 * 64))


def is_in_place(rows: Tensor) -> bool:
    """Whether a row chunk's logits are turned into their gradient in place."""
    return rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.float64)


def row_chunks_forward(
    rows: Tensor, weight: Tensor, labels: Tensor, options: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss_sum, nll and the gradients of loss_sum with respect to rows and weight, in fp32 or wider.

    rows [n, hidden], weight [vocabulary, hidden], labels int [n]; a row with label -1 is not counted.
    """
    z_loss, chunk, compiled, need_rows, need_weight = options
    in_place = is_in_place(rows)
    chunk = chunk or default_rows(len(rows), len(weight), weight.shape[1], in_place)
    wide = torch.promote_types(rows.dtype, torch.float32)
    compute = weight.to(rows.dtype)
    grad_rows = torch.empty_like(rows, dtype=wide) if need_rows else rows.new_empty(0, dtype=wide)
    grad_weight = torch.empty_like(weight, dtype=wide) if need_weight else weight.new_empty(0, dtype=wide)
    nll, lse = (torch.empty(len(rows), dtype=torch.float32, device=rows.device) for _ in range(2))
    counted = labels >= 0
    buffer = rows.new_empty(min(chunk, len(rows)), len(weight)) if in_place else None
    need = need_rows or need_weight
    for begin in range(0, len(rows), chunk):
        part = slice(begin, begin + chunk)
        h, label, ignored = rows[part], labels[part, None].clamp_min(0), ~counted[part, None]
        out = None if buffer is None else buffer[: len(h)]
        nll[part, None], lse[part, None], grad_z = _row_chunk(h, compute, label, z_loss, out, compiled, need)
        # Ignored rows are masked in tensors of hidden size, not in those of vocabulary size.
        if need_rows:
            grad_rows[part] = (grad_z @ compute).masked_fill_(ignored, 0.0)
        if need_weight:
            _accumulate(grad_weight, grad_z.T, h.masked_fill(ignored, 0.0), begin > 0, weight.dtype != rows.dtype)
        del grad_z  # before the next chunk's logits are computed
    if not len(rows):
        grad_weight.zero_()
    nll.mul_(counted)
    loss_sum = nll.sum()
    if z_loss:
        loss_sum += z_loss * (lse.square() * counted).sum()
    return loss_sum, nll, grad_rows, grad_weight


def _row_chunk(
    h: Tensor, compute: Tensor, label: Tensor, z_loss: float, out: Tensor | None, compiled: bool, need: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """nll and lse [n, 1] of rows and, if needed, the logits' gradient [n, vocabulary] in h's type; label: [n, 1]."""
    logits = torch.mm(h, compute.T, out=out)
    if compiled:
        nll, lse = compile_pass(logits_to_gradient)(logits, label, z_loss)
        return nll, lse, logits
    logits = logits.to(torch.promote_types(h.dtype, torch.float32))
    picked = logits.gather(1, label)
    grad_z = torch.log_softmax(logits, dim=-1, out=out)  # one fused pass; logsumexp takes four
    del logits
    nll = -grad_z.gather(1, label)
    lse = picked + nll
    if not need:
        return nll, lse, grad_z
    grad_z.exp_()
    if z_loss:
        grad_z.mul_(1 + 2 * z_loss * lse)
    grad_z.scatter_add_(1, label, grad_z.new_full((1, 1), -1.0).expand(len(h), 1))
    return nll, lse, grad_z.to(h.dtype)


def _accumulate(total: Tensor, a: Tensor, b: Tensor, add: bool, rounded: bool) -> None:
    """total (fp32) += a @ b; with `add` False, total = a @ b.

    `rounded`: the product may be rounded to the type of a and b first. With fp32 master weights the plain loss rounds
    there too; with weights in bf16 it would be one rounding more (1.33 times the plain loss's error).
    """
    if total.dtype == a.dtype:
        total.addmm_(a, b, beta=int(add))
    elif rounded:
        torch.add(total, a @ b, out=total) if add else total.copy_(a @ b)
    elif a.is_cuda:
        torch.addmm(total, a, b, beta=int(add), out_dtype=total.dtype, out=total)
    else:
        total.addmm_(a.to(total.dtype), b.to(total.dtype), beta=int(add))


def column_chunks_forward(
    rows: Tensor, weight: Tensor, labels: Tensor, options: Options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """loss_sum, nll, lse and the label's logit of each row; arguments as in `row_chunks_forward`."""
    count, z_loss = len(rows), options.z_loss
    peak = torch.full((count, 1), -math.inf)
    total, picked = torch.zeros(count, 1), torch.zeros(count)
    for part, at, column in _column_chunks(labels, rows, weight, options.chunk):
        z = rows @ weight[part].to(rows.dtype).T
        picked[at] = z[at, column].float()
        if options.compiled:
            peak, total = compile_pass(update_running_lse)(z, peak, total)
            continue
        z = z.float()
        higher = torch.maximum(peak, z.amax(dim=1, keepdim=True))
        total.mul_(peak.sub_(higher).exp_()).add_(z.sub_(higher).exp_().sum(dim=1, keepdim=True))
        peak = higher
        del z  # before the next chunk is computed
    lse = (peak + total.log_())[:, 0]
    nll = torch.where(labels >= 0, lse - picked, 0.0)
    loss_sum = nll.sum()
    if z_loss:
        loss_sum += z_loss * torch.where(labels >= 0, lse.square(), 0.0).sum()
    return loss_sum, nll, lse, picked


def column_chunks_backward(
    rows: Tensor, weight: Tensor, labels: Tensor, lse: Tensor, picked: Tensor, scale: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """The gradients of scale * loss_sum with respect to rows and weight, in their types; empty if not needed."""
    z_loss, _, compiled, need_rows, need_weight = options
    counted = labels >= 0
    factor = torch.where(counted, scale * (1 + 2 * z_loss * lse), 0.0)
    at_label = torch.where(counted, (picked - lse).exp() * factor - scale, 0.0)
    total = torch.zeros(rows.shape if need_rows else 0)
    grad_weight = torch.empty_like(weight) if need_weight else weight.new_empty(0)
    if need_rows:
        # The label's part, often nearly all of it, is added in fp32; the rest is a sum of chunks rounded to 16 bits.
        for begin in range(0, len(rows), 256):
            part = slice(begin, begin + 256)
            own = weight[labels[part].clamp_min(0)].to(rows.dtype).float()
            total[part] = own.mul_(at_label[part, None])
    for part, at, column in _column_chunks(labels, rows, weight, options.chunk):
        w = weight[part].to(rows.dtype)
        z = rows @ w.T
        if compiled:
            grad_z = compile_pass(scaled_softmax)(z, lse, factor)
        else:
            z = z.float()
            grad_z = z.sub_(lse[:, None]).exp_().mul_(factor[:, None]).to(rows.dtype)
        grad_z[at, column] = 0.0
        if need_rows:
            total += grad_z @ w
        if need_weight:
            grad_z[at, column] = at_label[at].to(grad_z.dtype)
            grad_weight[part] = grad_z.T @ rows
        del grad_z, z
    return total.to(rows.dtype), grad_weight


def _column_chunks(labels: Tensor, rows: Tensor, weight: Tensor, chunk: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """The columns of each chunk, and the places (row, column within the chunk) of the labels in it."""
    vocab = len(weight)
    chunk = chunk or default_columns(len(rows), *weight.shape)
    order = labels.argsort()
    edges = torch.searchsorted(labels[order], torch.arange(0, vocab + chunk, chunk)).tolist()
    for i, begin in enumerate(range(0, vocab, chunk)):
        at = order[edges[i] : edges[i + 1]]
        yield slice(begin, min(begin + chunk, vocab)), at, labels[at] - begin


@cache
def compile_pass(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles one of the three functions below: first for the size of the first chunk, then for any size.

    Eagerly, each operation in them would be a pass with a temporary, so the code above has an in-place version for
    eager mode and calls these only if the model is compiled. At 1,024 x 384 x 50,304 in bf16 on one thread the loss by
    column chunks takes 0.68 s eagerly and 0.43 s with these, inductor's plain loss 0.45 s. One graph per size is no
    faster (3.4 ms for 147 x 50,304 either way), and after eight of them torch would run the passes eagerly.
    """
    return torch.compile(function)


def logits_to_gradient(logits: Tensor, label: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    """nll and lse [n, 1] of rows [n, vocabulary]; overwrites the logits with their gradient. label: [n, 1]."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    lse = z.logsumexp(dim=1, keepdim=True)
    nll = lse - z.gather(1, label)
    hit = torch.arange(z.shape[1], device=z.device) == label
    logits.copy_((z - lse).exp() * (1 + 2 * z_loss * lse) - hit.to(z.dtype))
    return nll, lse


def update_running_lse(z: Tensor, peak: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """The running maximum and sum of exp(z - maximum) of each row, [n, 1], with these columns [n, some] included."""
    wide = z.float()
    higher = torch.maximum(peak, wide.amax(dim=1, keepdim=True))
    return higher, total * (peak - higher).exp() + (wide - higher).exp().sum(dim=1, keepdim=True)


def scaled_softmax(z: Tensor, lse: Tensor, factor: Tensor) -> Tensor:
    """softmax(z) * factor in the type of z [n, some]; lse, factor: [n]."""
    return ((z.float() - lse[:, None]).exp() * factor[:, None]).to(z.dtype)
