"""The chunked loss equals the plain one: values, gradients, types, odd shapes; and its logits are never all stored.

Covers: linear_cross_entropy_kernels.py
"""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.model.linear_cross_entropy import linear_cross_entropy


def naive(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    logits = (hidden @ weight.T).to(torch.promote_types(hidden.dtype, torch.float32))
    nll = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-100, reduction="none")
    squares = torch.logsumexp(logits, -1).flatten().square()[targets.flatten() != -100]
    return nll.sum() + z_loss * squares.sum(), nll.view(targets.shape)


def inputs(rows: int, width: int, vocab: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=g).to(dtype)
    weight = (torch.randn(vocab, width, generator=g) * width**-0.5).to(dtype)
    targets = torch.randint(0, vocab, (rows,), generator=g)
    targets[torch.rand(rows, generator=g) < 0.2] = -100
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def distance(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 24),
    st.integers(1, 60),
    st.integers(1, 50),
    st.sampled_from([0.0, 1e-2]),
    st.integers(0, 99),
)
def test_fp32_equals_naive(rows: int, width: int, vocab: int, chunk: int, z_loss: float, seed: int) -> None:
    hidden, weight, targets = inputs(rows, width, vocab, torch.float32, seed)
    loss, count, nll = linear_cross_entropy(hidden, weight, targets, z_loss=z_loss, chunk=chunk)
    (loss * 0.37).backward()
    h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected, expected_nll = naive(h, w, targets, z_loss)
    (expected * 0.37).backward()
    assert count.item() == (targets != -100).sum().item()
    assert torch.allclose(nll.double(), expected_nll, atol=2e-5)
    assert torch.allclose(loss.double(), expected, rtol=1e-5, atol=1e-4)
    assert torch.allclose(hidden.grad.double(), h.grad, atol=1e-5)
    assert torch.allclose(weight.grad.double(), w.grad, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [None, 100])
def test_error_is_that_of_naive(dtype: torch.dtype, chunk: int | None) -> None:
    """Norm-wise against fp64 of the same inputs, at most 1.2 times what naive has."""
    hidden, weight, targets = inputs(512, 128, 1000, dtype)
    h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    exact, exact_nll = naive(h, w, targets, 1e-3)
    exact.backward()
    plain, plain_nll = naive(hidden, weight, targets, 1e-3)
    plain.backward()
    plain_errors = [distance(hidden.grad, h.grad), distance(weight.grad, w.grad), distance(plain_nll, exact_nll)]
    hidden.grad = weight.grad = None
    loss, _, nll = linear_cross_entropy(hidden, weight, targets, z_loss=1e-3, chunk=chunk)
    loss.backward()
    assert hidden.grad.dtype == weight.grad.dtype == dtype and nll.dtype == torch.float32
    errors = [distance(hidden.grad, h.grad), distance(weight.grad, w.grad), distance(nll, exact_nll)]
    floor = 1e-6 if dtype == torch.float32 else 0.0
    for ours, theirs in zip(errors, plain_errors, strict=True):
        assert ours <= 1.2 * theirs + floor, (errors, plain_errors)


@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_passes(dtype: torch.dtype) -> None:
    """The same to the last digits, in pieces of unequal size; and without a gradient nothing is compiled."""
    hidden, weight, targets = inputs(100, 32, 300, dtype)
    h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    naive(h, w, targets, 1e-2)[0].backward()
    errors, found = [], []
    for compiled in (False, True):
        hidden.grad = weight.grad = None
        loss, _, nll = linear_cross_entropy(hidden, weight, targets, z_loss=1e-2, chunk=64, compiled=compiled)
        (loss * 0.37).backward()
        errors.append([distance(hidden.grad / 0.37, h.grad), distance(weight.grad / 0.37, w.grad)])
        found.append((loss.detach(), nll))
    assert all(ours <= 1.2 * theirs + 1e-6 for theirs, ours in zip(*errors, strict=True)), errors
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
    for rows, stance in ((90, "default"), (100, "fail_on_recompile"), (81, "fail_on_recompile")):  # one for any size
        with torch.compiler.set_stance(stance):
            linear_cross_entropy(hidden[:rows], weight, targets[:rows], z_loss=1e-2, chunk=64, compiled=True)[
                0
            ].backward()
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.model.linear_cross_entropy_kernels.compile_pass", None)
        assert torch.equal(linear_cross_entropy(hidden, weight, targets, z_loss=1e-2, chunk=64, compiled=True)[0],
                           linear_cross_entropy(hidden, weight, targets, z_loss=1e-2, chunk=64)[0])  # fmt: skip


def test_under_autocast_master_weights_get_fp32_gradients() -> None:
    hidden, weight, targets = inputs(64, 32, 300, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _, _ = linear_cross_entropy(hidden, weight, targets, chunk=7)
    loss.backward()
    assert loss.dtype == weight.grad.dtype == hidden.grad.dtype == torch.float32
    h, w = (t.detach().bfloat16().double().requires_grad_() for t in (hidden, weight))
    naive(h, w, targets, 0.0)[0].backward()
    plain_hidden, plain_weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logits = F.linear(plain_hidden, plain_weight)
    F.cross_entropy(logits.float(), targets, reduction="sum").backward()
    assert distance(weight.grad, w.grad) <= 1.2 * distance(plain_weight.grad, w.grad)
    assert distance(hidden.grad, h.grad) <= 1.2 * distance(plain_hidden.grad, h.grad)


def test_shapes_and_ignored_rows() -> None:
    hidden, weight, targets = inputs(24, 8, 11, torch.float32)
    loss, count, nll = linear_cross_entropy(hidden.view(2, 12, 8), weight, targets.view(2, 12))
    assert nll.shape == (2, 12) and not nll.requires_grad
    assert torch.equal(nll.flatten() == 0, targets == -100)
    assert loss.item() == pytest.approx(nll.sum().item(), rel=1e-6) and count.dtype == torch.int64
    loss, count, nll = linear_cross_entropy(hidden, weight, torch.full((24,), -100))
    loss.backward()
    assert loss.item() == 0 and count.item() == 0
    assert hidden.grad.abs().max() == 0 and weight.grad.abs().max() == 0
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, targets)[0].item() == pytest.approx(
            linear_cross_entropy(hidden.detach(), weight, targets, chunk=5)[0].item(), rel=1e-6
        )


def test_logits_never_exist_whole() -> None:
    """No tensor made on the way is nearly rows x vocabulary, and all together are a fifteenth of the plain loss's."""
    from benchmarks.memory_profile import LiveStorages

    for dtype in (torch.float32, torch.bfloat16):
        hidden, weight, targets = inputs(4096, 16, 5000, dtype)
        with LiveStorages([hidden, weight, targets]) as ours:
            linear_cross_entropy(hidden, weight, targets)[0].backward()
        assert ours.largest <= 4096 * 5000 * 4 / 5, "bytes"
        hidden.grad = weight.grad = None
        with LiveStorages([hidden, weight, targets]) as plain:
            F.cross_entropy((hidden @ weight.T).float(), targets, reduction="sum").backward()
        ends = hidden.nbytes + weight.nbytes
        assert (ours.peak - ours.known - ends) <= (plain.peak - plain.known - ends) / 15


def test_errors_with_a_scale_and_at_other_layouts() -> None:
    """The mean's gradient rounds no more often than the sum's; the gradient cannot be asked for twice by rows."""
    for dtype in (torch.float32, torch.bfloat16):
        hidden, weight, targets = inputs(512, 128, 3000, dtype)
        h, w = hidden.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
        (naive(h, w, targets, 0.0)[0] / 411).backward()
        (naive(hidden, weight, targets, 0.0)[0] / 411).backward()
        plain = [distance(hidden.grad, h.grad), distance(weight.grad, w.grad)]
        hidden.grad = weight.grad = None
        loss = linear_cross_entropy(hidden, weight, targets)[0]
        (loss / 411).backward()
        for ours, theirs in zip([distance(hidden.grad, h.grad), distance(weight.grad, w.grad)], plain, strict=True):
            assert ours <= 1.2 * theirs + (1e-6 if dtype == torch.float32 else 0)
    hidden, weight, targets = inputs(8, 4, 9, torch.float32)
    loss = linear_cross_entropy(hidden, weight, targets)[0]
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operators_are_sound(dtype: torch.dtype) -> None:
    """torch's own check of fake tensors, schema and autograd registration; and one graph without a break."""
    hidden, weight, targets = inputs(40, 8, 70, dtype)
    labels = torch.where(targets >= 0, targets, -1)
    name = "rows" if dtype == torch.float32 else "columns"
    operator = getattr(torch.ops.gristmill, f"linear_cross_entropy_{name}").default
    torch.library.opcheck(
        operator, (hidden, weight, labels, 1e-3, 16, False, True, True), test_utils=("test_schema", "test_faketensor")
    )

    def mean(h: Tensor, w: Tensor, y: Tensor) -> Tensor:
        loss, count, _ = linear_cross_entropy(h, w, y, z_loss=1e-3)
        return loss / count

    mean(hidden, weight, targets).backward()
    expected = [hidden.grad.clone(), weight.grad.clone()]
    hidden.grad = weight.grad = None
    torch.compile(mean, fullgraph=True, backend="aot_eager")(hidden, weight, targets).backward()
    assert torch.allclose(hidden.grad, expected[0]) and torch.allclose(weight.grad, expected[1])
