"""What a training will cost before it is started: parameters, FLOPs, memory, iterations, days, money.

Everything is computed from the sizes; the tests hold each figure against what torch counts (parameters,
FlopCounterMode, the peak of live storages). N below are the parameters that a token is multiplied with: without the
embedding's look-up, with the head (so a tied matrix counts once, as the head).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from .config import TrainConfig, UserError
from .devices import Device, find
from .loss_columns import default_columns
from .loss_rows import default_rows
from .model import Shape

USABLE = 0.92  # of a device's memory: context, fragmentation and communication buffers take the rest
ASSUMED_MFU = 0.4  # where nothing was measured; Llama 3's report gives 0.38 to 0.43 (Dubey et al. 2024, table 4)


def parameters(shape: Shape) -> dict[str, int]:
    """Parameters by part; they add up to the model's."""
    head = shape.width // shape.heads
    kv = shape.kv_heads * head
    return {
        "embedding": shape.vocab * shape.width,
        "attention": shape.layers * (2 * shape.width**2 + 2 * shape.width * kv),
        "feed-forward": shape.layers * 3 * shape.width * shape.ffn,
        "norms": (2 * shape.layers + 1) * shape.width + (2 * shape.layers * head if shape.qk_norm else 0),
        "head": 0 if shape.tied else shape.vocab * shape.width,
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


def flops_per_token(shape: Shape, sequence: int) -> Flops:
    """See `Flops`. Recomputation, and the product that the loss by columns makes twice, are no work of the model's."""
    parts = parameters(shape)
    matrices = parts["attention"] + parts["feed-forward"] + shape.vocab * shape.width
    full = 12 * shape.layers * shape.width * sequence
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


def memory(
    shape: Shape,
    windows: int,
    sequence: int,
    *,
    precision: str = "bf16",
    recompute: bool = False,
    shards: int = 1,
    device: str = "cuda",
    accumulate: bool = False,
) -> Memory:
    """What one device holds for `windows` windows at once, weights, gradients and moments shared by `shards` devices.

    fp32 weights, gradients and two moments, computing in `precision` under autocast: 16 bytes a parameter.
    `accumulate`: gradients stand while a further micro-batch runs. `device`: cpu or cuda (torch keeps more for an
    RMSNorm on a CPU; the loss goes by columns there in 16 bits).
    """
    count = sum(parameters(shape).values())
    own = -(-count // shards)
    table = shape.vocab * shape.width
    c = 4 if precision == "fp32" else 2
    n, d = windows * sequence, shape.width
    kv = shape.kv_heads * (d // shape.heads)
    inner = count - table * (1 if shape.tied else 2)

    normed = 4 * d if device == "cpu" else 0  # x / rms(x), which the fused kernel computes again
    heads = 4 * shape.heads + 8 + ((2 if device == "cpu" else 1) * c * (d + kv) if shape.qk_norm else 0)
    block = 2 * (4 * d + normed + c * d) + c * (2 * d + 2 * kv + 4 * shape.ffn) + heads
    kept = (4 * d if recompute else block) * n
    blocks = shape.layers * kept
    activations = blocks + (4 * d + normed + 4 * d) * n  # and the last block's output, normalised
    workspace = n * ((2 if recompute else 3) * c * shape.ffn + 4 * d + c * d) + (block * n if recompute else 0)

    casts = 0 if precision == "fp32" or shards > 1 else c * inner
    gathered = 2 * c * (count // shape.layers) if shards > 1 else 0  # two blocks, gathered ahead of their use
    in_place = device == "cpu" and precision == "fp32"
    if device == "cpu" and not in_place:
        loss = (4 + 2) * n * default_columns(n, shape.vocab, d) + (4 + 2) * n * d
    else:
        copies = 4 if in_place else 8 if precision == "fp32" else 6 + 4
        logits = copies * default_rows(n, shape.vocab, in_place) * shape.vocab
        loss = logits + 4 * n * d + (0 if precision == "fp32" else 2 * table)
    # The worst moment is one of four: the loss; the backward of the last block, and that of the first, with all blocks'
    # gradients; the end, where a tied matrix has its gradient as the head, that as the embedding and their sum.
    gradients = 4 * own
    standing = casts + (gradients if accumulate else 0) + 4 * table
    forward = activations + standing + loss
    backward = blocks + standing + workspace
    freed = casts - casts // shape.layers
    first = kept + (0 if accumulate else 4 * inner // shards) + standing - freed + workspace
    end = gradients + (8 * table if shape.tied else 0) + 4 * n * d
    peak = 12 * own + gathered + max(forward, backward, first, end)
    return Memory(4 * own, gradients, 8 * own, casts, activations, loss, peak)


def recipes(count: int) -> dict[str, int]:
    """Bytes of weights, gradients and moments by recipe, before activations.

    The textbook's 12 a parameter: bf16 weights and gradients, fp32 moments; updates below a 256th of a weight are lost.
    The default's 16: all in fp32, bf16 only where products are computed.
    """
    return {"bf16 weights (12 bytes)": 12 * count, "fp32 weights (16 bytes, the default)": 16 * count}


@dataclass(frozen=True)
class Plan:
    """A whole training: see the functions above for the parts. days and cost are None where no peak is known."""

    device: str
    gpus: int
    parameters: dict[str, int]
    total_parameters: int
    flops: Flops
    memory: Memory
    recipes: dict[str, int]
    micro: int
    iterations: int
    tokens_per_iteration: int
    tokens: int
    total_flops: float
    mfu: float
    tokens_per_second: float
    days: float
    cost: float | None


def plan(
    config: TrainConfig,
    vocab: int,
    *,
    device: Device | None = None,
    gpus: int = 1,
    mfu: float = ASSUMED_MFU,
    price: float | None = None,
) -> Plan:
    """What `config` comes to on `gpus` devices (default: this machine's). `price`: of a device's hour.

    Raises UserError where it does not fit, saying what would.
    """
    device = device or find(None)
    shape = Shape(vocab=vocab, **config.model.model_dump(exclude={"preset"}))
    if config.batch.windows % gpus:
        raise UserError(
            f"batch.windows {config.batch.windows} do not divide over {gpus} devices; "
            f"{math.ceil(config.batch.windows / gpus) * gpus} would"
        )
    precision = "bf16" if config.precision == "auto" else config.precision
    share = config.batch.windows // gpus
    micro = min(config.batch.micro or share, share)
    recompute = config.recompute
    shards = min(gpus, config.parallel.shard or gpus)

    def held(micro: int, recompute: bool, shards: int) -> Memory:
        return memory(
            shape,
            micro,
            config.data.sequence,
            precision=precision,
            recompute=recompute,
            shards=shards,
            device=device.kind,
            accumulate=micro < share,
        )

    found = held(micro, recompute, shards)
    room = int(device.memory * USABLE)
    if found.peak > room:
        tries = [m for m in range(micro, 0, -1) if share % m == 0]
        would = [f"batch.micro={m}" for m in tries if held(m, recompute, shards).peak <= room][:1]
        would += [f"recompute=true, batch.micro={m}" for m in tries if held(m, True, shards).peak <= room][:1]
        more = (g for g in (2**i for i in range(1, 13)) if g > gpus and config.batch.windows % g == 0)
        would += [f"--gpus {g}, batch.micro=1" for g in more if held(1, recompute, g).peak <= room][:1]
        parts = {k: v for k, v in asdict(found).items() if k != "peak" and v}
        raise UserError(
            f"{found.peak / 1e9:.1f} GB are needed on each {device.name} and {room / 1e9:.1f} of its "
            f"{device.memory / 1e9:.0f} can be used ({', '.join(f'{k} {v / 1e9:.1f}' for k, v in parts.items())}). "
            + ("What would fit: " + "; or ".join(would) if would else "Nothing tried here would fit")
        )
    flops = flops_per_token(shape, config.data.sequence)
    per_iteration = config.batch.windows * config.data.sequence
    tokens = per_iteration * config.iterations
    rate = gpus * device.peak(precision) * mfu / flops.causal
    parts = parameters(shape)
    total = sum(parts.values())
    days = tokens / rate / 86400
    return Plan(
        device.name,
        gpus,
        parts,
        total,
        flops,
        found,
        recipes(total),
        micro,
        config.iterations,
        per_iteration,
        tokens,
        tokens * flops.causal,
        mfu,
        rate,
        days,
        None if price is None else days * 24 * gpus * price,
    )


def as_dict(plan: Plan) -> dict[str, Any]:
    """A plan as plain values, with the FLOPs of both conventions."""
    return {**asdict(plan), "flops": {**asdict(plan.flops), "full": plan.flops.full, "causal": plan.flops.causal}}


class Live:
    """A running training against its plan: train.py hands it tokens and seconds and writes down what it answers."""

    def __init__(self, shape: Shape, sequence: int, device: Device, gpus: int, precision: str, mfu: float) -> None:
        self._flops = flops_per_token(shape, sequence)
        self._peak = gpus * device.peak(precision)
        self._planned = self._peak * mfu / self._flops.causal

    def figures(self, tokens: int, seconds: float, bytes_held: int | None = None) -> dict[str, float]:
        """tokens_per_s, mfu (causal and full), and tokens/s as a share of the plan's; memory in bytes where given."""
        rate = tokens / seconds
        found = {
            "tokens_per_s": round(rate, 1),
            "mfu": round(rate * self._flops.causal / self._peak, 4),
            "mfu_full": round(rate * self._flops.full / self._peak, 4),
            "of_plan": round(rate / self._planned, 4),
        }
        return found if bytes_held is None else {**found, "memory": float(bytes_held)}
