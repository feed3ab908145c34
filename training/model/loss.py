"""Linear layer and cross-entropy in one pass over pieces of the logits, so that tokens x vocabulary never exists.

With z = W h the loss of a row is L = lse(z) - z_y + zeta * lse(z)^2, and its gradient by z, its slope, is
softmax(z) * (1 + 2 * zeta * lse(z)) - onehot(y). Both need few logits at once. (The idea is Liger Kernel's fused linear
cross-entropy, Hsu et al. 2024, arXiv 2410.10989; the z-loss is PaLM's, Chowdhery et al. 2022, section 5.) The softmax
is taken in fp32 whatever the compute type, and the weight's gradient accumulates in fp32.

*By rows* (loss_rows.py): all logits of some rows, three products; the gradients by h and W are made while the logits
are there, and backward merely scales them. *By columns* (loss_columns.py), in 16 bits on a CPU: the logits of all rows
for some words, once forward for lse and once backward for the slopes, four products. There a product runs some four
times as fast as in fp32, so what costs is passes over logits outside the cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.model.loss_columns import columns_backward, columns_forward
from training.model.loss_passes import SETTINGS, Settings
from training.model.loss_rows import rows_forward


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    z_loss: float = 0.0,
    chunk: int | None = None,
    fused: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy of `hidden @ weight.T` against `targets`, without the logits.

    hidden [..., width] in any floating type (under autocast it and the weight are used in the autocast type), weight
    [vocabulary, width], targets int [...]; rows whose target is `ignore_index` count for nothing. `chunk`: rows of
    logits at a time (columns in 16 bits on a CPU); by default `default_rows` or `default_columns`. `fused`: the
    passes over the logits go through torch.compile (loss_passes.py), which on a CPU takes a C++ compiler.

    Returns loss_sum (fp32 scalar, differentiable once, z-loss included), count (int64 scalar: rows that count) and nll
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
    operator: Any = _by_columns if by_columns(rows) else _by_rows
    loss_sum, nll = operator(rows, weight, labels, float(z_loss), chunk or 0, fused and any(need), *need)[:2]
    return loss_sum, counted.sum(), nll.view(targets.shape)


def by_columns(rows: Tensor) -> bool:
    """Whether the logits of these rows are taken by columns of the vocabulary."""
    return rows.device.type == "cpu" and rows.dtype in (torch.bfloat16, torch.float16)


NO_GRADIENT = (None,) * (1 + len(Settings._fields))  # of the labels and the settings
GIVEN, FOUR = "(Tensor rows, Tensor weight, Tensor labels", "-> (Tensor, Tensor, Tensor, Tensor)"


# Opaque operators: torch.compile neither breaks its graph at them nor unrolls their loops.
def by_rows_plain(rows: Tensor, weight: Tensor, labels: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    """loss_sum, nll, and the gradients of loss_sum by rows and weight in fp32 or wider (empty where not needed)."""
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        return rows_forward(rows, weight, labels, Settings(*settings))


_by_rows = torch.library.custom_op(
    "gristmill::linear_cross_entropy_rows", by_rows_plain, mutates_args=(), schema=f"{GIVEN}, {SETTINGS}) {FOUR}"
)


@_by_rows.register_fake
def _(rows: Tensor, weight: Tensor, labels: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    need_rows, need_weight = settings[-2:]
    exact = torch.promote_types(rows.dtype, torch.float32)
    return (
        rows.new_empty((), dtype=torch.float32),
        rows.new_empty(len(rows), dtype=torch.float32),
        torch.empty_like(rows, dtype=exact) if need_rows else rows.new_empty(0, dtype=exact),
        torch.empty_like(weight, dtype=exact) if need_weight else weight.new_empty(0, dtype=exact),
    )


def _keep_rows(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.types, ctx.need, ctx.used = (inputs[0].dtype, inputs[1].dtype), inputs[6:], False
    ctx.save_for_backward(*output[2:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # zeros for the other outputs would be as large as the weight


def _scale_rows(ctx: Any, scale: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if ctx.used and not torch.compiler.is_compiling():
        raise RuntimeError("linear_cross_entropy: backward a second time; its gradients were scaled in place")
    ctx.used = True
    grads: list[Tensor | None] = []
    for grad, dtype, need in zip(ctx.saved_tensors, ctx.types, ctx.need, strict=True):
        if not need:
            grads.append(None)
        elif torch.compiler.is_compiling():
            grads.append((grad * scale).to(dtype))
        else:  # in place: a copy would be as large as the weight
            grads.append(grad.mul_(scale).to(dtype).detach())  # a tensor that no one else holds is taken, not copied
    return (*grads, *NO_GRADIENT)


_by_rows.register_autograd(_scale_rows, setup_context=_keep_rows)


def by_columns_plain(rows: Tensor, weight: Tensor, labels: Tensor, *settings: Any) -> tuple[Tensor, ...]:
    """loss_sum, nll, and what backward needs of each row: lse and the logit of its label."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return columns_forward(rows, weight, labels, Settings(*settings))


_by_columns = torch.library.custom_op(
    "gristmill::linear_cross_entropy_columns", by_columns_plain, mutates_args=(), schema=f"{GIVEN}, {SETTINGS}) {FOUR}"
)


@_by_columns.register_fake
def _(rows: Tensor, *_: Any) -> tuple[Tensor, ...]:
    nll, lse, picked = (rows.new_empty(len(rows), dtype=torch.float32) for _ in range(3))
    return rows.new_empty((), dtype=torch.float32), nll, lse, picked


def slopes_by_columns_plain(
    rows: Tensor, weight: Tensor, labels: Tensor, lse: Tensor, picked: Tensor, scale: Tensor, *settings: Any
) -> tuple[Tensor, Tensor]:
    """The gradients of scale * loss_sum by rows and weight."""
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        return columns_backward(rows, weight, labels, lse, picked, scale, Settings(*settings))


_slopes_by_columns = torch.library.custom_op(
    "gristmill::linear_cross_entropy_columns_backward",
    slopes_by_columns_plain,
    mutates_args=(),
    schema=f"{GIVEN}, Tensor lse, Tensor picked, Tensor scale, {SETTINGS}) -> (Tensor, Tensor)",
)


@_slopes_by_columns.register_fake
def _(rows: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    need_rows, need_weight = others[-2:]
    return (
        torch.empty_like(rows) if need_rows else rows.new_empty(0),
        torch.empty_like(weight) if need_weight else weight.new_empty(0),
    )


def _keep_columns(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rows, weight, labels, *ctx.settings = inputs
    ctx.save_for_backward(rows, weight, labels, *output[2:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward_columns(ctx: Any, scale: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    need = ctx.settings[3:]
    grads = _slopes_by_columns(*ctx.saved_tensors, scale, *ctx.settings)
    return (*(g if n else None for g, n in zip(grads, need, strict=True)), *NO_GRADIENT)


_by_columns.register_autograd(_backward_columns, setup_context=_keep_columns)
