"""Curation where torch is not installed, training where Ray and the packages of curation are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curation.core import packages
from tests.packaging import partial_installs, programs

CURATION = [packages.DEFAULT[m] for m in packages.DEFAULT if m not in packages.TRAINING_ONLY]
TRAINING = [packages.DEFAULT[m] for m in packages.TRAINING]


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was made without torch."""
    folder = tmp_path_factory.mktemp("curation_only")
    distinct = programs.write_input(folder)
    done = partial_installs.run(
        CURATION, programs.CURATE, folder,
        ["curate", "small.yaml", "--run", "run", "--executor", "inline", "--json"],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts["kept"] == distinct, counts
    return folder


def test_curation_without_torch(curated: Path) -> None:
    assert "torch" in partial_installs.refused_modules(CURATION)
    assert (curated / "run" / "result" / "shards" / "manifest.json").exists()
    done = partial_installs.run(CURATION, programs.CURATE, curated, ["train", "t.yaml", "--data", "run"])
    assert done.returncode == 2


def test_training_with_seven_packages(curated: Path) -> None:
    refused = set(partial_installs.refused_modules(TRAINING))
    assert {"ray", "datatrove", "presidio_analyzer", "kenlm", "fasttext", "numba", "duckdb", "spacy"} <= refused
    assert {"typer", "rich", "psutil", "xxhash", "zstandard", "tensorboard", "scipy"} <= refused
    done = partial_installs.run(TRAINING, programs.TRAIN, curated)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split()[1:])
    assert "torch" in loaded and not loaded & refused
    assert done.stderr.count('pip install "gristmill[logs]"') <= 1
    assert (curated / "trained" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("requirements", "arguments", "module"),
    [
        (CURATION, ["train", "TRAINING_FILE", "--data", "run"], "torch"),
        ([*TRAINING, "typer", "rich"], ["curate", "small.yaml"], "duckdb"),
    ],
)
def test_the_other_half_is_refused_with_the_pip_command(
    curated: Path, requirements: list[str], arguments: list[str], module: str
) -> None:
    file = str(partial_installs.ROOT / "pipelines" / "recipes" / "demo_train.yaml")
    arguments = [file if a == "TRAINING_FILE" else a for a in arguments]
    done = partial_installs.run(requirements, programs.CURATE, curated, arguments)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "is not installed" in done.stderr and "pip install" in done.stderr
