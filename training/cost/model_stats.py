"""Computes what a model of given sizes costs: parameters, FLOPs per token, bytes of memory by part.

Everything is computed from the sizes; the tests hold each figure against what torch counts (parameters,
FlopCounterMode, the peak of live storages). N below are the parameters that a token is multiplied with: without the
embedding's look-up, with the head (so a tied matrix counts once, as the head).
"""

from __future__ import annotations

from dataclasses import dataclass

from training.model.linear_cross_entropy_kernels import default_columns, default_rows
from training.model.transformer import ModelConfig


def parameter_counts(shape: ModelConfig) -> dict[str, int]:
    """Parameters by part; they add up to the model's."""
    head = shape.hidden_size // shape.num_heads
    kv = shape.num_kv_heads * head
    return {
        "embedding": shape.vocab_size * shape.hidden_size,
        "attention": shape.num_layers * (2 * shape.hidden_size**2 + 2 * shape.hidden_size * kv),
        "feed-forward": shape.num_layers * 3 * shape.hidden_size * shape.intermediate_size,
        "norms": (2 * shape.num_layers + 1) * shape.hidden_size + (2 * shape.num_layers * head if shape.qk_norm else 0),
        "head": 0 if shape.tie_embeddings else shape.vocab_size * shape.hidden_size,
    }


@dataclass(frozen=True)
class Flops:
    """Floating-point operations a token, forward and backward (a multiplication and an addition are two).

    `products`: 6 N. Attention by two conventions: `full` counts all T x T scores, 12 * layers * width * T (Chowdhery et
    al. 2022, appendix B: PaLM's MFU); `causal` only those at or below the diagonal, half of that.
    """

    products: int
    attention_full: int
    attention_causal: int

    @property
    def full(self) -> int:
        return self.products + self.attention_full

    @property
    def causal(self) -> int:
        return self.products + self.attention_causal


def flops_per_token(shape: ModelConfig, sequence: int) -> Flops:
    """See `Flops`. Recomputation, and the product that the loss by columns makes twice, are no work of the model's."""
    parts = parameter_counts(shape)
    matrices = parts["attention"] + parts["feed-forward"] + shape.vocab_size * shape.hidden_size
    full = 12 * shape.num_layers * shape.hidden_size * sequence
    return Flops(6 * matrices, full, full // 2)


@dataclass(frozen=True)
class Memory:
    """Bytes on each device, by part. `peak` is what is held at the worst moment, less than the sum of all parts."""

    weights: int
    gradients: int
    moments: int
    casts: int  # the weights in the type of computation
    activations: int
    loss: int
    peak: int


def estimate_memory(
    shape: ModelConfig,
    windows: int,
    sequence: int,
    *,
    precision: str = "bf16",
    recompute: bool = False,
    shards: int = 1,
    device: str = "cuda",
    accumulate: bool = False,
    optimizer: str = "adamw",
) -> Memory:
    """What one device holds for `windows` windows at once, weights, gradients and moments shared by `shards` devices.

    fp32 weights, gradients and two moments, computing in `precision` under autocast: 16 bytes a parameter (with Muon
    the blocks' matrices have one moment: 12). `accumulate`: gradients stand while a further micro-batch runs. `device`:
    cpu or cuda (torch keeps more for an RMSNorm on a CPU; the loss goes by columns there in 16 bits).
    """
    parts = parameter_counts(shape)
    count = sum(parts.values())
    own = -(-count // shards)
    single = (parts["attention"] + parts["feed-forward"]) // shards if optimizer == "muon" else 0
    moments = 8 * own - 4 * single
    table = shape.vocab_size * shape.hidden_size
    c = 4 if precision == "fp32" else 2
    n, d = windows * sequence, shape.hidden_size
    kv = shape.num_kv_heads * (d // shape.num_heads)
    inner = count - table * (1 if shape.tie_embeddings else 2)

    normed = 4 * d if device == "cpu" else 0  # x / rms(x), which the fused kernel computes again
    by_head = (8 if c == 4 else 10) if device == "cpu" else c  # bytes an entry of q and k: in 16 bits a CPU widens them
    heads = 4 * shape.num_heads + 8 + (by_head * (d + kv) if shape.qk_norm else 0)
    block = 2 * (4 * d + normed + c * d) + c * (2 * d + 2 * kv + 4 * shape.intermediate_size) + heads
    kept = (4 * d if recompute else block) * n
    blocks = shape.num_layers * kept
    activations = blocks + (4 * d + normed + 4 * d) * n  # and the last block's output, normalised
    workspace = n * ((2 if recompute else 3) * c * shape.intermediate_size + 4 * d + c * d) + (
        block * n if recompute else 0
    )

    casts = 0 if precision == "fp32" or shards > 1 else c * inner
    gathered = 2 * c * (count // shape.num_layers) if shards > 1 else 0  # two blocks, gathered ahead of their use
    in_place = device == "cpu" and precision == "fp32"
    if device == "cpu" and not in_place:
        loss = (4 + 2) * n * default_columns(n, shape.vocab_size, d) + (4 + 2) * n * d
    else:
        copies = 4 if in_place else 8 if precision == "fp32" else 6 + 4
        logits = copies * default_rows(n, shape.vocab_size, d, in_place) * shape.vocab_size
        loss = logits + 4 * n * d + (0 if precision == "fp32" else 2 * table)
    # The worst moment is one of four: the loss; the backward of the last block, and that of the first, with all blocks'
    # gradients; the end, where a tied matrix has its gradient as the head, that as the embedding and their sum.
    gradients = 4 * own
    standing = casts + (gradients if accumulate else 0) + 4 * table
    forward = activations + standing + loss
    backward = blocks + standing + workspace
    freed = casts - casts // shape.num_layers
    first = kept + (0 if accumulate else 4 * inner // shards) + standing - freed + workspace
    end = gradients + (8 * table if shape.tie_embeddings else 0) + 4 * n * d
    peak = 4 * own + moments + gathered + max(forward, backward, first, end)
    return Memory(4 * own, gradients, moments, casts, activations, loss, peak)


def state_bytes_by_recipe(count: int) -> dict[str, int]:
    """Bytes of weights, gradients and moments by recipe, before activations.

    The textbook's 12 a parameter: bf16 weights and gradients, fp32 moments; updates below a 256th of a weight are lost.
    The default's 16: all in fp32, bf16 only where products are computed.
    """
    return {"bf16 weights (12 bytes)": 12 * count, "fp32 weights (16 bytes, the default)": 16 * count}
