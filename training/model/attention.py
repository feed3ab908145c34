"""Computes causal attention in which documents do not attend to each other.

A sequence holds several documents, or a part of one. Position i attends to positions j <= i of the same document only,
so each document in a packed sequence gets the result that it would get alone (rotary positions are relative, so its
place in the sequence does not matter). Nothing is padded and nothing is dropped.

Four backends give the same result; the device and the type decide which one runs:
- documents (CPU): document by document, see attention_cpu.py;
- varlen (GPU in 16 bits): the variable-length flash kernel, which takes the positions where documents begin and does no
  work for pairs from two documents;
- flex (GPU in fp32, or if that kernel is missing): flex_attention with a block mask, which skips 128 x 128 blocks
  without a pair;
- sdpa (other devices): SDPA with a mask of all pairs.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from training.model.attention_cpu import attention_by_document

AttentionBackend = Literal["documents", "varlen", "flex", "sdpa"]


class VarlenMask(NamedTuple):
    """The documents of a batch laid end to end, as variable-length flash attention takes them."""

    cu_seqlens: Tensor  # int32: where each document begins, then the end, repeated up to a power of two
    max_seqlen: int


# documents: an int Tensor; sdpa: a float Tensor or None; varlen: VarlenMask; flex: flex_attention's BlockMask
AttentionMask = Any


@cache
def varlen_options() -> dict[str, Any] | None:
    """Arguments that make this torch version's varlen_attn causal; None if it has no varlen_attn."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    has = inspect.signature(varlen_attn).parameters
    causal: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in has else {"is_causal": True}
    return causal | ({"enable_gqa": True} if "enable_gqa" in has else {})


def attention_backend(device: torch.device, dtype: torch.dtype) -> AttentionBackend:
    """The backend for attention of this type on this device."""
    if device.type != "cuda":
        return "documents" if device.type == "cpu" else "sdpa"
    return "varlen" if dtype in (torch.bfloat16, torch.float16) and varlen_options() is not None else "flex"


def attention_mask(documents: Tensor, backend: AttentionBackend, dtype: torch.dtype = torch.float32) -> AttentionMask:
    """The mask of a batch as `attend` takes it; documents: int [batch, length], increasing; dtype: the queries'."""
    if backend == "documents":
        return documents
    if backend == "varlen":
        return varlen_mask(documents)
    if backend == "flex":
        return block_mask(documents)
    mask = document_mask(documents)
    if mask is None:
        return None
    # A float mask: SDPA would convert a bool mask again in every layer, and keep each copy for backward
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def document_mask(documents: Tensor) -> Tensor | None:
    """The mask of a batch: bool [batch, 1, length, length], True where attention is allowed.

    None if every sequence is one document: then plain causal attention is enough, for which SDPA has faster kernels.
    (Never None while compiling, as a graph must not depend on the data.)
    """
    if not torch.compiler.is_compiling() and bool((documents == documents[:, :1]).all()):
        return None
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return same.tril()


def varlen_mask(documents: Tensor) -> VarlenMask:
    """The positions where a batch's documents begin, padded to a power of two so that few shapes are compiled."""
    b, n = documents.shape
    first = torch.ones(b, n, dtype=torch.bool, device=documents.device)
    first[:, 1:] = documents[:, 1:] != documents[:, :-1]
    begins = first.flatten().nonzero()[:, 0].to(torch.int32)
    edges = torch.full((1 << len(begins).bit_length(),), b * n, dtype=torch.int32, device=documents.device)
    edges[: len(begins)] = begins
    return VarlenMask(edges, n)


def block_mask(documents: Tensor) -> Any:
    """flex_attention's BlockMask of a batch."""
    from torch.nn.attention.flex_attention import create_block_mask

    def allowed(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i >= j) & (documents[b, i] == documents[b, j])

    b, n = documents.shape
    return create_block_mask(allowed, b, None, n, n, device=documents.device.type)


@cache
def _flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    # Plain flex_attention materialises all scores; the fused kernel exists only compiled.
    return torch.compile(flex_attention, dynamic=False)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask) -> Tensor:
    """Scaled dot-product attention; q [b, heads, n, d], k and v [b, kv_heads, m, d] with kv_heads dividing heads.

    With a mask, n = m. Without one, attention is causal and the n queries are the last of the m positions (m > n while
    generating with a cache).
    """
    if isinstance(mask, VarlenMask):
        return _varlen(q, k, v, mask)
    if mask is not None and not isinstance(mask, Tensor):
        flex = _flex() if q.is_cuda and not torch.compiler.is_compiling() else _plain_flex()
        out: Tensor = flex(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
        return out
    if mask is not None and mask.dtype in (torch.int32, torch.int64):
        return attention_by_document(q, k, v, mask)
    n, m = q.shape[2], k.shape[2]
    if mask is None and n != m:
        if n == 1:  # one new position attends to everything before it
            return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        mask = torch.ones(n, m, dtype=torch.bool, device=q.device).tril(m - n)
    gqa = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=gqa)


def _plain_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


def _varlen(q: Tensor, k: Tensor, v: Tensor, mask: VarlenMask) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    options = varlen_options()
    assert options is not None
    b, heads, n, d = q.shape
    if heads != k.shape[1] and "enable_gqa" not in options:
        k, v = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (k, v))
    q, k, v = (t.transpose(1, 2).reshape(b * n, -1, d) for t in (q, k, v))
    out: Any = varlen_attn(q, k, v, mask.cu_seqlens, mask.cu_seqlens, mask.max_seqlen, mask.max_seqlen, **options)
    return out.view(b, n, heads, d).transpose(1, 2)  # type: ignore[no-any-return]
