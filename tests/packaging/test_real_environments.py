"""Real environments, built by pip from the package index: one for curation, one for training, one for each extra.

Minutes each (figures in docs/decisions.md), so nightly: python -m pytest -m nightly tests/packaging. What CI runs on
each change shows the same with one environment and an import hook (test_partial_installs.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from curation.core import packages
from tests.packaging import programs

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]

ROOT = Path(__file__).resolve().parents[2]
CURATION = [packages.DEFAULT[m] for m in packages.DEFAULT if m not in packages.TRAINING_ONLY]
TRAINING = [packages.DEFAULT[m] for m in packages.TRAINING]
TOOLS = ["pytest", "pytest-timeout", "hypothesis"]
# The tests of an extra, and what they import besides it.
TESTS = {
    "demo": (["tests/pipelines/demo"], []),
    "eval": (["tests/training/evaluation/test_tasks.py"], []),
    "logs": (["tests/training/metrics/test_experiment_loggers.py"], []),
    "mix": (["tests/pipelines/experiments/mix/test_mixing_laws.py"], []),
    "ray-train": (["tests/training/distributed/test_ray_train.py", "-m", "not nightly"], []),
    "s3": (
        ["tests/curation/engine/runtime/test_s3.py", "-m", "not nightly"],
        ["moto[server]", "fastwarc", "warcio"],
    ),
    "sentencepiece": (
        ["tests/curation/packing", "tests/curation/quality/perplexity", "-k", "sentencepiece or ccnet"],
        [],
    ),
    "trafilatura": (["tests/curation/extract/test_extract.py"], []),
}


def pip_install(folder: Path, *wanted: str) -> float:
    """Installs into the environment `folder`; the seconds that it took. Skips where no package index is reached."""
    started = time.monotonic()
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--constraint", str(ROOT / "constraints.txt"), *wanted], capture_output=True, text=True
    )
    if done.returncode and ("NewConnectionError" in done.stderr or "Temporary failure" in done.stderr):
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started


def environment(folder: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


def run(python: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(python), *arguments], cwd=folder, env={**clean, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run made on Ray in an environment that has no torch."""
    folder = tmp_path_factory.mktemp("curation_only")
    seconds = pip_install(environment(folder / "venv"), *CURATION)
    print(f"curation only: installed in {seconds:.0f} s")
    distinct = programs.write_input(folder)
    python = folder / "venv" / "bin" / "python"
    assert run(python, "-c", "import torch", folder=folder).returncode == 1
    done = run(python, "-c", programs.CURATE, "curate", "small.yaml", "--run", "run", "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["kept"] == distinct
    return folder


def test_curation_only(curated: Path) -> None:
    assert (curated / "run" / "result" / "shards" / "manifest.json").exists()


def test_training_only(curated: Path, tmp_path: Path) -> None:
    seconds = pip_install(environment(tmp_path / "venv"), *TRAINING)
    print(f"training only: installed in {seconds:.0f} s")
    done = run(tmp_path / "venv" / "bin" / "python", "-c", programs.TRAIN, folder=curated)
    assert done.returncode == 0, done.stderr
    assert 'pip install "gristmill[logs]"' in done.stderr
    assert (curated / "trained" / "metrics.jsonl").exists()


@pytest.fixture(scope="module")
def default_install(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the default install and what runs tests."""
    folder = environment(tmp_path_factory.mktemp("default") / "venv")
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    seconds = pip_install(folder, *requirements, *TOOLS)
    print(f"default: installed in {seconds:.0f} s")
    return folder


def test_every_extra_has_its_tests() -> None:
    assert set(TESTS) == set(packages.EXTRAS)


@pytest.mark.parametrize("extra", sorted(TESTS))
def test_an_extra_alone(default_install: Path, tmp_path: Path, extra: str) -> None:
    """The default install and one extra: its packages can be imported, those of the others not, its tests pass."""
    folder = environment(tmp_path / "venv")
    site = next((folder / "lib").glob("python*/site-packages"))
    base = next((default_install / "lib").glob("python*/site-packages"))
    (site / "default_install.pth").write_text(f"{base}\n")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    paths, tools = TESTS[extra]
    seconds = pip_install(folder, *extras[extra])
    if tools:
        pip_install(folder, *tools)
    python = folder / "bin" / "python"
    for module in packages.EXTRAS[extra]:
        done = run(python, "-c", f"import {module}", folder=tmp_path)
        assert done.returncode == 0, done.stderr
    done = run(python, "-m", "pytest", "-q", "-x", *paths, folder=ROOT)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    print(f"{extra}: installed in {seconds:.0f} s; {done.stdout.strip().splitlines()[-1]}")
