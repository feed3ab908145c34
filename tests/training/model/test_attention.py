"""Packed documents equal an independent loop over them, in every way attention is computed; and compiling is clean.

Covers: attention_cpu.py
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.model import attention
from training.model.attention import attend, attention_backend, attention_mask, block_mask, document_mask, varlen_mask
from training.model.transformer import Model, ModelConfig

LENGTHS = [5, 1, 40, 17, 65, 2, 30]  # 160 positions: not a multiple of flex_attention's block
TINY = ModelConfig(
    vocab_size=50, num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, intermediate_size=48, tie_embeddings=True
)


def inputs(
    device: str = "cpu", dtype: torch.dtype = torch.float32, d: int = 16
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    n = sum(LENGTHS)
    q, k, v, back = (torch.randn(2, h, n, d, generator=g).to(device, dtype) for h in (4, 2, 2, 4))
    documents = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    other = torch.arange(n) // 50
    return q, k, v, back, torch.stack((documents, other)).to(device)


def one_by_one(q: Tensor, k: Tensor, v: Tensor, documents: Tensor) -> Tensor:
    """Each document by itself, by the formula, in fp64."""
    out = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    q, k, v = q.double(), k.double().repeat_interleave(2, 1), v.double().repeat_interleave(2, 1)
    for b in range(len(documents)):
        for document in documents[b].unique():
            at = documents[b] == document
            a, c, e = q[b][:, at], k[b][:, at], v[b][:, at]
            scores = (a @ c.mT / q.shape[-1] ** 0.5).masked_fill(
                torch.ones(len(a[0]), len(a[0])).triu(1).bool().to(a.device), -torch.inf
            )
            out[b, :, at] = scores.softmax(-1) @ e
    return out


def compare(
    backend: attention.AttentionBackend, device: str, dtype: torch.dtype, tolerance: float, *, gradients: bool
) -> None:
    q, k, v, back, documents = inputs(device, dtype, 64 if device == "cuda" else 16)
    mask = attention_mask(documents, backend)
    for t in (q, k, v):
        t.requires_grad_(gradients)
    expected = one_by_one(q, k, v, documents)
    got = attend(q, k, v, mask)
    assert (got.double() - expected).abs().max() <= tolerance
    if gradients:
        theirs = torch.autograd.grad(expected, (q, k, v), back.double())
        ours = torch.autograd.grad(got, (q, k, v), back)
        for a, b in zip(ours, theirs, strict=True):
            assert (a.double() - b.double()).norm() <= tolerance * (1 + b.double().norm())


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [("documents", torch.float32, 1e-5), ("documents", torch.float64, 1e-12), ("sdpa", torch.float32, 1e-5)],
)
def test_forward_and_backward(name: attention.AttentionBackend, dtype: torch.dtype, tolerance: float) -> None:
    compare(name, "cpu", dtype, tolerance, gradients=True)


def test_flex_forward() -> None:
    with torch.no_grad():
        compare("flex", "cpu", torch.float32, 1e-5, gradients=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"), [("varlen", torch.bfloat16, 2e-2), ("flex", torch.float32, 2e-3)]
)
def test_on_a_gpu(name: attention.AttentionBackend, dtype: torch.dtype, tolerance: float) -> None:
    compare(name, "cuda", dtype, tolerance, gradients=True)


def test_spans_are_the_documents() -> None:
    documents = inputs()[-1]
    found = varlen_mask(documents)
    begins = [*torch.tensor([0, *LENGTHS]).cumsum(0)[:-1].tolist(), 160, 210, 260, 310]
    assert found.max_seqlen == 160 and found.cu_seqlens.dtype == torch.int32
    assert found.cu_seqlens.tolist() == begins + [320] * (16 - len(begins)), "padded with empty documents"
    assert len(varlen_mask(torch.zeros(1, 8, dtype=torch.int64)).cu_seqlens) == 2
    mask = block_mask(documents)
    assert mask.shape == (2, 1, 160, 160)


def test_way_by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert attention_backend(cpu, torch.bfloat16) == "documents"
    assert attention_backend(gpu, torch.bfloat16) == ("varlen" if attention.varlen_options() is not None else "flex")
    assert attention_backend(gpu, torch.float32) == "flex"
    monkeypatch.setattr(attention, "varlen_options", lambda: None)
    assert attention_backend(gpu, torch.bfloat16) == "flex"


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.randint(0, 50, (2, 161), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:], inputs()[-1]


def gradients(model: Model, call: object = None) -> dict[str, Tensor]:
    model.zero_grad()
    loss, count, _ = (model if call is None else call)(*batch())  # type: ignore[operator]
    (loss / count).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("qk_norm", [False, True])
def test_one_graph(qk_norm: bool) -> None:
    """The whole forward and backward compile without a break, and give what eager gives."""
    model = Model(ModelConfig(**{**vars(TINY), "qk_norm": qk_norm}))
    model.init_weights(1)
    eager = gradients(model)
    explained = torch._dynamo.explain(model)(*batch())
    assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained.break_reasons
    torch._dynamo.reset()
    compiled = gradients(model, torch.compile(model, fullgraph=True, backend="aot_eager"))
    by_block = Model(model.config)
    by_block.load_state_dict(model.state_dict())
    by_block.compile_blocks(backend="aot_eager")
    for other in (compiled, gradients(by_block)):
        for name, gradient in eager.items():
            assert torch.allclose(other[name], gradient, atol=1e-6), name


def test_recomputing_changes_nothing() -> None:
    from benchmarks.memory_profile import LiveStorages

    model = Model(TINY)
    model.init_weights(1)
    peaks = []
    with LiveStorages(model.parameters()) as live:
        kept = gradients(model)
    peaks.append(live.peak)
    model.activation_checkpointing = True
    model.zero_grad()
    with LiveStorages(model.parameters()) as live:
        again = gradients(model)
    peaks.append(live.peak)
    assert all(torch.equal(kept[n], again[n]) for n in kept)
    assert peaks[1] < 0.8 * peaks[0]


def test_packing_drops_and_pads_nothing() -> None:
    """Every position of a packed sequence is a query once; the model gives the same with flex and with SDPA."""
    model = Model(TINY)
    model.init_weights(2)
    tokens, targets, documents = batch()
    with torch.no_grad():
        loss, count, nll = model(tokens, targets, documents)
        model.attention_backend = "flex"
        flex, _, flex_nll = model(tokens, targets, documents)
        assert count == tokens.numel() and bool((nll > 0).all())
        assert torch.allclose(nll, flex_nll, atol=1e-5) and flex.item() == pytest.approx(loss.item(), rel=1e-6)
        alone = []
        for document in documents[0].unique():
            at = documents[0] == document
            zeros = torch.zeros(1, int(at.sum()), dtype=torch.int64)
            alone.append(model(tokens[:1, at], targets[:1, at], zeros)[2][0])
    assert torch.allclose(torch.cat(alone), nll[0], atol=1e-5)


def test_a_document_alone_to_the_bit() -> None:
    """What stands around a document does not change a bit of its attention or of the gradients."""
    q, k, v, back, documents = inputs()
    packed = [t.clone().requires_grad_() for t in (q, k, v)]
    whole = attend(*packed, attention_mask(documents, "documents"))
    grads = torch.autograd.grad(whole, packed, back)
    begin = 0
    for n in LENGTHS:
        at = (slice(0, 1), slice(None), slice(begin, begin + n))
        alone = [t[at].clone().requires_grad_() for t in (q, k, v)]
        out = attend(*alone, attention_mask(torch.zeros(1, n, dtype=torch.int64), "documents"))
        assert torch.equal(out, whole[at])
        for a, b in zip(torch.autograd.grad(out, alone, back[at]), grads, strict=True):
            assert torch.equal(a, b[at])
        begin += n


def test_plain_causal_where_sequences_are_one_document() -> None:
    q, k, v, _, _ = inputs()
    one = torch.zeros(2, 160, dtype=torch.int64)
    assert document_mask(one) is None
    assert torch.allclose(
        attend(q, k, v, None), F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    )
