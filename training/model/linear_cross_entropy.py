"""Computes the cross-entropy loss of the output layer without storing tokens x vocabulary logits.

The logits are computed in chunks (linear_cross_entropy_kernels.py has the formulas). The idea is Liger Kernel's fused
linear cross-entropy (Hsu et al. 2024, arXiv 2410.10989); the z-loss is PaLM's (Chowdhery et al. 2022, section 5).
The softmax is taken in fp32 whatever the compute type, and the weight's gradient accumulates in fp32.

Chunks are of rows on a GPU and in fp32, of columns (vocabulary entries) in 16 bits on a CPU. Each variant is one
operator, opaque to torch.compile, which then neither breaks its graph there nor unrolls the loop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.model.linear_cross_entropy_kernels import (
    SCHEMA,
    Options,
    column_chunks_backward,
    column_chunks_forward,
    row_chunks_forward,
)


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    chunk: int | None = None,
    compiled: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of `hidden @ weight.T` against `targets`, without storing the logits.

    hidden [..., hidden size] in any floating type (under autocast it and the weight are used in the autocast type),
    weight [vocabulary, hidden size], targets int [...]; rows whose target is `ignore_index` are not counted. `chunk`:
    rows of logits at a time (columns in 16 bits on a CPU); by default `default_rows` or `default_columns`. `compiled`:
    run the passes over the logits through torch.compile, which on a CPU needs a C++ compiler.

    Returns loss_sum (fp32 scalar, differentiable once, z-loss included), count (int64 scalar: rows counted) and nll
    (fp32 [...], negative log-likelihood in nats without z-loss, 0 for ignored rows, no gradient). Divide the sum by the
    count of the *whole* batch, over all micro-batches and ranks.
    """
    rows = hidden.reshape(-1, hidden.shape[-1])
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        rows = rows.to(torch.get_autocast_dtype(device))
    counted = targets != ignore_index
    labels = torch.where(counted, targets, -1).reshape(-1)
    grad = torch.is_grad_enabled()
    need = (grad and hidden.requires_grad, grad and weight.requires_grad)
    by_columns = rows.device.type == "cpu" and rows.dtype in (torch.bfloat16, torch.float16)
    operator: Any = _column_chunks_op if by_columns else _row_chunks_op
    loss_sum, nll = operator(rows, weight, labels, float(z_loss), chunk or 0, compiled and any(need), *need)[:2]
    return loss_sum, counted.sum(), nll.view(targets.shape)


NO_GRADIENT = (None,) * (1 + len(Options._fields))  # of the labels and the options
INPUTS, OUTPUTS = "(Tensor rows, Tensor weight, Tensor labels", "-> (Tensor, Tensor, Tensor, Tensor)"


def run_row_chunks(rows: Tensor, weight: Tensor, labels: Tensor, *options: Any) -> tuple[Tensor, ...]:
    """loss_sum, nll, and the gradients of rows and weight for loss_sum, in fp32 or wider (empty if not needed)."""
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        return row_chunks_forward(rows, weight, labels, Options(*options))


_row_chunks_op = torch.library.custom_op(
    "gristmill::linear_cross_entropy_rows", run_row_chunks, mutates_args=(), schema=f"{INPUTS}, {SCHEMA}) {OUTPUTS}"
)


@_row_chunks_op.register_fake
def _(rows: Tensor, weight: Tensor, labels: Tensor, *options: Any) -> tuple[Tensor, ...]:
    need_rows, need_weight = options[-2:]
    wide = torch.promote_types(rows.dtype, torch.float32)
    return (
        rows.new_empty((), dtype=torch.float32),
        rows.new_empty(len(rows), dtype=torch.float32),
        torch.empty_like(rows, dtype=wide) if need_rows else rows.new_empty(0, dtype=wide),
        torch.empty_like(weight, dtype=wide) if need_weight else weight.new_empty(0, dtype=wide),
    )


def _save_row_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.types, ctx.need, ctx.used = (inputs[0].dtype, inputs[1].dtype), inputs[6:], False
    ctx.save_for_backward(*output[2:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # zeros for the other outputs would be as large as the weight


def _scale_row_gradients(ctx: Any, scale: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if ctx.used and not torch.compiler.is_compiling():
        raise RuntimeError(
            "linear_cross_entropy: backward was called a second time; the first call scaled the gradients in place, "
            "so compute the loss again"
        )
    ctx.used = True
    grads: list[Tensor | None] = []
    for grad, dtype, need in zip(ctx.saved_tensors, ctx.types, ctx.need, strict=True):
        if not need:
            grads.append(None)
        elif torch.compiler.is_compiling():
            grads.append((grad * scale).to(dtype))
        else:  # in place: a copy would be as large as the weight
            grads.append(grad.mul_(scale).to(dtype).detach())  # autograd copies a tensor unless it is the only owner
    return (*grads, *NO_GRADIENT)


_row_chunks_op.register_autograd(_scale_row_gradients, setup_context=_save_row_gradients)


def run_column_chunks(rows: Tensor, weight: Tensor, labels: Tensor, *options: Any) -> tuple[Tensor, ...]:
    """loss_sum, nll, and what backward needs of each row: lse and the logit of its label."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return column_chunks_forward(rows, weight, labels, Options(*options))


_column_chunks_op = torch.library.custom_op(
    "gristmill::linear_cross_entropy_columns",
    run_column_chunks,
    mutates_args=(),
    schema=f"{INPUTS}, {SCHEMA}) {OUTPUTS}",
)


@_column_chunks_op.register_fake
def _(rows: Tensor, *_: Any) -> tuple[Tensor, ...]:
    nll, lse, picked = (rows.new_empty(len(rows), dtype=torch.float32) for _ in range(3))
    return rows.new_empty((), dtype=torch.float32), nll, lse, picked


def run_column_chunks_backward(
    rows: Tensor, weight: Tensor, labels: Tensor, lse: Tensor, picked: Tensor, scale: Tensor, *options: Any
) -> tuple[Tensor, Tensor]:
    """The gradients of scale * loss_sum with respect to rows and weight."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return column_chunks_backward(rows, weight, labels, lse, picked, scale, Options(*options))


_column_chunks_backward_op = torch.library.custom_op(
    "gristmill::linear_cross_entropy_columns_backward",
    run_column_chunks_backward,
    mutates_args=(),
    schema=f"{INPUTS}, Tensor lse, Tensor picked, Tensor scale, {SCHEMA}) -> (Tensor, Tensor)",
)


@_column_chunks_backward_op.register_fake
def _(rows: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    need_rows, need_weight = others[-2:]
    return (
        torch.empty_like(rows) if need_rows else rows.new_empty(0),
        torch.empty_like(weight) if need_weight else weight.new_empty(0),
    )


def _save_column_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rows, weight, labels, *ctx.options = inputs
    ctx.save_for_backward(rows, weight, labels, *output[2:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _compute_column_gradients(ctx: Any, scale: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    need = ctx.options[3:]
    grads = _column_chunks_backward_op(*ctx.saved_tensors, scale, *ctx.options)
    return (*(g if n else None for g, n in zip(grads, need, strict=True)), *NO_GRADIENT)


_column_chunks_op.register_autograd(_compute_column_gradients, setup_context=_save_column_inputs)
