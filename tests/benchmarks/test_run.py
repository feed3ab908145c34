"""`make bench`: runs what it is asked for and writes it down, with machine and versions, beside what was there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.run import BENCHMARKS

ROOT = Path(__file__).resolve().parents[2]
SHARED = {
    *(
        "crawl",
        "crawl_texts",
        "hostile_documents",
        "hostile_files",
        "hostile_shapes",
        "hostile_targets",
        "loader_formats",
        "memory_profile",
        "peer_language",
        "plain",
    ),
    *("planted", "planted_mix", "run"),
}  # not run by themselves
APART = {"gpu_train", "guard", "convergence", "crawl_mix", "ladder"}  # need a GPU, a corpus or a folder, hours


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_every_benchmark_is_listed() -> None:
    there = {p.stem for p in (ROOT / "benchmarks").glob("*.py")}
    assert set(BENCHMARKS) <= there and there - SHARED - APART <= set(BENCHMARKS)
    done = bench("--list", "--quick", "loss", "mix")
    assert done.stdout == "loss\nmix  (no quick one)\n"


def test_they_find_each_other_as_modules() -> None:
    """`python -m benchmarks.NAME` has the project's root on its path and not the folder of the benchmarks."""
    there = {p.stem for p in (ROOT / "benchmarks").glob("*.py")}
    for path in (ROOT / "benchmarks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not there & set(named), path


def test_a_name_that_is_none_is_refused() -> None:
    done = bench("losss")
    assert done.returncode == 2 and "no benchmark losss" in done.stderr


@pytest.mark.slow
def test_a_quick_one_is_written_down_beside_the_others(tmp_path: Path) -> None:
    out = tmp_path / "RESULTS.md"
    out.write_text("# Results\n\n## minhash\n\nstays\n")
    done = bench("--quick", "loss", "mix", "--out", str(out))
    assert done.returncode == 0, done.stdout + out.read_text()
    text = out.read_text()
    assert "## loss" in text and "`python -m benchmarks.loss --rows 256" in text and "cores" in text and "torch" in text
    assert text.index("## loss") < text.index("## minhash") and "stays" in text and str(ROOT) not in text
    assert "mix: has no quick form" in done.stdout
