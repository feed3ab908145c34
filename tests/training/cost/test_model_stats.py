"""The plan against what torch counts (parameters, FLOPs, peak of live storages), and its messages if nothing fits.

Covers: cost_model.py, device_specs.py
"""

from __future__ import annotations

import contextlib
from typing import Literal

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory_profile import LiveStorages
from curation.core.errors import UserError
from training.config import PRESETS, OptimizerConfig, parse
from training.cost import model_stats
from training.cost.cost_model import LiveStats, plan_training
from training.cost.device_specs import DEVICES, find_device, match_device, peak_memory
from training.cost.model_stats import estimate_memory, flops_per_token, parameter_counts
from training.model.transformer import Model, ModelConfig
from training.optim.optimizers import build_optimizers

CONFIGS = [
    (ModelConfig(2000, 3, 64, 4, 2, 192, False), 4, 128),
    (ModelConfig(8192, 2, 128, 8, 4, 352, True), 4, 128),
    (ModelConfig(1024, 4, 128, 4, 4, 384, True), 4, 256),
    (ModelConfig(32000, 2, 64, 4, 4, 128, True), 2, 128),
    (ModelConfig(512, 6, 96, 6, 3, 256, False, qk_norm=True), 4, 256),
]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_parameters_equal(name: str, qk_norm: bool) -> None:
    config = ModelConfig(vocab_size=128_256, **{**PRESETS[name], "qk_norm": qk_norm})
    with torch.device("meta"):
        model = Model(config)
    assert sum(parameter_counts(config).values()) == sum(p.numel() for p in model.parameters())


def batch(config: ModelConfig, sequences: int, seq_len: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, config.vocab_size, (sequences, seq_len + 1))
    documents = torch.arange(seq_len).expand(sequences, -1) // 50
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), documents


@pytest.mark.parametrize(("config", "sequences", "seq_len"), CONFIGS)
def test_flops_are_what_torch_counts(config: ModelConfig, sequences: int, seq_len: int) -> None:
    """Forward and backward, with attention as plain products, as torch counts other kernels differently."""

    def three_products(rows: object, weight: object, *_: object, out_shape: object = None, **__: object) -> int:
        return 6 * rows[0] * weight[0] * weight[1]  # type: ignore[index]

    model = Model(config)
    model.init_weights(1)
    model.attention_backend = "sdpa"
    loss = torch.ops.gristmill.linear_cross_entropy_rows
    with FlopCounterMode(display=False, custom_mapping={loss: three_products}) as counter, sdpa_kernel(SDPBackend.MATH):
        loss_sum, count, _ = model(*batch(config, sequences, seq_len))
        (loss_sum / count).backward()
    expected = flops_per_token(config, seq_len)
    assert counter.get_total_flops() == pytest.approx(expected.full * sequences * seq_len, rel=0.01)
    assert expected.full - expected.causal == 6 * config.num_layers * config.hidden_size * seq_len


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("config", "sequences", "seq_len"), CONFIGS)
def test_peak_is_that_of_live_storages(
    config: ModelConfig, sequences: int, seq_len: int, precision: str, checkpointing: bool
) -> None:
    """A whole step, AdamW included, within a tenth."""
    live = measure_live_storages(config, sequences, seq_len, precision, checkpointing, "adamw")
    found = estimate_memory(config, sequences, seq_len, precision=precision, checkpointing=checkpointing, device="cpu")
    assert found.peak == pytest.approx(live.peak, rel=0.1)
    assert found.weights + found.moments == pytest.approx(live.known, rel=0.001)


@pytest.mark.parametrize(("config", "sequences", "seq_len"), CONFIGS)
def test_peak_with_muon(config: ModelConfig, sequences: int, seq_len: int) -> None:
    live = measure_live_storages(config, sequences, seq_len, "bf16", False, "muon")
    found = estimate_memory(config, sequences, seq_len, precision="bf16", device="cpu", optimizer="muon")
    assert found.peak == pytest.approx(live.peak, rel=0.1)
    assert found.weights + found.moments == pytest.approx(live.known, rel=0.001)


def measure_live_storages(
    config: ModelConfig,
    sequences: int,
    seq_len: int,
    precision: str,
    checkpointing: bool,
    kind: Literal["adamw", "muon"],
) -> LiveStorages:
    """The storages that were live during a second step, including the update and the measuring of its norm."""
    model = Model(config)
    model.init_weights(1)
    model.activation_checkpointing = checkpointing
    optimizers = build_optimizers(model, OptimizerConfig(kind=kind))
    given = batch(config, sequences, seq_len)

    def training_step() -> None:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            loss_sum, count, _ = model(*given)
        (loss_sum / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(torch.tensor(0.0), measure=True)
        optimizers.zero_grad()

    training_step()
    moments = [t for p in model.parameters() for t in optimizers.state_tensors(p).values()]
    with LiveStorages([*model.parameters(), *moments]) as live:
        training_step()
    return live


def test_llama_3_8b() -> None:
    config = ModelConfig(vocab_size=128_256, **PRESETS["8b"])
    parts = parameter_counts(config)
    assert sum(parts.values()) == 8_030_261_248
    recipes = model_stats.state_bytes_by_recipe(sum(parts.values()))
    assert [round(size / 1e9) for size in recipes.values()] == [96, 128]
    flops = flops_per_token(config, 8192)
    assert flops.products == 6 * (8_030_261_248 - parts["embedding"] - parts["norms"])
    assert flops.attention_full == 12 * 32 * 4096 * 8192


FILE = (
    "steps: 1000\nmodel: {preset: 8b}\nprecision: bf16\ndata: {seq_len: 8192}\n"
    "batch: {global_size: 64, micro_size: 1}\n"
)


def test_a_plan_and_its_time() -> None:
    found = plan_training(parse(FILE), 128_256, device=DEVICES["h100"], gpus=8, mfu=0.4, price=2.0)
    assert found.tokens == 64 * 8192 * 1000
    seconds = found.tokens * found.flops.causal / (8 * 989.4e12 * 0.4)
    assert found.days == pytest.approx(seconds / 86400)
    assert found.cost == pytest.approx(seconds / 3600 * 8 * 2.0)
    assert found.memory.weights == pytest.approx(8_030_261_248 * 4 / 8, rel=1e-6)
    assert found.memory.peak < 0.92 * 80e9


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(
        UserError, match=r"GB are needed on each H100 SXM .* What would fit: .*--gpus \d+, batch.micro_size=1"
    ):
        plan_training(parse(FILE), 128_256, device=DEVICES["h100"])
    big = parse(FILE.replace("micro_size: 1", "micro_size: 8"))
    with pytest.raises(UserError, match=r"What would fit: batch.micro_size=\d") as caught:
        plan_training(big, 128_256, device=DEVICES["h100"], gpus=8)
    micro = int(str(caught.value).split("batch.micro_size=")[1][0])
    assert micro < 8 and plan_training(
        parse(FILE.replace("micro_size: 1", f"micro_size: {micro}")), 128_256, device=DEVICES["h100"], gpus=8
    )
    with pytest.raises(UserError, match=r"batch\.global_size 64 does not divide over 7 devices; 70 would"):
        plan_training(parse(FILE), 128_256, device=DEVICES["h100"], gpus=7)
    with pytest.raises(UserError, match="no device 'tpu'"):
        find_device("tpu")


GPT = "steps: 1000\nmodel: {preset: 8b}\nprecision: bf16\n"
GROWING = (
    "steps: 100\nmodel: {preset: 1b}\nbatch: {global_size: 8}\nprecision: bf16\ndata: {seq_len: 2048, changes: [%s]}"
)


@pytest.mark.parametrize(
    ("file", "gpus", "said"),
    [
        (GPT + "data: {seq_len: 1000000}\nbatch: {global_size: 1}", 1, "6145.4 GB are needed .* smaller model"),
        (GPT + "batch: {global_size: 1}", 8, "batch.global_size 1 does not divide over 8 devices; 8 would"),
        (GPT + "batch: {global_size: 8}\nparallel: {dp_shard: 3}", 8, "parallel.dp_shard 3 does not divide 8 devices"),
        (GPT + "batch: {global_size: 8}\nparallel: {dp_shard: 1}", 8,
         "What would fit: parallel.dp_shard=8, batch.micro_size=1"),
        (GROWING % "{at: 50, global_size: 6}", 4, "batch.global_size 6 does not divide over 4 devices; 8 would"),
        (GROWING % "{at: 50, seq_len: 65536}", 1,
         "851.5.*What would fit: activation_checkpointing=full, batch.micro_size=2$"),
        ("steps: 9\nmodel: {preset: 1b}\ndata: {seq_len: 2097152}\nbatch: {global_size: 1}\nprecision: bf16", 1,
         "What would fit: data.seq_len=131072, activation_checkpointing=full, batch.micro_size=1"),
    ],
)  # fmt: skip
def test_silly_configurations(file: str, gpus: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan_training(parse(file), 128_256, device=DEVICES["h100"], gpus=gpus)


def test_a_plan_includes_data_changes() -> None:
    """Tokens and FLOPs are summed over the stages, memory is the largest stage's; later changes do not count."""
    changed = GROWING % "{at: 50, seq_len: 8192, global_size: 4}, {at: 500, seq_len: 1048576}"
    found = plan_training(parse(changed), 128_256, device=DEVICES["h100"], gpus=4)
    first, last = (plan_training(parse(t), 128_256, device=DEVICES["h100"], gpus=4) for t in (
        "steps: 50\nmodel: {preset: 1b}\nbatch: {global_size: 8}\nprecision: bf16\ndata: {seq_len: 2048}",
        "steps: 50\nmodel: {preset: 1b}\nbatch: {global_size: 4}\nprecision: bf16\ndata: {seq_len: 8192}",
    ))  # fmt: skip
    assert found.tokens == first.tokens + last.tokens and found.total_flops == first.total_flops + last.total_flops
    assert found.days == pytest.approx(first.days + last.days) and found.memory == last.memory
    assert found.memory.peak > first.memory.peak


def test_suggestions_fit() -> None:
    """Every suggestion, applied to the file, makes the training fit."""
    text = GPT + "data: {seq_len: 8192}\nbatch: {global_size: 32, micro_size: 16}"
    with pytest.raises(UserError) as caught:
        plan_training(parse(text), 128_256, device=DEVICES["b200"], gpus=2)
    would = str(caught.value).partition("What would fit: ")[2].split("; or ")
    assert len(would) == 3
    for one in would:
        options = dict(part.split("=") if "=" in part else part.split(" ") for part in one.split(", "))
        gpus = int(options.pop("--gpus", 2))
        assert plan_training(
            parse(text, "t", [f"{k}={v}" for k, v in options.items()]), 128_256, device=DEVICES["b200"], gpus=gpus
        )


def test_live_figures() -> None:
    config = parse(FILE)
    model_config = ModelConfig(vocab_size=128_256, **PRESETS["8b"])
    flops = flops_per_token(model_config, 8192)
    live = LiveStats(config, model_config, DEVICES["h100"], 16)
    found = live.stats(3_000_000, 20.0, 8192, 60 * 10**9)
    planned = plan_training(config, 128_256, device=DEVICES["h100"], gpus=16)
    assert found["tokens_per_s"] == 150_000 and found["memory"] == 60 * 10**9
    assert found["mfu"] == round(150_000 * flops.causal / (16 * 989.4e12), 4)
    assert found["mfu_full"] == round(150_000 * flops.full / (16 * 989.4e12), 4) > found["mfu"]
    assert found["of_plan"] == pytest.approx(150_000 / planned.tokens_per_second, abs=1e-4)
    assert found["memory_of_plan"] == pytest.approx(60e9 / planned.memory.peak, abs=1e-4)
    assert live.stats(3_000_000, 20.0, 2048, 1)["mfu"] < found["mfu"], "less attention for a token of a short sequence"
    unknown = LiveStats(config, model_config, None, 8)
    assert unknown.stats(10, 1.0, 8192, 5) == {"tokens_per_s": 10, "memory": 5}
    cpu = find_device("cpu")
    assert cpu.kind == "cpu" and cpu.memory > 2**30 and cpu.fp32 > 1e9 and 2**26 < peak_memory("cpu") < cpu.memory
    assert "memory_of_plan" not in LiveStats(config, model_config, cpu, 1).stats(10, 1.0, 8192, 5)


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H200", "h200"), ("NVIDIA B200", "b200"),
        ("NVIDIA A100-SXM4-40GB", "a100"), ("NVIDIA A100-PCIE-40GB", "a100"), ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 NVL", None), ("NVIDIA H200 NVL", None), ("NVIDIA GH200 480GB", None), ("NVIDIA GB200", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None), ("NVIDIA GeForce RTX 4090", None),
    ],
)  # fmt: skip
def test_a_device_by_its_drivers_name(called: str, name: str | None) -> None:
    assert match_device(called) is (None if name is None else DEVICES[name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_on_a_gpu() -> None:
    config, sequences, seq_len = ModelConfig(vocab_size=50_304, **PRESETS["124m"]), 8, 1024
    model = Model(config)
    model.init_weights(1)
    model.cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    given = [t.cuda() for t in batch(config, sequences, seq_len)]
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            loss_sum, count, _ = model(*given)
        (loss_sum / count).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    found = estimate_memory(config, sequences, seq_len)
    assert found.peak == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.1)
