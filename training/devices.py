"""What devices can do: memory and dense peak in bf16 and fp32 by their data sheets, this machine's CPU by measurement.

Sparse peaks are twice as high and no one trains with them. Prices are no property of a device and are asked for.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from .config import UserError


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
        """FLOP/s in the type that products are computed in."""
        return self.fp32 if precision == "fp32" else self.bf16


DEVICES = {
    "a100": Device("A100 SXM 80 GB", "cuda", 80 * 10**9, 312e12, 19.5e12, "NVIDIA A100 data sheet, 2021"),
    "h100": Device("H100 SXM", "cuda", 80 * 10**9, 989.4e12, 67e12, "NVIDIA H100 data sheet: 1,979 sparse"),
    "h200": Device("H200 SXM", "cuda", 141 * 10**9, 989.4e12, 67e12, "NVIDIA H200 data sheet: 1,979 sparse"),
    "b200": Device("B200", "cuda", 180 * 10**9, 2250e12, 75e12, "NVIDIA HGX/DGX B200 data sheet: 4,500 sparse"),
}


def find(name: str | None) -> Device:
    """A device by its name in the table, `cpu` for this machine's; None: the GPU that is here, else the CPU.

    Raises UserError for a name that is not in the table.
    """
    if name is None:
        import torch

        if not torch.cuda.is_available():
            return this_cpu()
        called = torch.cuda.get_device_name().lower()
        here = next((k for k in DEVICES if k in called), None)
        if here is None:
            raise UserError(f"{called} is not in the table of devices ({', '.join(DEVICES)}, cpu); name one: --device")
        return DEVICES[here]
    if name == "cpu":
        return this_cpu()
    if name not in DEVICES:
        raise UserError(f"no device {name!r}; there are {', '.join(DEVICES)} and cpu")
    return DEVICES[name]


def this_cpu() -> Device:
    """This machine: its memory, and what its matrix products reach (best of three, 1,024 x 1,024 x 1,024)."""
    import torch

    def peak(dtype: torch.dtype) -> float:
        a = torch.ones(1024, 1024, dtype=dtype)
        best = float("inf")
        for _ in range(4):
            begin = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - begin)
        return 2 * 1024**3 / best

    held = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    threads = torch.get_num_threads()
    return Device(
        f"CPU, {threads} threads",
        "cpu",
        held,
        peak(torch.bfloat16),
        peak(torch.float32),
        "measured here: 1,024^3 products",
    )
