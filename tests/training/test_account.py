"""The plan against what torch counts: parameters, FLOPs, peak of live storages; and what it says where nothing fits."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from training import account
from training.account import flops_per_token, memory, parameters, plan
from training.config import PRESETS, UserError, parse
from training.devices import DEVICES, find
from training.model import Model, Shape
from training.storages import LiveStorages

SHAPES = [
    (Shape(2000, 3, 64, 4, 2, 192, False), 4, 128),
    (Shape(8192, 2, 128, 8, 4, 352, True), 4, 128),
    (Shape(1024, 4, 128, 4, 4, 384, True), 4, 256),
    (Shape(32000, 2, 64, 4, 4, 128, True), 2, 128),
    (Shape(512, 6, 96, 6, 3, 256, False, qk_norm=True), 4, 256),
]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("qk_norm", [False, True])
def test_parameters_equal(name: str, qk_norm: bool) -> None:
    shape = Shape(vocab=128_256, **{**PRESETS[name], "qk_norm": qk_norm})
    with torch.device("meta"):
        model = Model(shape)
    assert sum(parameters(shape).values()) == sum(p.numel() for p in model.parameters())


def batch(shape: Shape, windows: int, sequence: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, shape.vocab, (windows, sequence + 1))
    documents = torch.arange(sequence).expand(windows, -1) // 50
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), documents


@pytest.mark.parametrize(("shape", "windows", "sequence"), SHAPES)
def test_flops_are_what_torch_counts(shape: Shape, windows: int, sequence: int) -> None:
    """Forward and backward, with attention as plain products: torch's counter knows other kernels' work otherwise."""

    def three_products(rows: object, weight: object, *_: object, out_shape: object = None, **__: object) -> int:
        return 6 * rows[0] * weight[0] * weight[1]  # type: ignore[index]

    model = Model(shape)
    model.initialise(1)
    model.attention_way = "sdpa"
    loss = torch.ops.gristmill.linear_cross_entropy_rows
    with FlopCounterMode(display=False, custom_mapping={loss: three_products}) as counter, sdpa_kernel(SDPBackend.MATH):
        loss_sum, count, _ = model(*batch(shape, windows, sequence))
        (loss_sum / count).backward()
    expected = flops_per_token(shape, sequence)
    assert counter.get_total_flops() == pytest.approx(expected.full * windows * sequence, rel=0.01)
    assert expected.full - expected.causal == 6 * shape.layers * shape.width * sequence


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("shape", "windows", "sequence"), SHAPES)
def test_peak_is_that_of_live_storages(
    shape: Shape, windows: int, sequence: int, precision: str, recompute: bool
) -> None:
    """A whole iteration, AdamW included, within a tenth."""
    model = Model(shape)
    model.initialise(1)
    model.recompute = recompute
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    given = batch(shape, windows, sequence)

    def iteration() -> None:
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            loss_sum, count, _ = model(*given)
        (loss_sum / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    iteration()
    moments = [t for state in optimizer.state.values() for t in state.values()]
    with LiveStorages([*model.parameters(), *moments]) as live:
        iteration()
    found = memory(shape, windows, sequence, precision=precision, recompute=recompute, device="cpu")
    assert found.peak == pytest.approx(live.peak, rel=0.1)
    assert found.weights + found.moments == pytest.approx(live.known, rel=0.001)


def test_llama_3_8b() -> None:
    shape = Shape(vocab=128_256, **PRESETS["8b"])
    parts = parameters(shape)
    assert sum(parts.values()) == 8_030_261_248
    recipes = account.recipes(sum(parts.values()))
    assert [round(size / 1e9) for size in recipes.values()] == [96, 128]
    flops = flops_per_token(shape, 8192)
    assert flops.products == 6 * (8_030_261_248 - parts["embedding"] - parts["norms"])
    assert flops.attention_full == 12 * 32 * 4096 * 8192


FILE = (
    "iterations: 1000\nmodel: {preset: 8b}\ndata: {sequence: 8192}\nbatch: {windows: 64, micro: 1}\nprecision: bf16\n"
)


def test_a_plan_and_its_time() -> None:
    found = plan(parse(FILE), 128_256, device=DEVICES["h100"], gpus=8, mfu=0.4, price=2.0)
    assert found.tokens == 64 * 8192 * 1000
    seconds = found.tokens * found.flops.causal / (8 * 989.4e12 * 0.4)
    assert found.days == pytest.approx(seconds / 86400)
    assert found.cost == pytest.approx(seconds / 3600 * 8 * 2.0)
    assert found.memory.weights == pytest.approx(8_030_261_248 * 4 / 8, rel=1e-6)
    assert found.memory.peak < 0.92 * 80e9


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(
        UserError, match=r"GB are needed on each H100 SXM .* What would fit: .*--gpus \d+, batch.micro=1"
    ):
        plan(parse(FILE), 128_256, device=DEVICES["h100"])
    big = parse(FILE.replace("micro: 1", "micro: 8"))
    with pytest.raises(UserError, match=r"What would fit: batch.micro=\d") as caught:
        plan(big, 128_256, device=DEVICES["h100"], gpus=8)
    micro = int(str(caught.value).split("batch.micro=")[1][0])
    assert micro < 8 and plan(
        parse(FILE.replace("micro: 1", f"micro: {micro}")), 128_256, device=DEVICES["h100"], gpus=8
    )
    with pytest.raises(UserError, match="do not divide over 7 devices; 70 would"):
        plan(parse(FILE), 128_256, device=DEVICES["h100"], gpus=7)
    with pytest.raises(UserError, match="no device 'tpu'"):
        find("tpu")


def test_live_figures() -> None:
    shape = Shape(vocab=1000, **PRESETS["toy"])
    live = account.Live(shape, 128, DEVICES["a100"], 2, "bf16", 0.4)
    flops = flops_per_token(shape, 128)
    found = live.figures(10_000, 2.0, 123)
    assert found["tokens_per_s"] == 5000 and found["memory"] == 123
    assert found["mfu"] == round(5000 * flops.causal / (2 * 312e12), 4)
    planned = 2 * 312e12 * 0.4 / flops.causal
    assert found["of_plan"] == round(5000 / planned, 4)
    cpu = find("cpu")
    assert cpu.kind == "cpu" and cpu.memory > 2**30 and cpu.fp32 > 1e9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_on_a_gpu() -> None:
    shape, windows, sequence = Shape(vocab=50_304, **PRESETS["124m"]), 8, 1024
    model = Model(shape)
    model.initialise(1)
    model.cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    given = [t.cuda() for t in batch(shape, windows, sequence)]
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            loss_sum, count, _ = model(*given)
        (loss_sum / count).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    found = memory(shape, windows, sequence)
    assert found.peak == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.1)
