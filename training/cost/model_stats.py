"""Computes what a model of given sizes costs: parameters, FLOPs per token, bytes of memory by part.

Everything is computed from the model's sizes; the tests compare each figure with what torch counts (parameters,
FlopCounterMode, the peak of live storages). N below is the number of parameters that a token is multiplied with:
without the embedding, which is a look-up, and with the head (so a tied matrix counts once, as the head).
"""

from __future__ import annotations

from dataclasses import dataclass

from training.model.linear_cross_entropy_kernels import default_columns, default_rows
from training.model.transformer import ModelConfig


def parameter_counts(config: ModelConfig) -> dict[str, int]:
    """Parameters by part; they add up to the model's parameters."""
    head = config.hidden_size // config.num_heads
    kv = config.num_kv_heads * head
    return {
        "embedding": config.vocab_size * config.hidden_size,
        "attention": config.num_layers * (2 * config.hidden_size**2 + 2 * config.hidden_size * kv),
        "feed-forward": config.num_layers * 3 * config.hidden_size * config.intermediate_size,
        "norms": (2 * config.num_layers + 1) * config.hidden_size
        + (2 * config.num_layers * head if config.qk_norm else 0),
        "head": 0 if config.tie_embeddings else config.vocab_size * config.hidden_size,
    }


@dataclass(frozen=True)
class Flops:
    """Floating-point operations per token, forward and backward (a multiplication and an addition are two).

    `products`: 6 N. Attention is counted by two conventions: `full` counts all T x T scores, 12 * num_layers *
    hidden_size * T (Chowdhery et al. 2022, appendix B: PaLM's MFU); `causal` only those at or below the diagonal, half
    of that.
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


def flops_per_token(config: ModelConfig, seq_len: int) -> Flops:
    """See `Flops`. What activation checkpointing and the loss in column chunks compute a second time is not counted."""
    parts = parameter_counts(config)
    matrices = parts["attention"] + parts["feed-forward"] + config.vocab_size * config.hidden_size
    full = 12 * config.num_layers * config.hidden_size * seq_len
    return Flops(6 * matrices, full, full // 2)


@dataclass(frozen=True)
class Memory:
    """Bytes on each device, by part. `peak` is the total at the worst moment, less than the sum of all parts."""

    weights: int
    gradients: int
    moments: int
    casts: int  # copies of the weights to compute with: in the compute type, or gathered from the shards
    activations: int
    loss: int
    peak: int


def estimate_memory(
    config: ModelConfig,
    sequences: int,
    seq_len: int,
    *,
    precision: str = "bf16",
    checkpointing: bool = False,
    shards: int = 1,
    device: str = "cuda",
    accumulate: bool = False,
    optimizer: str = "adamw",
) -> Memory:
    """The memory of one device for a micro-batch of `sequences` sequences of `seq_len` tokens.

    Weights, gradients and moments are sharded over `shards` devices. They are in fp32, with two moments, and products
    are computed in `precision` under autocast: 16 bytes per parameter (12 for the blocks' matrices with Muon, which has
    one moment). Of shards, two blocks are gathered at a time, in `precision`, and embedding, last norm and head for the
    whole pass, in fp32. `checkpointing`: blocks keep only their input. `accumulate`: the gradients of earlier
    micro-batches exist during forward. `device`: cpu or cuda (on a CPU torch keeps more for an RMSNorm, and the loss in
    16 bits is computed in column chunks).
    """
    parts = parameter_counts(config)
    count = sum(parts.values())
    own = -(-count // shards)
    single = (parts["attention"] + parts["feed-forward"]) // shards if optimizer == "muon" else 0
    moments = 8 * own - 4 * single
    table = config.vocab_size * config.hidden_size
    c = 4 if precision == "fp32" else 2
    n, d = sequences * seq_len, config.hidden_size
    kv = config.num_kv_heads * (d // config.num_heads)
    inner = count - table * (1 if config.tie_embeddings else 2)

    normed = 4 * d if device == "cpu" else 0  # x / rms(x), which the GPU's fused kernel recomputes
    by_head = (8 if c == 4 else 10) if device == "cpu" else c  # bytes per entry of q and k: a CPU widens 16 bits
    heads = 4 * config.num_heads + 8 + (by_head * (d + kv) if config.qk_norm else 0)
    block = 2 * (4 * d + normed + c * d) + c * (2 * d + 2 * kv + 4 * config.intermediate_size) + heads
    kept = (4 * d if checkpointing else block) * n
    blocks = config.num_layers * kept
    activations = blocks + (4 * d + normed + 4 * d) * n  # plus the last block's output, normalised
    workspace = n * ((2 if checkpointing else 3) * c * config.intermediate_size + 4 * d + c * d) + (
        block * n if checkpointing else 0
    )

    whole = 4 * (count - inner) if shards > 1 else 0  # gathered for the whole pass
    gathered = 2 * c * (inner // config.num_layers) if shards > 1 else 0  # two blocks
    casts = whole + gathered + (0 if precision == "fp32" or shards > 1 else c * inner)
    in_place = device == "cpu" and precision == "fp32"
    if device == "cpu" and not in_place:
        loss = (4 + 2) * n * default_columns(n, config.vocab_size, d) + (4 + 2) * n * d
    else:
        copies = 4 if in_place else 8 if precision == "fp32" else 6 + 4
        logits = copies * default_rows(n, config.vocab_size, d, in_place) * config.vocab_size
        loss = logits + 4 * n * d + (0 if precision == "fp32" else 2 * table)
    # The worst moment is one of four: the loss; the backward pass of the last block; that of the first block, when all
    # blocks have gradients; the end, where a tied matrix has its gradient as the head, as the embedding, and their sum,
    # and where of shards the gradients of embedding and head are still whole, as is the copy of them that is reduced.
    gradients = 4 * own
    resident = casts + (gradients if accumulate else 0) + 4 * table
    forward = activations + resident - gathered + loss  # the blocks are freed by then
    backward = blocks + resident + workspace
    freed = 0 if shards > 1 else casts - casts // config.num_layers
    first = kept + (0 if accumulate else 4 * inner // shards) + resident - freed + workspace
    at_end = 8 * table if config.tie_embeddings else 0
    if shards > 1:
        at_end = 12 * table if config.tie_embeddings else 16 * table
    end = gradients + whole + at_end + 4 * n * d
    peak = 4 * own + moments + max(forward, backward, first, end)
    return Memory(4 * own, gradients, moments, casts, activations, loss, peak)


def state_bytes_by_recipe(count: int) -> dict[str, int]:
    """Bytes of weights, gradients and moments by recipe, before activations.

    12 bytes per parameter: bf16 weights and gradients, fp32 moments; updates below a 256th of a weight are lost.
    16 bytes, the default: all in fp32, and only products are computed in bf16.
    """
    return {"bf16 weights (12 bytes)": 12 * count, "fp32 weights (16 bytes, the default)": 16 * count}
