"""Pins what is computed to a common CPU level, so that machines of different CPUs give the same bytes.

numpy, numba, Arrow and BLAS choose instructions by the CPU, and the last bits of a float can depend on them. A level of
the x86-64 psABI (x86-64-v2, v3, v4) names what all machines of a run have; environment variables hold the libraries to
it. All are read when a library is loaded, so they must be set before Python starts.

NPY_DISABLE_CPU_FEATURES   numpy, "CPU build options"          NUMBA_CPU_NAME         numba, "Environment variables"
ARROW_USER_SIMD_LEVEL      Arrow C++, "Environment variables"  OPENBLAS_CORETYPE      OpenBLAS, README
ATEN_CPU_CAPABILITY        PyTorch, aten/src/ATen/native       ONEDNN_MAX_CPU_ISA     oneDNN, "CPU dispatcher control"
GLIBC_TUNABLES             glibc manual, "Hardware capability tunables" (its exp, sin and pow have variants with FMA)
MKL_CBWR                   oneMKL, "Numerical reproducibility": COMPATIBLE is the one branch that all makers' CPUs run
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping

from curation.core.errors import UserError

# What numpy 2.4 calls its groups of features: those of a level, and those above it
_HAS = {"x86-64-v2": "X86_V2", "x86-64-v3": "X86_V3", "x86-64-v4": "X86_V4"}
_ABOVE = {"x86-64-v2": ("X86_V3", "X86_V4"), "x86-64-v3": ("X86_V4",), "x86-64-v4": ()}
_BEYOND = ("AVX512_ICL", "AVX512_SPR")  # above all levels

_VARIABLES = {
    "x86-64-v2": {"ARROW_USER_SIMD_LEVEL": "SSE4_2", "OPENBLAS_CORETYPE": "Nehalem", "ATEN_CPU_CAPABILITY": "default",
                  "ONEDNN_MAX_CPU_ISA": "SSE41", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX512F"},
    "x86-64-v3": {"ARROW_USER_SIMD_LEVEL": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2",
                  "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "x86-64-v4": {"ARROW_USER_SIMD_LEVEL": "AVX512", "OPENBLAS_CORETYPE": "SkylakeX", "ATEN_CPU_CAPABILITY": "avx512",
                  "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}  # fmt: skip
LEVELS = tuple(_VARIABLES)


class NotPinned(UserError):
    """This process was started without the variables of a level. The command line starts itself again with them."""

    def __init__(self, level: str) -> None:
        self.variables = variables(level)
        shown = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.variables.items())
        super().__init__(
            f"engine.cpu_level is {level}, and this process was started without it. `gristmill curate` sets what it "
            f"takes; before your own program set\n  {shown}"
        )


def variables(level: str) -> dict[str, str]:
    """The environment variables that hold a process to a level."""
    disabled = " ".join((*_ABOVE[level], *_BEYOND))
    return {"NPY_DISABLE_CPU_FEATURES": disabled, "NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": "",
            "MKL_CBWR": "COMPATIBLE", **_VARIABLES[level]}  # fmt: skip


def keeps(level: str, features: Mapping[str, bool], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a process keeps to a level: it has what the level has and uses nothing above it.

    features   numpy's `__cpu_features__`, without those that are switched off
    """
    set_ = all(environment.get(name) == value for name, value in variables(level).items())
    return set_ and bool(features.get(_HAS[level])) and not any(features.get(f) for f in (*_ABOVE[level], *_BEYOND))


def require(level: str, features: Mapping[str, bool], environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError where this process does not keep to the level: NotPinned, if another start would."""
    if keeps(level, features, environment):
        return
    if any(environment.get(name) != value for name, value in variables(level).items()):
        raise NotPinned(level)
    raise UserError(
        f"engine.cpu_level is {level}, and this machine or its numpy does not have it (numpy 2.4 or newer, on a CPU "
        f"with {_HAS[level]}): choose a lower level, which all machines of the run have"
    )
