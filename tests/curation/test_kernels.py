"""Kernels compile once; their machine code is kept for the sources that it was made of; one decorator makes all."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from curation import kernels
from tests.conftest import ROOT


def test_a_kernel_is_compiled_when_it_is_defined() -> None:
    @kernels.kernel("int64(int64)")
    def twice(x):  # type: ignore[no-untyped-def]
        return 2 * x

    assert twice(21) == 42 and len(twice.signatures) == 1  # type: ignore[attr-defined]


def test_a_kernel_without_a_signature_is_compiled_for_what_it_is_called_with() -> None:
    @kernels.kernel()
    def twice(x):  # type: ignore[no-untyped-def]
        return 2 * x

    assert (twice(21), twice(1.5), len(twice.signatures)) == (42, 3.0, 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("signature", ["", "'int64(int64)'"], ids=["lazy", "explicit"])
def test_machine_code_is_not_kept_after_a_change_in_another_file_that_it_was_made_of(
    tmp_path: Path, signature: str
) -> None:
    """The other file is in another folder, behind one more import."""
    for folder in ("inner", "outer"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "inner" / "double.py").write_text(
        f"from curation.kernels import kernel\nfrom inner.constants import FACTOR\n\n@kernel({signature})\n"
        "def scale(x):\n    return FACTOR * x\n"
    )
    (tmp_path / "outer" / "sum.py").write_text(
        f"from curation.kernels import kernel\nfrom inner.double import scale\n\n@kernel({signature})\n"
        "def total(x):\n    return scale(x) + 1\n\nprint(total(10))\n"
    )
    printed = []
    for factor in (2, 3, 3):
        (tmp_path / "inner" / "constants.py").write_text(f"FACTOR = {factor}\n")
        ended = subprocess.run(
            [sys.executable, "-B", "-c", "import outer.sum"], capture_output=True, text=True, check=True,
            env={"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        )  # fmt: skip
        printed.append(int(ended.stdout))
    assert printed == [21, 31, 31]
    assert len(list((tmp_path / "cache").iterdir())) == 4  # two files, of two states each


def test_no_other_decorator_compiles_a_kernel() -> None:
    """numba's own would take machine code from its cache that was made of other sources."""
    others = []
    for package in ("curation", "training", "pipelines"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", getattr(node, "name", ""))
                if name in ("njit", "jit", "vectorize", "guvectorize", "cfunc", "stencil", "jitclass", "generated_jit"):
                    others.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {name}")
    assert [place.partition(":")[0] for place in others] == ["curation/kernels.py"], others
