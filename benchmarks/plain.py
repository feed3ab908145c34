"""Defines reference models to compare with: nanoGPT's architecture and our own, each written the short way.

`GPT`: GPT-2's blocks as nanoGPT trains them (LayerNorm, GELU, learned positions, one product for q, k and v, all logits
at once, SDPA). `PlainLlama`: the decoder of training/model/transformer.py in its plainest form: scores, mask, softmax
written out, all logits at once, torch's own cross-entropy. Both return the mean loss of a batch.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model.transformer import ModelConfig


class GPTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = (t.view(b, n, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(d, dim=2))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(b, n, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """`loss`: plain (all logits, cross_entropy) or torch (F.linear_cross_entropy in chunks)."""

    def __init__(self, vocab: int, layers: int, width: int, heads: int, length: int, loss: str = "plain") -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(GPTBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.loss = loss
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(
                    p, 0, 0.02 / (math.sqrt(2 * layers) if name.endswith(("out.weight", "down.weight")) else 1)
                )

    def forward(self, tokens: Tensor, targets: Tensor, documents: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.loss == "torch":
            rows, weight = x.view(-1, x.shape[-1]), self.embedding.weight
            if torch.is_autocast_enabled("cpu"):
                rows, weight = rows.bfloat16(), weight.bfloat16()
            options = torch.nn.LinearCrossEntropyOptions()
            return F.linear_cross_entropy(rows, weight, targets.reshape(-1), options=options)
        logits = F.linear(x, self.embedding.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))


class PlainLlama(nn.Module):
    """Parameters have the names of training.model.transformer.Model, so that weights can be handed over."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        from training.model.transformer import Model

        self.config = config
        self.held = Model(config)  # only for its parameters

    def forward(self, tokens: Tensor, targets: Tensor, documents: Tensor) -> Tensor:
        config, held = self.config, self.held
        b, n = tokens.shape
        width = config.hidden_size // config.num_heads
        frequency = config.rope_theta ** (-torch.arange(0, width, 2).float() / width)
        angle = torch.arange(n).float()[:, None] * frequency
        allowed = (documents[:, None, :, None] == documents[:, None, None, :]) & torch.ones(n, n).tril().bool()

        def normed(x: Tensor, weight: Tensor) -> Tensor:
            return x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + config.norm_eps).to(x.dtype) * weight

        def turned(x: Tensor) -> Tensor:
            real, imaginary = x.float().chunk(2, -1)
            cos, sin = angle.cos(), angle.sin()
            return torch.cat((real * cos - imaginary * sin, real * sin + imaginary * cos), -1).to(x.dtype)

        x = F.embedding(tokens, held.embedding.weight)
        for block in held.blocks:
            a, f = block.attention, block.ffn
            h = normed(x, block.attention_norm.weight)
            q, k, v = (F.linear(h, w.weight).view(b, n, -1, width).transpose(1, 2) for w in (a.q, a.k, a.v))
            k, v = (t.repeat_interleave(config.num_heads // config.num_kv_heads, 1) for t in (turned(k), v))
            scores = (turned(q) @ k.mT / math.sqrt(width)).masked_fill(~allowed, -torch.inf)
            x = x + F.linear((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, -1), a.out.weight)
            h = normed(x, block.ffn_norm.weight)
            x = x + F.linear(F.silu(F.linear(h, f.gate.weight)) * F.linear(h, f.up.weight), f.down.weight)
        logits = F.linear(normed(x, held.norm.weight), held.head.weight)
        return F.cross_entropy(logits.view(b * n, -1).float(), targets.reshape(-1))
