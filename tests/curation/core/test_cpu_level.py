"""What holds a process to a CPU level, and how it is seen whether one keeps to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from curation.core import cpu_level
from curation.core.errors import UserError

V2, V3, V4 = ({"X86_V2": True, "X86_V3": n > 2, "X86_V4": n > 3} for n in (2, 3, 4))
NEWEST = V4 | {"AVX512_ICL": True}


@pytest.mark.parametrize("level", cpu_level.LEVELS)
def test_a_process_keeps_to_a_level_with_its_variables_and_no_other_features(level: str) -> None:
    environment = cpu_level.variables(level)
    fits = {"x86-64-v2": V2, "x86-64-v3": V3, "x86-64-v4": V4}[level]
    for features in (V2, V3, V4, NEWEST):
        assert cpu_level.keeps(level, features, environment) == (features is fits)
    for name in environment:
        assert not cpu_level.keeps(level, fits, {k: v for k, v in environment.items() if k != name})


def test_what_is_missing_is_said() -> None:
    with pytest.raises(cpu_level.NotPinned, match=r"gristmill curate.*\n  NPY_DISABLE_CPU_FEATURES='X86_V4 AVX512_ICL"):
        cpu_level.require("x86-64-v3", V3, {})
    with pytest.raises(UserError, match=r"does not have it .*choose a lower level"):
        cpu_level.require("x86-64-v4", V3, cpu_level.variables("x86-64-v4"))


SHOW = """
import json, numba, numpy as np, pyarrow as pa
from numpy._core._multiarray_umath import __cpu_features__ as features
from curation.core import cpu_level
@numba.njit
def total(a):
    s = 0.0
    for x in a:
        s += x * x
    return s
total(np.ones(100))
code = next(iter(total.inspect_asm().values()))
names = {n for n in ("xmm", "ymm", "zmm") if "%" + n in code}
print(json.dumps({"arrow": pa.runtime_info().simd_level, "kept": cpu_level.keeps("x86-64-v2", features),
                  "wide": sorted(names - {"xmm"}), "v3": bool(features["X86_V3"])}))
"""


def test_libraries_follow_the_variables() -> None:
    """numpy, numba's code and Arrow on this machine, which may have more than the level."""
    env = os.environ | cpu_level.variables("x86-64-v2")
    done = subprocess.run([sys.executable, "-c", SHOW], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"arrow": "sse4_2", "kept": True, "wide": [], "v3": False}
