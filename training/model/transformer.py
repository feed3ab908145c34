"""Defines the model: a Llama-style decoder (Touvron et al. 2023; Dubey et al. 2024).

Pre-normalised blocks: RMSNorm (Zhang & Sennrich 2019), attention with rotary positions (Su et al. 2021) and grouped
key-value heads (Ainslie et al. 2023), SwiGLU (Shazeer 2020); no biases. `forward` computes the loss itself, so that the
logits of a batch are never stored and a sharded head is gathered where it is used.

Initialisation: every matrix is normal with standard deviation sqrt(2 / (5 * hidden_size)) (Nguyen & Salazar 2019, as
in GPT-NeoX-20B), divided by sqrt(2 * num_layers) for the two that write into the residual stream (Radford et al. 2019);
norms are one. Each parameter draws from a generator seeded by (seed, its name), so neither order nor sharding matters.
Optionally each head's queries and keys are normalised before the rotation (Dehghani et al. 2023; with one scale per
dimension of a head, as in Qwen3), which bounds the attention logits.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.model.attention import AttentionBackend, AttentionMask, attend, attention_backend, attention_mask
from training.model.linear_cross_entropy import linear_cross_entropy


@dataclass(frozen=True)
class ModelConfig:
    """The sizes of a model: `num_kv_heads` divides `num_heads`, which divides `hidden_size`.

    `intermediate_size` is the inner width of SwiGLU.
    """

    vocab_size: int
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    tie_embeddings: bool  # the head is the embedding
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    qk_norm: bool = False  # RMSNorm of each head's queries and keys


# Per layer: keys and values [batch, num_kv_heads, positions so far, head_dim]; an empty list before the first ones
KVCache = list[list[Tensor]]


def rope_angles(length: int, width: int, theta: float, start: int = 0, device: torch.device | None = None) -> Tensor:
    """Rotation angles [length, width / 2] of positions start..start+length-1: position * theta^(-2i / width)."""
    frequency = theta ** (-torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    return torch.arange(start, start + length, dtype=torch.float32, device=device)[:, None] * frequency


def rope_tables(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines [length, width] for `apply_rotary`, from angles [length, width / 2]."""
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the pairs (i, i + d/2) of x [..., length, d] by `rope_tables`, in fp32; the pairs are Hugging Face's."""
    wide = x.float()
    # The halves are swapped by flipping a dimension of two: CPU compilers do not vectorise a roll within a row.
    halves = wide.view(*x.shape[:-1], 2, -1).flip(-2).flatten(-2)
    return torch.addcmul(wide * cos, halves, sin).to(x.dtype)


def to_autocast_dtype(x: Tensor) -> Tensor:
    """x in the autocast type, if autocast is on; otherwise each layer that reads x would cast and keep its own copy."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


class RMSNorm(nn.RMSNorm):
    """RMSNorm in fp32 whose weight is rounded to the autocast type, as it is where FSDP has gathered it in that."""

    def forward(self, x: Tensor) -> Tensor:
        # in x's type, because the fused kernel needs one type for both
        return F.rms_norm(x, self.normalized_shape, to_autocast_dtype(self.weight).to(x.dtype), self.eps)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.hidden_size // config.num_heads
        self.q = nn.Linear(config.hidden_size, config.num_heads * self.head_dim, bias=False)
        self.k = nn.Linear(config.hidden_size, config.num_kv_heads * self.head_dim, bias=False)
        self.v = nn.Linear(config.hidden_size, config.num_kv_heads * self.head_dim, bias=False)
        self.out = nn.Linear(config.num_heads * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, eps=config.norm_eps) if config.qk_norm else nn.Identity()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: AttentionMask, cached: list[Tensor] | None) -> Tensor:
        b, n, _ = x.shape
        x = to_autocast_dtype(x)
        q, k, v = (layer(x).view(b, n, -1, self.head_dim).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = apply_rotary(self.q_norm(q), cos, sin), apply_rotary(self.k_norm(k), cos, sin)
        if cached is not None:
            if cached:
                k, v = torch.cat((cached[0], k), dim=2), torch.cat((cached[1], v), dim=2)
            cached[:] = k, v
        out: Tensor = self.out(attend(q, k, v, mask).transpose(1, 2).reshape(b, n, -1))
        return out


class FeedForward(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = to_autocast_dtype(x)
        down: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return down


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.ffn = FeedForward(config)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: AttentionMask, cached: list[Tensor] | None = None
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, mask, cached)
        out: Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class Model(nn.Module):
    """Tokens in; loss, count and per-token NLL out where targets are given, else logits.

    activation_checkpointing  blocks keep only their input and are recomputed in backward (Chen et al. 2016): a third
                              more work for a fraction of the activations
    attention_backend         how attention is computed; None: chosen by device and type
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        self.attention_backend: AttentionBackend | None = None
        self.compile_loss = False
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.head.weight = self.embedding.weight

    def compile_blocks(self, **options: Any) -> None:
        """Compiles each block, and the loss's passes, into one graph each. Call it before sharding."""
        self.compile_loss = options.get("backend", "inductor") == "inductor"
        for block in self.blocks:
            block.compile(fullgraph=True, **options)

    def hidden_states(self, tokens: Tensor, mask: AttentionMask, cache: KVCache | None = None) -> Tensor:
        """The normalised output of the last block, [batch, length, hidden_size]; `cache` grows by these positions."""
        x = self.embedding(tokens)
        if cache is not None and not cache:
            cache += [[] for _ in self.blocks]
        start = cache[0][0].shape[2] if cache and cache[0] else 0
        config = self.config
        cos, sin = rope_tables(
            rope_angles(
                tokens.shape[1], config.hidden_size // config.num_heads, config.rope_theta, start, tokens.device
            )
        )
        for i, block in enumerate(self.blocks):
            if self.activation_checkpointing and cache is None and torch.is_grad_enabled():
                x = checkpoint(block, x, cos, sin, mask, use_reentrant=False)
            else:
                x = block(x, cos, sin, mask, cache[i] if cache is not None else None)
        normalised: Tensor = self.norm(x)
        return normalised

    def forward(
        self, tokens: Tensor, targets: Tensor, documents: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """loss_sum, count and nll [batch, length] (see `linear_cross_entropy`) of int tensors [batch, length].

        documents: the number of each position's document within its sequence; targets: -100 for no target.
        """
        device = tokens.device
        dtype = (
            torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else self.norm.weight.dtype
        )
        mask = attention_mask(documents, self.attention_backend or attention_backend(device, dtype), dtype)
        hidden = self.hidden_states(tokens, mask)
        return linear_cross_entropy(hidden, self.head.weight, targets, z_loss=z_loss, compiled=self.compile_loss)

    @torch.no_grad()
    def next_logits(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """fp32 logits [batch, vocabulary] of the next token after the cached ones and `tokens` [batch, n]."""
        logits: Tensor = self.head(self.hidden_states(tokens, None, cache)[:, -1])
        return logits.float()

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Initialises all weights, as described at the top of this file."""
        deviation = math.sqrt(2 / (5 * self.config.hidden_size))
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(1.0)
                continue
            residual = name.endswith(("attention.out.weight", "ffn.down.weight"))
            draw = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(draw, "little") >> 1)
            values = torch.empty(parameter.shape, dtype=torch.float32)
            values.normal_(
                0, deviation / math.sqrt(2 * self.config.num_layers) if residual else deviation, generator=generator
            )
            parameter.copy_(values)

    def num_parameters(self) -> int:
        """Parameters, a tied head counted once."""
        return sum(p.numel() for p in self.parameters())
