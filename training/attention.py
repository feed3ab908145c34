"""Causal attention in which documents do not attend to each other.

A window holds several documents, or the tail of one. Position i may look at position j <= i of the same document and
at nothing else, so a packed window gives every document what it would get alone (rotary positions are relative, so
where in the window it stands does not matter). Nothing is padded and nothing is dropped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def document_mask(documents: Tensor) -> Tensor | None:
    """The block mask of a batch: bool [batch, 1, length, length], True where attention is allowed.

    documents: int [batch, length], the number of the document that each position belongs to. None where every window
    is one document: plain causal attention, for which SDPA has faster kernels.
    """
    if bool((documents == documents[:, :1]).all()):
        return None
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return same.tril_()


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention; q [b, heads, n, d], k and v [b, kv_heads, m, d] with kv_heads dividing heads.

    With a mask (see `document_mask`) n = m; without one it is causal, aligned at the end: the n queries are the last of
    the m positions (m > n while generating with a cache).
    """
    n, m = q.shape[2], k.shape[2]
    if mask is None and n != m:
        if n == 1:  # one new position sees everything before it
            return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        mask = torch.ones(n, m, dtype=torch.bool, device=q.device).tril(m - n)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
