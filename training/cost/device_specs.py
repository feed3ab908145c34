"""Lists the memory and peak FLOP/s of GPUs from their data sheets, and measures this machine's CPU.

Peaks are for dense products in bf16 and fp32; sparse peaks are twice as high and not used in training. Memory is the
data sheet's, in decimal GB; drivers report about 6 % more (79.1 GiB for "80 GB", 178.35 GiB for "180 GB"), so the table
is on the safe side until the device itself is queried. Prices are given by the user.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from dataclasses import dataclass, replace
from functools import cache

from curation.core.errors import UserError


@dataclass(frozen=True)
class Device:
    """memory in bytes; bf16 and fp32 in dense FLOP/s (fp32 without TF32); `source`: where the figures are from."""

    name: str
    kind: str  # cuda or cpu
    memory: int
    bf16: float
    fp32: float
    source: str

    def peak(self, precision: str) -> float:
        """FLOP/s of products in this precision."""
        return self.fp32 if precision == "fp32" else self.bf16


DEVICES = {
    "a100": Device("A100 SXM 80 GB", "cuda", 80 * 10**9, 312e12, 19.5e12, "NVIDIA A100 data sheet, 2021"),
    "h100": Device("H100 SXM", "cuda", 80 * 10**9, 989.4e12, 67e12, "NVIDIA H100 data sheet: 1,979 sparse"),
    "h200": Device("H200 SXM", "cuda", 141 * 10**9, 989.4e12, 67e12, "NVIDIA H200 data sheet: 1,979 sparse"),
    "b200": Device("B200", "cuda", 180 * 10**9, 2250e12, 75e12, "NVIDIA HGX/DGX B200 data sheet: 4,500 sparse"),
}


def find_device(name: str | None) -> Device:
    """A device by its name in the table, or `cpu` for this machine's CPU; None: this machine's GPU, else its CPU.

    Raises UserError for a name that is not in the table.
    """
    if name is None:
        import torch

        if not torch.cuda.is_available():
            return this_cpu()
        called = torch.cuda.get_device_name()
        device = match_device(called)
        if device is None:
            raise UserError(
                f"{called} is not a known device (known: {', '.join(DEVICES)}, cpu); name one with --device"
            )
        return replace(device, memory=torch.cuda.get_device_properties().total_memory)
    if name == "cpu":
        return this_cpu()
    if name not in DEVICES:
        raise UserError(f"no device {name!r}; known are {', '.join(DEVICES)} and cpu")
    return DEVICES[name]


def match_device(called: str) -> Device | None:
    """The device in the table for the name that a driver reports, or None.

    None also for similar names of other devices: a GB200, a GH200, a MIG slice, and Hopper's PCIe and NVL cards, which
    are slower (H100: 756 and 835 TFLOP/s). Memory differs within a name (A100: 40 and 80 GB); `find_device` queries it.
    """
    words = re.findall(r"[a-z0-9]+", called.lower())
    name = next((k for k in DEVICES if k in words), None)
    other = {"mig"} if name == "a100" else {"mig", "pcie", "nvl"}
    return None if name is None or other & set(words) else DEVICES[name]


def current_device(kind: str) -> Device | None:
    """The device of this process; None for one without a data sheet: a CPU, or a GPU that is not in the table.

    Six products say what a CPU does well enough to plan with, and not to judge a training by: one was at 153 % of them.
    """
    if kind == "cpu":
        return None
    try:
        return find_device(None)
    except UserError:
        return None


def has_native(precision: str, kind: str) -> bool:
    """Whether this machine computes products in fp32, bf16 or fp16 natively, not emulated."""
    import torch

    if precision == "fp32" or (kind == "cuda" and precision == "fp16"):
        return True
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return bool(has.get(f"avx512_{precision}") or has.get(f"amx_{precision}"))


def check_device(kind: str) -> str:
    """Returns cpu or cuda. Raises UserError for another name, and for cuda where torch has none for this process."""
    import torch

    if kind not in ("cpu", "cuda"):
        raise UserError(f"device {kind!r}: expected cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("device: cuda, but torch finds no CUDA device here; use cpu, or run `gristmill doctor`")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda" and local >= torch.cuda.device_count():
        raise UserError(
            f"local rank {local} has no GPU: torch finds {torch.cuda.device_count()} here; start one process for each "
            "(torchrun --nproc-per-node)"
        )
    return kind


def peak_memory(kind: str) -> int:
    """Peak memory of this process in bytes: tensors on its GPU, or resident memory on a CPU."""
    if kind == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def this_cpu() -> Device:
    """This machine's CPU: its memory, and the measured FLOP/s of matrix products with torch's current threads."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    threads = torch.get_num_threads()
    peaks = _product_rate("bfloat16", threads), _product_rate("float32", threads)
    return Device(f"CPU, {threads} threads", "cpu", memory, *peaks, "measured here: the best of six products")


@cache
def _product_rate(dtype: str, threads: int) -> float:
    """FLOP/s of a square matrix product, just large enough to keep all threads busy: 30 ms on one core of 2023."""
    import torch

    size = 512 if threads <= 4 else 2048
    a = torch.ones(size, size, dtype=getattr(torch, dtype))
    best = float("inf")
    for _ in range(6):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
